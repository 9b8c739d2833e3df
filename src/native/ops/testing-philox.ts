/** Philox4x32-10 in TypeScript, from the paper (Salmon et al. 2011): the tests' own oracle for every random bit. */

const [M0, M1] = [0xd2511f53n, 0xcd9e8d57n];
const [W0, W1] = [0x9e3779b9n, 0xbb67ae85n];
const LOW = 0xffffffffn;

/** Four 32-bit words of a counter of four words under a 64-bit key. */
export function philox(counter: readonly number[], key: bigint): number[] {
  let [c0, c1, c2, c3] = counter.map((word) => BigInt(word >>> 0)) as [bigint, bigint, bigint, bigint];
  let [k0, k1] = [key & LOW, key >> 32n];
  for (let round = 0; round < 10; round++) {
    const [p0, p1] = [M0 * c0, M1 * c2];
    [c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, p1 & LOW, (p0 >> 32n) ^ c3 ^ k1, p0 & LOW];
    [k0, k1] = [(k0 + W0) & LOW, (k1 + W1) & LOW];
  }
  return [c0, c1, c2, c3].map(Number);
}
