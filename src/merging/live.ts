/** Logits on fixed prompts: of the merged model, of the base, and of the base with the adapters live behind it. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { methodNamed } from "../adapters/registry.ts";
import { loadAdapterValues } from "../adapters/storage.ts";
import { createInferArena, inferRows, logitsOf } from "../model/infer.ts";
import { createKvPool, emptySequence, freeKvPool, pagesFor } from "../model/kv-cache.ts";
import { freeLlama, type Llama, type LoadOptions, loadLlama } from "../model/model.ts";
import { planMerge } from "../model/planning.ts";
import {
  type AdapterOptions,
  attachTrainables,
  freeTrainables,
  prepareTrainables,
  type Trainables,
} from "../model/trainables.ts";
import { type Arena, createArena, freeArena } from "../native/arena.ts";
import type { Device } from "../native/device.ts";
import { readF32, writeF32 } from "../native/tensor.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import { summed } from "./low-rank.ts";
import { type Base, type LoadedSource, partsByTensor } from "./sources.ts";

export interface LogitComparison {
  /** Positions that were compared, over the whole vocabulary each. */
  readonly positions: number;
  /** Largest magnitude of a logit of base + adapters. */
  readonly largest: number;
  /** Largest |merged − (base + adapters)|. */
  readonly difference: number;
  /** Largest |(base + adapters) − base|: what the adapters do. */
  readonly effect: number;
}

const TEXTS = [
  "The capital of France is",
  "Question: What is 12 + 30?\nAnswer:",
  "def add(a, b):\n    return",
  "Once upon a time, in a village by the sea, there lived",
];
const MAX_PROMPT_TOKENS = 16;

export async function compareLogits(
  device: Device,
  base: Base,
  sources: readonly LoadedSource[],
  merged: string,
): Promise<LogitComparison> {
  const prompts = fixedPrompts(base);
  const positions = Math.max(...prompts.map((prompt) => prompt.length));
  const load = { compute: "f32", positions } as const;
  const afterMerge = withModel(device, merged, load, (model) => logitsFor(model, prompts));
  // Between two models the memory of the first is free again.
  await Bun.sleep(0);
  const { quantize } = base;
  const [before, live] = withModel(
    device,
    base.dir,
    { ...load, ...(quantize ? { quantize } : {}) },
    (model) => [logitsFor(model, prompts), withLive(model, base, sources, () => logitsFor(model, prompts))],
  );
  const largest = live!.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return {
    positions: prompts.reduce((sum, prompt) => sum + prompt.length, 0),
    largest,
    difference: largestDifference(afterMerge, live!),
    effect: largestDifference(before!, live!),
  };
}

/** Token ids of a few short texts; without a tokenizer, ids spread over the vocabulary. */
function fixedPrompts({ dir, config }: Base): number[][] {
  if (existsSync(join(dir, "tokenizer.json"))) {
    const tokenizer = loadTokenizer(dir);
    const prompts = TEXTS.map((text) => tokenizer.encode(text).slice(0, MAX_PROMPT_TOKENS));
    const usable = prompts.filter((ids) => ids.length > 0 && ids.every((id) => id < config.vocabSize));
    if (usable.length > 0) return usable;
  }
  return TEXTS.map((_, p) =>
    Array.from({ length: 12 }, (_, i) => (7919 * (p + 1) * (i + 1)) % config.vocabSize),
  );
}

function withModel<T>(device: Device, dir: string, load: LoadOptions, use: (model: Llama) => T): T {
  const model = loadLlama(device, dir, load);
  try {
    return use(model);
  } finally {
    freeLlama(model);
  }
}

/** [positions · V], prompt after prompt. */
function logitsFor(model: Llama, prompts: readonly (readonly number[])[]): Float32Array {
  const rows = prompts.reduce((sum, prompt) => sum + prompt.length, 0);
  const positions = Math.max(...prompts.map((prompt) => prompt.length));
  const pool = createKvPool(model, pagesFor(prompts.length, positions));
  const arena = createInferArena(model, { rows, sequences: prompts.length, positions, logits: rows });
  try {
    const chunks = prompts.map((tokens) => ({ sequence: emptySequence(), tokens, wanted: "all" as const }));
    return readF32(model.device, logitsOf(model, inferRows(model, pool, chunks, arena), arena));
  } finally {
    freeArena(arena);
    freeKvPool(pool);
  }
}

/** Runs `use` with the adapters behind the linears: one as itself, several as one LoRA of all their ranks. */
function withLive<T>(model: Llama, base: Base, sources: readonly LoadedSource[], use: () => T): T {
  const options = liveOptions(base, sources);
  const arena = createArena(model.device, planMerge(model.config, { compute: "f32", positions: 1 }, options));
  try {
    const trained = attachTrainables(model, options, arena);
    try {
      fill(model, trained, base, sources, arena);
      return use();
    } finally {
      freeTrainables(model, trained);
    }
  } finally {
    freeArena(arena);
  }
}

function liveOptions(base: Base, sources: readonly LoadedSource[]): AdapterOptions {
  const only = sources.length === 1 ? sources[0]! : null;
  const sites = new Map(
    [...partsByTensor(base, sources).values()].map((parts) => {
      const rank = parts.reduce((sum, { site }) => sum + site.rank, 0);
      return [parts[0]!.site.name, { rank, scaling: only ? parts[0]!.site.scaling : 1 }];
    }),
  );
  const rank = Math.max(...[...sites.values()].map((site) => site.rank));
  const method = only ? only.options.method : methodNamed("lora");
  return { method, rank, alpha: rank, targets: ["all-linear"], seed: 0, sites };
}

function fill(
  model: Llama,
  trained: Trainables,
  base: Base,
  sources: readonly LoadedSource[],
  arena: Arena,
): void {
  const { device } = model;
  if (sources.length === 1) loadAdapterValues(sources[0]!.folder, device, trained.adapters);
  else {
    const parts = partsByTensor(base, sources);
    for (const { site, trainable } of trained.adapters) {
      const { A, B } = summed(parts.get(`model.${site.name}.weight`)!);
      writeF32(device, trainable.A!, A);
      writeF32(device, trainable.B!, B);
    }
  }
  prepareTrainables(model, trained, arena);
}

export function largestDifference(a: Float32Array, b: Float32Array): number {
  let most = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!);
    if (Number.isNaN(difference)) return difference;
    if (difference > most) most = difference;
  }
  return most;
}
