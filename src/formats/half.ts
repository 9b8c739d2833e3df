/**
 * f32 <-> bf16 and f16, on whole arrays. 16-bit values travel as their bit patterns in a Uint16Array; narrowing rounds
 * to nearest, ties to even. Byte order is the host's, which is little-endian on every machine Bun runs on.
 */

/** bf16 is the upper half of an f32: widening is exact. */
export function bf16ToF32(bits: Uint16Array): Float32Array {
  const wide = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) wide[i] = bits[i]! << 16;
  return new Float32Array(wide.buffer);
}

/** Values beyond the largest bf16 become infinite, NaN stays NaN. */
export function f32ToBf16(values: Float32Array): Uint16Array {
  const wide = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < wide.length; i++) {
    const word = wide[i]!;
    // A NaN must not be rounded: the carry could make it an infinity or even a zero.
    const nan = (word & 0x7fffffff) > 0x7f800000;
    bits[i] = nan ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return bits;
}

/** Exact, subnormals included. */
export function f16ToF32(bits: Uint16Array): Float32Array {
  return new Float32Array(new Float16Array(bits.buffer, bits.byteOffset, bits.length));
}

/** Values that round beyond 65504 become infinite, NaN stays NaN. */
export function f32ToF16(values: Float32Array): Uint16Array {
  return new Uint16Array(new Float16Array(values).buffer);
}

let f16Table: Float32Array | null = null;

/** The f16 at `bytes[at]`, little-endian. */
export function f16At(bytes: Uint8Array, at: number): number {
  f16Table ??= f16ToF32(Uint16Array.from({ length: 65536 }, (_, i) => i));
  return f16Table[bytes[at]! | (bytes[at + 1]! << 8)]!;
}

/** The same memory as bytes. */
export function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

export const floatDtypes = ["F32", "BF16", "F16"] as const;
/** The types weights are stored in. */
export type FloatDtype = (typeof floatDtypes)[number];

export function isFloatDtype(dtype: string): dtype is FloatDtype {
  return floatDtypes.some((known) => known === dtype);
}

/** Stored values as f32, exactly. `bytes` must start at a multiple of the element size of its buffer. */
export function widen(dtype: FloatDtype, bytes: Uint8Array): Float32Array {
  const { buffer, byteOffset, byteLength } = bytes;
  if (dtype === "F32") return new Float32Array(buffer, byteOffset, byteLength / 4);
  const bits = new Uint16Array(buffer, byteOffset, byteLength / 2);
  return dtype === "BF16" ? bf16ToF32(bits) : f16ToF32(bits);
}

/** Values rounded once to the stored type (F32: the same memory). */
export function narrow(dtype: FloatDtype, values: Float32Array): Uint8Array {
  return bytesOf(dtype === "F32" ? values : dtype === "BF16" ? f32ToBf16(values) : f32ToF16(values));
}
