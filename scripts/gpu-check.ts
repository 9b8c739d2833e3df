/** Started by gpu-check.sh: builds, tests and measures on the GPU within a number of minutes, and keeps what was found. */
import { mkdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { writeTextFile } from "../src/formats/files.ts";
import { closeDevice, openDevice } from "../src/native/device.ts";
import { makeManifest } from "../src/reporting/manifest.ts";
import { MISSING, right, textTable } from "../src/reporting/table.ts";
import { runCommand, wholeFlag } from "./arguments.ts";
import type { Report } from "./bench/report.ts";

const ROOT = resolve(import.meta.dir, "..");
const RESULTS = join(ROOT, "results/gpu");
const SCHEMA_VERSION = 1;
const MINUTES = 9;
/** Less than this is not worth starting a step. */
const LEAST_SECONDS = 5;
/** Lines of a failed step's output that are kept and shown. */
const LAST_LINES = 40;

const EMULATED = process.env.SBORA_CUDA_EMULATE === "1";
/** Files of one op each that take seconds: what runs under compute-sanitizer, which is fifty times slower. */
const SHORT_TESTS = ["columns", "rows", "dora", "elementwise", "embedding", "rope", "swiglu", "topk"];

interface Step {
  readonly name: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** In front of Bun. */
  readonly under?: readonly string[];
  /** Seconds that it may take at most, whatever is left. */
  readonly most: number;
  /** Why it is left out; null: it is not. */
  readonly without?: string | null;
}

interface Outcome {
  readonly name: string;
  readonly state: "ok" | "failed" | "not run";
  readonly seconds: number;
  /** What a test run says last, why a step was not run, or the end of what a failed one wrote. */
  readonly text: string;
  /** What a benchmark found. */
  readonly reports?: Readonly<Record<string, Omit<Report, "benchmark">>>;
}

const EXAMPLES = `Examples
  scripts/gpu-check.sh                              everything, in 9 minutes at most
  scripts/gpu-check.sh --minutes 4                  what fits into four: build, tests, as many benchmarks as there is time for
  SBORA_CUDA_EMULATE=1 scripts/gpu-check.sh --out /tmp/dry.json
                                                    without a GPU: whether the script works; its figures mean nothing

Exit code 1 where the build or a test fails, or a benchmark ends in an error. A target that is missed is a line in the table.`;

function tests(...names: string[]): string[] {
  return names.map((name) => `./src/native/ops/${name}.test.ts`);
}

function steps(): Step[] {
  const libraries = { SBORA_TEST_LIBRARIES: `reference,${EMULATED ? "cuda-emulated" : "cuda"}` };
  const testing = ["test", "--timeout", "120000"];
  const sanitizer = Bun.which("compute-sanitizer");
  const bench = (what: string, ...flags: string[]): Step => {
    const size = EMULATED ? ["--quick", "--shape", "tiny"] : ["--shape", "llama3-8b", "--rounds", "5"];
    const args = ["run", "scripts/bench.ts", what, "--device", "cuda", "--compute", "bf16", "--json"];
    return { name: `bench ${what}`, args: [...args, ...size, ...flags], most: 150 };
  };
  return [
    {
      name: "build",
      args: ["run", "scripts/build.ts", "--library", EMULATED ? "cuda-emulated" : "cuda"],
      most: 240,
    },
    {
      name: "op tests",
      // The emulation takes minutes for all of them.
      args: [
        ...testing,
        ...(EMULATED
          ? tests("rows", "columns")
          : [
              "./src/native/ops/",
              ...["nf4", "weight", "patch"].map((name) => `./src/native/${name}.test.ts`),
            ]),
      ],
      env: libraries,
      most: 150,
    },
    {
      name: "op tests, compute-sanitizer",
      under: [
        "compute-sanitizer",
        "--tool",
        "memcheck",
        "--target-processes",
        "all",
        "--error-exitcode",
        "1",
      ],
      args: [...testing, ...tests(...SHORT_TESTS)],
      env: libraries,
      most: 90,
      without: EMULATED
        ? "on a CPU: scripts/sanitize.ts"
        : sanitizer === null
          ? "compute-sanitizer is not on the PATH"
          : null,
    },
    bench("gemm"),
    bench("step", ...(EMULATED ? [] : ["--tokens", "8192"])),
    bench("decode"),
    bench("swap"),
    // Minutes under emulation.
    ...(EMULATED ? [] : [bench("nf4")]),
  ];
}

async function runStep(step: Step, left: number): Promise<Outcome> {
  const { name, args, env, under = [], most, without } = step;
  if (without) return { name, state: "not run", seconds: 0, text: without };
  if (left < LEAST_SECONDS) return { name, state: "not run", seconds: 0, text: "no time left" };
  console.error(`\n== ${name}`);
  const started = performance.now();
  const limit = Math.min(left, most);
  const child = Bun.spawn([...under, process.execPath, ...args], {
    cwd: ROOT,
    env: { ...process.env, NO_COLOR: "1", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: Math.ceil(limit * 1000),
    killSignal: "SIGKILL",
  });
  const [out, error, code] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  const seconds = (performance.now() - started) / 1000;
  const end = `${out}${error}`.trimEnd().split("\n").slice(-LAST_LINES);
  console.error(end.slice(code === 0 ? -6 : 0).join("\n"));
  if (child.signalCode === "SIGKILL" && seconds >= limit - 1) end.push(`stopped after ${limit.toFixed(0)} s`);
  if (code !== 0) return { name, state: "failed", seconds, text: end.join("\n") };
  if (!args.includes("--json")) return { name, state: "ok", seconds, text: summaryOf(end) };
  const { benchmarks } = JSON.parse(out) as { benchmarks: Outcome["reports"] };
  return { name, state: "ok", seconds, text: "", reports: benchmarks! };
}

/** "123 pass, 0 fail" of a test run, else its last line. */
function summaryOf(lines: readonly string[]): string {
  const counts = lines.filter((line) => /^\s*\d+ (pass|fail)$/.test(line)).map((line) => line.trim());
  return counts.length > 0 ? counts.join(", ") : (lines.at(-1) ?? "");
}

function table(outcomes: readonly Outcome[]): string {
  const rows = outcomes.flatMap(({ name, state, seconds, text, reports }): (readonly string[] | "line")[] => {
    const first = [
      name,
      seconds.toFixed(0),
      "",
      "",
      state === "ok" ? text || "ok" : `${state}: ${text.split("\n").at(-1)}`,
    ];
    const targets = Object.values(reports ?? {}).flatMap((report) => report.targets);
    const compared = new Set(targets.map((target) => target.name));
    const figures = Object.values(reports ?? {}).flatMap((report) => report.figures);
    return [
      first,
      ...targets.map(({ name: target, ours, unit, ratio, peer, ok }) => [
        `  ${target}`,
        "",
        `${ours.toPrecision(4)} ${unit}`,
        ratio ? `${ratio.ratio.toFixed(3)} × ${peer!.name}` : MISSING,
        ok ? "met" : "missed",
      ]),
      ...figures
        .filter((figure) => !compared.has(figure.name))
        .map(({ name: figure, median, unit }) => [
          `  ${figure}`,
          "",
          `${median.toPrecision(4)} ${unit}`,
          "",
          "",
        ]),
    ];
  });
  const columns = [{ title: "what" }, right("s"), right("figure"), right("beside"), { title: "outcome" }];
  return textTable({ columns, rows });
}

async function main(minutes: number, out: string | null): Promise<void> {
  const deadline = performance.now() + minutes * 60_000;
  const left = () => (deadline - performance.now()) / 1000;
  const outcomes: Outcome[] = [];
  for (const step of steps()) {
    const broken = outcomes[0]?.state === "failed";
    outcomes.push(
      broken
        ? { name: step.name, state: "not run", seconds: 0, text: "the build failed" }
        : await runStep(step, left()),
    );
  }
  if (outcomes[0]!.state === "ok") {
    const device = await openDevice({ library: "cuda" });
    const card = device.name.replace(/ with cuBLASLt.*/, "");
    const slug = card.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
    const path = out ?? join(RESULTS, `${slug}.json`);
    const manifest = makeManifest(device, { name: "random llama3-8b", fingerprint: "" }, {});
    closeDevice(device);
    const entry = {
      schemaVersion: SCHEMA_VERSION,
      date: new Date().toISOString(),
      card,
      manifest,
      steps: outcomes,
    };
    mkdirSync(dirname(path), { recursive: true });
    writeTextFile(path, `${JSON.stringify(entry, null, 1)}\n`);
    console.error(`\nwritten to ${path}`);
  }
  console.log(`\n${table(outcomes)}`);
  if (EMULATED) console.log("\nemulated on a CPU: the figures show that the script works and nothing else");
  if (outcomes.some(({ state }) => state === "failed")) process.exit(1);
}

await runCommand({
  name: "scripts/gpu-check.sh",
  description: "Build, test and measure on this machine's GPU; results/gpu/<card>.json.",
  args: {
    minutes: { type: "string", valueHint: "N", description: `Minutes it may take (default ${MINUTES})` },
    out: {
      type: "string",
      valueHint: "FILE",
      description: "Where the result goes (default results/gpu/<card>.json)",
    },
  },
  examples: EXAMPLES,
  run: (args) => main(wholeFlag(args, "minutes", 1) ?? MINUTES, args.out ? resolve(args.out) : null),
});
