/**
 * Reading adapter folders: ours, PEFT's (LoRA, rsLoRA, DoRA, rank and alpha patterns), and those of the official SBoRA
 * repositories (protocol §1.8): a safetensors file, or a torch archive of which nothing is executed. Values are checked
 * once and read again when they are asked for, so that a folder costs no memory but its indices.
 */
import { existsSync, readdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { InputError, Problems } from "../errors.ts";
import { readJsonObject } from "../formats/files.ts";
import { PEFT_CONFIG_FILE, type PeftConfig, parsePeftKey, readPeftConfig } from "../formats/peft.ts";
import {
  readSafetensorsHeader,
  readTensorAsF32,
  readTensorBytes,
  type TensorEntry,
} from "../formats/safetensors.ts";
import { readTorchArchive } from "../formats/torch-zip.ts";
import { type Method, type MethodName, methodNames } from "./adapter.ts";
import { indicesOfOneHot } from "./one-hot.ts";

export const ADAPTER_FILE = "adapter_model.safetensors";
/** What PEFT wrote before safetensors, and the official repositories write. */
export const TORCH_FILE = "adapter_model.bin";
export const METADATA_FILE = "sbora.json";
export const SCHEMA_VERSION = 1;

/** What sbora.json says beside PEFT's own file. */
export interface AdapterMetadata {
  readonly method: MethodName;
  /** Of a DoRA in the norm of the 4-bit experiments. */
  readonly norm?: NonNullable<Method["norm"]>;
  /** What indices, frozen factors and first values were drawn with; null: not known, since they came with another's adapter. */
  readonly seed: number | null;
  /** The adapter that training went on from, whose draw this is: its folder as it was given, and the SHA-256 of its weights. */
  readonly initAdapter?: { readonly path: string; readonly sha256: string };
  /** Fingerprint of the base the adapter was trained on. */
  readonly base: string;
  readonly recipe: unknown;
  readonly templateHash: string | null;
}

export interface AdapterFolder {
  readonly dir: string;
  /** The file with the tensors. */
  readonly file: string;
  readonly config: PeftConfig;
  readonly method: MethodName;
  readonly metadata: AdapterMetadata | null;
  /** By module path, then by factor name as the method calls it. */
  readonly modules: ReadonlyMap<string, StoredFactors>;
}

export type StoredFactors = Readonly<Record<string, StoredFactor>>;

export interface StoredFactor {
  readonly shape: readonly number[];
  /** Read from the file at every access; indices are held. */
  readonly values: Float32Array | Int32Array;
}

/** @throws InputError naming file, tensor, value and what was expected */
export function readAdapter(path: string): AdapterFolder {
  const dir = adapterFolderIn(path);
  refuseWholeModel(dir);
  const config = readPeftConfig(dir);
  const metadata = readMetadata(dir);
  const { file, tensors } = openTensors(dir);
  const problems = new Problems();
  const stored = new Map<string, Record<string, StoredFactor>>();
  const indexed = new Set<string>();
  for (const entry of tensors.values()) {
    const key = parsePeftKey(entry.name);
    if (!key) {
      problems.add(
        `tensor ${entry.name} is no adapter tensor of a linear; expected …lora_A, lora_B or a magnitude`,
      );
      continue;
    }
    const factors = stored.get(key.module) ?? {};
    stored.set(key.module, factors);
    if (entry.dtype === "I64") {
      factors.index = readIndices(entry, problems);
      indexed.add(key.kind);
    } else factors[factorNames[key.kind]] = storedFactor(entry, problems);
  }
  if (stored.size === 0) problems.add("no adapter tensors");
  if (indexed.size > 1) problems.add("both lora_A and lora_B are index vectors, expected one of them");
  problems.throwIfAny(file);
  const said = metadata?.method ?? methodOf(config, file) ?? methodByIndex(indexed) ?? methodByFolder(dir);
  const { method, modules } = recognise(said ?? "lora", said !== null, stored);
  if (method === "dora") requireMagnitudes(file, modules);
  return { dir, file, config, method, metadata, modules };
}

const factorNames = { lora_A: "A", lora_B: "B", magnitude: "m" } as const;

/**
 * The folder with adapter_config.json: the path itself, `adapter_model/` in it (the 4-bit repository's checkpoints), or
 * the only such folder below either (PEFT puts adapters that are not called "default" there).
 */
function adapterFolderIn(path: string): string {
  const holds = (dir: string): boolean => existsSync(join(dir, PEFT_CONFIG_FILE));
  for (const dir of [path, join(path, "adapter_model")]) {
    if (holds(dir)) return dir;
    const below = foldersIn(dir).filter(holds);
    if (below.length === 1) return below[0]!;
    if (below.length > 1) {
      const names = below.slice(0, 8).map((name) => basename(name));
      throw new InputError(
        `${dir}: there is no ${PEFT_CONFIG_FILE} in it, but ${below.length} adapters below (${names.join(", ")}${below.length > 8 ? ", …" : ""}); ` +
          `give the folder of one of them.`,
      );
    }
  }
  return path;
}

/** Full fine-tuning writes a model where the other methods write an adapter (settled 3). */
function refuseWholeModel(dir: string): void {
  if (existsSync(join(dir, PEFT_CONFIG_FILE)) || !existsSync(join(dir, "config.json"))) return;
  throw new InputError(
    `${dir}: this is a whole model (config.json, no ${PEFT_CONFIG_FILE}), as --method full writes it, and no adapter; ` +
      `give it as --model, without an adapter.`,
  );
}

function foldersIn(dir: string): string[] {
  try {
    const found = readdirSync(dir, { withFileTypes: true });
    // our own runs keep last/ and checkpoint/ beside the adapter
    return found.filter((entry) => entry.isDirectory()).map(({ name }) => join(dir, name));
  } catch {
    return [];
  }
}

function openTensors(dir: string): { file: string; tensors: ReadonlyMap<string, TensorEntry> } {
  const file = join(dir, ADAPTER_FILE);
  const torch = join(dir, TORCH_FILE);
  if (existsSync(file) || !existsSync(torch)) return { file, tensors: readSafetensorsHeader(file).tensors };
  return { file: torch, tensors: readTorchArchive(torch) };
}

function readIndices(entry: TensorEntry, problems: Problems): StoredFactor {
  if (entry.shape.length !== 1) {
    problems.add(`tensor ${entry.name} has shape [${entry.shape.join(", ")}], expected indices [rank]`);
    return { shape: entry.shape, values: new Int32Array(0) };
  }
  const wide = new BigInt64Array(readTensorBytes(entry).buffer);
  const bad = wide.findIndex((index) => index < 0n || index >= 2n ** 31n);
  if (bad >= 0)
    problems.add(`tensor ${entry.name} holds ${wide[bad]} at element ${bad}, expected an index from 0`);
  return { shape: entry.shape, values: Int32Array.from(wide, Number) };
}

function storedFactor(entry: TensorEntry, problems: Problems): StoredFactor {
  const values = readTensorAsF32(entry);
  const bad = values.findIndex((v) => !Number.isFinite(v));
  if (bad >= 0)
    problems.add(`tensor ${entry.name} holds ${values[bad]} at element ${bad}, expected finite values`);
  return {
    shape: entry.shape,
    get values() {
      return readTensorAsF32(entry);
    },
  };
}

/**
 * SBoRA in PEFT's layout is a LoRA with a dense one-hot factor (settled 3): when every module has one, its indices take
 * the factor's place. A folder that says itself what it is (`said`) is taken at its word.
 */
function recognise(
  method: MethodName,
  said: boolean,
  modules: ReadonlyMap<string, StoredFactors>,
): { method: MethodName; modules: ReadonlyMap<string, StoredFactors> } {
  const candidates: MethodName[] = said ? [method] : ["sbora-fa", "sbora-fb"];
  for (const candidate of candidates) {
    const rows = candidate === "sbora-fa";
    if (!rows && candidate !== "sbora-fb") continue;
    const indexed = new Map<string, StoredFactors>();
    for (const [module, factors] of modules) {
      const { [rows ? "A" : "B"]: hot, ...others } = factors;
      const index = hot && indicesOfOneHot(hot.values, hot.shape, rows);
      if (index) indexed.set(module, { ...others, index: { shape: [index.length], values: index } });
    }
    if (indexed.size === modules.size) return { method: candidate, modules: indexed };
  }
  return { method, modules };
}

function readMetadata(dir: string): AdapterMetadata | null {
  const path = join(dir, METADATA_FILE);
  if (!existsSync(path)) return null;
  const json = readJsonObject(path) as unknown as AdapterMetadata & { schemaVersion: unknown };
  const problems = new Problems();
  if (json.schemaVersion !== SCHEMA_VERSION)
    problems.add(`schemaVersion is ${JSON.stringify(json.schemaVersion)}, expected ${SCHEMA_VERSION}`);
  if (!methodNames.includes(json.method))
    problems.add(`method is ${JSON.stringify(json.method)}, expected one of ${methodNames.join(", ")}`);
  const { base, seed, norm } = json as { base?: unknown; seed?: unknown; norm?: unknown };
  if (norm !== undefined && (norm !== "unscaled" || json.method !== "dora"))
    problems.add(
      `norm is ${JSON.stringify(norm).slice(0, 80)}, expected "unscaled", and that of a dora alone`,
    );
  if (base !== undefined && typeof base !== "string")
    problems.add(`base is ${JSON.stringify(base).slice(0, 80)}, expected the fingerprint of a model`);
  if (seed !== undefined && seed !== null && !Number.isSafeInteger(seed))
    problems.add(`seed is ${JSON.stringify(seed).slice(0, 80)}, expected a whole number`);
  problems.throwIfAny(path);
  return json;
}

/** What adapter_config.json says; null for a plain LORA, which may be SBoRA in PEFT's layout. */
function methodOf(config: PeftConfig, path: string): MethodName | null {
  if (config.peftType === "SBORA") {
    const name = config.adapterName?.replace("_", "-");
    if (name === "sbora-fa" || name === "sbora-fb") return name;
    throw new InputError(`${path}: adapter_name is ${config.adapterName}, expected sbora_fa or sbora_fb`);
  }
  if (config.peftType === "LORAFA") return "lora-fa";
  return config.useDora || config.peftType === "DORA" ? "dora" : null;
}

/** The official 4-bit repository writes a stock LORA config around SBoRA: an index vector tells it. */
function methodByIndex(indexed: ReadonlySet<string>): MethodName | null {
  if (indexed.has("lora_A")) return "sbora-fa";
  return indexed.has("lora_B") ? "sbora-fb" : null;
}

/** … and tells LoRA-FA and DoRA by the folder's name alone (protocol §1.9). */
function methodByFolder(dir: string): MethodName | null {
  if (basename(dirname(dir)) !== "adapter_model") return null;
  if (/^lora_FA(_uniform)?$/.test(basename(dir))) return "lora-fa";
  return basename(dir) === "dora" ? "dora" : null;
}

function requireMagnitudes(file: string, modules: ReadonlyMap<string, StoredFactors>): void {
  const without = [...modules].filter(([, factors]) => !factors.m).map(([module]) => module);
  if (without.length === 0) return;
  throw new InputError(
    `${file}: this is DoRA, but ${without.length} modules (${without[0]}, …) have no magnitude vector. The official 4-bit ` +
      `repository does not save it, so such a checkpoint cannot be restored; train again with another tool.`,
  );
}
