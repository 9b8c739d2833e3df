/**
 * Philox4x32-10 (Salmon et al. 2011) on integers: the same words as the native generator (sbora.h), for the draws that
 * happen in TypeScript: index choice, shuffles, splits, sampling.
 */

/** The four words of one counter block. */
export function philox(counter: readonly [number, number, number, number], key: bigint): Uint32Array {
  const words = Uint32Array.from(counter);
  scramble(words, lowWord(key), lowWord(key >> 32n));
  return words;
}

function lowWord(key: bigint): number {
  return Number(key & 0xffffffffn);
}

/** Ten rounds over a counter block in place. Allocates nothing: index draws come through here by the hundred thousand. */
function scramble(words: Uint32Array, k0: number, k1: number): void {
  let c0 = words[0]!;
  let c1 = words[1]!;
  let c2 = words[2]!;
  let c3 = words[3]!;
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
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

/** Upper 32 bits of a 32 × 32 bit product; every partial product stays below 2⁵³. */
function highWord(a: number, b: number): number {
  const aHigh = a >>> 16;
  const aLow = a & 0xffff;
  const bHigh = b >>> 16;
  const bLow = b & 0xffff;
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
  const block = new Uint32Array(4);
  const [k0, k1] = [lowWord(key), lowWord(key >> 32n)];
  let next = 0;
  const word = (): number => {
    const lane = next % 4;
    if (lane === 0) {
      block[0] = next / 4;
      block[1] = next / 4 / 2 ** 32;
      block[2] = 0;
      block[3] = 0;
      scramble(block, k0, k1);
    }
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
