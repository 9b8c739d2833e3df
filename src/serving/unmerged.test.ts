/** Adapters side by side in one batch: each row as alone, and as the merged weights have it but for rounding. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildLibrary } from "../native/build.ts";
import { writeTinyModel } from "../training/testing.ts";
import type { EngineClient } from "./client.ts";
import type { EngineOptions } from "./protocol.ts";
import { type Answer, ask, tinyEngine, tinyPrompt, writeTinyAdapters } from "./testing.ts";

setDefaultTimeout(60_000);

const METHODS = {
  fa: "sbora-fa",
  fb: "sbora-fb",
  lora: "lora",
  dora: "dora",
  oa: "oa",
  "lora-fa": "lora-fa",
} as const;
const root = mkdtempSync(join(tmpdir(), "sbora-unmerged-"));
const modelDir = join(root, "model");
await buildLibrary("cpu");
writeTinyModel(modelDir);
await writeTinyAdapters(modelDir, root, METHODS);
afterAll(() => rmSync(root, { recursive: true }));

const weights = ["", ...Object.keys(METHODS)];
const prompts = Array.from({ length: 21 }, (_, i) => tinyPrompt(70 + i, 4 + 5 * i));
const wish = (i: number): { weights: string; logprobs: number; maxTokens: number } => ({
  weights: weights[i % weights.length]!,
  logprobs: 1,
  maxTokens: 10,
});

async function open(changes: Partial<EngineOptions>): Promise<EngineClient> {
  const client = await tinyEngine(modelDir, { maxSequences: 21, ...changes });
  for (const name of Object.keys(METHODS)) await client.load(name, join(root, name));
  return client;
}

const all = (client: EngineClient): Promise<Answer[]> =>
  Promise.all(prompts.map((prompt, i) => ask(client, prompt, wish(i))));

for (const compute of ["f32", "bf16"] as const) {
  describe(`unmerged, ${compute}`, () => {
    test("seven weight sets in one batch give what each gives alone, bit for bit", async () => {
      const client = await open({ compute, mode: "unmerged", prefillTokens: 40 });
      const together = await all(client);
      expect(client.stats()!.swaps).toBe(0);
      const single = await open({ compute, mode: "unmerged", maxSequences: 1, prefixCache: false });
      for (const [i, prompt] of prompts.entries()) {
        expect((await ask(single, prompt, wish(i))).scored).toEqual(together[i]!.scored);
      }
      // the same prompt again, from its own weights' pages only
      const again = await ask(client, prompts[20]!, wish(20));
      expect(again.cached).toBeGreaterThan(80);
      expect(again.scored).toEqual(together[20]!.scored);
      expect((await ask(client, prompts[20]!, wish(19))).cached).toBe(0);
      await client.close();
      await single.close();
    });

    test("agree with the merged weights", async () => {
      const unmerged = await open({ compute, mode: "unmerged" });
      const merged = await open({ compute, mode: "merged" });
      const [a, b] = await Promise.all([all(unmerged), all(merged)]);
      // first tokens: later ones follow tokens that may differ where two are nearly equal
      const first = (answers: Answer[]): number[] => answers.map(({ scored }) => scored[0]![0]!.logprob!);
      const worst = Math.max(...first(a).map((value, i) => Math.abs(value - first(b)[i]!)));
      expect(worst).toBeLessThan(compute === "f32" ? 1e-5 : 0.05);
      const base = first(await Promise.all(prompts.map((prompt) => ask(merged, prompt, { logprobs: 1 }))));
      const changed = first(b).filter((value, i) => Math.abs(value - base[i]!) > 0.05).length;
      // what agrees is not the base's answer
      expect(changed).toBeGreaterThan(10);
      await unmerged.close();
      await merged.close();
    });
  });
}

test("an adapter that goes takes nothing from the others", async () => {
  const client = await open({ mode: "unmerged" });
  const before = await all(client);
  await client.unload("dora");
  const after = await ask(client, prompts[1]!, wish(1));
  expect(after.scored).toEqual(before[1]!.scored);
  await client.close();
});
