/**
 * NF4's numbers as bitsandbytes 0.50 has them (`scripts/peers/nf4_goldens.py`): the code book, and double quantization
 * of the blocks' scales. Every step is rounded to float32 where bitsandbytes rounds, so that the bits are its own.
 */

/** Values of a matrix, flattened row by row, that share one scale. */
export const NF4_BLOCK = 64;
/** Scales that share one scale of their own under double quantization. */
export const NESTED_BLOCK = 256;

/** Values of an 8-bit code. */
export const DYNAMIC_MAP_SIZE = 256;

/** What the 16 codes stand for, times the block's scale. */
export const NF4_CODES: Float32Array<ArrayBuffer> = Float32Array.of(
  ...[-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453],
  ...[-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0],
  ...[0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
  ...[0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1],
);

/** Scales of a matrix of `count` values. */
export function nf4Blocks(count: number): number {
  return Math.ceil(count / NF4_BLOCK);
}

/** Bytes of its codes, two a byte, the first in the high half. */
export function nf4Bytes(count: number): number {
  return Math.ceil(count / 2);
}

/** Scales in 8 bits: value[i] = map[codes[i]] · absmax[i / 256] + offset. */
export interface NestedScales {
  readonly codes: Uint8Array;
  /** f32, one a block of 256 scales. */
  readonly absmax: Float32Array;
  /** f32 [256], ascending. */
  readonly map: Float32Array;
  /** An f32 value: the mean of the scales. */
  readonly offset: number;
}

const { fround } = Math;

/**
 * bitsandbytes' signed dynamic map: seven decades from 1e-7 to 1, the number of values doubling with each, both signs,
 * and 0 and 1. Made as torch makes it: linspace from both ends with one rounding a value, means, times a power of ten.
 */
export function dynamicMap(): Float32Array<ArrayBuffer> {
  const values = [0, 1];
  for (let decade = 0; decade < 7; decade++) {
    const parts = 2 ** decade;
    const [first, step] = [fround(0.1), fround(fround(1 - fround(0.1)) / parts)];
    const border = (i: number): number =>
      i < (parts + 1) >> 1 ? fround(first + step * i) : fround(1 - step * (parts - i));
    for (let i = 0; i < parts; i++) {
      const middle = fround(fround(border(i) + border(i + 1)) / 2);
      const value = fround(fround(10 ** (decade - 6)) * middle);
      values.push(value, -value);
    }
  }
  return Float32Array.from(values).sort();
}

/** The mean as f32. torch adds in another order: its mean may be one step away. */
export function meanOf(scales: Float32Array): number {
  let sum = 0;
  for (const scale of scales) sum += scale;
  return scales.length === 0 ? 0 : fround(sum / scales.length);
}

const BINS = 65_535;

/**
 * For each of 65,536 steps from -1 to 1 the nearest value of the map. bitsandbytes' processor code rounds to these steps
 * before it looks the code up (its CUDA code searches the map itself, and differs by one code now and then).
 */
function nearestOfStep(map: Float32Array): Uint8Array {
  const codes = new Uint8Array(BINS + 1);
  let code = 0;
  for (let i = 0; i <= BINS; i++) {
    const value = fround(-1 + fround((2 * i) / BINS));
    while (code < 255 && fround(0.5 * fround(map[code]! + map[code + 1]!)) < value) code++;
    codes[i] = code;
  }
  return codes;
}

/** Double quantization: 8-bit codes in blocks of 256, after the offset is taken off. */
export function nestScales(scales: Float32Array, offset: number = meanOf(scales)): NestedScales {
  const map = dynamicMap();
  const nearest = nearestOfStep(map);
  const codes = new Uint8Array(scales.length);
  const absmax = new Float32Array(Math.ceil(scales.length / NESTED_BLOCK));
  const rest = scales.map((scale) => scale - offset);
  for (let block = 0; block < absmax.length; block++) {
    const [from, to] = [block * NESTED_BLOCK, Math.min(rest.length, (block + 1) * NESTED_BLOCK)];
    let most = 0;
    for (let i = from; i < to; i++) most = Math.max(most, Math.abs(rest[i]!));
    absmax[block] = most;
    if (most === 0) continue; // its codes stay 0: -1 · 0
    const inverse = fround(1 / most);
    for (let i = from; i < to; i++) {
      const value = Math.min(1, Math.max(-1, fround(rest[i]! * inverse)));
      const step = fround(fround(fround(fround(value + 1) * 0.5) * BINS) + 0.5);
      codes[i] = nearest[Math.trunc(step)]!;
    }
  }
  return { codes, absmax, map, offset };
}

/** The scales the codes stand for, f32: what bitsandbytes multiplies the code book with. */
export function unnestScales(nested: NestedScales): Float32Array<ArrayBuffer> {
  const { codes, absmax, map, offset } = nested;
  const scales = new Float32Array(codes.length);
  for (let i = 0; i < scales.length; i++) {
    scales[i] = fround(map[codes[i]!]! * absmax[Math.floor(i / NESTED_BLOCK)]!) + offset;
  }
  return scales;
}
