/** Whatever an engine does to be fast (batches, chunks, shared pages, putting back) never changes an answer. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildLibrary } from "../native/build.ts";
import { writeTinyModel } from "../training/testing.ts";
import type { EngineClient } from "./client.ts";
import { ask, tinyEngine, tinyPrompt, type Wish } from "./testing.ts";

setDefaultTimeout(60_000);

const root = mkdtempSync(join(tmpdir(), "sbora-engine-"));
const model = join(root, "model");
await buildLibrary("cpu");
writeTinyModel(model);
afterAll(() => rmSync(root, { recursive: true }));

/** 16 prompts of different lengths, a request each. */
const prompts = Array.from({ length: 16 }, (_, i) => tinyPrompt(i, 3 + 11 * i));

async function withEngine<T>(
  changes: Parameters<typeof tinyEngine>[1],
  use: (client: EngineClient) => Promise<T>,
): Promise<T> {
  const client = await tinyEngine(model, changes);
  try {
    return await use(client);
  } finally {
    await client.close();
  }
}

const together = (client: EngineClient, wish: (i: number) => Wish): Promise<number[][][]> =>
  Promise.all(prompts.map(async (prompt, i) => (await ask(client, prompt, wish(i))).tokens));

const alone = async (client: EngineClient, wish: (i: number) => Wish): Promise<number[][][]> => {
  const answers: number[][][] = [];
  for (const [i, prompt] of prompts.entries()) answers.push((await ask(client, prompt, wish(i))).tokens);
  return answers;
};

const sampled = (i: number): Wish => ({
  sampling: { temperature: 0.5 + 0.1 * i, topP: 0.95, seed: i, topK: i % 3 === 0 ? 20 : 0 },
});

describe("an answer is the same", () => {
  let expected: number[][][];
  let expectedSampled: number[][][];
  beforeAll(async () => {
    const off = { prefixCache: false, maxSequences: 1, prefillTokens: 512 };
    expected = await withEngine(off, (client) => alone(client, () => ({})));
    expectedSampled = await withEngine(off, (client) => alone(client, sampled));
    expect(expected.every(([tokens]) => tokens!.length === 12)).toBe(true);
    // a model that always says the same would prove nothing
    expect(new Set(expected.map(String)).size).toBeGreaterThan(8);
    expect(expectedSampled).not.toEqual(expected);
  });

  for (const prefillTokens of [1, 7, 64, 512]) {
    test(`alone and in a batch of 16, prompts in chunks of at most ${prefillTokens}`, async () => {
      await withEngine({ prefillTokens }, async (client) => {
        expect(await together(client, () => ({}))).toEqual(expected);
        expect(await together(client, sampled)).toEqual(expectedSampled);
      });
    });
  }

  test("behind pages of the prefix cache", async () => {
    await withEngine({}, async (client) => {
      const prompt = prompts[15]!;
      const first = await ask(client, prompt);
      const second = await ask(client, prompt);
      expect(first.cached).toBe(0);
      expect(second.cached).toBe(160);
      expect(second.tokens).toEqual(first.tokens);
      expect(first.tokens).toEqual(expected[15]!);
      const other = await ask(client, [...prompt.slice(0, 40), ...prompts[3]!]);
      expect(other.cached).toBe(32);
      const cold = await withEngine({ prefixCache: false }, (c) =>
        ask(c, [...prompt.slice(0, 40), ...prompts[3]!]),
      );
      expect(other.tokens).toEqual(cold.tokens);
    });
  });

  test("with so few pages that sequences are put back and computed again", async () => {
    await withEngine({ kvTokens: 512, context: 256 }, async (client) => {
      const wish = { maxTokens: 60 };
      const tokens = await together(client, () => wish);
      expect(client.stats()!.preemptions).toBeGreaterThan(0);
      const roomy = await withEngine({ kvTokens: 8192 }, (c) => together(c, () => wish));
      expect(tokens).toEqual(roomy);
    });
  });

  test("whatever neighbours with penalties, biases and reports do", async () => {
    await withEngine({}, async (client) => {
      const odd: Wish = {
        logprobs: 5,
        sampling: { temperature: 1.3, repetitionPenalty: 1.2, logitBias: [[9, 3]], seed: 4 },
      };
      const neighbours = prompts.slice(8).map((prompt) => ask(client, prompt, odd));
      const mine = await Promise.all(prompts.slice(0, 8).map((prompt, i) => ask(client, prompt, sampled(i))));
      expect(mine.map(({ tokens }) => tokens)).toEqual(expectedSampled.slice(0, 8));
      await Promise.all(neighbours);
    });
  });

  test("and so are reports, beside neighbours that want longer ones", async () => {
    await withEngine({ prefixCache: false }, async (client) => {
      const wish: Wish = { logprobs: 0, scorePrompt: 0, sampling: { temperature: 0.2, seed: 3 } };
      const alone = await ask(client, tinyPrompt(1, 20), wish);
      const [beside] = await Promise.all([
        ask(client, tinyPrompt(1, 20), wish),
        ask(client, tinyPrompt(2, 20), { logprobs: 20, scorePrompt: 20 }),
      ]);
      expect(beside).toEqual(alone);
    });
  });
});

describe("requests", () => {
  let client: EngineClient;
  beforeAll(async () => {
    client = await tinyEngine(model);
  });
  afterAll(() => client.close());

  test("several answers to one prompt share it and draw for themselves", async () => {
    const wish = { choices: 4, sampling: { temperature: 1, seed: 5 } };
    const { tokens } = await ask(client, prompts[6]!, wish);
    expect(new Set(tokens.map(String)).size).toBe(4);
    const again = await ask(client, prompts[6]!, wish);
    expect(again.tokens).toEqual(tokens);
    const first = await ask(client, prompts[6]!, { ...wish, choices: 1 });
    expect(first.tokens[0]).toEqual(tokens[0]!);
  });

  test("an end token ends the answer and is part of it", async () => {
    const { tokens } = await ask(client, prompts[4]!);
    const end = tokens[0]![3]!;
    const stopped = await ask(client, prompts[4]!, { stopIds: [end] });
    const upTo = tokens[0]!.indexOf(end) + 1;
    expect(stopped.tokens[0]).toEqual(tokens[0]!.slice(0, upTo));
    expect(stopped.finish).toEqual(["stop"]);
  });

  test("reports are the model's own distribution, whatever is drawn from", async () => {
    const plain = await ask(client, prompts[5]!, { logprobs: 3, maxTokens: 1 });
    const [token] = plain.scored[0]!;
    expect(token!.top).toHaveLength(3);
    expect(token!.top[0]).toEqual([token!.token, token!.logprob!]);
    const wish = { logprobs: 20, maxTokens: 1, sampling: { temperature: 1.5, seed: 3 } };
    const [hot] = (await ask(client, prompts[5]!, wish)).scored[0]!;
    expect(hot!.top.slice(0, 3)).toEqual([...token!.top]);
    const biased = { ...wish, sampling: { logitBias: [[77, 100]] as [number, number][] } };
    const [forced] = (await ask(client, prompts[5]!, biased)).scored[0]!;
    expect(forced!.token).toBe(77);
    const listed = hot!.top.find(([id]) => id === 77);
    expect(forced!.logprob!).toBeLessThan(listed ? 0 : hot!.top[19]![1]);
  });

  test("scores of a prompt do not depend on chunks and agree with those of an answer", async () => {
    const prompt = prompts[7]!;
    const answer = await ask(client, prompt, { logprobs: 2, maxTokens: 8 });
    const whole = [...prompt, ...answer.tokens[0]!];
    const scored = await ask(client, whole, { scorePrompt: 2, maxTokens: 0 });
    expect(scored.finish).toEqual(["empty"]);
    expect(scored.prompt.map(({ token }) => token)).toEqual(whole.slice(1));
    expect(scored.prompt.slice(prompt.length - 1)).toEqual(answer.scored[0]!);
    const chunked = await withEngine({ prefillTokens: 5 }, (c) =>
      ask(c, whole, { scorePrompt: 2, maxTokens: 3, logprobs: 0 }),
    );
    expect(chunked.prompt).toEqual(scored.prompt);
    expect(chunked.tokens[0]).toHaveLength(3);
  });

  test("nothing to compute is answered at once", async () => {
    expect((await ask(client, [5], { maxTokens: 0, choices: 2 })).finish).toEqual(["empty", "empty"]);
    expect((await ask(client, [5], { maxTokens: 0, scorePrompt: 1 })).finish).toEqual(["empty"]);
  });
});

describe("pages", () => {
  test("all come back: after answers, cancelled requests and choices", async () => {
    await withEngine({ prefixCache: false }, async (client) => {
      const all = client.stats()!.freePages;
      const cut = prompts.map(async (prompt, i) => {
        const [generation] = client.submit([
          {
            weights: "",
            prompt,
            choices: i % 2 === 0 ? 1 : 3,
            maxTokens: 300,
            stopIds: [],
            sampling: { ...(await import("../generation/sampling.ts")).greedy, temperature: 1 },
            logprobs: null,
            scorePrompt: null,
          },
        ])!;
        let seen = 0;
        for await (const event of generation!.events()) {
          if (event.type !== "token") continue;
          seen++;
          if (seen === 2) generation!.cancel(0);
          if (seen === 2 + i) generation!.cancel();
        }
        return seen;
      });
      const seen = await Promise.all(cut);
      expect(Math.max(...seen)).toBeLessThan(100);
      await ask(client, prompts[0]!);
      expect(client.outstanding()).toBe(0);
      expect(client.stats()).toMatchObject({ running: 0, waiting: 0, freePages: all });
    });
  });
});
