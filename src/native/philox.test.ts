import { describe, expect, test } from "bun:test";
import { distinctIntegers, philox, randomStream } from "./philox.ts";

describe("philox4x32-10", () => {
  test("known answers of Random123", () => {
    const all = 0xffffffff;
    expect([...philox([0, 0, 0, 0], 0n)]).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    expect([...philox([all, all, all, all], 2n ** 64n - 1n)]).toEqual([
      0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd,
    ]);
    const pi = philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], 0x299f31d0_a4093822n);
    expect([...pi]).toEqual([0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
  });

  test("a stream walks lanes, then counters", () => {
    const random = randomStream(7n);
    const words = Array.from({ length: 12 }, () => random.word());
    expect(words).toEqual([0, 1, 2].flatMap((i) => [...philox([i, 0, 0, 0], 7n)]));
  });

  test("distinct integers are distinct, in range, unsorted, and the same for the same key", () => {
    for (const [count, n] of [
      [1, 1],
      [5, 5],
      [32, 576],
      [0, 3],
    ] as const) {
      const drawn = distinctIntegers(99n, count, n);
      expect(new Set(drawn).size).toBe(count);
      expect(drawn.every((i) => i >= 0 && i < n)).toBe(true);
      expect(distinctIntegers(99n, count, n)).toEqual(drawn);
    }
    const drawn = [...distinctIntegers(3n, 32, 576)];
    expect(drawn).not.toEqual([...drawn].sort((a, b) => a - b));
    expect(drawn).not.toEqual([...distinctIntegers(4n, 32, 576)]);
  });

  test("draws below n are uniform", () => {
    const random = randomStream(1n);
    const counts = new Array<number>(7).fill(0);
    for (let i = 0; i < 70_000; i++) counts[random.below(7)]!++;
    for (const count of counts) expect(Math.abs(count - 10_000)).toBeLessThan(500);
  });

  test("a draw from nothing is refused", () => {
    for (const n of [0, -1, 1.5, 2 ** 32 + 1]) expect(() => randomStream(1n).below(n)).toThrow(RangeError);
    expect(() => distinctIntegers(1n, 4, 3)).toThrow("below(0)");
  });
});
