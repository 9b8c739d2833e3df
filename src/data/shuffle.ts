/** Seeded permutations: the same order on every machine, and any epoch's order without the epochs before it. */
import { philox } from "../native/philox.ts";

/** Third and fourth counter word; every kind of draw has its own, so that adding one never moves another. */
const STREAMS = { shuffle: 1, split: 2 } as const;

/** Record numbers 0..n-1 in the order of an epoch; file order where the run does not shuffle. */
export function epochOrder(n: number, seed: number, epoch: number, shuffle: boolean): Uint32Array {
  return shuffle ? permutation(n, seed, "shuffle", epoch) : Uint32Array.from({ length: n }, (_, i) => i);
}

/** A uniform permutation of 0..n-1 (Fisher-Yates); `part` numbers the permutations of one seed and stream. */
export function permutation(n: number, seed: number, stream: keyof typeof STREAMS, part = 0): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  const below = drawer(BigInt(seed), part, STREAMS[stream]);
  for (let i = n - 1; i > 0; i--) {
    const j = below(i + 1);
    const moved = order[i]!;
    order[i] = order[j]!;
    order[j] = moved;
  }
  return order;
}

/** Draws uniform integers below n, without bias. */
function drawer(key: bigint, part: number, stream: number): (n: number) => number {
  let words: Uint32Array = new Uint32Array(0);
  let next = 0;
  let block = 0;
  return (n) => {
    // Words at or above the largest multiple of n would favour small results.
    const limit = 2 ** 32 - (2 ** 32 % n);
    for (;;) {
      if (next === words.length) {
        words = philox([block++, 0, part, stream], key);
        next = 0;
      }
      const word = words[next++]!;
      if (word < limit) return word % n;
    }
  };
}
