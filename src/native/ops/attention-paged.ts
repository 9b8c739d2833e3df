import { columnsOf, matrix, rowsOf, typeCode, vector, whole } from "../check.ts";
import { check, type Device } from "../device.ts";
import type { Tensor } from "../layout.ts";
import { type AttentionShape, checkShape, sameType } from "./attention.ts";

/** One layer's pages: k, v[pages][K][page][D], f32 or bf16; `page` = positions a page. */
export interface KvCache {
  readonly k: Tensor;
  readonly v: Tensor;
  readonly pages: number;
  readonly page: number;
}

/** Where each row of a batch stands: row t belongs to sequence sequences[t] at positions[t]. All i32. */
export interface PagedRows {
  /** [S,maxPages]: page indices of each sequence. */
  readonly tables: Tensor;
  /** [T] */
  readonly sequences: Tensor;
  /** [T] */
  readonly positions: Tensor;
}

const MOST = 2 ** 31 - 1;

function cacheElements(op: string, cache: KvCache, shape: AttentionShape): number {
  whole(op, "pages", cache.pages, 1, MOST);
  whole(op, "page", cache.page, 1, MOST);
  return cache.pages * cache.page * shape.kvHeads * shape.headSize;
}

/** Writes row t of k, v[T,K,D] to slot slots[t] (i32: page index · page + offset). All of the cache's type. */
export function kvWrite(
  device: Device,
  k: Tensor,
  v: Tensor,
  slots: Tensor,
  cache: KvCache,
  shape: AttentionShape,
): void {
  const op = "kvWrite";
  checkShape(op, shape);
  const { kvHeads: K, headSize: D } = shape;
  const T = rowsOf(op, "k", k);
  const size = cacheElements(op, cache, shape);
  for (const [name, tensor] of [
    ["v", v],
    ["cache.k", cache.k],
    ["cache.v", cache.v],
  ] as const) {
    sameType(op, name, tensor, k);
  }
  check(
    device.symbols,
    device.symbols.sb_kv_write(
      device.context,
      matrix(op, "k", k, "real", T, K * D),
      matrix(op, "v", v, "real", T, K * D),
      typeCode(op, k.dtype),
      T,
      K,
      D,
      vector(op, "slots", slots, "i32", T),
      cache.pages,
      cache.page,
      vector(op, "cache.k", cache.k, "real", size),
      vector(op, "cache.v", cache.v, "real", size),
    ),
  );
}

/**
 * o[T,N,D] = attention of q[T,N,D] over positions 0..positions[t] of each row's sequence in the cache; one type (f32 or
 * bf16). Decode and prefill chunks alike: write the rows' own k, v first.
 */
export function attentionPaged(
  device: Device,
  q: Tensor,
  cache: KvCache,
  shape: AttentionShape,
  rows: PagedRows,
  o: Tensor,
): void {
  const op = "attentionPaged";
  checkShape(op, shape);
  const { heads: N, kvHeads: K, headSize: D, scale } = shape;
  const T = rowsOf(op, "q", q);
  const S = rowsOf(op, "tables", rows.tables);
  const maxPages = columnsOf(rows.tables);
  const size = cacheElements(op, cache, shape);
  for (const [name, tensor] of [
    ["o", o],
    ["cache.k", cache.k],
    ["cache.v", cache.v],
  ] as const) {
    sameType(op, name, tensor, q);
  }
  check(
    device.symbols,
    device.symbols.sb_attention_paged(
      device.context,
      matrix(op, "q", q, "real", T, N * D),
      typeCode(op, q.dtype),
      T,
      N,
      K,
      D,
      vector(op, "cache.k", cache.k, "real", size),
      vector(op, "cache.v", cache.v, "real", size),
      cache.pages,
      cache.page,
      matrix(op, "tables", rows.tables, "i32", S, maxPages),
      S,
      maxPages,
      vector(op, "sequences", rows.sequences, "i32", T),
      vector(op, "positions", rows.positions, "i32", T),
      scale,
      matrix(op, "o", o, "real", T, N * D),
    ),
  );
}
