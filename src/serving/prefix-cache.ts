/**
 * KV pages of prompts and answers that are done, found again by what they hold. A page's name is a chain of hashes: the
 * weights (base, adapter bytes, epoch), then every block of tokens up to the page's end; so a page is found only behind
 * the same tokens under the same weights, whatever an adapter is called. Whole pages only; the least recently used go.
 */
import { dropSequence, type KvPool, type KvSequence, PAGE } from "../model/kv-cache.ts";

export interface PrefixCache {
  readonly pool: KvPool;
  readonly enabled: boolean;
  /** Page by its name, least recently used first. The cache holds one reference to each. */
  readonly pages: Map<string, number>;
}

export function createPrefixCache(pool: KvPool, enabled = true): PrefixCache {
  return { pool, enabled, pages: new Map() };
}

/** What the names of a weight set's pages start from. */
export function prefixRoot(...parts: readonly string[]): string {
  return new Bun.CryptoHasher("sha256").update(parts.join("\n")).digest("base64");
}

/** Name of the page that holds these PAGE tokens behind the page named `parent`. */
export function pageName(parent: string, tokens: readonly number[]): string {
  return new Bun.CryptoHasher("sha256").update(parent).update(Int32Array.from(tokens)).digest("base64");
}

/** A sequence of the longest run of known pages of `names`; the caller's to drop. */
export function findPrefix(cache: PrefixCache, names: readonly string[]): KvSequence {
  const found: number[] = [];
  for (const name of names) {
    const page = cache.pages.get(name);
    if (page === undefined) break;
    found.push(page);
  }
  // Last page first: a page must never outlive the ones in front of it, without which it cannot be found.
  for (let i = found.length - 1; i >= 0; i--) {
    cache.pages.delete(names[i]!);
    cache.pages.set(names[i]!, found[i]!);
    cache.pool.references[found[i]!]!++;
  }
  return { pages: found, length: found.length * PAGE };
}

/** Remembers a page that is full and will never be written again. */
export function rememberPage(cache: PrefixCache, name: string, page: number): void {
  if (!cache.enabled || cache.pages.has(name)) return;
  cache.pages.set(name, page);
  cache.pool.references[page]!++;
}

/** Gives up least recently used pages until `wanted` are free, or none is left to give up. */
export function evictPages(cache: PrefixCache, wanted: number): void {
  const { pool, pages } = cache;
  if (pool.free.length >= wanted) return;
  for (const [name, page] of pages) {
    if (pool.references[page] !== 1) continue;
    pages.delete(name);
    dropSequence(pool, { pages: [page], length: PAGE });
    if (pool.free.length >= wanted) return;
  }
}

export function clearPrefixCache(cache: PrefixCache): void {
  for (const page of cache.pages.values()) dropSequence(cache.pool, { pages: [page], length: PAGE });
  cache.pages.clear();
}
