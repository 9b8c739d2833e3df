import { describe, expect, test } from "bun:test";
import {
  type PackedBatch,
  planPasses,
  stepExamples,
  stepsPerEpoch,
  type TrainingExample,
} from "./batches.ts";

/** A record of `length` tokens whose ids tell record and position. */
function example(id: number, length: number, labelFrom = 1): TrainingExample {
  return { id, tokens: Int32Array.from({ length }, (_, p) => 1000 * id + p), labelFrom };
}

const token = { lossMean: "token", microBatch: 1 } as const;
const concat = (
  passes: readonly PackedBatch[],
  field: "tokens" | "positions" | "recordIds" | "labels",
): number[] => passes.flatMap((pass) => [...pass[field]]);
const weightsOf = (passes: readonly PackedBatch[]): number[] =>
  passes.flatMap((pass) => [...pass.labelWeights]);
const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

describe("planPasses", () => {
  test("pack(a, b) is a and b one behind the other", () => {
    const [a, b] = [example(7, 3), example(2, 4, 2)];
    const [ab, more] = planPasses([a, b], token, 100);
    expect(more).toBeUndefined();
    expect([...ab!.tokens]).toEqual([7000, 7001, 7002, 2000, 2001, 2002, 2003]);
    expect([...ab!.positions]).toEqual([0, 1, 2, 0, 1, 2, 3]);
    expect([...ab!.cuSeqlens]).toEqual([0, 3, 7]);
    expect([...ab!.recordIds]).toEqual([7, 7, 7, 2, 2, 2, 2]);
    expect([...ab!.labelRows]).toEqual([0, 1, 4, 5]);
    expect([...ab!.labels]).toEqual([7001, 7002, 2002, 2003]);
  });

  test("passes hold whole records, in order, up to the limit", () => {
    const records = [5, 5, 6, 10, 1].map((n, i) => example(i, n, Math.min(1, n - 1)));
    const passes = planPasses(records, token, 10);
    expect(passes.map((pass) => [...pass.cuSeqlens])).toEqual([
      [0, 5, 10],
      [0, 6],
      [0, 10],
      [0, 1],
    ]);
    for (const pass of passes) expect(pass.tokens.length).toBeLessThanOrEqual(10);
    expect(() => planPasses(records, token, 9)).toThrow("record 3 has 10 tokens");
  });

  test.each(["token", "micro"] as const)(
    "%s: weights add up to 1 and do not depend on the cutting",
    (lossMean) => {
      const records = [3, 9, 4, 8, 6].map((n, i) => example(i, n, 1 + (i % 3)));
      const whole = planPasses(records, { lossMean, microBatch: 2 }, 1000);
      expect(sum(weightsOf(whole))).toBeCloseTo(1, 6);
      for (const limit of [9, 12, 20]) {
        const cut = planPasses(records, { lossMean, microBatch: 2 }, limit);
        expect(cut.length).toBeGreaterThan(1);
        expect(weightsOf(cut)).toEqual(weightsOf(whole));
        for (const field of ["tokens", "positions", "recordIds", "labels"] as const) {
          expect(concat(cut, field)).toEqual(concat(whole, field));
        }
      }
    },
  );

  test("micro: the mean of each micro-batch's token mean, a last partial one counting as much", () => {
    // labels: 2 + 4 | 7 + 1 | 3
    const records = [3, 5, 8, 2, 4].map((n, i) => example(i, n));
    const weights = weightsOf(planPasses(records, { lossMean: "micro", microBatch: 2 }, 1000));
    const expected = [...Array(6).fill(1 / 18), ...Array(8).fill(1 / 24), ...Array(3).fill(1 / 9)];
    expect(weights).toEqual(expected.map(Math.fround));
  });

  test("token: every label counts the same, whatever the micro-batch", () => {
    const records = [3, 5, 8, 2, 4].map((n, i) => example(i, n));
    for (const microBatch of [1, 2, 5]) {
      expect(weightsOf(planPasses(records, { lossMean: "token", microBatch }, 1000))).toEqual(
        Array(17).fill(Math.fround(1 / 17)),
      );
    }
  });

  test("a record without labels is left out and its micro-batch shrinks", () => {
    const records = [example(0, 4, 4), example(1, 3), example(2, 2, 2), example(3, 5, 5)];
    const passes = planPasses(records, { lossMean: "micro", microBatch: 2 }, 100);
    expect(concat(passes, "tokens")).toEqual([1000, 1001, 1002]);
    expect(weightsOf(passes)).toEqual([0.5, 0.5]);
    expect(planPasses([example(0, 4, 4)], token, 100)).toEqual([]);
    expect(planPasses([], token, 100)).toEqual([]);
  });
});

describe("stepsPerEpoch", () => {
  test("the protocol's counts", () => {
    expect(stepsPerEpoch(170_300, { batch: 16, microBatch: 2 })).toBe(10_643);
    expect(3 * stepsPerEpoch(9_799, { batch: 8, microBatch: 4 })).toBe(3_675);
  });

  test("a last partial micro-batch counts, left-over micro-batches do not", () => {
    expect(stepsPerEpoch(15, { batch: 16, microBatch: 2 })).toBe(1);
    expect(stepsPerEpoch(31, { batch: 16, microBatch: 2 })).toBe(2);
    expect(stepsPerEpoch(30, { batch: 16, microBatch: 2 })).toBe(1);
  });

  test("fewer records than a batch make one step, none make none", () => {
    expect(stepsPerEpoch(3, { batch: 16, microBatch: 2 })).toBe(1);
    expect(stepsPerEpoch(0, { batch: 16, microBatch: 2 })).toBe(0);
  });
});

describe("stepExamples", () => {
  const recipe = { batch: 4, microBatch: 2, seed: 42, shuffle: true };
  const train = Array.from({ length: 10 }, (_, i) => example(i, 2));
  const ids = (step: number, over = {}): number[] =>
    stepExamples(train, { ...recipe, ...over }, step).map(({ id }) => id);

  test("file order without shuffling; the rest of an epoch is dropped", () => {
    expect([0, 1, 2].map((step) => ids(step, { shuffle: false }))).toEqual([
      [0, 1, 2, 3],
      [4, 5, 6, 7],
      [0, 1, 2, 3],
    ]);
  });

  test("an epoch takes no record twice; the next one has another order", () => {
    const first = [...ids(0), ...ids(1)];
    expect(new Set(first).size).toBe(8);
    expect([...ids(2), ...ids(3)]).not.toEqual(first);
  });

  test("a step is a function of its number alone: resumed runs see the same records", () => {
    const inOrder = [0, 1, 2, 3, 4, 5].map((step) => ids(step));
    const backwards = [5, 4, 3, 2, 1, 0].map((step) => ids(step)).reverse();
    expect(backwards).toEqual(inOrder);
    expect(ids(0, { seed: 43 })).not.toEqual(ids(0));
  });

  test("few records: one step with all of them", () => {
    const few = train.slice(0, 3);
    expect(stepExamples(few, { ...recipe, shuffle: false }, 5).map(({ id }) => id)).toEqual([0, 1, 2]);
  });
});
