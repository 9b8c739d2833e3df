import { describe, expect, test } from "bun:test";
import { equalsOne, median, pairedRatio, quantile, summarize } from "./statistics.ts";

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

  test("covers the true ratio in about 95 of 100 experiments", () => {
    let state = 9;
    const uniform = (): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state + 0.5) / 2 ** 32;
    };
    const normal = (): number => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
    let covered = 0;
    for (let experiment = 0; experiment < 2000; experiment++) {
      const noisy = (): number[] => Array.from({ length: 8 }, () => Math.exp(0.05 * normal()));
      const { low, high } = pairedRatio(noisy(), noisy());
      if (low <= 1 && high >= 1) covered++;
    }
    expect(covered / 2000).toBeGreaterThan(0.935);
    expect(covered / 2000).toBeLessThan(0.965);
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
