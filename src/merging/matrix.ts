/**
 * One matrix merged by the library's own arithmetic (`Method.merge`): held in f32, all adapters added one after the
 * other, rounded once to the type it is stored in. Needs memory for this matrix and its factors only.
 */
import { createAdapter, freeAdapter } from "../adapters/detached.ts";
import { MERGE_ROWS } from "../adapters/draw.ts";
import { writeFactors } from "../adapters/storage.ts";
import { InputError } from "../errors.ts";
import { type FloatDtype, isFloatDtype, narrow, widen } from "../formats/half.ts";
import { readTensorBytes, type TensorEntry } from "../formats/safetensors.ts";
import type { Arena } from "../native/arena.ts";
import type { Device } from "../native/device.ts";
import { createTensor, freeTensor, readF32, type Tensor, writeI32 } from "../native/tensor.ts";
import { createWeight, freeWeight, readWeightRows, type Weight } from "../native/weight.ts";
import type { Part } from "./sources.ts";

export interface MergedMatrix {
  /** [out,in] in the stored type. */
  readonly bytes: Uint8Array;
  /** Weights that f32 arithmetic changed. */
  readonly updates: number;
  /** … of which rounding to the stored type gave the base's value back. */
  readonly lost: number;
}

/** `scratch` must hold what planMerge says for these adapters. @throws InputError when a merged weight is not finite */
export function mergeMatrix(
  device: Device,
  base: TensorEntry,
  parts: readonly Part[],
  dtype: FloatDtype,
  scratch: Arena,
): MergedMatrix {
  const shape = base.shape as [number, number];
  return mergeValues(device, base.name, readAsF32(base), shape, parts, dtype, scratch);
}

/** The same of values [out,in]. */
export function mergeValues(
  device: Device,
  name: string,
  before: Float32Array,
  [out, width]: readonly [number, number],
  parts: readonly Part[],
  dtype: FloatDtype,
  scratch: Arena,
): MergedMatrix {
  const weight = createWeight(device, { name, data: before, dtype: "f32", out, in: width, compute: "f32" });
  try {
    for (const part of parts) addPart(device, weight, part, scratch);
    return readBack(device, weight, before, dtype, name);
  } finally {
    freeWeight(device, weight);
  }
}

/** A tensor's values; @throws InputError for what is no F32, BF16 or F16 */
export function readAsF32(entry: TensorEntry): Float32Array {
  if (isFloatDtype(entry.dtype)) return widen(entry.dtype, readTensorBytes(entry));
  throw new InputError(
    `${entry.file}: tensor ${entry.name} is ${entry.dtype}; only F32, BF16 and F16 weights can be merged.`,
  );
}

function addPart(device: Device, weight: Weight, { method, site, stored }: Part, scratch: Arena): void {
  const adapter = createAdapter(device, method, site);
  try {
    writeFactors(device, adapter, stored);
    method.merge(device, adapter, weight, scratch);
  } finally {
    freeAdapter(device, adapter);
  }
}

function readBack(
  device: Device,
  weight: Weight,
  before: Float32Array,
  dtype: FloatDtype,
  name: string,
): MergedMatrix {
  const { out, in: width } = weight;
  const size = dtype === "F32" ? 4 : 2;
  const bytes = new Uint8Array(out * width * size);
  const values = createTensor(device, "f32", [MERGE_ROWS, width]);
  const counts = { updates: 0, lost: 0 };
  try {
    for (let first = 0; first < out; first += MERGE_ROWS) {
      const count = Math.min(MERGE_ROWS, out - first);
      const merged = readRows(device, weight, first, count, values);
      const stored = narrow(dtype, merged);
      const old = before.subarray(first * width, (first + count) * width);
      countUpdates(dtype, old, merged, stored, counts);
      requireFinite(dtype, stored, name);
      bytes.set(stored, first * width * size);
    }
  } finally {
    freeTensor(device, values);
  }
  return { bytes, ...counts };
}

function readRows(device: Device, weight: Weight, first: number, count: number, into: Tensor): Float32Array {
  const rows = createTensor(device, "i32", [count]);
  const values = { ...into, shape: [count, weight.in] };
  writeI32(
    device,
    rows,
    Int32Array.from({ length: count }, (_, i) => first + i),
  );
  readWeightRows(device, weight, rows, values);
  freeTensor(device, rows);
  return readF32(device, values);
}

function countUpdates(
  dtype: FloatDtype,
  before: Float32Array,
  merged: Float32Array,
  stored: Uint8Array,
  counts: { updates: number; lost: number },
): void {
  const now = bitsOf(dtype, stored);
  const then = bitsOf(dtype, narrow(dtype, before));
  for (let i = 0; i < merged.length; i++) {
    if (merged[i] === before[i]) continue;
    counts.updates++;
    if (now[i] === then[i]) counts.lost++;
  }
}

/** Bit patterns, an element each. */
export function bitsOf(dtype: FloatDtype, bytes: Uint8Array): Uint16Array | Uint32Array {
  const { buffer, byteOffset, byteLength } = bytes;
  return dtype === "F32"
    ? new Uint32Array(buffer, byteOffset, byteLength / 4)
    : new Uint16Array(buffer, byteOffset, byteLength / 2);
}

/** Bits that are all set in infinities and NaN. */
const EXPONENTS: Readonly<Record<FloatDtype, number>> = { F32: 0x7f800000, BF16: 0x7f80, F16: 0x7c00 };

/** Number of infinities and NaN. */
export function countNonFinite(dtype: FloatDtype, bytes: Uint8Array): number {
  const exponent = EXPONENTS[dtype];
  let count = 0;
  for (const bits of bitsOf(dtype, bytes)) if ((bits & exponent) === exponent) count++;
  return count;
}

function requireFinite(dtype: FloatDtype, bytes: Uint8Array, name: string): void {
  const bad = countNonFinite(dtype, bytes);
  if (bad === 0) return;
  throw new InputError(
    `tensor ${name}: ${bad} merged weights are infinite or NaN as ${dtype}, expected finite values; ` +
      `${dtype === "F16" ? "take --dtype bf16 or f32, whose range is larger" : "check the adapter's values and weight"}.`,
  );
}
