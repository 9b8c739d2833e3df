/** What made a result: enough to make it again. Goes into every cell, run and benchmark file. */
import { existsSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

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

/** The command that was typed, with the script relative to the checkout. */
export function commandLine(): string {
  const [, script = "", ...rest] = process.argv;
  const shown = script.startsWith(root) ? script.slice(root.length + 1) : script;
  return ["bun run", shown, ...rest].join(" ");
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
