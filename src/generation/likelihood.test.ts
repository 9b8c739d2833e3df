/** Log-likelihoods against sums of log-softmax from the training pass. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { closeRig, figure, noise, openRig, packed, type Rig } from "../model/testing.ts";
import { lossPass } from "../model/train-pass.ts";
import { type LikelihoodItem, scoreContinuations } from "./likelihood.ts";

let rig: Rig;
beforeAll(async () => {
  rig = await openRig("gqa");
});
afterAll(() => closeRig(rig));

/** `count` items: contexts of 1 to 60 tokens, 1 to 5 continuations of 1 to 20. */
function items(count: number): LikelihoodItem[] {
  const random = noise(11);
  const below = (n: number): number => Math.min(n - 1, Math.floor(((random() + 1) / 2) * n));
  const tokens = (length: number): number[] => Array.from({ length }, () => below(101));
  return Array.from({ length: count }, () => ({
    context: tokens(1 + below(60)),
    continuations: Array.from({ length: 1 + below(5) }, () => tokens(1 + below(20))),
  }));
}

/** Σ log p over the continuation's labels of the whole sequence. */
function bySequence({ context, continuations }: LikelihoodItem): number[] {
  return continuations.map((continuation) => {
    const nll = lossPass(rig.model, packed([[...context, ...continuation]]), rig);
    return -nll.slice(-continuation.length).reduce((a, b) => a + b, 0);
  });
}

describe("scores", () => {
  test("are the training pass's sums, whatever stands in one batch", async () => {
    // enough for several batches
    const all = items(70);
    const finished: number[] = [];
    const scores = await scoreContinuations(rig.model, all, (item) => finished.push(item));
    expect(finished).toEqual(all.map((_, i) => i));
    let worst = 0;
    for (const [i, item] of all.entries()) {
      const expected = bySequence(item);
      expect(scores[i]!.length).toBe(expected.length);
      for (const [j, score] of scores[i]!.entries()) {
        worst = Math.max(worst, Math.abs(score - expected[j]!) / item.continuations[j]!.length);
      }
    }
    expect(figure("score a token", worst)).toBeLessThan(2e-5);
  });

  test("of an item alone have the very bytes they have among others", async () => {
    const all = items(30);
    const together = await scoreContinuations(rig.model, all);
    for (const [i, item] of all.entries()) {
      expect(await scoreContinuations(rig.model, [item])).toEqual([together[i]!]);
    }
  });

  test("do not depend on the other continuations, and repeat", async () => {
    const [item] = items(1) as [LikelihoodItem];
    const three = [[4], [4, 5, 6], [4]];
    const [scores] = await scoreContinuations(rig.model, [{ context: item.context, continuations: three }]);
    expect(scores![0]).toBe(scores![2]!);
    expect(scores![1]).toBeLessThan(scores![0]!);
    const [alone] = await scoreContinuations(rig.model, [
      { context: item.context, continuations: [[4, 5, 6]] },
    ]);
    expect(alone).toEqual([scores![1]!]);
  });

  test("nothing to score; an item longer than a batch; a record longer than the rotary table", async () => {
    expect(await scoreContinuations(rig.model, [])).toEqual([]);
    const many = Array.from({ length: 700 }, (_, i) => [i % 101, 3]);
    const [scores] = await scoreContinuations(rig.model, [{ context: [1, 2, 3], continuations: many }]);
    expect(scores!.length).toBe(700);
    expect(scores![101]).toBe(scores![0]!);
    const long = { context: Array<number>(120).fill(3), continuations: [Array<number>(20).fill(4)] };
    expect(scoreContinuations(rig.model, [long])).rejects.toThrow(/needs 140 positions/);
  });
});
