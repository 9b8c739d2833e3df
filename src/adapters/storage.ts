/**
 * Adapter folders (settled 3): adapter_model.safetensors + adapter_config.json + sbora.json. SBoRA is written with the
 * official key names and integer indices, so that half of the storage is really saved; the others as PEFT writes them.
 * With layout "peft" SBoRA becomes a LoRA with a dense one-hot factor: the same function, loadable everywhere.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { InputError, messageOf, Problems } from "../errors.ts";
import { type PeftConfig, parsePeftKey, peftKey, readPeftConfig, writePeftConfig } from "../formats/peft.ts";
import {
  readSafetensorsHeader,
  readTensorAsF32,
  readTensorBytes,
  type SafetensorsDtype,
  writeSafetensors,
} from "../formats/safetensors.ts";
import type { Device } from "../native/device.ts";
import { readF32, readI32, writeF32, writeI32 } from "../native/tensor.ts";
import { type Adapter, factor, type MethodName } from "./adapter.ts";

export const ADAPTER_FILE = "adapter_model.safetensors";
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
  readonly modules: ReadonlyMap<string, Readonly<Record<string, Float32Array | Int32Array>>>;
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
  const temporary = join(dir, `sbora.json.${process.pid}`);
  writeFileSync(temporary, text);
  renameSync(temporary, join(dir, "sbora.json"));
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

/** Rows (r × width) or columns (width × r) of the identity. */
function oneHot(index: Int32Array, width: number, rows: boolean): Float32Array {
  const dense = new Float32Array(index.length * width);
  index.forEach((at, j) => {
    dense[rows ? j * width + at : at * index.length + j] = 1;
  });
  return dense;
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
  const method = metadata?.method ?? methodOf(config, path);
  const problems = new Problems();
  const modules = new Map<string, Record<string, Float32Array | Int32Array>>();
  for (const entry of file.tensors.values()) {
    const key = parsePeftKey(entry.name);
    if (!key) {
      problems.add(
        `tensor ${entry.name} is no adapter tensor of a linear; expected …lora_A, lora_B or a magnitude`,
      );
      continue;
    }
    const factors = modules.get(key.module) ?? {};
    modules.set(key.module, factors);
    if (entry.dtype === "I64") {
      const bytes = readTensorBytes(entry);
      const wide = new BigInt64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8);
      factors.index = Int32Array.from(wide, Number);
    } else {
      const name = key.kind === "lora_A" ? "A" : key.kind === "lora_B" ? "B" : "m";
      const values = readTensorAsF32(entry);
      const bad = values.findIndex((v) => !Number.isFinite(v));
      if (bad >= 0)
        problems.add(`tensor ${entry.name} holds ${values[bad]} at element ${bad}, expected finite values`);
      factors[name] = values;
    }
  }
  if (modules.size === 0) problems.add("no adapter tensors");
  problems.throwIfAny(path);
  return { dir, config, method, metadata, modules };
}

/** Copies a folder's values into attached adapters of the same method, rank and targets. */
export function loadAdapterValues(folder: AdapterFolder, device: Device, adapters: readonly Adapter[]): void {
  const problems = new Problems();
  for (const adapter of adapters) {
    const stored = folder.modules.get(adapter.site.name);
    if (!stored) {
      problems.add(`module ${adapter.site.name} is missing`);
      continue;
    }
    for (const [name, tensor] of Object.entries({ ...adapter.trainable, ...adapter.frozen })) {
      const values = stored[name];
      const expected = tensor.shape.reduce((a, b) => a * b, 1);
      if (!values || values.length !== expected) {
        problems.add(
          `${adapter.site.name}: ${name} has ${values?.length ?? "no"} values, expected [${tensor.shape.join(", ")}]`,
        );
      } else if (values instanceof Int32Array) {
        const limit = folder.method === "sbora-fa" ? adapter.site.in : adapter.site.out;
        const legal = new Set(values).size === values.length && values.every((i) => i >= 0 && i < limit);
        if (!legal) problems.add(`${adapter.site.name}: indices must be distinct and lie in 0..${limit - 1}`);
        else writeI32(device, tensor, values);
      } else {
        writeF32(device, tensor, values);
      }
    }
  }
  problems.throwIfAny(
    join(folder.dir, ADAPTER_FILE),
    "Check that the base model is the one the adapter was trained on.",
  );
}

function readMetadata(dir: string): AdapterMetadata | null {
  const path = join(dir, "sbora.json");
  if (!existsSync(path)) return null;
  try {
    const json = JSON.parse(readFileSync(path, "utf8")) as AdapterMetadata & { schemaVersion: number };
    if (json.schemaVersion === SCHEMA_VERSION && typeof json.method === "string") return json;
  } catch (error) {
    throw new InputError(`${path}: not valid JSON (${messageOf(error)})`);
  }
  throw new InputError(
    `${path}: schemaVersion or method is missing; expected schemaVersion ${SCHEMA_VERSION}`,
  );
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
