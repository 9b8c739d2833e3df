/** What made a result: enough to make it again. Goes into every cell, run and benchmark file. */
import { existsSync, readFileSync } from "node:fs";
import { basename, isAbsolute, join, relative, resolve } from "node:path";

export interface Manifest {
  readonly sbora: string;
  /** Commit of the checkout, "+dirty" when files differ from it; null outside git. */
  readonly commit: string | null;
  readonly bun: string;
  readonly platform: string;
  readonly processor: string;
  readonly isa: string;
  readonly threads: number;
  readonly command: string;
  /** SHA-256 of every data file by its name. */
  readonly data: Readonly<Record<string, string>>;
  /** Name of the base and its fingerprint. */
  readonly model: { readonly name: string; readonly fingerprint: string };
}

const root = resolve(import.meta.dir, "../..");

export function makeManifest(
  device: { name: string; isa: string; threads: number },
  model: Manifest["model"],
  data: Readonly<Record<string, string>>,
): Manifest {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  return {
    sbora: version,
    commit: commit(),
    bun: Bun.version,
    platform: `${process.platform}-${process.arch}`,
    processor: device.name,
    isa: device.isa,
    threads: device.threads,
    command: commandLine(),
    data,
    model,
  };
}

/** SHA-256 of a file's bytes. */
export function fileHash(path: string): string {
  return new Bun.CryptoHasher("sha256").update(readFileSync(path)).digest("hex");
}

/** The hash of several files: over their names and contents, in the order given; of one, its own. */
export function filesHash(paths: readonly string[]): string {
  if (paths.length === 1) return fileHash(paths[0]!);
  const all = JSON.stringify(paths.map((path) => [basename(path), fileHash(path)]));
  return new Bun.CryptoHasher("sha256").update(all).digest("hex");
}

/** The command that was typed, ready for a shell in the same folder: the script as it is called from there, blanks quoted. */
export function commandLine(argv: readonly string[] = process.argv, folder = process.cwd()): string {
  const [, script = "", ...rest] = argv;
  const near = relative(folder, script);
  const shown = near.startsWith("..") || isAbsolute(near) ? script : near;
  return ["bun run", ...[shown, ...rest].map(quoted)].join(" ");
}

/** A word as a POSIX shell reads it back. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function commit(): string | null {
  if (!existsSync(join(root, ".git"))) return null;
  const git = (...args: string[]): string => {
    const run = Bun.spawnSync(["git", "-C", root, ...args]);
    return run.exitCode === 0 ? run.stdout.toString().trim() : "";
  };
  const head = git("rev-parse", "HEAD");
  // Results being written must not make every later cell of the same run look dirty.
  return head ? head + (git("status", "--porcelain", "--", ":!results") ? "+dirty" : "") : null;
}
