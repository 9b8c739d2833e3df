import { describe, expect, test } from "bun:test";
import { learningRate } from "./schedule.ts";

describe("learningRate", () => {
  test("linear: from 0 over the warm-up to the peak, then down to 0 at the end", () => {
    const schedule = { name: "linear", peak: 2e-4, warmup: 100, steps: 1100 } as const;
    expect(learningRate(schedule, 0)).toBe(0);
    expect(learningRate(schedule, 50)).toBeCloseTo(1e-4, 12);
    expect(learningRate(schedule, 100)).toBeCloseTo(2e-4, 12);
    expect(learningRate(schedule, 600)).toBeCloseTo(1e-4, 12);
    expect(learningRate(schedule, 1100)).toBe(0);
    expect(learningRate(schedule, 5000)).toBe(0);
  });

  test("cosine agrees with Math.cos", () => {
    for (let step = 0; step <= 100; step++) {
      const rate = learningRate({ name: "cosine", peak: 1, warmup: 0, steps: 100 }, step);
      expect(rate).toBeCloseTo(0.5 * (1 + Math.cos((Math.PI * step) / 100)), 12);
    }
  });

  test.each(["linear", "cosine"] as const)(
    "%s: 0 behind its end, also where the warm-up is longer",
    (name) => {
      const schedule = { name, peak: 1, warmup: 20, steps: 10 };
      expect([9, 19, 20, 21].map((step) => learningRate(schedule, step))).toEqual([0.45, 0.95, 0, 0]);
    },
  );

  test("constant ignores the warm-up", () => {
    expect(learningRate({ name: "constant", peak: 3, warmup: 10, steps: 20 }, 0)).toBe(3);
  });
});
