/** Generation on a tiny model: beams against the oracle's (testdata/gqa/beam.json), greedy against the training pass. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  attachDisturbed,
  closeRig,
  figure,
  noise,
  openRig,
  packed,
  type Rig,
  readGoldenJson,
  withTrained,
} from "../model/testing.ts";
import { logitsPass } from "../model/train-pass.ts";
import { mergeTrainables } from "../model/trainables.ts";
import { allocatedBytes } from "../native/device.ts";
import { advanceBeams, bestHypothesis, type Candidate, startBeams } from "./beam.ts";
import { generate } from "./decode.ts";
import { scoreContinuations } from "./likelihood.ts";

interface Beams {
  readonly beams: number;
  readonly maxNewTokens: number;
  readonly cases: readonly {
    readonly prompt: number[];
    readonly eos: number;
    readonly ids: number[];
    readonly score: number;
    readonly steps: number;
    readonly stoppedEarly: boolean;
  }[];
}

const { beams, maxNewTokens, cases } = readGoldenJson<Beams>("gqa", "beam.json");
let rig: Rig;
beforeAll(async () => {
  rig = await openRig("gqa");
});
afterAll(() => closeRig(rig));

/** Log-probabilities of the token after `tokens`, by the training pass: no cache, no beams' own batch. */
function next(tokens: readonly number[]): number[] {
  const { vocabSize } = rig.model.config;
  // one token more, since a record of one token has no label; its row is left out
  const logits = logitsPass(rig.model, packed([[...tokens, 0]]), rig);
  const row = [...logits.slice(-2 * vocabSize, -vocabSize)];
  const most = Math.max(...row);
  const sum = most + Math.log(row.reduce((a, v) => a + Math.exp(v - most), 0));
  return row.map((v) => v - sum);
}

/** `count` prompts of 1 to 40 tokens. */
function prompts(count: number): number[][] {
  const random = noise(5);
  const below = (n: number): number => Math.min(n - 1, Math.floor(((random() + 1) / 2) * n));
  return Array.from({ length: count }, () => Array.from({ length: 1 + below(40) }, () => below(101)));
}

describe("beam search", () => {
  test("the goldens are of every sort", () => {
    expect(cases.length).toBe(10);
    expect(new Set(cases.map((c) => `${c.stoppedEarly} ${c.ids.at(-1) === c.eos}`)).size).toBe(3);
  });

  for (const [number, { prompt, eos, ids, score, steps, stoppedEarly }] of cases.entries()) {
    test(`case ${number}: the oracle's tokens and score`, async () => {
      const options = { beams, maxNewTokens, eosIds: [eos] };
      expect(await generate(rig.model, [prompt], options)).toEqual([ids]);
      const [[sum]] = (await scoreContinuations(rig.model, [{ context: prompt, continuations: [ids] }])) as [
        [number],
      ];
      expect(Math.abs(figure(`case ${number} score`, sum / ids.length - score))).toBeLessThan(1e-5);
    });

    test(`case ${number}: stops when the oracle does`, () => {
      const state = startBeams({ beams, maxNewTokens, eosIds: [eos] });
      let prefixes: number[][] = state.running.map(() => []);
      let taken = 0;
      while (!state.done) {
        const candidates = prefixes.flatMap((prefix, beam) =>
          next([...prompt, ...prefix]).map(
            (logProbability, token): Candidate => ({ beam, token, logProbability }),
          ),
        );
        prefixes = advanceBeams(state, candidates).map(({ parent, token }) => [...prefixes[parent]!, token]);
        taken++;
      }
      const best = bestHypothesis(state);
      expect([...best.tokens]).toEqual(ids);
      expect(best.score).toBeCloseTo(score, 5);
      expect(taken).toBe(steps);
      if (!stoppedEarly) expect(taken).toBe(maxNewTokens);
    });
  }

  test("many prompts together give what each gives alone, in any order", async () => {
    const options = { beams, maxNewTokens: 9, eosIds: [16, 68] };
    const all = prompts(23);
    const together = await generate(rig.model, all, options);
    const alone: number[][] = [];
    for (const prompt of all) alone.push((await generate(rig.model, [prompt], options))[0]!);
    expect(together).toEqual(alone);
    const done: number[] = [];
    const few = await generate(rig.model, all, { ...options, concurrency: 3, onDone: (i) => done.push(i) });
    expect(few).toEqual(alone);
    expect(done.toSorted((a, b) => a - b)).toEqual(all.map((_, i) => i));
  });
});

describe("greedy", () => {
  test("one beam takes the best token of the training pass until EOS", async () => {
    const options = { beams: 1, maxNewTokens: 12, eosIds: [68] };
    const all = prompts(6);
    const generated = await generate(rig.model, all, options);
    for (const [i, prompt] of all.entries()) {
      const expected: number[] = [];
      while (expected.length < options.maxNewTokens && expected.at(-1) !== 68) {
        const row = next([...prompt, ...expected]);
        expected.push(row.indexOf(Math.max(...row)));
      }
      expect(generated[i]).toEqual(expected);
    }
  });

  test("an adapter that is attached and one that is merged say the same", async () => {
    for (const name of ["lora", "dora", "sbora-fb"]) {
      const own = await openRig("gqa");
      const options = { beams: 2, maxNewTokens: 8, eosIds: [] };
      const all = prompts(8);
      const base = await generate(own.model, all, options);
      const trained = attachDisturbed(own, name, 16, ["all-linear"], 0.1);
      const unmerged = await generate(own.model, all, options);
      withTrained(own, trained, () => mergeTrainables(own.model, trained, own.scratch));
      expect(await generate(own.model, all, options)).toEqual(unmerged);
      expect(unmerged).not.toEqual(base);
      closeRig(own);
    }
  });
});

describe("limits", () => {
  test("no prompts, no tokens, no memory left behind", async () => {
    const before = allocatedBytes(rig.device);
    expect(await generate(rig.model, [], { beams: 4, maxNewTokens: 5, eosIds: [] })).toEqual([]);
    expect(await generate(rig.model, [[5]], { beams: 4, maxNewTokens: 0, eosIds: [] })).toEqual([[]]);
    // the workspace may have grown, nothing else
    const after = allocatedBytes(rig.device);
    await generate(rig.model, prompts(5), { beams: 4, maxNewTokens: 5, eosIds: [] });
    expect(allocatedBytes(rig.device)).toBe(after);
    expect(after).toBeGreaterThanOrEqual(before);
  });

  test("a prompt longer than the rotary table, and an empty one, are refused", () => {
    const options = { beams: 1, maxNewTokens: 100, eosIds: [] };
    expect(generate(rig.model, [prompts(1)[0]!, Array<number>(40).fill(3)], options)).rejects.toThrow(
      /need 140 positions, the model was opened for 128/,
    );
    expect(generate(rig.model, [[]], { ...options, maxNewTokens: 3 })).rejects.toThrow(/empty prompt/);
  });
});
