import { describe, expect, test } from "bun:test";
import { equalsOne, median, pairedMedian, pairedRatio, quantile, summarize } from "./statistics.ts";

describe("median and quantiles", () => {
  test("odd, even, one; the samples stay as they were", () => {
    const samples = [5, 1, 3];
    expect(median(samples)).toBe(3);
    expect(samples).toEqual([5, 1, 3]);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([7])).toBe(7);
    expect(() => median([])).toThrow("no samples");
  });

  test("quantiles lie between the neighbours, as NumPy's", () => {
    expect(quantile([1, 2, 3, 4], 0.25)).toBe(1.75);
    expect(quantile([1, 2, 3, 4], 1)).toBe(4);
    expect(quantile([4, 3, 2, 1], 0)).toBe(1);
  });

  test("a summary says how far apart the samples are", () => {
    expect(summarize([9, 10, 12])).toEqual({ median: 10, low: 9, high: 12, spread: 0.3 });
  });
});

describe("paired ratio", () => {
  test("what disturbs both sides of a pair cancels", () => {
    const disturbance = [1, 3, 0.5, 2, 1.7];
    const { ratio, low, high } = pairedRatio(
      disturbance.map((d) => 2 * d),
      disturbance,
    );
    expect(ratio).toBeCloseTo(2, 12);
    expect(low).toBeCloseTo(2, 12);
    expect(high).toBeCloseTo(2, 12);
  });

  test("the interval is Student's on the logarithms", () => {
    // logs -0.1, 0, 0.1: mean 0, deviation 0.1, half width 4.303 · 0.1 / √3
    const half = (4.303 * 0.1) / Math.sqrt(3);
    const { ratio, low, high } = pairedRatio([Math.exp(-0.1), 1, Math.exp(0.1)], [1, 1, 1]);
    expect(ratio).toBe(1);
    expect(Math.log(low)).toBeCloseTo(-half, 12);
    expect(Math.log(high)).toBeCloseTo(half, 12);
  });

  test("the median's interval runs from the k-th ratio to the k-th from the end (tables of the sign test)", () => {
    const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1);
    // n: how many ratios lie below the interval's lower end
    for (const [n, below] of [
      [6, 0],
      [9, 1],
      [12, 2],
      [20, 5],
      [50, 17],
      [100, 39],
    ] as const) {
      const { low, high } = pairedMedian(
        upTo(n),
        upTo(n).map(() => 1),
      );
      expect([n, low, high]).toEqual([n, below + 1, n - below]);
    }
    expect(pairedMedian([1, 2, 3, 4, 5], [1, 1, 1, 1, 1]).high).toBe(Number.POSITIVE_INFINITY);
    const disturbed = [...upTo(20).slice(0, 18), 1000, 2000];
    expect(
      pairedMedian(
        disturbed,
        disturbed.map(() => 1),
      ).high,
    ).toBe(15);
  });

  test("covers the true ratio in about 95 of 100 experiments", () => {
    let state = 9;
    const uniform = (): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state + 0.5) / 2 ** 32;
    };
    const normal = (): number => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    const covered = { mean: 0, median: 0 };
    for (let experiment = 0; experiment < 2000; experiment++) {
      const noisy = (): number[] => Array.from({ length: 8 }, () => Math.exp(0.05 * normal()));
      const [a, b] = [noisy(), noisy()];
      const [mean, middle] = [pairedRatio(a, b), pairedMedian(a, b)];
      if (mean.low <= 1 && mean.high >= 1) covered.mean++;
      if (middle.low <= 1 && middle.high >= 1) covered.median++;
    }
    expect(covered.mean / 2000).toBeGreaterThan(0.935);
    expect(covered.mean / 2000).toBeLessThan(0.965);
    // of 8 pairs the outermost two: 1 - 2/2^8 = 0.992
    expect(covered.median / 2000).toBeGreaterThan(0.985);
  });

  test("one pair has a ratio and no interval", () => {
    expect(pairedRatio([3], [2])).toEqual({ ratio: 1.5, low: 0, high: Number.POSITIVE_INFINITY });
  });

  test("unequal numbers and impossible measurements are refused", () => {
    expect(() => pairedRatio([1, 2], [1])).toThrow("2 samples against 1");
    expect(() => pairedRatio([1, 0], [1, 1])).toThrow("one is 0");
    expect(() => pairedRatio([1, 1], [Number.NaN, 1])).toThrow("one is NaN");
  });
});

test("a ratio equals 1 only where its interval holds 1 and is narrow (settled 22)", () => {
  expect(equalsOne({ low: 0.99, high: 1.01 })).toBe(true);
  expect(equalsOne({ low: 1.001, high: 1.003 })).toBe(false);
  expect(equalsOne({ low: 0.97, high: 1.03 })).toBe(false);
});
