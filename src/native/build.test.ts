/** The cache and its lock, with a compiler that only copies a marker: what is tested is who calls it and when. */
import { afterAll, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const FOLDER = mkdtempSync(join(tmpdir(), "sbora-build-"));
afterAll(() => rmSync(FOLDER, { recursive: true }));

const COMPILER = join(FOLDER, "c++");
const SCRIPT = `#!/bin/sh
[ "$1" = --version ] && { echo fake 1; exit 0; }
while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done
case $out in */library) echo link >> "$LOG";; esac
sleep "$DELAY"
echo made > "$out"
`;
writeFileSync(COMPILER, SCRIPT, { mode: 0o755 });

const PROGRAM = `import { buildLibrary } from ${JSON.stringify(join(import.meta.dir, "build.ts"))};
console.log(await buildLibrary("bench"));`;

/** Nobody's rights but the file's own: root writes to read-only folders otherwise. */
const PLAIN_USER = process.getuid?.() === 0 ? ["setpriv", "--bounding-set=-dac_override"] : [];

/** A process that builds the smallest library into `cache`; `delay` seconds a compiler call. */
function builder(
  cache: string,
  delay: number,
  environment: Record<string, string> = {},
  prefix: readonly string[] = [],
) {
  return Bun.spawn([...prefix, process.execPath, "-e", PROGRAM], {
    cwd: FOLDER,
    env: {
      ...process.env,
      SBORA_CACHE: join(FOLDER, cache),
      CXX: COMPILER,
      LOG: join(FOLDER, `${cache}.log`),
      DELAY: `${delay}`,
      ...environment,
    },
    stdout: "pipe",
    stderr: "ignore",
  });
}
const output = async (child: ReturnType<typeof builder>) => (await new Response(child.stdout).text()).trim();
const links = (cache: string) => readFileSync(join(FOLDER, `${cache}.log`), "utf8").match(/link/g)!.length;

test("processes that start at once build once, and leave the library alone in the cache", async () => {
  const paths = await Promise.all([0, 1, 2].map(() => output(builder("once", 0.3))));
  expect(new Set(paths).size).toBe(1);
  expect(readFileSync(paths[0]!, "utf8")).toBe("made\n");
  expect(links("once")).toBe(1);
  expect(readdirSync(join(FOLDER, "once"))).toEqual([paths[0]!.split("/").at(-1)!]);
  expect(await output(builder("once", 0))).toBe(paths[0]!);
  expect(links("once")).toBe(1);
}, 30_000);

test("a builder that is killed leaves no lock that anybody waits for", async () => {
  const killed = builder("killed", 3);
  const locked = () =>
    readdirSync(FOLDER).includes("killed") && readdirSync(join(FOLDER, "killed")).length >= 2;
  while (!locked()) await Bun.sleep(20);
  killed.kill("SIGKILL");
  await killed.exited;
  const started = performance.now();
  const path = await output(builder("killed", 0));
  expect(readFileSync(path, "utf8")).toBe("made\n");
  expect(performance.now() - started).toBeLessThan(10_000);
  expect(existsSync(`${path}.lock`)).toBe(false);
}, 30_000);

test("a relative XDG_CACHE_HOME is taken from the working folder", async () => {
  const path = await output(builder("relative", 0, { SBORA_CACHE: "", XDG_CACHE_HOME: "relative" }));
  expect(path).toStartWith(join(FOLDER, "relative", "sbora"));
  expect(readFileSync(path, "utf8")).toBe("made\n");
}, 30_000);

test.skipIf(PLAIN_USER.length > 0 && Bun.which("setpriv") === null)(
  "a read-only cache serves the library it holds, and no other",
  async () => {
    const path = await output(builder("shared", 0));
    const folder = join(FOLDER, "shared");
    chmodSync(folder, 0o555);
    try {
      expect(await output(builder("shared", 0, {}, PLAIN_USER))).toBe(path);
      expect(await output(builder("shared", 0, { CXX: `env ${COMPILER}` }, PLAIN_USER))).toBe("");
    } finally {
      chmodSync(folder, 0o755);
    }
    expect(links("shared")).toBe(1);
  },
  30_000,
);

test("building removes libraries of the same name that were not used for 30 days", async () => {
  const folder = join(FOLDER, "old");
  mkdirSync(folder);
  const age = (path: string, days: number) => {
    const then = new Date(Date.now() - days * 24 * 60 * 60_000);
    utimesSync(path, then, then);
  };
  const names = { old: "bench-0", used: "bench-1", other: "cpu-2", foreign: "notes" };
  const files = Object.entries(names).map(([kind, name]) => {
    const file = kind === "foreign" ? name : `libsbora-${name.padEnd(name.indexOf("-") + 33, "a")}.so`;
    writeFileSync(join(folder, file), kind);
    age(join(folder, file), kind === "used" ? 29 : 31);
    return file;
  });
  const path = await output(builder("old", 0));
  expect(readdirSync(folder).sort()).toEqual([path.split("/").at(-1)!, ...files.slice(1)].sort());
  // Opening it is a use.
  age(path, 20);
  await output(builder("old", 0));
  expect(Date.now() - statSync(path).mtimeMs).toBeLessThan(60_000);
}, 30_000);
