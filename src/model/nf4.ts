/**
 * Models whose block linears are NF4: out of bitsandbytes' folders, or quantized while an ordinary folder is loaded, as
 * transformers does it. Embedding, head and norms stay as they are.
 */
import type { Compute } from "../adapters/adapter.ts";
import { InputError } from "../errors.ts";
import { bf16ToF32 } from "../formats/half.ts";
import { findNf4, type Nf4Entry, readNf4Lines, readNf4Scales } from "../formats/nf4.ts";
import { nestScales, unnestScales } from "../formats/nf4-scales.ts";
import { openModelTensors } from "../formats/safetensors.ts";
import type { Device } from "../native/device.ts";
import { createNf4Weight, quantizeNf4 } from "../native/nf4.ts";
import { createTensor, freeTensor, writeF32, writeI32 } from "../native/tensor.ts";
import { type Weight, type WeightSource, writeWeightColumns, writeWeightRows } from "../native/weight.ts";

export const quantizations = ["nf4", "nf4-double"] as const;
/** nf4-double: the scales in 8 bits too. */
export type Quantization = (typeof quantizations)[number];

/** Bytes of a quantized value in memory, where scales are always f32. */
export const NF4_BYTES = 0.5 + 4 / 64;

/** The linears of blocks, and nothing else of a model. */
export function isQuantized(name: string): boolean {
  return /^model\.layers\.\d+\.\w+\.\w+_proj\.weight$/.test(name);
}

/** What the codes of a dense matrix stand for, held as codes; rounded to the compute type, as the original would be. */
export function quantizedWeight(device: Device, source: WeightSource, quantization: Quantization): Weight {
  const { name, out, in: width, compute } = source;
  const { codes, absmax } = quantizeNf4(device, source);
  const scales = quantization === "nf4-double" ? unnestScales(nestScales(absmax)) : absmax;
  return createNf4Weight(device, { name, codes, absmax: scales, dtype: compute, out, in: width, compute });
}

/** Whether a folder's block linears are 4-bit already. */
export function isNf4Folder(dir: string): boolean {
  const tensors = openModelTensors(dir);
  return [...tensors.keys()].some((name) => isQuantized(name) && findNf4(tensors, name) !== null);
}

const DTYPES = { F32: "f32", F16: "f16", BF16: "bf16" } as const;

/** A 4-bit matrix of a folder, its replaced columns or rows in place; `codes`: where they are mapped. */
export function storedNf4Weight(
  device: Device,
  entry: Nf4Entry,
  codes: { readonly address: number },
  [out, width]: readonly [number, number],
  compute: Compute,
): Weight {
  if (entry.out !== out || entry.in !== width) {
    throw new InputError(
      `${entry.codes.file}: tensor ${entry.name} is quantized from [${entry.out}, ${entry.in}], but config.json asks for [${out}, ${width}]`,
    );
  }
  const weight = createNf4Weight(device, {
    name: `${entry.codes.file}: tensor ${entry.name}`,
    codes,
    absmax: readNf4Scales(entry),
    dtype: DTYPES[entry.dtype],
    out,
    in: width,
    compute,
  });
  return { ...weight, merged: writeLines(device, weight, entry) };
}

/** Whether there were any. */
function writeLines(device: Device, weight: Weight, entry: Nf4Entry): boolean {
  const lines = readNf4Lines(entry);
  if (!lines || lines.indices.length === 0) return false;
  const { kind, indices, values } = lines;
  const n = indices.length;
  const index = createTensor(device, "i32", [n]);
  const data = createTensor(device, "f32", kind === "columns" ? [weight.out, n] : [n, weight.in]);
  writeI32(device, index, indices);
  writeF32(device, data, bf16ToF32(values));
  (kind === "columns" ? writeWeightColumns : writeWeightRows)(device, weight, index, data);
  freeTensor(device, index);
  freeTensor(device, data);
  return true;
}
