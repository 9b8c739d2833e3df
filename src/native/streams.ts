/**
 * Named random streams. Every draw of a run (index choice, factor init, dropout, shuffle, sampling) has its own 64-bit
 * Philox key derived from the run's seed, so that adding one draw never moves another.
 */
export type StreamName = "index" | "init" | "dropout" | "shuffle" | "split" | "sampling" | "weights" | "data";

/** Key of a stream: the first 8 bytes of SHA-256 over its path `sbora/<seed>/<name>/<parts…>`. */
export function streamKey(seed: number, name: StreamName, ...parts: (number | string)[]): bigint {
  const digest = new Bun.CryptoHasher("sha256").update(["sbora", seed, name, ...parts].join("/")).digest();
  return new DataView(digest.buffer, digest.byteOffset, 8).getBigUint64(0, true);
}
