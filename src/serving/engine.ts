/**
 * The engine: a model, its KV pages and the requests that share them, one step at a time. It speaks the messages of
 * `protocol.ts` only, so it runs in a Worker as in a test; nothing here may import a package (settled 29).
 */
import { InputError, messageOf } from "../errors.ts";
import { createInferArena } from "../model/infer.ts";
import { createKvPool, freeKvPool, PAGE } from "../model/kv-cache.ts";
import type { Llama } from "../model/model.ts";
import { type Arena, freeArena } from "../native/arena.ts";
import { NativeError } from "../native/device.ts";
import { requireFiniteChanges } from "./finite.ts";
import { clearPrefixCache, createPrefixCache, prefixRoot } from "./prefix-cache.ts";
import {
  BASE,
  type EngineEvent,
  type EngineInfo,
  type EngineOptions,
  type EngineStats,
  type FromEngine,
  type Submission,
  type ToEngine,
} from "./protocol.ts";
import {
  addSequence,
  createScheduler,
  endSequence,
  type PlannedChunk,
  planStep,
  type Scheduler,
  sequencesOf,
} from "./scheduler.ts";
import { newSequence } from "./sequence.ts";
import { computeStep } from "./step.ts";
import { unmergedSets } from "./unmerged.ts";
import { mergedSets, type RowSpan, type WeightSets } from "./weight-sets.ts";

/** Rows of logits at once, at least: scoring a prompt asks for one a token. */
const LEAST_LOGIT_ROWS = 32;

export interface Engine {
  readonly model: Llama;
  readonly scheduler: Scheduler;
  readonly sets: WeightSets;
  readonly fingerprint: string;
  /** Made anew, between two steps, when an adapter needs more. */
  arena: Arena;
  readonly logitRows: number;
  /** Weight sets to be freed when nothing runs with them any more. */
  readonly retired: Set<string>;
  readonly send: (message: FromEngine) => void;
}

export type EngineLimits = Omit<EngineOptions, "model" | "compute" | "threads">;

export function createEngine(
  model: Llama,
  fingerprint: string,
  options: EngineLimits,
  send: Engine["send"],
): Engine {
  const { context, kvTokens, maxSequences, prefillTokens, quantumMs, prefixCache, mode, quantize } = options;
  // One page to spare: a fork copies the last page it shares.
  const pool = createKvPool(model, Math.ceil(kvTokens / PAGE) + 1);
  const logitRows = Math.max(LEAST_LOGIT_ROWS, maxSequences);
  const rows = maxSequences + prefillTokens;
  const plan = { rows, sequences: maxSequences, positions: context, logits: logitRows };
  const grown = (): void => {
    freeArena(engine.arena);
    engine.arena = createInferArena(model, plan);
  };
  const base = { fingerprint, ...(quantize ? { quantize } : {}) };
  const sets = mode === "merged" ? mergedSets(model, base) : unmergedSets(model, base, () => grown());
  const rootOf = (key: string): string => prefixRoot(fingerprint, sets.hashOf(key), key);
  const limits = { maxSequences, prefillTokens, quantumMs };
  const engine: Engine = {
    model,
    scheduler: createScheduler(pool, createPrefixCache(pool, prefixCache), limits, {
      rootOf,
      groupOf: sets.groupOf,
    }),
    sets,
    fingerprint,
    arena: createInferArena(model, plan),
    logitRows,
    retired: new Set(),
    send,
  };
  return engine;
}

export function freeEngine({ scheduler, sets, arena }: Engine): void {
  for (const sequence of [...scheduler.running, ...scheduler.waiting]) endSequence(scheduler, sequence);
  clearPrefixCache(scheduler.cache);
  freeKvPool(scheduler.pool);
  sets.free();
  freeArena(arena);
}

export function engineInfo({ model, fingerprint, scheduler }: Engine): EngineInfo {
  const { name, isa, threads } = model.device;
  return { fingerprint, device: name, isa, threads, pages: scheduler.pool.pages };
}

/** Whether there is anything to compute. */
function isBusy({ scheduler }: Engine): boolean {
  return scheduler.running.length + scheduler.waiting.length > 0;
}

/** Takes one message; `open` and `close` are the host's. */
export function handleMessage(engine: Engine, message: ToEngine): void {
  const { scheduler, sets, retired, send } = engine;
  switch (message.kind) {
    case "submit":
      submit(engine, message.submission);
      break;
    case "cancel":
      for (const sequence of sequencesOf(scheduler, message.id, message.choice))
        endSequence(scheduler, sequence);
      freeRetired(engine);
      if (!isBusy(engine)) send({ kind: "step", events: [], stats: stats(engine) });
      break;
    case "load": {
      const { call, key, dir } = message;
      try {
        requireFiniteChanges(engine.model, dir);
        send({ kind: "answer", call, set: sets.add(key, dir), refusal: null });
      } catch (error) {
        if (!(error instanceof InputError || error instanceof NativeError)) throw error;
        send({ kind: "answer", call, set: null, refusal: messageOf(error) });
      }
      break;
    }
    case "unload":
      retired.add(message.key);
      freeRetired(engine);
      send({ kind: "answer", call: message.call, set: null, refusal: null });
      break;
    case "open":
    case "close":
      break;
  }
}

function submit(engine: Engine, submission: Submission): void {
  const { id, prompt, choices, maxTokens, scorePrompt } = submission;
  if (maxTokens > 0 || (scorePrompt !== null && prompt.length > 1)) {
    addSequence(engine.scheduler, newSequence(submission));
    return;
  }
  const empty = Array.from({ length: choices }, (_, choice): EngineEvent => ({ type: "empty", id, choice }));
  const events: EngineEvent[] = [{ type: "started", id, cached: 0 }, ...empty];
  engine.send({ kind: "step", events, stats: stats(engine) });
}

function freeRetired({ scheduler, sets, retired }: Engine): void {
  for (const key of retired) {
    if ([...scheduler.running, ...scheduler.waiting].some((s) => s.submission.weights === key)) continue;
    sets.remove(key);
    scheduler.lastTurn.delete(key);
    if (scheduler.group === key) scheduler.group = BASE;
    retired.delete(key);
  }
}

/** Computes the next tokens of every sequence that runs. @returns false when there is nothing to do */
export function step(engine: Engine): boolean {
  const { scheduler, sets } = engine;
  const start = performance.now();
  const chunks = planStep(scheduler, start);
  if (!chunks) return false;
  sets.prepare(spansOf(chunks));
  const events: EngineEvent[] = [];
  for (const { sequence } of chunks) {
    if (sequence.started) continue;
    sequence.started = true;
    events.push({ type: "started", id: sequence.submission.id, cached: sequence.kv.length });
  }
  const { prompt, decoded } = computeStep(engine, chunks, events);
  freeRetired(engine);
  const stepMs = performance.now() - start;
  const counts = { stepMs, promptTokens: prompt, decodedTokens: decoded };
  engine.send({ kind: "step", events, stats: stats(engine, counts) });
  return true;
}

/** Chunks of equal weights stand together. */
function spansOf(chunks: readonly PlannedChunk[]): RowSpan[] {
  const groups = Map.groupBy(chunks, ({ sequence }) => sequence.submission.weights);
  return [...groups].map(([weights, own]) => ({ weights, rows: own.reduce((n, { count }) => n + count, 0) }));
}

const NO_WORK = { stepMs: 0, promptTokens: 0, decodedTokens: 0 };

export function stats({ scheduler, sets }: Engine, work: typeof NO_WORK = NO_WORK): EngineStats {
  const { pool, cache, running, waiting, preemptions } = scheduler;
  return {
    running: running.length,
    waiting: waiting.length,
    pages: pool.pages,
    freePages: pool.free.length,
    cachedPages: cache.pages.size,
    preemptions,
    swaps: sets.swaps().count,
    swapMs: sets.swaps().milliseconds,
    ...work,
  };
}
