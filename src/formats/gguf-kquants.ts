/**
 * ggml's K-quants: blocks of 256 elements, with one f16 scale (and minimum) for the block and small integer scales for
 * its 8 or 16 sub-blocks. One function a type; layouts as in ggml-quants.h.
 */
import { f16At } from "./half.ts";

/** scales[16] (4 bits scale, 4 bits minimum), codes[64] of 2 bits, d, dmin. */
export function q2K(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = f16At(bytes, at + 80);
  const dmin = f16At(bytes, at + 82);
  for (let i = 0; i < 256; i++) {
    const scale = bytes[at + (i >> 4)]!;
    const q = twoBits(bytes, at + 16, i);
    out[to + i] = d * (scale & 15) * q - dmin * (scale >> 4);
  }
}

/** high bits[32], codes[64] of 2 bits, scales[12] of 6 bits, d. A clear high bit subtracts 4. */
export function q3K(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = f16At(bytes, at + 108);
  const scales = at + 96;
  for (let i = 0; i < 256; i++) {
    const sub = i >> 4;
    const low = (bytes[scales + (sub & 7)]! >> (4 * (sub >> 3))) & 15;
    const high = (bytes[scales + 8 + (sub & 3)]! >> (2 * (sub >> 2))) & 3;
    const set = (bytes[at + (i & 31)]! >> (i >> 5)) & 1;
    out[to + i] = d * ((low | (high << 4)) - 32) * (twoBits(bytes, at + 32, i) - 4 * (1 - set));
  }
}

/** d, dmin, scales and minima[12] of 6 bits, codes[128] of 4 bits. */
export function q4K(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = f16At(bytes, at);
  const dmin = f16At(bytes, at + 2);
  for (let sub = 0; sub < 8; sub++) {
    const scale = d * scaleOf(bytes, at + 4, sub);
    const min = dmin * minimumOf(bytes, at + 4, sub);
    for (let i = 0; i < 32; i++) {
      const q = (bytes[at + 16 + 32 * (sub >> 1) + i]! >> (4 * (sub & 1))) & 15;
      out[to + 32 * sub + i] = scale * q - min;
    }
  }
}

/** As q4K with a fifth bit per element in high bits[32] before the codes. */
export function q5K(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = f16At(bytes, at);
  const dmin = f16At(bytes, at + 2);
  for (let sub = 0; sub < 8; sub++) {
    const scale = d * scaleOf(bytes, at + 4, sub);
    const min = dmin * minimumOf(bytes, at + 4, sub);
    for (let i = 0; i < 32; i++) {
      const low = (bytes[at + 48 + 32 * (sub >> 1) + i]! >> (4 * (sub & 1))) & 15;
      const high = (bytes[at + 16 + i]! >> sub) & 1;
      out[to + 32 * sub + i] = scale * (low | (high << 4)) - min;
    }
  }
}

/** low codes[128] of 4 bits, high codes[64] of 2 bits, signed scales[16], d. */
export function q6K(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const d = f16At(bytes, at + 208);
  for (let i = 0; i < 256; i++) {
    const half = i >> 7;
    const low = (bytes[at + 64 * half + (i & 63)]! >> (4 * ((i >> 6) & 1))) & 15;
    const high = twoBits(bytes, at + 128, i);
    const scale = (bytes[at + 192 + (i >> 4)]! << 24) >> 24;
    out[to + i] = d * scale * ((low | (high << 4)) - 32);
  }
}

/** Element i of 2-bit codes: 128 elements lie in 32 bytes, 32 elements a bit pair. */
function twoBits(bytes: Uint8Array, at: number, i: number): number {
  return (bytes[at + 32 * (i >> 7) + (i & 31)]! >> (2 * ((i >> 5) & 3))) & 3;
}

/** 6-bit scale of sub-block 0..7 out of 12 bytes: the first four lie plainly, the others are split. */
function scaleOf(bytes: Uint8Array, at: number, sub: number): number {
  if (sub < 4) return bytes[at + sub]! & 63;
  return (bytes[at + 4 + sub]! & 15) | ((bytes[at + sub - 4]! >> 2) & 48);
}

function minimumOf(bytes: Uint8Array, at: number, sub: number): number {
  if (sub < 4) return bytes[at + 4 + sub]! & 63;
  return (bytes[at + 4 + sub]! >> 4) | ((bytes[at + sub]! >> 2) & 48);
}
