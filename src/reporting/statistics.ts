/** Medians, spread and the interval of a ratio from interleaved measurements (settled 22). */

/** Half the width within which a ratio may equal 1. */
export const EQUAL_WITHIN = 0.02;

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** @throws Error for no samples */
export function median(samples: readonly number[]): number {
  return quantile(samples, 0.5);
}

/** Linear between the two nearest samples, as NumPy does by default. */
export function quantile(samples: readonly number[], q: number): number {
  if (samples.length === 0) throw new Error("no samples");
  const sorted = samples.toSorted((a, b) => a - b);
  const at = q * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low]! + (at - low) * (sorted[high]! - sorted[low]!);
}

export interface Summary {
  readonly median: number;
  readonly low: number;
  readonly high: number;
  /** (high - low) / median. */
  readonly spread: number;
}

export function summarize(samples: readonly number[]): Summary {
  const middle = median(samples);
  const [low, high] = [Math.min(...samples), Math.max(...samples)];
  return { median: middle, low, high, spread: middle === 0 ? 0 : (high - low) / middle };
}

export interface PairedRatio {
  /** Median of a[i] / b[i]. */
  readonly ratio: number;
  /** 95 % interval, of the mean ratio or of the median: as the function says. [0, Infinity] for a single pair. */
  readonly low: number;
  readonly high: number;
}

/**
 * Ratio of two runs that were measured in turn, a[i] beside b[i]: what disturbs both cancels. The interval is the mean's,
 * Student's on the logarithms, for pairs that are independent of one another.
 */
export function pairedRatio(a: readonly number[], b: readonly number[]): PairedRatio {
  const ratios = ratiosOf(a, b);
  const ratio = median(ratios);
  const n = ratios.length;
  if (n === 1) return { ratio, low: 0, high: Number.POSITIVE_INFINITY };
  const logs = ratios.map(Math.log);
  const middle = mean(logs);
  const variance = logs.reduce((sum, v) => sum + (v - middle) ** 2, 0) / (n - 1);
  const half = studentQuantile(n - 1) * Math.sqrt(variance / n);
  return { ratio, low: Math.exp(middle - half), high: Math.exp(middle + half) };
}

/**
 * The same with the distribution-free interval of the median: the k-th ratio from either end, k the largest for which as
 * many heads of n fair coins are rarer than 2.5 %. No sample is dropped, and single turns that the machine disturbed do
 * not move it as they move a mean. [0, Infinity] for fewer than 6 pairs.
 */
export function pairedMedian(a: readonly number[], b: readonly number[]): PairedRatio {
  const ratios = ratiosOf(a, b).toSorted((x, y) => x - y);
  const ratio = median(ratios);
  const n = ratios.length;
  let chance = 2 ** -n; // of fewer than k heads
  let term = chance; // of just k - 1 heads
  let k = 0;
  while (chance <= 0.025) {
    k++;
    term *= (n - k + 1) / k;
    chance += term;
  }
  if (k === 0) return { ratio, low: 0, high: Number.POSITIVE_INFINITY };
  return { ratio, low: ratios[k - 1]!, high: ratios[n - k]! };
}

/** @throws Error for what are no pairs of measurements */
function ratiosOf(a: readonly number[], b: readonly number[]): number[] {
  if (a.length !== b.length) throw new Error(`${a.length} samples against ${b.length}: not pairs`);
  const bad = [...a, ...b].find((value) => !(value > 0 && Number.isFinite(value)));
  if (bad !== undefined) throw new Error(`a ratio of measurements, but one is ${bad}`);
  return a.map((value, i) => value / b[i]!);
}

/** Settled 22: the interval contains 1 and is narrower than ± 0.02. */
export function equalsOne({ low, high }: Pick<PairedRatio, "low" | "high">): boolean {
  return low <= 1 && high >= 1 && (high - low) / 2 < EQUAL_WITHIN;
}

const STUDENT_975 = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131,
  2.12, 2.11, 2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/** 97.5 % point of Student's t; beyond the table its expansion around the normal's 1.96, good to 0.002. */
export function studentQuantile(freedom: number): number {
  return STUDENT_975[freedom - 1] ?? 1.96 + 2.5 / freedom;
}
