/** The command line of scripts/bench.ts, checked before anything is compiled or loaded. */
import { existsSync, readdirSync, statSync } from "node:fs";
import { resolve } from "node:path";
import type { Compute } from "../../src/adapters/adapter.ts";
import { InputError } from "../../src/errors.ts";
import { COMPUTE_TYPES, choiceFlag, listFlag, wholeFlag } from "../arguments.ts";
import { type ShapeName, shapeNames } from "./shapes.ts";

export const benchmarkNames = [
  "gemm",
  "step",
  "memory",
  "decode",
  "nf4",
  "evaluate",
  "start",
  "swap",
  "serve",
] as const;
export type BenchmarkName = (typeof benchmarkNames)[number];

/** How PyTorch is started: as it comes, with its allocator kept from giving memory back, and with MKL's check of the vendor answered. */
export const peerForms = ["installed", "tuned", "vendor"] as const;
export type PeerForm = (typeof peerForms)[number];

/** Methods of the step benchmarks: those that have a target. */
export const stepMethods = ["sbora-fa", "sbora-fb", "lora", "dora"] as const;
export type StepMethod = (typeof stepMethods)[number];

export interface BenchOptions {
  readonly benchmarks: readonly BenchmarkName[];
  /** Print where one training step spends its time, in place of a benchmark. */
  readonly profile: boolean;
  /** A Python interpreter with torch, transformers, peft; null: no such peer. */
  readonly python: string | null;
  /** A folder with libllama; null: no such peer. */
  readonly llama: string | null;
  /** llama.cpp's server, an executable; null: no such peer. */
  readonly llamaServer: string | null;
  /** A model folder; null: random weights. */
  readonly model: string | null;
  /** null: the shapes that have targets. */
  readonly shape: ShapeName | null;
  /** Few layers, rounds and sizes: whether the instrument works. Its figures mean nothing and are not kept. */
  readonly quick: boolean;
  readonly json: boolean;
  /** null: both, or the one a benchmark is about. */
  readonly computes: readonly Compute[] | null;
  readonly methods: readonly StepMethod[];
  /** null: those that have targets. */
  readonly forms: readonly PeerForm[] | null;
  /** Tokens of a training step, in records of 256; null: the step benchmark's own. */
  readonly tokens: number | null;
  /** Measured turns of A B; null: the benchmark's own. */
  readonly rounds: number | null;
  readonly threads: number | null;
}

/** @throws InputError naming flag, value and what was expected. `peers`: every --peer in the order given. */
export function benchOptions(
  what: string | undefined,
  args: Record<string, unknown>,
  peers: readonly string[],
): BenchOptions {
  const { python, llama, llamaServer } = parsePeers(peers);
  const model = typeof args.model === "string" && args.model !== "" ? resolve(args.model) : null;
  if (model !== null && !existsSync(resolve(model, "config.json"))) {
    throw new InputError(`--model is "${args.model}": there is no config.json; expected a model folder.`);
  }
  const shape = choiceFlag(args, "shape", shapeNames) ?? null;
  if (shape !== null && model !== null) {
    throw new InputError("--model and --shape both say which model is measured; give one of them.");
  }
  const compute = choiceFlag(args, "compute", COMPUTE_TYPES);
  return {
    ...parseWhat(what),
    python,
    llama,
    llamaServer,
    model,
    shape,
    quick: args.quick === true,
    json: args.json === true,
    computes: compute ? [compute] : null,
    methods: oneOf(listFlag(args, "methods"), stepMethods, "methods") ?? stepMethods,
    forms: oneOf(listFlag(args, "forms"), peerForms, "forms"),
    tokens: wholeFlag(args, "tokens", 1) ?? null,
    rounds: wholeFlag(args, "rounds", 1) ?? null,
    threads: wholeFlag(args, "threads", 1) ?? null,
  };
}

function parseWhat(what: string | undefined): Pick<BenchOptions, "benchmarks" | "profile"> {
  if (what === "profile") return { benchmarks: [], profile: true };
  if (what === "all") return { benchmarks: benchmarkNames, profile: false };
  const name = benchmarkNames.find((known) => known === what);
  if (name) return { benchmarks: [name], profile: false };
  const said = what === undefined ? "No benchmark is named" : `"${what}" is no benchmark`;
  throw new InputError(`${said}; expected one of ${benchmarkNames.join(", ")}, all, profile. See --help.`);
}

function oneOf<const T extends string>(
  given: readonly string[] | undefined,
  known: readonly T[],
  flag: string,
): T[] | null {
  if (given === undefined) return null;
  return given.map((name) => {
    const found = known.find((k) => k === name);
    if (found !== undefined) return found;
    throw new InputError(`--${flag} names "${name}"; expected names out of ${known.join(", ")}.`);
  });
}

/** `--peer` may stand several times, which citty does not collect. */
export function peerFlags(argv: readonly string[]): string[] {
  const values: string[] = [];
  argv.forEach((token, i) => {
    if (token === "--peer") values.push(argv[i + 1] ?? "");
    else if (token.startsWith("--peer=")) values.push(token.slice("--peer=".length));
  });
  return values;
}

const PEER_HELP =
  "expected python:PATH (an interpreter with torch, transformers and peft), llama:PATH (a folder with libllama) or " +
  "llama-server:PATH (llama.cpp's server); " +
  "see scripts/peers/README.md.";

type Peers = Pick<BenchOptions, "python" | "llama" | "llamaServer">;

function parsePeers(values: readonly string[]): Peers {
  const peers: { -readonly [name in keyof Peers]: Peers[name] } = {
    python: null,
    llama: null,
    llamaServer: null,
  };
  for (const value of values) {
    const [, kind, path] = /^(python|llama|llama-server):(.+)$/.exec(value) ?? [];
    if (kind === undefined || path === undefined) throw new InputError(`--peer is "${value}"; ${PEER_HELP}`);
    const full = kind !== "llama" && !path.includes("/") ? Bun.which(path) : resolve(path);
    if (full === null || !existsSync(full))
      throw new InputError(`--peer ${value}: there is no ${path}; ${PEER_HELP}`);
    if (kind === "python") peers.python = full;
    else if (kind === "llama-server") peers.llamaServer = serverFile(value, full);
    else peers.llama = llamaFolder(value, full);
  }
  return peers;
}

function serverFile(flag: string, path: string): string {
  if (statSync(path).isFile()) return path;
  throw new InputError(`--peer ${flag}: ${path} is no file; ${PEER_HELP}`);
}

function llamaFolder(flag: string, path: string): string {
  const isLibrary = (name: string): boolean => /^libllama\b.*\.(so|dylib)/.test(name);
  if (statSync(path).isDirectory() && readdirSync(path).some(isLibrary)) return path;
  throw new InputError(`--peer ${flag}: there is no libllama.so in ${path}; ${PEER_HELP}`);
}
