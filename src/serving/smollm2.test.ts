/** SmolLM2-135M behind the engine, where the model is: 16 prompts together, each in chunks, as each alone. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readGoldenJson, smolLm2 } from "../model/testing.ts";
import { ask, tinyEngine } from "./testing.ts";

setDefaultTimeout(300_000);

const TOKENS = 5;
const folder = smolLm2();

describe.skipIf(folder === null)("SmolLM2-135M", () => {
  const { prompts } = readGoldenJson<{ prompts: { ids: number[]; greedy: number[] }[] }>("smollm2.json");
  const sixteen = prompts.slice(0, 16);
  const wish = { maxTokens: TOKENS, logprobs: 1 };

  for (const compute of ["f32", "bf16"] as const) {
    test(`${compute}: alone and in a batch of 16, tokens and log-probabilities bit for bit`, async () => {
      const client = await tinyEngine(folder!, { compute, threads: null, prefixCache: false });
      const together = await Promise.all(sixteen.map(({ ids }) => ask(client, ids, wish)));
      for (const [i, { ids }] of sixteen.entries()) {
        expect((await ask(client, ids, wish)).scored).toEqual(together[i]!.scored);
      }
      const same = together.filter(
        ({ tokens }, i) => `${tokens[0]}` === `${sixteen[i]!.greedy.slice(0, TOKENS)}`,
      );
      // transformers' tokens, but for near ties in bf16
      expect(same.length).toBeGreaterThanOrEqual(compute === "f32" ? 16 : 12);
      await client.close();
    });
  }
});
