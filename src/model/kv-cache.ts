/**
 * A paged KV cache: fixed pages of positions shared by all sequences through reference counts. Forking a sequence (a
 * beam, another option behind the same question) copies no page until one of the forks writes into a shared one.
 */
import type { Device } from "../native/device.ts";
import type { KvCache } from "../native/ops/index.ts";
import { copy, createTensor, freeTensor, type Tensor, view } from "../native/tensor.ts";
import type { Llama } from "./model.ts";

/** Positions a page. */
export const PAGE = 16;

export interface KvPool {
  readonly device: Device;
  /** One cache a layer, each [pages][K][PAGE][D] in the compute type. */
  readonly layers: readonly KvCache[];
  readonly pages: number;
  readonly references: Int32Array;
  readonly free: number[];
}

/** Positions 0..length-1 of one sequence lie in `pages`, PAGE each. */
export interface KvSequence {
  pages: number[];
  length: number;
}

/** Pages that `sequences` sequences of up to `positions` positions need. */
export function pagesFor(sequences: number, positions: number): number {
  return sequences * Math.ceil(positions / PAGE);
}

export function createKvPool(model: Llama, pages: number): KvPool {
  const { device, config, compute } = model;
  const shape = [pages, config.kvHeads, PAGE, config.headSize];
  const layers = model.layers.map(() => ({
    k: createTensor(device, compute, shape),
    v: createTensor(device, compute, shape),
    pages,
    page: PAGE,
  }));
  const free = Array.from({ length: pages }, (_, i) => pages - 1 - i);
  return { device, layers, pages, references: new Int32Array(pages), free };
}

export function freeKvPool(pool: KvPool): void {
  for (const { k, v } of pool.layers) {
    freeTensor(pool.device, k);
    freeTensor(pool.device, v);
  }
}

export function emptySequence(): KvSequence {
  return { pages: [], length: 0 };
}

/** Another sequence with the same positions so far. */
export function forkSequence(pool: KvPool, sequence: KvSequence): KvSequence {
  for (const page of sequence.pages) pool.references[page]!++;
  return { pages: [...sequence.pages], length: sequence.length };
}

export function dropSequence(pool: KvPool, sequence: KvSequence): void {
  for (const page of sequence.pages) releasePage(pool, page);
  sequence.pages = [];
  sequence.length = 0;
}

/** Makes room for `count` more positions and returns their slots (page index · PAGE + offset). */
export function extendSequence(pool: KvPool, sequence: KvSequence, count: number): Int32Array {
  const last = sequence.pages.length - 1;
  const partial = sequence.length % PAGE !== 0;
  if (count > 0 && partial && pool.references[sequence.pages[last]!]! > 1) {
    const own = takePage(pool);
    copyPage(pool, sequence.pages[last]!, own);
    releasePage(pool, sequence.pages[last]!);
    sequence.pages[last] = own;
  }
  const slots = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const position = sequence.length + i;
    if (position % PAGE === 0) sequence.pages.push(takePage(pool));
    slots[i] = sequence.pages[Math.floor(position / PAGE)]! * PAGE + (position % PAGE);
  }
  sequence.length += count;
  return slots;
}

function takePage(pool: KvPool): number {
  const page = pool.free.pop();
  if (page === undefined)
    throw new Error(`KV cache is full: all ${pool.pages} pages of ${PAGE} positions are in use`);
  pool.references[page] = 1;
  return page;
}

function releasePage(pool: KvPool, page: number): void {
  if (--pool.references[page]! === 0) pool.free.push(page);
}

function copyPage(pool: KvPool, from: number, to: number): void {
  const move = (cache: Tensor): void => {
    const [, K, page, D] = cache.shape as [number, number, number, number];
    const elements = K * page * D;
    copy(
      pool.device,
      view(pool.device, cache, to * elements, [elements]),
      view(pool.device, cache, from * elements, [elements]),
    );
  };
  for (const { k, v } of pool.layers) {
    move(k);
    move(v);
  }
}
