import { describe, expect, test } from "bun:test";
import { advanceBeams, type BeamOptions, bestHypothesis, type Candidate, startBeams } from "./beam.ts";

/** log-probabilities by prefix: a tiny language over tokens 0..3, 3 = EOS. */
type Table = (prefix: readonly number[]) => number[];

function search(table: Table, options: BeamOptions): { tokens: readonly number[]; score: number } {
  const state = startBeams(options);
  let prefixes: number[][] = state.running.map(() => []);
  while (!state.done) {
    const candidates = prefixes.flatMap((prefix, beam) =>
      table(prefix).map((logProbability, token): Candidate => ({ beam, token, logProbability })),
    );
    prefixes = advanceBeams(state, candidates).map(({ parent, token }) => [...prefixes[parent]!, token]);
  }
  return bestHypothesis(state);
}

/** Every sequence that ends in EOS or at the limit, scored by mean log-probability: what a wide beam must find. */
function exhaustive(table: Table, limit: number, eos: number): { tokens: number[]; score: number } {
  let best = { tokens: [] as number[], score: Number.NEGATIVE_INFINITY };
  const visit = (tokens: number[], sum: number): void => {
    if (tokens.length > 0 && (tokens[tokens.length - 1] === eos || tokens.length === limit)) {
      if (sum / tokens.length > best.score) best = { tokens, score: sum / tokens.length };
      return;
    }
    for (const [token, p] of table(tokens).entries()) visit([...tokens, token], sum + p);
  };
  visit([], 0);
  return best;
}

/** A fixed pseudo-random table. */
function randomTable(seed: number): Table {
  return (prefix) => {
    let state = prefix.reduce((a, t) => (Math.imul(a, 31) + t + 7) | 0, seed + 1);
    const weights = [0, 1, 2, 3].map(() => {
      state = (Math.imul(state, 1103515245) + 12345) | 0;
      return 1 + ((state >>> 8) % 97);
    });
    const total = weights.reduce((a, b) => a + b);
    return weights.map((w) => Math.log(w / total));
  };
}

const log = (...p: number[]): number[] => p.map(Math.log);

describe("beam search", () => {
  test("one beam is greedy search", () => {
    const table: Table = (prefix) => (prefix.length < 2 ? log(0.4, 0.3, 0.2, 0.1) : log(0.1, 0.1, 0.1, 0.7));
    const found = search(table, { beams: 1, maxNewTokens: 10, eosIds: [3] });
    expect(found.tokens).toEqual([0, 0, 3]);
    expect(found.score).toBeCloseTo((2 * Math.log(0.4) + Math.log(0.7)) / 3, 5);
  });

  test("finds what greedy misses", () => {
    // 0 looks best but leads to a flat distribution; 1 leads to a certain end.
    const table: Table = ([first]) =>
      first === undefined
        ? log(0.5, 0.4, 0.05, 0.05)
        : first === 1
          ? log(0.01, 0.01, 0.01, 0.97)
          : log(0.25, 0.25, 0.25, 0.25);
    expect(search(table, { beams: 1, maxNewTokens: 2, eosIds: [3] }).tokens[0]).toBe(0);
    expect(search(table, { beams: 4, maxNewTokens: 2, eosIds: [3] }).tokens).toEqual([1, 3]);
  });

  test("as many beams as sequences finds the best sequence", () => {
    for (let seed = 0; seed < 40; seed++) {
      const table = randomTable(seed);
      const found = search(table, { beams: 256, maxNewTokens: 4, eosIds: [3] });
      const best = exhaustive(table, 4, 3);
      expect(found.score).toBeCloseTo(best.score, 5);
      expect([...found.tokens]).toEqual(best.tokens);
    }
  });

  test("an EOS candidate ranked below the beams does not finish", () => {
    // Two beams: EOS is the third best first token, so no one-token hypothesis may appear.
    const table: Table = (prefix) =>
      prefix.length === 0 ? log(0.5, 0.3, 0.01, 0.19) : log(0.3, 0.3, 0.3, 0.1);
    const state = startBeams({ beams: 2, maxNewTokens: 3, eosIds: [3] });
    const first = table([]).map((logProbability, token) => ({ beam: 0, token, logProbability }));
    advanceBeams(state, first);
    expect(state.finished).toEqual([]);
    expect(state.running.map((b) => b.tokens)).toEqual([[0], [1]]);
  });

  test("ties go to the lower token", () => {
    const table: Table = () => log(0.25, 0.25, 0.25, 0.25);
    expect(search(table, { beams: 1, maxNewTokens: 3, eosIds: [3] }).tokens).toEqual([0, 0, 0]);
  });

  test("at the token limit the running beams count", () => {
    const table: Table = () => log(0.7, 0.2, 0.09, 0.01);
    const found = search(table, { beams: 4, maxNewTokens: 5, eosIds: [3] });
    expect(found.tokens).toEqual([0, 0, 0, 0, 0]);
  });
});
