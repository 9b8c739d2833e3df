/** Logits of a few tokens behind many prompts: what the prompts of a group begin with in common is computed once. */
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
import { gatherColumns } from "../native/ops/index.ts";
import { readF32, writeI32 } from "../native/tensor.ts";

/** Rows of one native batch; a result never depends on it. */
const MAX_ROWS = 1024;
/** Prompts whose logits over the whole vocabulary lie in memory at once. */
const MAX_PROMPTS = 32;

/** Prompts of at least one token each, in groups that begin alike. */
export type PromptGroup = readonly (readonly number[])[];

/**
 * logits[prompt][j] of token `ids[j]` (distinct) behind every prompt, group by group in their order.
 * `onDone`: called with the number of prompts done so far.
 */
export async function nextTokenLogits(
  model: Llama,
  groups: readonly PromptGroup[],
  ids: readonly number[],
  onDone: (prompts: number) => void = () => {},
): Promise<Float32Array[]> {
  const plans = groups.map(planOf);
  const longest = Math.max(1, ...groups.flat().map((prompt) => prompt.length));
  if (longest > model.rope.cosine.shape[0]!) {
    throw new Error(
      `a prompt has ${longest} tokens, the model was opened for ${model.rope.cosine.shape[0]} positions`,
    );
  }
  const rows = Math.max(MAX_ROWS, ...plans.flatMap(({ batches }) => batches.map(rowsIn)));
  const pool = createKvPool(model, Math.max(1, ...plans.map(pagesIn)));
  const arena = createInferArena(model, {
    ...{ rows, sequences: MAX_PROMPTS, positions: longest, logits: MAX_PROMPTS },
  });
  const results: Float32Array[] = [];
  try {
    for (const { shared, batches } of plans) {
      const prefix = emptySequence();
      prefill(model, pool, arena, prefix, shared);
      for (const tails of batches) {
        results.push(...behind(model, pool, arena, prefix, tails, ids));
        onDone(results.length);
        await Bun.sleep(0);
      }
      dropSequence(pool, prefix);
    }
  } finally {
    freeArena(arena);
    freeKvPool(pool);
  }
  return results;
}

interface GroupPlan {
  readonly shared: readonly number[];
  /** What follows in each prompt, at least one token. */
  readonly batches: readonly (readonly (readonly number[])[])[];
}

function planOf(group: PromptGroup): GroupPlan {
  const length = sharedLength(group);
  const batches: (readonly number[])[][] = [];
  for (const prompt of group) {
    const tail = prompt.slice(length);
    const last = batches.at(-1);
    if (last && last.length < MAX_PROMPTS && rowsIn(last) + tail.length <= MAX_ROWS) last.push(tail);
    else batches.push([tail]);
  }
  return { shared: group[0]?.slice(0, length) ?? [], batches };
}

/** Tokens that all prompts begin with, short of any prompt's last. */
export function sharedLength(group: PromptGroup): number {
  const [first, ...others] = group;
  if (!first) return 0;
  let length = Math.min(...group.map((prompt) => prompt.length)) - 1;
  for (const prompt of others) {
    const at = prompt.findIndex((token, i) => token !== first[i]);
    if (at >= 0) length = Math.min(length, at);
  }
  return Math.max(0, length);
}

function rowsIn(tails: readonly (readonly number[])[]): number {
  return tails.reduce((sum, tail) => sum + tail.length, 0);
}

/** A fork takes a page of its own for the one it shares in part. */
function pagesIn({ shared, batches }: GroupPlan): number {
  const forks = batches.map((tails) => tails.reduce((sum, tail) => sum + pagesFor(1, tail.length) + 1, 0));
  return pagesFor(1, shared.length) + Math.max(0, ...forks);
}

function prefill(
  model: Llama,
  pool: KvPool,
  arena: Arena,
  sequence: KvSequence,
  shared: readonly number[],
): void {
  for (let at = 0; at < shared.length; at += MAX_ROWS) {
    const chunk: Chunk = { sequence, tokens: shared.slice(at, at + MAX_ROWS), wanted: "none" };
    withScratch(arena, () => inferRows(model, pool, [chunk], arena));
  }
}

function behind(
  model: Llama,
  pool: KvPool,
  arena: Arena,
  prefix: KvSequence,
  tails: readonly (readonly number[])[],
  ids: readonly number[],
): Float32Array[] {
  return withScratch(arena, () => {
    const chunks = tails.map(
      (tokens): Chunk => ({ sequence: forkSequence(pool, prefix), tokens, wanted: "last" }),
    );
    const logits = logitsOf(model, inferRows(model, pool, chunks, arena), arena);
    const columns = arenaTensor(arena, "i32", [ids.length]);
    writeI32(model.device, columns, Int32Array.from(ids));
    const chosen = arenaTensor(arena, "f32", [tails.length, ids.length]);
    gatherColumns(model.device, logits, columns, null, chosen);
    const values = readF32(model.device, chosen);
    for (const { sequence } of chunks) dropSequence(pool, sequence);
    return tails.map((_, i) => values.slice(i * ids.length, (i + 1) * ids.length));
  });
}
