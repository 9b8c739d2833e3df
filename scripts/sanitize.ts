/**
 * Runs the kernel tests on libraries that are compiled with a sanitizer. Bun itself is not instrumented; the sanitizer's
 * runtime is preloaded into it, so what is watched is the kernels' code and the memory of sb_alloc.
 */
import { readdirSync, readFileSync } from "node:fs";
import { isAbsolute, join, relative, resolve } from "node:path";
import { InputError } from "../src/errors.ts";
import { withTemporaryFolder } from "../src/formats/files.ts";
import { buildLibrary } from "../src/native/build.ts";
import { type Compiler, findCompiler } from "../src/native/compiler.ts";
import { choiceFlag, listFlag, runCommand } from "./arguments.ts";

const ROOT = resolve(import.meta.dir, "..");
/** Characters of a report: one mistake may be seen at a hundred places. */
const MOST_SHOWN = 20_000;
/** Instrumented code is several times slower, and a busy machine slower again. */
const TEST_TIMEOUT_MS = 900_000;

/** Those of SBORA_TEST_LIBRARIES (src/native/ops/testing.ts) that are compiled with a sanitizer. */
const CHOSEN = (["cpu", "cuda-emulated"] as const).filter((name) =>
  (process.env.SBORA_TEST_LIBRARIES || "cpu,cuda-emulated").split(",").includes(name),
);

interface Kind {
  /** Argument of -fsanitize. */
  readonly flags: string;
  readonly runtime: string;
  /** Mistakes of sanitize/planted.ts that it has to report. */
  readonly planted: Readonly<Record<(typeof CHOSEN)[number], readonly string[]>>;
  readonly options: Readonly<Record<string, string>>;
}

const KINDS: Readonly<Record<"address" | "thread", Kind>> = {
  address: {
    flags: "address,undefined",
    runtime: "libasan.so",
    planted: { cpu: ["overrun", "misaligned"], "cuda-emulated": ["cuda-overrun"] },
    options: {
      // Leaks: JavaScript's heap is none of ours. A refused allocation is a status that the tests ask for.
      ASAN_OPTIONS: "detect_leaks=0:allocator_may_return_null=1",
      UBSAN_OPTIONS: "print_stacktrace=1",
    },
  },
  thread: {
    flags: "thread",
    runtime: "libtsan.so",
    planted: { cpu: ["race"], "cuda-emulated": ["cuda-race"] },
    options: {
      // Bun synchronises its threads in ways that the runtime does not see: only accesses of our code count.
      TSAN_OPTIONS: "ignore_noninstrumented_modules=1:exitcode=0:allocator_may_return_null=1",
    },
  },
};
const NAMES = Object.keys(KINDS) as (keyof typeof KINDS)[];

/** Other things that the runtimes write (a refused allocation) are no failure. */
const REPORT = /ERROR: \w+Sanitizer|WARNING: ThreadSanitizer/;
/** UBSan writes to stderr whatever log_path says, and goes on: up to the empty line behind the stack. */
const UNDEFINED_REPORT = /^.*: runtime error: [\s\S]*?\n\n/gm;

const EXAMPLES = `Examples
  bun run scripts/sanitize.ts --kind address                AddressSanitizer and UBSan: reads and writes past memory, overflow
  bun run scripts/sanitize.ts --kind thread                 ThreadSanitizer: races between the threads of an op
  bun run scripts/sanitize.ts --kind address --tests src/native/ops/linear.test.ts,src/native/weight.test.ts
  CXX=g++-14 bun run scripts/sanitize.ts --kind thread      with another compiler
  SBORA_TEST_LIBRARIES=cuda-emulated bun run scripts/sanitize.ts --kind thread      the CUDA kernels alone

Without --tests: every test file that opens the kernels' test harness (src/native/ops/testing.ts). The instrumented libraries are cached as
the others are. Exit code 1 with the sanitizer's report when there is one, or when a test fails.`;

/** Test files that run ops on every library and instruction set. */
function kernelTests(): string[] {
  const files = [...new Bun.Glob("src/native/**/*.test.ts").scanSync({ cwd: ROOT })].sort();
  return files.filter((file) =>
    /from "\.\/(ops\/)?testing\.ts"/.test(readFileSync(join(ROOT, file), "utf8")),
  );
}

/** The runtime to preload. @throws InputError where the compiler has none, or is no GCC */
function runtimeOf(kind: Kind, compiler: Compiler): string {
  const what = `-print-file-name=${kind.runtime}`;
  const child = Bun.spawnSync([...compiler.command, what], { stdout: "pipe", stderr: "ignore" });
  const path = child.stdout.toString().trim();
  if (isAbsolute(path)) return path;
  throw new InputError(
    `${compiler.command.join(" ")} (${compiler.version}) has no ${kind.runtime}. It comes with g++ on Linux: apt install g++ ` +
      "(Debian, Ubuntu), dnf install libasan libubsan libtsan (Fedora); set CXX=g++ where another compiler is the default.",
  );
}

interface Outcome {
  readonly code: number;
  /** Everything the sanitizer wrote, "" when there is no report in it. */
  readonly report: string;
}

/** What a process writes there, shown as it comes unless `quiet`. */
async function textOf(stream: ReadableStream<Uint8Array>, quiet: boolean): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    if (!quiet) process.stderr.write(chunk);
    text += decoder.decode(chunk, { stream: true });
  }
  return text;
}

/** Runs Bun with `args` under the sanitizer. */
async function watched(
  kind: Kind,
  runtime: string,
  args: readonly string[],
  quiet: boolean,
): Promise<Outcome> {
  return withTemporaryFolder(async (folder) => {
    const options = Object.entries(kind.options).map(([name, value]) => [
      name,
      `${value}:log_path=${join(folder, name)}`,
    ]);
    const child = Bun.spawn([process.execPath, ...args], {
      cwd: ROOT,
      env: { ...process.env, ...Object.fromEntries(options), LD_PRELOAD: runtime },
      stdout: quiet ? "ignore" : "inherit",
      stderr: "pipe",
    });
    const text = await textOf(child.stderr, quiet);
    const code = await child.exited;
    const files = readdirSync(folder).map((file) => readFileSync(join(folder, file), "utf8"));
    const reports = [...(text.match(UNDEFINED_REPORT) ?? []), ...files.filter((file) => REPORT.test(file))];
    return { code, report: reports.join("\n") };
  });
}

function shortened(report: string): string {
  if (report.length <= MOST_SHOWN) return report.trimEnd();
  const lines = report.slice(MOST_SHOWN).split("\n").length;
  return `${report.slice(0, MOST_SHOWN)}\n… and ${lines} lines more; --tests narrows it down.`;
}

async function sanitize(name: keyof typeof KINDS, files: readonly string[]): Promise<void> {
  const kind = KINDS[name];
  const runtime = runtimeOf(kind, findCompiler());
  process.env.SBORA_SANITIZE = kind.flags;
  // Here and not in the test process: nothing but the tests runs under the sanitizer.
  for (const library of [...CHOSEN, "reference", "reference-f64"] as const) {
    await buildLibrary(library);
  }

  for (const mistake of CHOSEN.flatMap((library) => kind.planted[library])) {
    const args = ["run", join(import.meta.dir, "sanitize/planted.ts"), mistake];
    if ((await watched(kind, runtime, args, true)).report !== "") continue;
    throw new InputError(
      `The ${name} sanitizer did not report a planted mistake (${mistake} in scripts/sanitize/planted.ts): it does not ` +
        `work here, and a run without reports would mean nothing. Its runtime is ${runtime}.`,
    );
  }

  const test = await watched(kind, runtime, ["test", "--timeout", `${TEST_TIMEOUT_MS}`, ...files], false);
  if (test.report !== "") console.error(`\n${shortened(test.report)}\n`);
  const found = test.report === "" ? "no report" : "the report above";
  console.log(`${name} sanitizer: ${files.length} test files, exit code ${test.code}, ${found}`);
  if (test.code !== 0 || test.report !== "") process.exit(1);
}

await runCommand({
  name: "bun run scripts/sanitize.ts",
  description: "Run the kernel tests under AddressSanitizer and UBSan, or under ThreadSanitizer.",
  args: {
    kind: {
      type: "string",
      default: "address",
      valueHint: NAMES.join("|"),
      description: "What to look for",
    },
    tests: { type: "string", valueHint: "FILE,…", description: "Test files (default: the kernels')" },
  },
  examples: EXAMPLES,
  async run(args) {
    const kind = choiceFlag(args, "kind", NAMES)!;
    const given = listFlag(args, "tests")?.map((file) => `./${relative(ROOT, resolve(file))}`);
    await sanitize(kind, given ?? kernelTests());
  },
});
