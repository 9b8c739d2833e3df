/** For tests: an engine on this thread, a tiny model folder, adapters for it. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { MethodName } from "../adapters/adapter.ts";
import { readWholeWeight } from "../adapters/full.ts";
import { methodNamed } from "../adapters/registry.ts";
import { saveAdapter } from "../adapters/storage.ts";
import { fingerprintModel } from "../formats/fingerprint.ts";
import { greedy, type SamplingOptions } from "../generation/sampling.ts";
import { freeLlama, type Llama, loadLlama } from "../model/model.ts";
import { linearNames } from "../model/shapes.ts";
import { attachTrainables, freeTrainables } from "../model/trainables.ts";
import { createArena, freeArena } from "../native/arena.ts";
import { closeDevice, openDevice } from "../native/device.ts";
import { randomStream } from "../native/philox.ts";
import { createTensor, freeTensor, readF32, writeF32 } from "../native/tensor.ts";
import { createEngineClient, type EngineClient, type EnginePort } from "./client.ts";
import { createHost } from "./host.ts";
import type { EngineEvent, EngineOptions, EngineStats, ScoredToken, Submission } from "./protocol.ts";

/** The engine on this thread; messages still arrive later, as between threads. */
export function localPort(): EnginePort {
  let receive: Parameters<EnginePort["listen"]>[0] = () => {};
  const host = createHost((message) => void setImmediate(() => receive(structuredClone(message))));
  return {
    post: (message) => void setImmediate(() => host(structuredClone(message))),
    listen(handler) {
      receive = handler;
    },
    terminate() {},
  };
}

export const tinyOptions: Omit<EngineOptions, "model"> = {
  compute: "f32",
  threads: 1,
  context: 512,
  kvTokens: 2048,
  maxSequences: 16,
  prefillTokens: 64,
  quantumMs: 20,
  prefixCache: true,
  mode: "merged",
};

export async function tinyEngine(
  model: string,
  changes: Partial<EngineOptions> = {},
  onStep?: (stats: EngineStats, events: readonly EngineEvent[]) => void,
): Promise<EngineClient> {
  const engine = { ...tinyOptions, ...changes, model };
  const client = createEngineClient(localPort(), { engine, capacity: 64, ...(onStep ? { onStep } : {}) });
  await client.ready;
  return client;
}

export type Wish = Partial<Omit<Submission, "sampling">> & { readonly sampling?: Partial<SamplingOptions> };

export interface Answer {
  /** By choice. */
  readonly tokens: number[][];
  readonly scored: ScoredToken[][];
  readonly finish: (string | null)[];
  readonly prompt: ScoredToken[];
  readonly cached: number;
}

/** One request to its end; greedy, 12 tokens, no end token unless said otherwise. */
export async function ask(client: EngineClient, prompt: readonly number[], wish: Wish = {}): Promise<Answer> {
  const { sampling, ...rest } = wish;
  const [generation] = client.submit([
    {
      weights: "",
      prompt,
      choices: 1,
      maxTokens: 12,
      stopIds: [],
      logprobs: null,
      scorePrompt: null,
      ...rest,
      sampling: { ...greedy, ...sampling },
    },
  ])!;
  const choices = wish.choices ?? 1;
  const scored: ScoredToken[][] = Array.from({ length: choices }, () => []);
  const finish: (string | null)[] = Array.from({ length: choices }, () => null);
  const scores: ScoredToken[] = [];
  let cached = 0;
  for await (const event of generation!.events()) {
    if (event.type === "started") cached = event.cached;
    else if (event.type === "prompt") scores.push(...event.scores);
    else if (event.type === "token") {
      scored[event.choice]!.push(event.scored);
      finish[event.choice] = event.finish;
    } else finish[event.choice] = "empty";
  }
  const tokens = scored.map((list) => list.map(({ token }) => token));
  return { tokens, scored, finish, prompt: scores, cached };
}

/** A prompt of `length` tokens of the tiny model's vocabulary. */
export function tinyPrompt(seed: number, length: number): number[] {
  const random = randomStream(BigInt(seed));
  return Array.from({ length }, () => 2 + random.below(268));
}

/** Writes adapter folders of the given methods with factors far from zero, so that they change what the model says. */
export async function writeTinyAdapters(
  model: string,
  root: string,
  names: Readonly<Record<string, MethodName>>,
): Promise<void> {
  const device = await openDevice({ threads: 1 });
  const llama = loadLlama(device, model, { compute: "f32", positions: 1 });
  const arena = createArena(device, 4 << 20);
  const base = fingerprintModel(model);
  let seed = 1;
  for (const [name, methodName] of Object.entries(names)) {
    const method = methodNamed(methodName);
    const options = { method, rank: 4, alpha: 8, targets: ["all-linear"], seed: seed++ };
    const trained = attachTrainables(llama, options, arena);
    const random = randomStream(BigInt(100 + seed));
    for (const { trainable } of trained.adapters) {
      for (const tensor of Object.values(trainable)) {
        const values = readF32(device, tensor);
        writeF32(
          device,
          tensor,
          values.map((v) => v + (random.word() / 2 ** 32 - 0.5) / 2),
        );
      }
    }
    const dir = join(root, name);
    mkdirSync(dir, { recursive: true });
    saveAdapter(dir, device, trained.adapters, {
      layout: "native",
      baseModel: "tiny",
      alpha: 8,
      dropout: 0,
      metadata: { method: methodName, seed, base, recipe: null, templateHash: null },
    });
    freeTrainables(llama, trained);
  }
  freeArena(arena);
  freeLlama(llama);
  closeDevice(device);
}

/** Every value of every linear, as bits. */
export function bitsOf({ device, layers }: Llama): string {
  const hash = new Bun.CryptoHasher("sha256");
  for (const { linears } of layers) {
    for (const name of linearNames) {
      const { weight } = linears[name];
      const values = createTensor(device, "f32", [weight.out, weight.in]);
      readWholeWeight(device, weight, values);
      hash.update(readF32(device, values));
      freeTensor(device, values);
    }
  }
  return hash.digest("hex");
}
