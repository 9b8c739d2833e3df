/** Prompts in, generated token ids out: many prompts at a time, each with its beams; beams share the prompt's KV. */
import { withScratch } from "../adapters/draw.ts";
import { type Chunk, createInferArena, inferRows, logitsOf } from "../model/infer.ts";
import {
  createKvPool,
  dropSequence,
  emptySequence,
  forkSequence,
  freeKvPool,
  type KvPool,
  type KvSequence,
  pagesFor,
} from "../model/kv-cache.ts";
import type { Llama } from "../model/model.ts";
import { type Arena, arenaTensor, freeArena } from "../native/arena.ts";
import { topkLogSoftmax } from "../native/ops/index.ts";
import { readF32, readI32, type Tensor } from "../native/tensor.ts";
import {
  advanceBeams,
  type BeamOptions,
  type BeamState,
  bestHypothesis,
  type Candidate,
  startBeams,
} from "./beam.ts";

/** Most rows of one native batch: bounds the logits in memory, not the result. */
const MAX_ROWS = 512;

export interface GenerateOptions extends BeamOptions {
  /** Prompts that decode together. Never changes a result. */
  readonly concurrency?: number;
  /** Called after each finished prompt, in the order they finish. */
  readonly onDone?: (prompt: number) => void;
  /** One beam only: every token as it is chosen, EOS included. */
  readonly onToken?: (prompt: number, token: number) => void;
}

interface Job {
  readonly prompt: number;
  readonly state: BeamState;
  sequences: KvSequence[];
  /** Last token of each running beam. */
  tokens: number[];
}

/** The best continuation of every prompt (token ids; EOS included where the model ended so), in prompt order. */
export async function generate(
  model: Llama,
  prompts: readonly (readonly number[])[],
  options: GenerateOptions,
): Promise<number[][]> {
  const { beams, maxNewTokens } = options;
  const concurrency = Math.min(
    options.concurrency ?? 32,
    Math.max(1, Math.floor(MAX_ROWS / beams)),
    Math.max(1, prompts.length),
  );
  const longest = Math.max(0, ...prompts.map((p) => p.length)) + maxNewTokens;
  if (longest > model.rope.cosine.shape[0]!) {
    throw new Error(
      `a prompt and its answer need ${longest} positions, the model was opened for ${model.rope.cosine.shape[0]}`,
    );
  }
  // One spare page a beam: while a step forks, parent and child both hold their last page.
  const pool = createKvPool(
    model,
    concurrency * (pagesFor(1, longest) + beams * (pagesFor(1, maxNewTokens) + 2)),
  );
  const running = concurrency * beams;
  const arena = createInferArena(model, {
    rows: Math.max(running, Math.min(MAX_ROWS, concurrency * longest)),
    sequences: running,
    positions: longest,
    logits: running,
  });
  const results: number[][] = prompts.map(() => []);
  // Longest first, so that the batch empties evenly; results are stored by prompt number.
  const waiting = prompts.map((_, i) => i).sort((a, b) => prompts[b]!.length - prompts[a]!.length || a - b);
  let active: Job[] = [];
  try {
    while (waiting.length > 0 || active.length > 0) {
      // Prompts join a quarter of the slots at a time: products of many rows are the cheaper ones.
      if (active.length <= concurrency - Math.ceil(concurrency / 4)) {
        const joining = waiting.splice(0, concurrency - active.length);
        active.push(...prefill(model, pool, arena, prompts, joining, options));
      }
      decodeStep(model, pool, arena, active, options);
      for (const job of active.filter((j) => j.state.done)) {
        results[job.prompt] = [...bestHypothesis(job.state).tokens];
        for (const sequence of job.sequences) dropSequence(pool, sequence);
        options.onDone?.(job.prompt);
      }
      active = active.filter((j) => !j.state.done);
      await Bun.sleep(0);
    }
  } finally {
    freeArena(arena);
    freeKvPool(pool);
  }
  return results;
}

/** Runs the joining prompts but for their last tokens, MAX_ROWS rows at a time whosever they are. */
function prefill(
  model: Llama,
  pool: KvPool,
  arena: Arena,
  prompts: readonly (readonly number[])[],
  joining: readonly number[],
  options: GenerateOptions,
): Job[] {
  let chunks: Chunk[] = [];
  let rows = 0;
  const run = (): void => {
    if (rows > 0) withScratch(arena, () => inferRows(model, pool, chunks, arena));
    chunks = [];
    rows = 0;
  };
  const jobs = joining.map((prompt): Job => {
    const tokens = prompts[prompt]!;
    if (tokens.length === 0)
      throw new Error("an empty prompt has nothing to continue; put at least a BOS token");
    const sequence = emptySequence();
    for (let at = 0; at < tokens.length - 1; ) {
      const end = Math.min(at + MAX_ROWS - rows, tokens.length - 1);
      chunks.push({ sequence, tokens: tokens.slice(at, end), wanted: "none" });
      rows += end - at;
      at = end;
      if (rows === MAX_ROWS) run();
    }
    return { prompt, state: startBeams(options), sequences: [sequence], tokens: [tokens.at(-1)!] };
  });
  run();
  return jobs;
}

function decodeStep(
  model: Llama,
  pool: KvPool,
  arena: Arena,
  jobs: readonly Job[],
  options: GenerateOptions,
): void {
  const live = jobs.filter((job) => !job.state.done);
  const chunks = live.flatMap((job) =>
    job.sequences.map((sequence, i): Chunk => ({ sequence, tokens: [job.tokens[i]!], wanted: "last" })),
  );
  if (chunks.length === 0) return;
  withScratch(arena, () => {
    const beams = live[0]!.state.options.beams;
    const logits = logitsOf(model, inferRows(model, pool, chunks, arena), arena);
    const best = bestTokens(model, logits, Math.min(2 * beams, model.config.vocabSize), arena);
    let row = 0;
    for (const job of live) {
      const candidates: Candidate[] = [];
      for (let beam = 0; beam < job.sequences.length; beam++, row++) {
        for (let j = 0; j < best.k; j++) {
          const at = row * best.k + j;
          candidates.push({ beam, token: best.ids[at]!, logProbability: best.values[at]! });
        }
      }
      const steps = advanceBeams(job.state, candidates);
      if (beams === 1)
        options.onToken?.(job.prompt, steps[0]?.token ?? bestHypothesis(job.state).tokens.at(-1)!);
      const parents = job.sequences;
      job.sequences = steps.map(({ parent }) => forkSequence(pool, parents[parent]!));
      job.tokens = steps.map(({ token }) => token);
      for (const sequence of parents) dropSequence(pool, sequence);
    }
  });
}

function bestTokens(
  model: Llama,
  logits: Tensor,
  k: number,
  arena: Arena,
): { k: number; values: Float32Array; ids: Int32Array } {
  const rows = logits.shape[0]!;
  const values = arenaTensor(arena, "f32", [rows, k]);
  const ids = arenaTensor(arena, "i32", [rows, k]);
  topkLogSoftmax(model.device, logits, values, ids);
  return { k, values: readF32(model.device, values), ids: readI32(model.device, ids) };
}
