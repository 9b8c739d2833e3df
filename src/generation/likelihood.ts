/** Log-likelihood of given continuations (settled 24): a context is computed once, its continuations fork its KV. */
import { withScratch } from "../adapters/draw.ts";
import { type Chunk, createInferArena, inferRows, lossesOf } from "../model/infer.ts";
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
import { type Arena, freeArena } from "../native/arena.ts";

export interface LikelihoodItem {
  /** At least one token. */
  readonly context: readonly number[];
  /** Each at least one token. */
  readonly continuations: readonly (readonly number[])[];
}

/** Rows of one native batch; a result never depends on it. */
const MAX_ROWS = 1024;

/** log p(continuation | context) in nats, one number a continuation, in the order of the items. */
export async function scoreContinuations(
  model: Llama,
  items: readonly LikelihoodItem[],
  onDone: (item: number) => void = () => {},
): Promise<number[][]> {
  const results: number[][] = [];
  const longest = Math.max(1, ...items.map(positionsOf));
  if (longest > model.rope.cosine.shape[0]!) {
    throw new Error(
      `a record needs ${longest} positions, the model was opened for ${model.rope.cosine.shape[0]}`,
    );
  }
  const groups = groupByRows(items);
  const widest = Math.max(1, ...groups.map((group) => group.reduce((n, item) => n + pagesOf(item), 0)));
  const most = Math.max(
    1,
    ...groups.map((group) => group.reduce((n, item) => n + item.continuations.length, 0)),
  );
  const rows = Math.max(1, ...groups.map((group) => group.reduce((n, item) => n + rowsOf(item), 0)));
  const pool = createKvPool(model, widest);
  const sequences = Math.max(most, ...groups.map((group) => group.length));
  const arena = createInferArena(model, { rows, sequences, positions: longest, logits: 0 });
  try {
    for (const group of groups) {
      for (const scores of scoreGroup(model, pool, arena, group)) {
        onDone(results.length);
        results.push(scores);
      }
      await Bun.sleep(0);
    }
  } finally {
    freeArena(arena);
    freeKvPool(pool);
  }
  return results;
}

function scoreGroup(model: Llama, pool: KvPool, arena: Arena, group: readonly LikelihoodItem[]): number[][] {
  return withScratch(arena, () => {
    const prefixes = group.map((): KvSequence => emptySequence());
    const prefill = group.flatMap(({ context }, i): Chunk[] =>
      context.length > 1 ? [{ sequence: prefixes[i]!, tokens: context.slice(0, -1), wanted: "none" }] : [],
    );
    if (prefill.length > 0) withScratch(arena, () => inferRows(model, pool, prefill, arena));
    const chunks: Chunk[] = [];
    const targets: number[] = [];
    group.forEach(({ context, continuations }, i) => {
      for (const continuation of continuations) {
        const sequence = forkSequence(pool, prefixes[i]!);
        const tokens = [context[context.length - 1]!, ...continuation.slice(0, -1)];
        chunks.push({ sequence, tokens, wanted: "all" });
        targets.push(...continuation);
      }
    });
    const losses = lossesOf(model, inferRows(model, pool, chunks, arena), targets, arena);
    for (const { sequence } of chunks) dropSequence(pool, sequence);
    for (const sequence of prefixes) dropSequence(pool, sequence);
    let at = 0;
    return group.map(({ continuations }) =>
      continuations.map((continuation) => {
        let sum = 0;
        for (let j = 0; j < continuation.length; j++) sum -= losses[at++]!;
        return sum;
      }),
    );
  });
}

/** Items whose prefill and whose continuations both fit into one batch of MAX_ROWS rows. */
function groupByRows(items: readonly LikelihoodItem[]): LikelihoodItem[][] {
  const groups: LikelihoodItem[][] = [];
  let rows = Number.POSITIVE_INFINITY;
  for (const item of items) {
    if (rows + rowsOf(item) > MAX_ROWS) {
      groups.push([]);
      rows = 0;
    }
    groups[groups.length - 1]!.push(item);
    rows += rowsOf(item);
  }
  return groups;
}

function rowsOf({ context, continuations }: LikelihoodItem): number {
  return Math.max(
    context.length,
    continuations.reduce((n, c) => n + c.length, 0),
  );
}

function positionsOf({ context, continuations }: LikelihoodItem): number {
  return context.length + Math.max(...continuations.map((c) => c.length));
}

function pagesOf(item: LikelihoodItem): number {
  const tail = Math.max(...item.continuations.map((c) => c.length));
  return pagesFor(1, item.context.length) + item.continuations.length * (pagesFor(1, tail) + 1);
}
