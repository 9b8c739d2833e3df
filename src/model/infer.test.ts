/** The inference pass through the paged KV cache against the training pass, and against itself cut otherwise. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { withScratch } from "../adapters/draw.ts";
import { readF32 } from "../native/tensor.ts";
import { type Chunk, inferRows, logitsOf, lossesOf } from "./infer.ts";
import {
  createKvPool,
  dropSequence,
  emptySequence,
  forkSequence,
  freeKvPool,
  type KvPool,
  type KvSequence,
  PAGE,
} from "./kv-cache.ts";
import {
  attachDisturbed,
  closeRig,
  figure,
  largestDifference,
  openRig,
  packed,
  type Rig,
  readGoldenJson,
  type TinyName,
  withTrained,
} from "./testing.ts";
import { logitsPass } from "./train-pass.ts";
import { mergeTrainables } from "./trainables.ts";

const PAGES = 40;

/** Logits of every position of `tokens`, appended in chunks of the given lengths. */
function logitsInChunks(
  rig: Rig,
  pool: KvPool,
  tokens: readonly number[],
  lengths: readonly number[],
  sequence: KvSequence = emptySequence(),
): number[] {
  const logits: number[] = [];
  let at = 0;
  for (const length of lengths) {
    logits.push(...run(rig, pool, [{ sequence, tokens: tokens.slice(at, at + length), wanted: "all" }]));
    at += length;
  }
  expect(at).toBe(tokens.length);
  return logits;
}

/** Logits of the wanted rows, one after the other. */
function run(rig: Rig, pool: KvPool, chunks: Chunk[]): Float32Array {
  return withScratch(rig.scratch, () => {
    const hidden = inferRows(rig.model, pool, chunks, rig.scratch);
    return readF32(rig.device, logitsOf(rig.model, hidden, rig.scratch));
  });
}

/** `total` cut into `length` and a rest. */
function cuts(total: number, length: number): number[] {
  return Array.from({ length: Math.ceil(total / length) }, (_, i) => Math.min(length, total - i * length));
}

for (const name of ["gqa", "llama3"] as TinyName[]) {
  for (const compute of ["f32", "bf16"] as const) {
    describe(`${name} ${compute}`, () => {
      const { sequences } = readGoldenJson<{ sequences: number[][] }>(name, "golden.json");
      let rig: Rig;
      let pool: KvPool;
      beforeAll(async () => {
        rig = await openRig(name, { compute });
        pool = createKvPool(rig.model, PAGES);
      });
      afterAll(() => {
        // every test gives its pages back
        expect(pool.free.length).toBe(PAGES);
        freeKvPool(pool);
        closeRig(rig);
      });

      test("prefill in any chunks and decoding token by token give the logits of the training pass", () => {
        const tokens = sequences[2]!;
        const expected = logitsPass(rig.model, packed([tokens]), rig);
        const scale = Math.max(...expected.map(Math.abs));
        const results = [tokens.length, PAGE, 5, 1].map((length) => {
          const sequence = emptySequence();
          const logits = logitsInChunks(rig, pool, tokens, cuts(tokens.length, length), sequence);
          expect(sequence.length).toBe(tokens.length);
          dropSequence(pool, sequence);
          return logits;
        });
        const error = figure(
          `${name} ${compute} infer against train`,
          largestDifference(results[0]!, expected) / scale,
        );
        expect(error).toBeLessThan(compute === "f32" ? 2e-6 : 2e-2);
        // key blocks stand at absolute positions, so the cut shows in no bit (settled 18)
        for (const logits of results) expect(logits).toEqual(results[0]!);
      });

      test("a batch of chunks of several sequences gives the bytes each has alone", () => {
        const alone = sequences.map((tokens) => {
          const sequence = emptySequence();
          const logits = logitsInChunks(rig, pool, tokens, [tokens.length], sequence);
          dropSequence(pool, sequence);
          return logits;
        });
        const all = sequences.map(() => emptySequence());
        const head = run(
          rig,
          pool,
          sequences.map((tokens, i) => ({ sequence: all[i]!, tokens: tokens.slice(0, -1), wanted: "none" })),
        );
        expect(head.length).toBe(0);
        const last = run(
          rig,
          pool,
          sequences.map((tokens, i) => ({ sequence: all[i]!, tokens: tokens.slice(-1), wanted: "last" })),
        );
        const width = rig.model.config.vocabSize;
        expect([...last]).toEqual(alone.flatMap((logits) => logits.slice(-width)));
        for (const sequence of all) dropSequence(pool, sequence);
      });

      test("forks share the prefix's pages and do not disturb each other", () => {
        const tokens = sequences[1]!;
        const prefix = emptySequence();
        run(rig, pool, [{ sequence: prefix, tokens, wanted: "none" }]);
        const used = PAGES - pool.free.length;
        const forks = [forkSequence(pool, prefix), forkSequence(pool, prefix), forkSequence(pool, prefix)];
        expect(PAGES - pool.free.length).toBe(used);
        const tails = [[3, 4, 5], [6], [3, 4, 7, ...tokens]];
        const chunks = forks.map((sequence, i): Chunk => ({ sequence, tokens: tails[i]!, wanted: "last" }));
        const together = [...run(rig, pool, chunks)];
        const expected = tails.flatMap((tail) => {
          const sequence = emptySequence();
          const logits = run(rig, pool, [{ sequence, tokens: [...tokens, ...tail], wanted: "last" }]);
          dropSequence(pool, sequence);
          return [...logits];
        });
        expect(together).toEqual(expected);
        // and the prefix itself goes on as if there had been no forks
        const after = run(rig, pool, [{ sequence: prefix, tokens: [6], wanted: "last" }]);
        const width = rig.model.config.vocabSize;
        expect([...after]).toEqual(expected.slice(width, 2 * width));
        for (const sequence of [prefix, ...forks]) dropSequence(pool, sequence);
      });

      test("losses of targets are minus their log-softmax", () => {
        const tokens = sequences[1]!;
        const sequence = emptySequence();
        const targets = [...tokens.slice(1), 0];
        const { losses, logits } = withScratch(rig.scratch, () => {
          const chunk: Chunk = { sequence, tokens, wanted: "all" };
          const hidden = inferRows(rig.model, pool, [chunk], rig.scratch);
          const losses = lossesOf(rig.model, hidden, targets, rig.scratch);
          return { losses, logits: readF32(rig.device, logitsOf(rig.model, hidden, rig.scratch)) };
        });
        dropSequence(pool, sequence);
        const width = rig.model.config.vocabSize;
        const expected = targets.map((target, t) => {
          const row = [...logits.subarray(t * width, (t + 1) * width)];
          const most = Math.max(...row);
          return most + Math.log(row.reduce((sum, v) => sum + Math.exp(v - most), 0)) - row[target]!;
        });
        expect(largestDifference(losses, expected)).toBeLessThan(2e-5);
      });
    });
  }
}

describe("adapters", () => {
  const { sequences } = readGoldenJson<{ sequences: number[][] }>("gqa", "golden.json");

  for (const name of ["lora", "dora", "oa", "lora-fa", "sbora-fa", "sbora-fb"]) {
    test(`${name}: unmerged inference = training pass = merged model`, async () => {
      const rig = await openRig("gqa");
      const pool = createKvPool(rig.model, PAGES);
      const base = logitsPass(rig.model, packed(sequences), rig);
      const trained = attachDisturbed(rig, name);
      const logits = (): number[] =>
        sequences.flatMap((tokens) => {
          const sequence = emptySequence();
          const values = logitsInChunks(rig, pool, tokens, [tokens.length], sequence);
          dropSequence(pool, sequence);
          return values;
        });
      const train = logitsPass(rig.model, packed(sequences), rig);
      expect(largestDifference(train, base)).toBeGreaterThan(0.05);
      expect(largestDifference(logits(), train)).toBeLessThan(2e-5);
      withTrained(rig, trained, () => mergeTrainables(rig.model, trained, rig.scratch));
      const merged = logitsPass(rig.model, packed(sequences), rig);
      expect(figure(`${name} merged against unmerged`, largestDifference(merged, train))).toBeLessThan(5e-5);
      freeKvPool(pool);
      closeRig(rig);
    });
  }
});
