/** The server's engine on this thread, asked without HTTP: what a request costs once it is token ids. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { methodNamed } from "../../src/adapters/registry.ts";
import { saveAdapter } from "../../src/adapters/storage.ts";
import { InputError } from "../../src/errors.ts";
import { greedy } from "../../src/generation/sampling.ts";
import type { Llama } from "../../src/model/model.ts";
import { attachTrainables, freeTrainables } from "../../src/model/trainables.ts";
import { createArena, freeArena } from "../../src/native/arena.ts";
import { readF32, sizeOf, writeF32 } from "../../src/native/tensor.ts";
import { createEngine, freeEngine, handleMessage, step } from "../../src/serving/engine.ts";
import type { EngineOptions, FromEngine } from "../../src/serving/protocol.ts";
import type { StepMethod } from "./options.ts";
import { randomValues } from "./random-weights.ts";

export const SERVE_RANK = 32;
const FINGERPRINT = "bench";
/** Small beside the weights, far from nothing: what is said changes. */
const FACTOR_SCALE = 2 ** -6;
/** Positions of a cache page, so that small contexts have room too. */
const SPARE_TOKENS = 64;

/** One answer, and when each of its tokens was told. */
export interface Answered {
  /** null: not asked for. */
  readonly logprobs: readonly (number | null)[];
  /** Milliseconds since the request was made. */
  readonly at: readonly number[];
}

export interface BenchEngine {
  readonly model: Llama;
  /** @throws InputError when the folder is refused */
  load(weights: string, dir: string): void;
  /** Greedy, to `count` tokens, nothing cached; the swap to these weights belongs to it. */
  answer(weights: string, prompt: readonly number[], count: number, scored?: boolean): Answered;
  free(): void;
}

export function openEngine(model: Llama, mode: EngineOptions["mode"], positions: number): BenchEngine {
  let logprobs: (number | null)[] = [];
  let at: number[] = [];
  let started = 0;
  let nextId = 1;
  const receive = (message: FromEngine): void => {
    if (message.kind === "answer" && message.refusal !== null) throw new InputError(message.refusal);
    if (message.kind !== "step") return;
    for (const event of message.events) {
      if (event.type !== "token") continue;
      logprobs.push(event.scored.logprob);
      at.push(performance.now() - started);
    }
  };
  const limits = { context: positions, kvTokens: positions + SPARE_TOKENS, maxSequences: 1, quantumMs: 0 };
  const engine = createEngine(
    model,
    FINGERPRINT,
    { ...limits, prefillTokens: positions, prefixCache: false, mode },
    receive,
  );
  return {
    model,
    load: (key, dir) => handleMessage(engine, { kind: "load", call: 0, key, dir }),
    answer(weights, prompt, count, scored = false) {
      [logprobs, at, started] = [[], [], performance.now()];
      const wanted = { weights, prompt, choices: 1, maxTokens: count, stopIds: [], sampling: greedy };
      const submission = { id: nextId++, ...wanted, logprobs: scored ? 0 : null, scorePrompt: null };
      handleMessage(engine, { kind: "submit", submission });
      for (let busy = true; busy; ) busy = step(engine);
      return { logprobs, at };
    },
    free: () => freeEngine(engine),
  };
}

/** Writes an adapter of rank 32 on all linears, its factors as if they had been trained, and loads it under its method's name. */
export function loadRandomAdapter(
  engines: readonly BenchEngine[],
  model: Llama,
  root: string,
  name: StepMethod,
): void {
  const { device } = model;
  const dir = join(root, name);
  mkdirSync(dir, { recursive: true });
  const scratch = createArena(device, 1 << 20);
  const method = methodNamed(name);
  const options = { method, rank: SERVE_RANK, alpha: SERVE_RANK, targets: ["all-linear"], seed: 1 };
  const trained = attachTrainables(model, options, scratch);
  const start = readF32(device, trained.parameters);
  const change = randomValues(sizeOf(trained.parameters), 3, FACTOR_SCALE);
  writeF32(
    device,
    trained.parameters,
    start.map((value, i) => value + change[i]!),
  );
  saveAdapter(dir, device, trained.adapters, {
    layout: "native",
    baseModel: "bench",
    alpha: options.alpha,
    dropout: 0,
    metadata: { method: name, seed: 1, base: FINGERPRINT, recipe: null, templateHash: null },
  });
  freeTrainables(model, trained);
  freeArena(scratch);
  for (const engine of engines) engine.load(name, dir);
}
