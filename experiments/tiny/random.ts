/** Draws of the generator: 32-bit whole numbers only, so that a seed gives the same bytes on every machine. */

export interface Random {
  /** Uniform in 0..n-1. 1 <= n <= 2³². */
  below(n: number): number;
}

/** An independent stream for each (seed, purpose): xoshiro128** (Blackman, Vigna 2018) started by SplitMix32. */
export function randomFor(seed: number, purpose: number): Random {
  let mixed = (Math.imul(seed, 0x9e3779b1) ^ Math.imul(purpose + 1, 0x85ebca6b)) >>> 0;
  const start = (): number => {
    mixed = (mixed + 0x9e3779b9) >>> 0;
    let z = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
  let [a, b, c, d] = [start(), start(), start(), start()];
  const word = (): number => {
    const result = Math.imul(rotate(Math.imul(b, 5), 7), 9) >>> 0;
    const shifted = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = rotate(d, 11);
    return result;
  };
  return {
    below(n) {
      // Words at or above the largest multiple of n would favour small results.
      const limit = 2 ** 32 - (2 ** 32 % n);
      for (;;) {
        const drawn = word();
        if (drawn < limit) return drawn % n;
      }
    },
  };
}

function rotate(x: number, by: number): number {
  return (x << by) | (x >>> (32 - by));
}

/** True once in `n` times. */
export function oneIn(random: Random, n: number): boolean {
  return random.below(n) === 0;
}

export function pick<T>(random: Random, from: readonly T[]): T {
  return from[random.below(from.length)]!;
}

/** A shuffled copy. */
export function shuffled<T>(random: Random, items: readonly T[]): T[] {
  const result = [...items];
  for (let i = result.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    const moved = result[i]!;
    result[i] = result[j]!;
    result[j] = moved;
  }
  return result;
}

/** `count` distinct items other than those in `without`. */
export function pickOthers<T>(
  random: Random,
  from: readonly T[],
  count: number,
  ...without: readonly T[]
): T[] {
  return shuffled(
    random,
    from.filter((item) => !without.includes(item)),
  ).slice(0, count);
}
