import { describe, expect, test } from "bun:test";
import { randomStream } from "../native/philox.ts";
import {
  adjustLogits,
  adjustsLogits,
  type Candidates,
  greedy,
  pick,
  pickFromRow,
  type SamplingOptions,
  samplingKey,
  uniformAt,
} from "./sampling.ts";

const options = (changes: Partial<SamplingOptions>): SamplingOptions => ({
  ...greedy,
  temperature: 1,
  ...changes,
});

/** 0.5, 0.25, 0.125, 0.0625, 0.0625 on tokens 3, 0, 4, 1, 2. */
const LOGITS = Float32Array.from([-Math.LN2, -3 * Math.LN2, -3 * Math.LN2, 0, -2 * Math.LN2]);

/** The k best of a row, as the kernel gives them. */
function candidates(logits: Float32Array, k: number): Candidates {
  const ids = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]! || a - b).slice(0, k);
  const lse = Math.log(logits.reduce((s, l) => s + Math.exp(l), 0));
  return { ids, logProbabilities: ids.map((id) => logits[id]! - lse) };
}

describe("sampling", () => {
  test("a uniform number falls on the tokens in order of their probability", () => {
    const at = (u: number): number => pickFromRow(options({}), LOGITS, u);
    expect([0, 0.49, 0.51, 0.74, 0.76, 0.87, 0.88, 0.93, 0.94, 0.99999].map(at)).toEqual([
      3, 3, 0, 0, 4, 4, 1, 1, 2, 2,
    ]);
  });

  test("top-k, top-p and min-p leave out what they say", () => {
    const last = (changes: Partial<SamplingOptions>): number =>
      pickFromRow(options(changes), LOGITS, 1 - 2 ** -53);
    expect(last({ topK: 1 })).toBe(3);
    expect(last({ topK: 3 })).toBe(4);
    expect(last({ topP: 0.5 })).toBe(3);
    expect(last({ topP: 0.51 })).toBe(0);
    // of the two best, 2/3 and 1/3, the first alone has 0.6
    expect(last({ topK: 2, topP: 0.6 })).toBe(3);
    expect(last({ minP: 0.3 })).toBe(0);
    expect(last({ minP: 1 })).toBe(3);
    expect(last({ topP: 1e-9 })).toBe(3);
  });

  test("few candidates decide as the whole row, or say that they cannot", () => {
    const random = randomStream(3n);
    const uniform = (): number => random.word() / 2 ** 32;
    let decided = 0;
    let undecided = 0;
    for (let round = 0; round < 400; round++) {
      const logits = Float32Array.from({ length: 40 }, () => 6 * uniform());
      const changes = {
        topK: [0, 0, 5, 30][random.below(4)]!,
        topP: [1, 0.9, 0.5][random.below(3)]!,
        minP: [0, 0.2][random.below(2)]!,
      };
      const u = uniform();
      const token = pick(options(changes), candidates(logits, 12), false, u);
      if (token === null) undecided++;
      else {
        decided++;
        expect(token).toBe(pickFromRow(options(changes), logits, u));
      }
    }
    expect(decided).toBeGreaterThan(150);
    expect(undecided).toBeGreaterThan(50);
  });

  test("a whole row goes by logit, ties to the lower id: a token outside the candidates is the one that sorting all gives", () => {
    const random = randomStream(5n);
    // ties, zeros of both signs, all magnitudes
    const logits = Float32Array.from({ length: 49_152 }, () => {
      const value = (random.below(4001) - 2000) / 8;
      return random.below(9) === 0 ? value * -1e-30 : value;
    });
    expect(pickFromRow(options({ topK: 1 }), logits, 0.5)).toBe(candidates(logits, logits.length).ids[0]!);
    // hot enough that every token has its share
    const hot = logits.map((logit) => logit / 1000);
    const order = candidates(hot, hot.length);
    const draws = Array.from({ length: 24 }, (_, i) => (i + 0.5) / 24);
    const picked = draws.map((u) => pickFromRow(options({}), hot, u));
    expect(picked).toEqual(draws.map((u) => pick(options({}), order, true, u)!));
  });

  test("temperature 0 takes the best", () => {
    expect(pick(greedy, candidates(LOGITS, 2), false, 0.999)).toBe(3);
  });

  test("drawn tokens are as frequent as they are probable", () => {
    const key = samplingKey(11, 0);
    const counts = new Array<number>(5).fill(0);
    for (let i = 0; i < 20_000; i++) counts[pickFromRow(options({}), LOGITS, uniformAt(key, i))]!++;
    [0.25, 0.0625, 0.0625, 0.5, 0.125].forEach((p, id) => {
      // five standard deviations
      expect(Math.abs(counts[id]! / 20_000 - p)).toBeLessThan(5 * Math.sqrt((p * (1 - p)) / 20_000));
    });
  });

  test("draws are reproducible, and their own for every seed and choice", () => {
    const draws = (seed: number, choice: number): number[] =>
      Array.from({ length: 4 }, (_, i) => uniformAt(samplingKey(seed, choice), i));
    expect(draws(1, 0)).toEqual(draws(1, 0));
    expect(new Set([...draws(1, 0), ...draws(1, 1), ...draws(2, 0)]).size).toBe(12);
  });

  test("penalties and biases change the tokens they name", () => {
    const logits = Float32Array.from([2, -2, 1, 0]);
    const penalised = options({ repetitionPenalty: 2, presencePenalty: 0.5, frequencyPenalty: 0.25 });
    adjustLogits(logits, { ...penalised, logitBias: [[3, 7]] }, new Map([[2, 3]]), [0, 1]);
    expect([...logits]).toEqual([1, -4, 0.5 - 0.5 - 0.75, 7]);
    expect(adjustsLogits(penalised)).toBe(true);
    expect(adjustsLogits(options({ topP: 0.5 }))).toBe(false);
  });
});
