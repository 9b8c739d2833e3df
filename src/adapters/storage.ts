/**
 * Adapter folders (settled 3): adapter_model.safetensors + adapter_config.json + sbora.json. SBoRA is written with the
 * official key names and integer indices, so that half of the storage is really saved; the others as PEFT writes them.
 * With layout "peft" SBoRA becomes a LoRA with a dense one-hot factor: the same function, loadable everywhere.
 */
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { InputError, messageOf, Problems } from "../errors.ts";
import { readJsonObject, writeTextFile } from "../formats/files.ts";
import { type PeftConfig, parsePeftKey, peftKey, readPeftConfig, writePeftConfig } from "../formats/peft.ts";
import {
  readSafetensorsHeader,
  readTensorAsF32,
  readTensorBytes,
  type SafetensorsDtype,
  type TensorEntry,
  writeSafetensors,
} from "../formats/safetensors.ts";
import type { Device } from "../native/device.ts";
import { readF32, readI32, writeF32, writeI32 } from "../native/tensor.ts";
import { type Adapter, factor, type MethodName, methodNames } from "./adapter.ts";
import { indicesOfOneHot, oneHot } from "./one-hot.ts";

export const ADAPTER_FILE = "adapter_model.safetensors";
const METADATA_FILE = "sbora.json";
const SCHEMA_VERSION = 1;

/** What sbora.json says beside PEFT's own file. */
export interface AdapterMetadata {
  readonly method: MethodName;
  readonly seed: number;
  /** Fingerprint of the base the adapter was trained on. */
  readonly base: string;
  readonly recipe: unknown;
  readonly templateHash: string | null;
}

export interface AdapterFolder {
  readonly dir: string;
  readonly config: PeftConfig;
  readonly method: MethodName;
  readonly metadata: AdapterMetadata | null;
  /** By module path, then by factor name as the method calls it. */
  readonly modules: ReadonlyMap<string, StoredFactors>;
}

export type StoredFactors = Readonly<Record<string, StoredFactor>>;

export interface StoredFactor {
  readonly shape: readonly number[];
  readonly values: Float32Array | Int32Array;
}

export interface SaveOptions {
  readonly layout: "native" | "peft";
  readonly baseModel: string;
  readonly targets: readonly string[];
  readonly alpha: number;
  readonly dropout: number;
  readonly metadata: AdapterMetadata;
}

interface Entry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  readonly bytes: () => Uint8Array;
}

/** Writes the folder; each file is replaced atomically. */
export function saveAdapter(
  dir: string,
  device: Device,
  adapters: readonly Adapter[],
  options: SaveOptions,
): void {
  const first = adapters[0];
  if (!first) throw new Error("there is no adapter to save");
  const native = options.layout === "native";
  const entries = adapters.flatMap((adapter) => entriesOf(device, adapter, native));
  makeFolder(dir);
  const sbora = first.method.name === "sbora-fa" || first.method.name === "sbora-fb";
  writeSafetensors(join(dir, ADAPTER_FILE), entries, { format: "pt" });
  writePeftConfig(dir, {
    peftType: native && sbora ? "SBORA" : "LORA",
    adapterName: native && sbora ? first.method.name.replace("-", "_") : null,
    rank: first.site.rank,
    alpha: options.alpha,
    dropout: options.dropout,
    targetModules: [...options.targets],
    useDora: first.method.name === "dora",
    useRslora: false,
    rankPattern: {},
    alphaPattern: {},
    baseModel: options.baseModel,
    modulesToSave: [],
  });
  const text = `${JSON.stringify({ schemaVersion: SCHEMA_VERSION, ...options.metadata }, null, 2)}\n`;
  writeTextFile(join(dir, METADATA_FILE), text);
}

function makeFolder(dir: string): void {
  try {
    mkdirSync(dir, { recursive: true });
  } catch (error) {
    throw new InputError(`${dir}: the folder cannot be made (${messageOf(error)}); choose another --out`);
  }
}

function entriesOf(device: Device, adapter: Adapter, native: boolean): Entry[] {
  const { site, method, trainable, frozen } = adapter;
  const real = (key: "lora_A" | "lora_B" | "magnitude", tensor = factor(trainable, "B")): Entry => ({
    name: peftKey(site.name, key),
    dtype: "F32",
    shape: tensor.shape,
    bytes: () => bytesOf(readF32(device, tensor)),
  });
  if (method.name === "sbora-fa" || method.name === "sbora-fb") {
    const fa = method.name === "sbora-fa";
    const trained = fa ? real("lora_B") : real("lora_A", factor(trainable, "A"));
    const width = fa ? site.in : site.out;
    const key = fa ? "lora_A" : "lora_B";
    const index = readI32(device, factor(frozen, "index"));
    if (native) {
      const name = peftKey(site.name, key).replace(/\.weight$/, "");
      return [
        trained,
        { name, dtype: "I64", shape: [site.rank], bytes: () => bytesOf(BigInt64Array.from(index, BigInt)) },
      ];
    }
    const shape = fa ? [site.rank, width] : [width, site.rank];
    return [
      trained,
      { name: peftKey(site.name, key), dtype: "F32", shape, bytes: () => bytesOf(oneHot(index, width, fa)) },
    ];
  }
  const A = real(
    "lora_A",
    factor(method.name === "lora" || method.name === "dora" ? trainable : frozen, "A"),
  );
  const entries = [A, real("lora_B")];
  return method.name === "dora" ? [...entries, real("magnitude", factor(trainable, "m"))] : entries;
}

function bytesOf(values: Float32Array | BigInt64Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** Reads an adapter folder of ours or of PEFT's (LoRA, DoRA). @throws InputError naming file, tensor, value, expected. */
export function readAdapter(dir: string): AdapterFolder {
  const config = readPeftConfig(dir);
  const metadata = readMetadata(dir);
  const path = join(dir, ADAPTER_FILE);
  const file = readSafetensorsHeader(path);
  const problems = new Problems();
  const stored = new Map<string, Record<string, StoredFactor>>();
  for (const entry of file.tensors.values()) {
    const key = parsePeftKey(entry.name);
    if (!key) {
      problems.add(
        `tensor ${entry.name} is no adapter tensor of a linear; expected …lora_A, lora_B or a magnitude`,
      );
      continue;
    }
    const factors = stored.get(key.module) ?? {};
    stored.set(key.module, factors);
    if (entry.dtype === "I64") factors.index = readIndices(entry, problems);
    else
      factors[key.kind === "lora_A" ? "A" : key.kind === "lora_B" ? "B" : "m"] = readFactor(entry, problems);
  }
  if (stored.size === 0) problems.add("no adapter tensors");
  problems.throwIfAny(path);
  const { method, modules } = recognise(metadata?.method ?? methodOf(config, path), metadata, stored);
  return { dir, config, method, metadata, modules };
}

function readIndices(entry: TensorEntry, problems: Problems): StoredFactor {
  const wide = new BigInt64Array(readTensorBytes(entry).buffer);
  const bad = wide.findIndex((index) => index < 0n || index >= 2n ** 31n);
  if (bad >= 0)
    problems.add(`tensor ${entry.name} holds ${wide[bad]} at element ${bad}, expected an index from 0`);
  return { shape: entry.shape, values: Int32Array.from(wide, Number) };
}

function readFactor(entry: TensorEntry, problems: Problems): StoredFactor {
  const values = readTensorAsF32(entry);
  const bad = values.findIndex((v) => !Number.isFinite(v));
  if (bad >= 0)
    problems.add(`tensor ${entry.name} holds ${values[bad]} at element ${bad}, expected finite values`);
  return { shape: entry.shape, values };
}

/**
 * SBoRA in PEFT's layout is a LoRA with a dense one-hot factor (settled 3): when every module has one, its indices take
 * the factor's place. A folder that says itself it is something else than LoRA is taken at its word.
 */
function recognise(
  method: MethodName,
  metadata: AdapterMetadata | null,
  modules: ReadonlyMap<string, StoredFactors>,
): { method: MethodName; modules: ReadonlyMap<string, StoredFactors> } {
  const candidates: MethodName[] =
    metadata === null && method === "lora" ? ["sbora-fa", "sbora-fb"] : [method];
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

/** Copies a folder's values into attached adapters of the same method, rank and targets. */
export function loadAdapterValues(folder: AdapterFolder, device: Device, adapters: readonly Adapter[]): void {
  const problems = new Problems();
  const attached = new Set(adapters.map((adapter) => adapter.site.name));
  for (const module of folder.modules.keys()) {
    if (!attached.has(module)) problems.add(`module ${module} has an adapter, but none is wanted there`);
  }
  const writes: (() => void)[] = [];
  for (const adapter of adapters) {
    const { site } = adapter;
    const stored = folder.modules.get(site.name);
    if (!stored) {
      problems.add(`module ${site.name} is missing`);
      continue;
    }
    for (const [name, tensor] of Object.entries({ ...adapter.trainable, ...adapter.frozen })) {
      const found = stored[name];
      if (!found || !sameShape(found.shape, tensor.shape)) {
        const shape = found ? `shape [${found.shape.join(", ")}]` : "no values";
        problems.add(`${site.name}: ${name} has ${shape}, expected [${tensor.shape.join(", ")}]`);
        continue;
      }
      const { values } = found;
      if (values instanceof Float32Array) {
        writes.push(() => writeF32(device, tensor, values));
        continue;
      }
      const limit = adapter.method.name === "sbora-fa" ? site.in : site.out;
      const legal = new Set(values).size === values.length && values.every((i) => i < limit);
      if (!legal) problems.add(`${site.name}: indices must be distinct and lie in 0..${limit - 1}`);
      writes.push(() => writeI32(device, tensor, values));
    }
  }
  problems.throwIfAny(
    join(folder.dir, ADAPTER_FILE),
    "Check that the base model is the one the adapter was trained on.",
  );
  for (const write of writes) write();
}

/** Equal but for dimensions of 1: a magnitude may be stored as [out] or [1, out]. */
function sameShape(a: readonly number[], b: readonly number[]): boolean {
  const wide = (shape: readonly number[]): string => shape.filter((n) => n !== 1).join();
  return wide(a) === wide(b);
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
  problems.throwIfAny(path);
  return json;
}

function methodOf(config: PeftConfig, path: string): MethodName {
  if (config.peftType === "SBORA") {
    const name = config.adapterName?.replace("_", "-");
    if (name === "sbora-fa" || name === "sbora-fb") return name;
    throw new InputError(`${path}: adapter_name is ${config.adapterName}, expected sbora_fa or sbora_fb`);
  }
  if (config.peftType === "LORAFA") return "lora-fa";
  return config.useDora || config.peftType === "DORA" ? "dora" : "lora";
}
