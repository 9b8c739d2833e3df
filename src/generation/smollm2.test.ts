/**
 * SmolLM2-135M against transformers (testdata/smollm2.json, settled 19): logits of 20 prompts and 200 greedy tokens each.
 * Runs where the model is (src/model/testing.ts); the greedy tokens, a minute, with SBORA_SLOW=1.
 */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { withScratch } from "../adapters/draw.ts";
import { inferRows, logitsOf } from "../model/infer.ts";
import {
  createKvPool,
  dropSequence,
  emptySequence,
  freeKvPool,
  type KvPool,
  pagesFor,
} from "../model/kv-cache.ts";
import {
  closeRig,
  figure,
  golden,
  largestDifference,
  openRig,
  type Rig,
  readGolden,
  readGoldenJson,
  slow,
  smolLm2,
} from "../model/testing.ts";
import { readF32 } from "../native/tensor.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import { generate } from "./decode.ts";

interface Goldens {
  readonly stride: number;
  readonly prompts: readonly {
    readonly text: string;
    readonly ids: number[];
    readonly topIds: number[];
    readonly top64: number[];
    readonly logsumexp64: number;
    readonly peerMaxAbsError: number;
    readonly greedy: number[];
    readonly gaps: number[];
  }[];
}

/** Two logits closer than this may change places (settled 19). */
const TIE = 1e-3;
const folder = smolLm2();

describe.skipIf(folder === null)("SmolLM2-135M", () => {
  const { stride, prompts } = readGoldenJson<Goldens>("smollm2.json");
  const sampled = readGolden("smollm2-logits.safetensors");
  const longest = Math.max(...prompts.map(({ ids, greedy }) => ids.length + greedy.length));
  let rig: Rig;
  let pool: KvPool;
  beforeAll(async () => {
    rig = await openRig(folder!, { positions: longest, arenaBytes: 256 << 20 });
    pool = createKvPool(rig.model, pagesFor(1, longest));
  }, 60_000);
  afterAll(() => {
    freeKvPool(pool);
    closeRig(rig);
  });

  /** Logits after the last `rows` tokens of a text that stands alone in the cache. */
  function logitsAfter(tokens: readonly number[], rows: "last" | number): Float32Array {
    const sequence = emptySequence();
    const values = withScratch(rig.scratch, () => {
      const head = rows === "last" ? 0 : tokens.length - rows;
      if (head > 0) {
        const chunk = { sequence, tokens: tokens.slice(0, head), wanted: "none" } as const;
        withScratch(rig.scratch, () => inferRows(rig.model, pool, [chunk], rig.scratch));
      }
      const wanted = rows === "last" ? ("last" as const) : ("all" as const);
      const hidden = inferRows(
        rig.model,
        pool,
        [{ sequence, tokens: tokens.slice(head), wanted }],
        rig.scratch,
      );
      return readF32(rig.device, logitsOf(rig.model, hidden, rig.scratch));
    });
    dropSequence(pool, sequence);
    return values;
  }

  test("the tokenizer gives the prompts' ids", () => {
    const tokenizer = loadTokenizer(folder!);
    for (const { text, ids } of prompts) expect(tokenizer.encode(text)).toEqual(ids);
  });

  test("last logits of 20 prompts: at most twice transformers' own error, or 1e-4", () => {
    let worst = 0;
    for (const [number, { ids, topIds, top64, logsumexp64, peerMaxAbsError }] of prompts.entries()) {
      const logits = logitsAfter(ids, "last");
      const limit = Math.max(1e-4, 2 * peerMaxAbsError);
      const error = largestDifference(
        topIds.map((id) => logits[id]!),
        top64,
      );
      worst = Math.max(worst, error);
      expect(error).toBeLessThanOrEqual(limit);
      let sum = 0;
      for (const logit of logits) sum += Math.exp(logit - top64[0]!);
      expect(Math.abs(top64[0]! + Math.log(sum) - logsumexp64)).toBeLessThanOrEqual(limit);
      const some = sampled.has(`prompt${number}/logits`);
      if (some) {
        const theirs = golden(sampled, `prompt${number}/logits`);
        // transformers' float32 values: its error and ours
        const ours = Array.from(theirs, (_, i) => logits[i * stride]!);
        expect(largestDifference(ours, theirs)).toBeLessThanOrEqual(2e-4);
      }
    }
    figure("SmolLM2 logits", worst);
  }, 120_000);

  test.skipIf(!slow)(
    "200 greedy tokens a prompt: the same, but for near ties",
    async () => {
      const generated = await generate(
        rig.model,
        prompts.map(({ ids }) => ids),
        { beams: 1, maxNewTokens: prompts[0]!.greedy.length, eosIds: [] },
      );
      let same = 0;
      for (const [i, { greedy, gaps }] of prompts.entries()) {
        const first = greedy.findIndex((token, t) => token !== generated[i]![t]);
        if (first < 0) same++;
        else expect(gaps[first]!).toBeLessThan(TIE);
      }
      figure("prompts with all 200 tokens equal", same);
      expect(same).toBeGreaterThanOrEqual(15);
    },
    600_000,
  );

  test.skipIf(!slow)(
    "behind transformers' own tokens every next token is transformers', but for near ties",
    () => {
      const { vocabSize } = rig.model.config;
      let ties = 0;
      for (const { ids, greedy, gaps } of prompts) {
        const logits = logitsAfter([...ids, ...greedy.slice(0, -1)], greedy.length);
        for (const [t, token] of greedy.entries()) {
          const row = logits.subarray(t * vocabSize, (t + 1) * vocabSize);
          const best = row.indexOf(row.reduce((a, b) => Math.max(a, b)));
          if (best === token) continue;
          ties++;
          expect(gaps[t]!).toBeLessThan(TIE);
        }
      }
      figure("near ties decided otherwise, of 4000", ties);
    },
    600_000,
  );
});
