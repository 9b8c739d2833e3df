/** f32 rows in the types that models are exported to. */
import { f32ToF16, narrow } from "./half.ts";

export const exportTypes = ["F32", "F16", "BF16", "Q8_0"] as const;
export type ExportType = (typeof exportTypes)[number];

const BLOCK = 32;

/** Whether rows of `width` elements are whole blocks of the type. */
export function fitsType(type: ExportType, width: number): boolean {
  return type !== "Q8_0" || width % BLOCK === 0;
}

/** Values rounded once; Q8_0 bit by bit as ggml's reference. */
export function quantize(type: ExportType, values: Float32Array): Uint8Array {
  return type === "Q8_0" ? q8_0(values) : narrow(type, values);
}

/** Blocks of 32: scale d = max|x| / 127 as f16, then x/d (by the f32 scale) rounded to whole, halves away from zero. */
function q8_0(values: Float32Array): Uint8Array {
  const blocks = values.length / BLOCK;
  const scales = new Float32Array(blocks);
  const bytes = new Uint8Array(blocks * (2 + BLOCK));
  for (let b = 0; b < blocks; b++) {
    let most = 0;
    for (let i = 0; i < BLOCK; i++) most = Math.max(most, Math.abs(values[b * BLOCK + i]!));
    const d = Math.fround(most / 127);
    const inverse = d === 0 ? 0 : Math.fround(1 / d);
    scales[b] = d;
    for (let i = 0; i < BLOCK; i++) {
      const scaled = Math.fround(values[b * BLOCK + i]! * inverse);
      const whole = Math.floor(Math.abs(scaled) + 0.5);
      bytes[b * (2 + BLOCK) + 2 + i] = scaled < 0 ? -whole : whole;
    }
  }
  f32ToF16(scales).forEach((bits, b) => {
    bytes[b * (2 + BLOCK)] = bits & 0xff;
    bytes[b * (2 + BLOCK) + 1] = bits >> 8;
  });
  return bytes;
}
