import { statSync } from "node:fs";
import { InputError, messageOf } from "../errors.ts";

/** A C++ compiler that answered `--version`. */
export interface Compiler {
  /** Command and its fixed arguments ($CXX may be "ccache g++"). */
  readonly command: readonly string[];
  /** First line of `--version`. */
  readonly version: string;
}

const CANDIDATES = ["c++", "g++", "clang++"];

/** English messages; and a sanitizer preloaded into this process must not run inside the compiler. */
export const COMPILER_ENV = {
  ...process.env,
  LC_ALL: "C",
  LD_PRELOAD: undefined,
  DYLD_INSERT_LIBRARIES: undefined,
};

function versionOf(command: readonly string[]): string | null {
  try {
    const child = Bun.spawnSync([...command, "--version"], {
      stdout: "pipe",
      stderr: "ignore",
      env: COMPILER_ENV,
    });
    return child.exitCode === 0 ? (child.stdout.toString().split("\n")[0]?.trim() ?? "") : null;
  } catch {
    return null;
  }
}

/** $CXX, else the first of c++, g++, clang++ that runs. @throws InputError naming the package to install. */
export function findCompiler(env: NodeJS.ProcessEnv = process.env): Compiler {
  const chosen = (env.CXX ?? "").trim();
  if (chosen !== "") {
    const command = chosen.split(/\s+/);
    const version = versionOf(command);
    if (version !== null) return { command, version };
    throw new InputError(
      `CXX is "${chosen}", but \`${chosen} --version\` does not run. Set CXX to a C++20 compiler, or unset it.`,
    );
  }
  for (const name of CANDIDATES) {
    const version = versionOf([name]);
    if (version !== null) return { command: [name], version };
  }
  const advice =
    process.platform === "darwin"
      ? "xcode-select --install"
      : "apt install g++ (Debian, Ubuntu), dnf install gcc-c++ (Fedora), apk add g++ (Alpine)";
  throw new InputError(
    "sbora compiles its kernels on first use and found no C++ compiler " +
      `(tried ${CANDIDATES.join(", ")}). Install one: ${advice}. Or point CXX at a compiler.`,
  );
}

/** Runs one compiler command. @throws InputError with the last lines the compiler wrote. */
export async function compile(compiler: Compiler, args: readonly string[], cwd: string): Promise<void> {
  let child: Bun.Subprocess<"ignore", "ignore", "pipe">;
  try {
    child = Bun.spawn([...compiler.command, ...args], {
      cwd,
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
      env: COMPILER_ENV,
    });
  } catch (error) {
    throw new InputError(`Could not start ${compiler.command.join(" ")}: ${messageOf(error)}.`);
  }
  const [text, code] = await Promise.all([new Response(child.stderr).text(), child.exited]);
  if (code === 0) return;
  const lines = text.trimEnd().split("\n");
  const errors = lines.filter((line) => /\berror\b/i.test(line)).slice(0, 5);
  const last = (errors.length > 0 ? errors : lines.slice(-12)).join("\n");
  throw new InputError(
    `Compiling the native library failed (${compiler.version}, exit ${code}):\n${last}\n` +
      `Command: ${[...compiler.command, ...args].join(" ")}\n` +
      "It needs C++20: g++ 11 or clang 14 or newer. Set CXX to choose another compiler.",
  );
}

/** Runs `jobs` with at most `width` at a time; the first failure is thrown after the running ones have ended. */
export async function inParallel(jobs: readonly (() => Promise<void>)[], width: number): Promise<void> {
  let next = 0;
  let failed: { error: unknown } | null = null;
  const worker = async () => {
    while (next < jobs.length && failed === null) {
      const job = jobs[next++]!;
      try {
        await job();
      } catch (error) {
        failed ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, Math.min(width, jobs.length)) }, worker));
  if (failed !== null) throw (failed as { error: unknown }).error;
}

/** True when `path` is a file with something in it. */
export function fileExists(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat?.isFile() === true && stat.size > 0;
}
