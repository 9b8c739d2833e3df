import { describe, expect, test } from "bun:test";
import { epochOrder, permutation } from "./shuffle.ts";

describe("epochOrder", () => {
  test("is a permutation, fixed by seed and epoch", () => {
    const order = [...epochOrder(100, 42, 0, true)];
    expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
    expect([...epochOrder(100, 42, 0, true)]).toEqual(order);
    expect([...epochOrder(100, 42, 1, true)]).not.toEqual(order);
    expect([...epochOrder(100, 43, 0, true)]).not.toEqual(order);
  });

  test("never changes between versions: committed results depend on it", () => {
    expect([...epochOrder(8, 42, 0, true)]).toEqual([6, 1, 3, 2, 0, 5, 7, 4]);
  });

  test("without shuffling it is the file's order", () => {
    expect([...epochOrder(4, 42, 3, false)]).toEqual([0, 1, 2, 3]);
  });

  test("no and one record", () => {
    expect([...epochOrder(0, 1, 0, true)]).toEqual([]);
    expect([...epochOrder(1, 1, 0, true)]).toEqual([0]);
  });
});

test("every place is equally likely", () => {
  const counts = new Array<number>(5).fill(0);
  for (let seed = 0; seed < 5000; seed++) counts[permutation(5, seed, "split").indexOf(0)]!++;
  for (const count of counts) expect(Math.abs(count - 1000)).toBeLessThan(120);
});

test("the split's stream is not the shuffle's", () => {
  expect([...permutation(50, 42, "split")]).not.toEqual([...permutation(50, 42, "shuffle")]);
});
