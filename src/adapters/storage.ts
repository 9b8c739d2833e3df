/**
 * Adapter folders (settled 3), written and copied into adapters (folder.ts reads them): adapter_model.safetensors +
 * adapter_config.json + sbora.json. SBoRA is written with the official key names and integer indices, so that half of
 * the storage is really saved; the others as PEFT writes them. With layout "peft" SBoRA becomes a LoRA with a dense
 * one-hot factor: the same function, loadable everywhere.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { InputError, messageOf, Problems } from "../errors.ts";
import { writeTextFile } from "../formats/files.ts";
import { peftKey, writePeftConfig } from "../formats/peft.ts";
import { type SafetensorsDtype, writeSafetensors } from "../formats/safetensors.ts";
import type { Device } from "../native/device.ts";
import { readF32, readI32, writeF32, writeI32 } from "../native/tensor.ts";
import { type Adapter, factor } from "./adapter.ts";
import {
  ADAPTER_FILE,
  type AdapterFolder,
  type AdapterMetadata,
  METADATA_FILE,
  SCHEMA_VERSION,
  type StoredFactors,
} from "./folder.ts";
import { oneHot } from "./one-hot.ts";

export {
  ADAPTER_FILE,
  type AdapterFolder,
  type AdapterMetadata,
  readAdapter,
  type StoredFactor,
  type StoredFactors,
} from "./folder.ts";

export interface SaveOptions {
  readonly layout: "native" | "peft";
  readonly baseModel: string;
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
  const { norm } = first.method;
  if (norm && !native) throw new Error("PEFT has no DoRA of this norm");
  const entries = adapters.flatMap((adapter) => entriesOf(device, adapter, native));
  makeFolder(dir);
  const sbora = first.method.name === "sbora-fa" || first.method.name === "sbora-fb";
  writeSafetensors(join(dir, ADAPTER_FILE), entries, { format: "pt" });
  writePeftConfig(dir, {
    // A name that PEFT does not know: it would take the other norm.
    peftType: native && sbora ? "SBORA" : norm ? "DORA" : "LORA",
    adapterName: native && sbora ? first.method.name.replace("-", "_") : null,
    rank: first.site.rank,
    alpha: options.alpha,
    dropout: options.dropout,
    targetModules: targetsOf(adapters),
    useDora: first.method.name === "dora",
    useRslora: false,
    rankPattern: {},
    alphaPattern: {},
    baseModel: options.baseModel,
    modulesToSave: [],
  });
  const text = `${JSON.stringify({ schemaVersion: SCHEMA_VERSION, ...options.metadata, norm }, null, 2)}\n`;
  writeTextFile(join(dir, METADATA_FILE), text);
}

/** Names of the adapted linears: a list that holds "all-linear" names no module to PEFT. */
function targetsOf(adapters: readonly Adapter[]): string[] {
  return [...new Set(adapters.map(({ site }) => site.name.split(".").at(-1)!))];
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

/** Copies a folder's values into attached adapters of the same method, ranks and targets. */
export function loadAdapterValues(folder: AdapterFolder, device: Device, adapters: readonly Adapter[]): void {
  const problems = new Problems();
  const attached = new Set(adapters.map((adapter) => adapter.site.name));
  for (const module of folder.modules.keys()) {
    if (!attached.has(module)) problems.add(`module ${module} has an adapter, but none is wanted there`);
  }
  for (const adapter of adapters) {
    const stored = folder.modules.get(adapter.site.name);
    if (stored) checkFactors(stored, adapter, problems);
    else problems.add(`module ${adapter.site.name} is missing`);
  }
  problems.throwIfAny(folder.file, "Check that the base model is the one the adapter was trained on.");
  for (const adapter of adapters) writeFactors(device, adapter, folder.modules.get(adapter.site.name)!);
}

/** Whether stored factors fit an adapter: all there, of its shapes, indices distinct and within the matrix. */
export function checkFactors(
  stored: StoredFactors,
  { site, method }: Pick<Adapter, "site" | "method">,
  problems: Problems,
): void {
  for (const [name, { dtype, shape }] of Object.entries({
    ...method.trainable(site),
    ...method.frozen(site),
  })) {
    const found = stored[name];
    if (!found || !sameShape(found.shape, shape)) {
      const what = found ? `shape [${found.shape.join(", ")}]` : "no values";
      problems.add(`${site.name}: ${name} has ${what}, expected [${shape.join(", ")}]`);
    } else if (dtype === "i32") {
      const { values } = found;
      const limit = method.name === "sbora-fa" ? site.in : site.out;
      const legal = new Set(values).size === values.length && values.every((i) => i < limit);
      if (!legal) problems.add(`${site.name}: indices must be distinct and lie in 0..${limit - 1}`);
    }
  }
}

/** Copies checked factors into the adapter's tensors. */
export function writeFactors(device: Device, adapter: Adapter, stored: StoredFactors): void {
  for (const [name, tensor] of Object.entries({ ...adapter.trainable, ...adapter.frozen })) {
    const { values } = stored[name]!;
    if (values instanceof Float32Array) writeF32(device, tensor, values);
    else writeI32(device, tensor, values);
  }
}

/** Equal but for dimensions of 1: a magnitude may be stored as [out] or [1, out]. */
function sameShape(a: readonly number[], b: readonly number[]): boolean {
  const wide = (shape: readonly number[]): string => shape.filter((n) => n !== 1).join();
  return wide(a) === wide(b);
}
