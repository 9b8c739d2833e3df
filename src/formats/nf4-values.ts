/** The values of a 4-bit matrix, as bitsandbytes dequantizes them. */
import { bf16ToF32, type FloatDtype, f16ToF32, f32ToBf16, f32ToF16 } from "./half.ts";
import { type Nf4Entry, type Nf4Lines, readNf4Lines, readNf4Scales } from "./nf4.ts";
import { NF4_BLOCK, NF4_CODES } from "./nf4-scales.ts";
import { readTensorBytes } from "./safetensors.ts";

/** Code book times scale in f32, rounded to `dtype`: f32 [count]. */
export function dequantizeNf4(
  codes: Uint8Array,
  scales: Float32Array,
  count: number,
  dtype: FloatDtype,
): Float32Array<ArrayBuffer> {
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const both = codes[i >> 1]!;
    const scale = scales[Math.floor(i / NF4_BLOCK)]!; // a block has an even length: both lie in one
    values[i] = NF4_CODES[both >> 4]! * scale;
    if (i + 1 < count) values[i + 1] = NF4_CODES[both & 15]! * scale;
  }
  if (dtype === "F32") return values;
  return (
    dtype === "BF16" ? bf16ToF32(f32ToBf16(values)) : f16ToF32(f32ToF16(values))
  ) as Float32Array<ArrayBuffer>;
}

/** Puts replaced columns or rows over the values of a matrix [out,in]. */
export function overlayNf4Lines(values: Float32Array, lines: Nf4Lines, out: number, width: number): void {
  const { kind, indices } = lines;
  const exact = bf16ToF32(lines.values);
  const r = indices.length;
  indices.forEach((index, j) => {
    if (kind === "rows") values.set(exact.subarray(j * width, (j + 1) * width), index * width);
    else for (let row = 0; row < out; row++) values[row * width + index] = exact[row * r + j]!;
  });
}

/** A matrix of a file, replaced lines in place. */
export function readNf4Values(entry: Nf4Entry): Float32Array<ArrayBuffer> {
  const { out, in: width, dtype } = entry;
  const values = dequantizeNf4(readTensorBytes(entry.codes), readNf4Scales(entry), out * width, dtype);
  const lines = readNf4Lines(entry);
  if (lines) overlayNf4Lines(values, lines, out, width);
  return values;
}
