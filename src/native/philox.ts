/**
 * Philox4x32-10 (Salmon et al. 2011) on integers: the same words as the native generator (sbora.h), for the draws that
 * happen in TypeScript: index choice, shuffles, splits, sampling.
 */

/** The four words of one counter block. */
export function philox(counter: readonly [number, number, number, number], key: bigint): Uint32Array {
  let [c0, c1, c2, c3] = counter;
  let k0 = Number(key & 0xffffffffn);
  let k1 = Number((key >> 32n) & 0xffffffffn);
  for (let round = 0; round < 10; round++) {
    const low0 = Math.imul(0xd2511f53, c0) >>> 0;
    const high0 = highWord(0xd2511f53, c0);
    const low1 = Math.imul(0xcd9e8d57, c2) >>> 0;
    const high1 = highWord(0xcd9e8d57, c2);
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c1 = low1;
    c3 = low0;
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return Uint32Array.of(c0, c1, c2, c3);
}

/** Upper 32 bits of a 32 × 32 bit product; every partial product stays below 2⁵³. */
function highWord(a: number, b: number): number {
  const [aHigh, aLow] = [a >>> 16, a & 0xffff];
  const [bHigh, bLow] = [b >>> 16, b & 0xffff];
  const middle = aHigh * bLow + Math.floor((aLow * bLow) / 0x10000);
  const carry = (middle % 0x10000) + aLow * bHigh;
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
}

/** The words of a stream one after the other: lanes 0..3 of counter 0, of counter 1, … */
export interface RandomStream {
  /** Uniform in 0..2³²-1. */
  word(): number;
  /** Uniform in 0..n-1, without bias. 1 <= n <= 2³². */
  below(n: number): number;
}

export function randomStream(key: bigint): RandomStream {
  let block = philox([0, 0, 0, 0], key);
  let next = 0;
  const word = (): number => {
    const lane = next % 4;
    if (lane === 0) block = philox([(next / 4) >>> 0, Math.floor(next / 4 / 2 ** 32), 0, 0], key);
    next++;
    return block[lane]!;
  };
  return {
    word,
    below(n) {
      if (!(Number.isInteger(n) && n >= 1 && n <= 2 ** 32)) {
        throw new RangeError(`below(${n}): expected a whole number from 1 to 2^32.`);
      }
      // Words at or above the largest multiple of n would favour small results.
      const limit = 2 ** 32 - (2 ** 32 % n);
      for (;;) {
        const drawn = word();
        if (drawn < limit) return drawn % n;
      }
    },
  };
}

/** `count` distinct integers of 0..n-1 in drawn order (Fisher-Yates from the front). */
export function distinctIntegers(key: bigint, count: number, n: number): Int32Array {
  const all = Int32Array.from({ length: n }, (_, i) => i);
  const random = randomStream(key);
  for (let i = 0; i < count; i++) {
    const j = i + random.below(n - i);
    const drawn = all[j]!;
    all[j] = all[i]!;
    all[i] = drawn;
  }
  return all.slice(0, count);
}
