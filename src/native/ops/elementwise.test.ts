import { describe, expect, test } from "bun:test";
import { axpby, sumSquares } from "./elementwise.ts";
import { agree, type Bench, close, lab, numbers, on, run, stream } from "./testing.ts";
import { BF16_STEP, relativeTo } from "./testing-compare.ts";

const SIZES = [0, 1, 17, 1000, 70_003];

describe("axpby", () => {
  for (const [from, to] of [
    ["f32", "f32"],
    ["bf16", "f32"],
    ["f32", "bf16"],
    ["bf16", "bf16"],
  ] as const) {
    test(`agrees with the reference; alpha 1, beta 0 is the exact cast: ${from} to ${to}`, () => {
      for (const n of SIZES) {
        const [x, y0] = [numbers(stream(n), n), numbers(stream(n + 1), n)];
        const body = (bench: Bench) => {
          const [sum, cast] = [bench.real(to, [n], y0), bench.out(to, [n])];
          axpby(bench.device, 1.25, bench.real(from, [n], x), -0.5, sum);
          axpby(bench.device, 1, bench.real(from, [n], x), 0, cast);
          return { sum, cast };
        };
        const result = run(lab.reference, body);
        // Two products and a sum of numbers up to 1, rounded at most three times.
        const allowed = to === "bf16" ? BF16_STEP : 3e-7;
        agree(`axpby ${n}`, body, { sum: relativeTo(result.sum!, allowed, 3e-7), cast: 0 });
        if (from === "f32" && to === "f32") {
          const { sum } = run(lab.double, body);
          close(
            "formula",
            sum!,
            x.map((value, i) => 1.25 * value - 0.5 * y0[i]!),
            1e-15,
          );
        }
      }
    });
  }

  test("the cast to bf16 rounds to nearest even and keeps NaN and infinity", () => {
    const x = [
      1 + 2 ** -8,
      1 + 3 * 2 ** -8,
      1 + 2 ** -8 + 2 ** -20,
      -0,
      3.4e38,
      Infinity,
      -Infinity,
      Number.NaN,
    ];
    const expected = [1, 1 + 2 ** -6, 1 + 2 ** -7, -0, Infinity, Infinity, -Infinity, Number.NaN];
    for (const device of [lab.reference, ...lab.fast.map(({ two }) => two)]) {
      const { y } = run(device, (bench) => {
        const y = bench.out("bf16", [x.length]);
        axpby(device, 1, bench.f32([x.length], x), 0, y);
        return { y };
      });
      expect([...y!]).toEqual(expected);
    }
  });
});

describe("sumSquares", () => {
  test("agrees with float64 on every device, whatever the threads", () => {
    for (const n of SIZES) {
      const x = numbers(stream(n), n, 3);
      const expected = x.reduce((sum, value) => sum + value * value, 0);
      const on1 = (device: typeof lab.reference) =>
        on(device, (bench) => sumSquares(device, bench.f32([n], x)));
      expect(Math.abs(on1(lab.reference) - expected)).toBeLessThanOrEqual(1e-12 * expected);
      for (const { one, two } of lab.fast) {
        // The sum is float64; a float32 square may be rounded first.
        expect(Math.abs(on1(two) - expected)).toBeLessThanOrEqual(1e-6 * expected);
        expect(on1(one)).toBe(on1(two));
      }
    }
  });
});

test("wrong sizes are refused", () => {
  on(lab.reference, (bench) => {
    expect(() => axpby(bench.device, 1, bench.zeros([3]), 0, bench.zeros([4]))).toThrow(
      /y is f32 \[4\]; expected .* \[3\]/,
    );
    expect(() => axpby(bench.device, Number.NaN, bench.zeros([3]), 0, bench.zeros([3]))).toThrow(
      /alpha is NaN/,
    );
    expect(() => sumSquares(bench.device, bench.i32([2], [1, 2]))).toThrow(
      /x is i32 \[2\]; expected f32 \[2\]/,
    );
  });
});
