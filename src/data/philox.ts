/**
 * Philox4x32-10 (Salmon et al. 2011) on 32-bit integers: the generator behind the shuffle and the validation split.
 * This folder knows text and ids only, hence its own few lines and not `src/native/philox.ts`; same signature, same words.
 */

/** The four words of one counter block under a 64-bit key. */
export function philox(counter: readonly [number, number, number, number], key: bigint): Uint32Array {
  let [c0, c1, c2, c3] = counter;
  let k0 = Number(key & 0xffffffffn);
  let k1 = Number((key >> 32n) & 0xffffffffn);
  for (let round = 0; round < 10; round++) {
    const next0 = (highWord(0xcd9e8d57, c2) ^ c1 ^ k0) >>> 0;
    const next2 = (highWord(0xd2511f53, c0) ^ c3 ^ k1) >>> 0;
    c1 = Math.imul(0xcd9e8d57, c2) >>> 0;
    c3 = Math.imul(0xd2511f53, c0) >>> 0;
    c0 = next0;
    c2 = next2;
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return Uint32Array.of(c0, c1, c2, c3);
}

/** Upper 32 bits of a 32 × 32 bit product, by halves: every partial sum stays below 2⁵³ and is exact. */
function highWord(a: number, b: number): number {
  const [aHigh, aLow] = [a >>> 16, a & 0xffff];
  const [bHigh, bLow] = [b >>> 16, b & 0xffff];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = (middle % 0x10000) + aLow * bHigh;
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
}
