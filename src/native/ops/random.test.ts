import { describe, expect, test } from "bun:test";
import { randomNormal, randomUniform } from "./random.ts";
import { agree, type Bench, close, lab, on, run } from "./testing.ts";
import { philox } from "./testing-philox.ts";

const KEYS = [0n, 1n, 0x299f31d0a4093822n, 2n ** 64n - 1n];
const SIZES = [0, 1, 3, 4, 17, 5000];

const words = (key: bigint, n: number) =>
  Array.from({ length: Math.ceil(n / 4) }, (_, i) => philox([i, 0, 0, 0], key))
    .flat()
    .slice(0, n);

test("the oracle itself: known answers of Random123", () => {
  const hex = (counter: number[], key: bigint) => philox(counter, key).map((word) => word.toString(16));
  expect(hex([0, 0, 0, 0], 0n)).toEqual(["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]);
  const ones = 0xffffffff;
  expect(hex([ones, ones, ones, ones], 2n ** 64n - 1n)).toEqual([
    "408f276d",
    "41c83b0e",
    "a20bc7c6",
    "6d5451fd",
  ]);
  const pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
  expect(hex(pi, 0x299f31d0a4093822n)).toEqual(["d16cfe09", "94fdcceb", "5001e420", "24126ea1"]);
});

describe("randomUniform", () => {
  test("is the formula on Philox words", () => {
    for (const key of KEYS) {
      for (const n of SIZES) {
        const body = (low: number, high: number) => (bench: Bench) => {
          const x = bench.out("f32", [n]);
          randomUniform(bench.device, key, low, high, x);
          return { x };
        };
        // In float64 the word itself can be seen.
        close(
          "words",
          run(lab.double, body(0, 2 ** 32)).x!,
          words(key, n).map((word) => word + 0.5),
          0,
        );
        const expected = words(key, n).map((word) => Math.fround(-2 + 3 * ((word + 0.5) / 2 ** 32)));
        close("float32", run(lab.reference, body(-2, 1)).x!, expected, 0);
        agree(`randomUniform ${n}`, body(-2, 1), { x: 0 });
      }
    }
  });
});

describe("randomNormal", () => {
  test("is Box and Muller on Philox words", () => {
    for (const key of KEYS) {
      for (const n of SIZES) {
        const body = (bench: Bench) => {
          const x = bench.out("f32", [n]);
          randomNormal(bench.device, key, x);
          return { x };
        };
        const u = words(key, Math.ceil(n / 2) * 2).map((word) => (word + 0.5) / 2 ** 32);
        const expected = Float64Array.from({ length: n }, (_, i) => {
          const [first, second] = [u[i - (i % 2)]!, u[i - (i % 2) + 1]!];
          const turn = i % 2 === 0 ? Math.cos : Math.sin;
          return Math.sqrt(-2 * Math.log(first)) * turn(2 * Math.PI * second);
        });
        // float64 throughout; only the math libraries differ.
        close("formula", run(lab.double, body).x!, expected, 1e-14);
        // The same float64 numbers, rounded once: the same bits on every device.
        agree(`randomNormal ${n}`, body, { x: 0 });
      }
    }
  });

  test("has mean 0 and variance 1", () => {
    const n = 20_000;
    const { x } = run(lab.reference, (bench) => {
      const x = bench.out("f32", [n]);
      randomNormal(bench.device, 7n, x);
      return { x };
    });
    const mean = x!.reduce((sum, value) => sum + value, 0) / n;
    const variance = x!.reduce((sum, value) => sum + value * value, 0) / n;
    expect(Math.abs(mean)).toBeLessThan(0.03);
    expect(Math.abs(variance - 1)).toBeLessThan(0.05);
  });
});

test("refuses keys beyond 64 bits and types other than f32", () => {
  on(lab.reference, (bench) => {
    expect(() => randomNormal(bench.device, 2n ** 64n, bench.zeros([2]))).toThrow(/does not fit 64 bits/);
    expect(() => randomNormal(bench.device, -1n, bench.zeros([2]))).toThrow(/does not fit 64 bits/);
    const x = bench.bf16([2], [0, 0]);
    expect(() => randomUniform(bench.device, 0n, 0, 1, x)).toThrow(/x is bf16 \[2\]; expected f32 \[2\]/);
    expect(() => randomUniform(bench.device, 0n, Number.NaN, 1, bench.zeros([2]))).toThrow(/low is NaN/);
  });
});
