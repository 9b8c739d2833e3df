/**
 * What merged weights must be, computed apart from the merge: W + Σ ΔW in float64, from the adapters' factors as they are
 * stored. A weight in the file passes when it is that value to the last place of its type; so rounding is allowed, and
 * nothing else is. Every weight of SBoRA's columns or rows is looked at, of matrices that change as a whole some rows.
 */
import { type FloatDtype, widen } from "../formats/half.ts";
import { lowRankOf } from "./low-rank.ts";
import type { Part } from "./sources.ts";
import type { Touched } from "./touched.ts";

/** Rows of a matrix that changes as a whole, evenly spread: logits look at the others. */
const SAMPLED_ROWS = 32;

export interface Deviations {
  readonly checked: number;
  /** Weights further from W + ΔW than rounding can take them. */
  readonly wrong: number;
}

/** `before`: the base's values; `bytes`: the merged ones as they are stored; both [out,in]. */
export function deviations(
  before: Float32Array,
  bytes: Uint8Array,
  dtype: FloatDtype,
  parts: readonly Part[],
  touched: Touched,
): Deviations {
  const { in: width, out } = parts[0]!.site;
  const now = widen(dtype, bytes);
  const updates = parts.map(updateOf);
  const value = new Float64Array(width);
  const noise = new Float64Array(width);
  const columns = touched.kind === "columns" ? touched.index : null;
  const share = noiseOf(parts);
  let [checked, wrong] = [0, 0];
  for (const row of rowsOf(touched, out)) {
    const base = before.subarray(row * width, (row + 1) * width);
    value.set(base);
    for (let column = 0; column < width; column++) noise[column] = Math.abs(base[column]!);
    for (const add of updates) add(row, value, noise);
    const count = columns?.length ?? width;
    for (let i = 0; i < count; i++) {
      const column = columns ? columns[i]! : i;
      const exact = value[column]!;
      const allowed = lastPlace(dtype, exact) + noise[column]! * share;
      // NaN is wrong, too.
      if (!(Math.abs(now[row * width + column]! - exact) <= allowed)) wrong++;
    }
    checked += count;
  }
  return { checked, wrong };
}

/** Whether the adapter leaves the matrix as it is: one of its factors is zero all over. */
export function isIdle({ stored }: Part): boolean {
  const zero = (values: Float32Array | Int32Array | undefined): boolean =>
    values instanceof Float32Array && values.every((v) => v === 0);
  return zero(stored.A?.values) || zero(stored.B?.values);
}

function rowsOf(touched: Touched, out: number): Iterable<number> {
  if (touched.kind === "rows") return touched.index;
  const count = touched.kind === "columns" ? out : Math.min(out, SAMPLED_ROWS);
  // The first and the last among them.
  return Array.from({ length: count }, (_, i) => Math.round((i * (out - 1)) / Math.max(1, count - 1)));
}

/** Adds a part's ΔW to a row, and its terms' magnitudes to `noise`. */
type Update = (row: number, value: Float64Array, noise: Float64Array) => void;

function updateOf({ method, site, stored }: Part): Update {
  const { rank, scaling, in: width } = site;
  const index = stored.index?.values;
  if (method.name === "sbora-fa") {
    const B = stored.B!.values;
    return (row, value, noise) => {
      for (let j = 0; j < rank; j++) {
        const delta = scaling * B[row * rank + j]!;
        value[index![j]!]! += delta;
        noise[index![j]!]! += Math.abs(delta);
      }
    };
  }
  if (method.name === "sbora-fb") {
    const A = stored.A!.values;
    return (row, value, noise) => {
      const j = index!.indexOf(row);
      if (j >= 0) addScaled(scaling, A, j * width, value, noise);
    };
  }
  const { A, B } = lowRankOf(method, site, stored);
  const m = method.name === "dora" ? stored.m!.values : null;
  const normed = new Float64Array(width);
  return (row, value, noise) => {
    normed.set(value);
    for (let j = 0; j < rank; j++) addScaled(scaling * B[row * rank + j]!, A, j * width, value, noise);
    if (!m) return;
    const share = method.norm === "unscaled" ? 1 / scaling : 1;
    const square = value.reduce((sum, v, i) => sum + (normed[i]! + share * (v - normed[i]!)) ** 2, 0);
    const gain = m[row]! / Math.sqrt(square);
    for (let column = 0; column < width; column++) {
      value[column]! *= gain;
      noise[column]! *= Math.abs(gain);
    }
  };
}

function addScaled(
  factor: number,
  A: Float32Array | Int32Array,
  start: number,
  value: Float64Array,
  noise: Float64Array,
): void {
  if (factor === 0) return;
  for (let column = 0; column < value.length; column++) {
    const delta = factor * A[start + column]!;
    value[column]! += delta;
    noise[column]! += Math.abs(delta);
  }
}

/** How far the merge's f32 sums may be off, of the sum of their terms' magnitudes. */
function noiseOf(parts: readonly Part[]): number {
  const terms = parts.reduce((sum, { method, site }) => {
    // DoRA's norm is a sum over the row, whose errors mostly cancel.
    const norm = method.name === "dora" ? 8 * Math.sqrt(site.in) : 0;
    return sum + site.rank + norm;
  }, 8);
  return terms * 2 ** -24;
}

/** Bits of the fraction, and exponent of the smallest normal number. */
const FORMATS: Readonly<Record<FloatDtype, readonly [fraction: number, least: number]>> = {
  F32: [23, -126],
  BF16: [7, -126],
  F16: [10, -14],
};

/** Half the distance of the neighbours of a value in a type: what rounding to nearest may move it. */
function lastPlace(dtype: FloatDtype, value: number): number {
  const [fraction, least] = FORMATS[dtype];
  const exponent = value === 0 ? least : Math.max(least, Math.floor(Math.log2(Math.abs(value))));
  return 2 ** (exponent - fraction - 1);
}
