import { describe, expect, test } from "bun:test";
import { matmul } from "./matmul.ts";
import { agree, type Bench, close, lab, numbers, on, run, stream } from "./testing.ts";
import { BF16_STEP, relativeTo, sumOf } from "./testing-compare.ts";

// [m, n, k]; factor gradients are [out, r, T] with r small, T large.
const SHAPES = [
  [0, 5, 3],
  [5, 0, 3],
  [4, 3, 0],
  [1, 1, 1],
  [7, 1, 17],
  [1, 13, 9],
  [17, 19, 23],
  [101, 8, 131],
  [64, 64, 64],
  [193, 33, 300],
  [3, 257, 65],
] as const;

interface Form {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly ta: boolean;
  readonly tb: boolean;
  readonly compute: "f32" | "bf16";
  readonly c: "f32" | "bf16";
  readonly beta: number;
}

interface Values {
  readonly a: Float64Array;
  readonly b: Float64Array;
  readonly c: Float64Array;
}

function body(bench: Bench, f: Form, values: Values, alpha: number) {
  const { m, n, k } = f;
  const a = bench.real(f.compute, f.ta ? [k, m] : [m, k], values.a);
  const b = bench.real(f.compute, f.tb ? [n, k] : [k, n], values.b);
  const c = f.beta === 0 ? bench.out(f.c, [m, n]) : bench.real(f.c, [m, n], values.c);
  const { ta: transposeA, tb: transposeB, beta, compute } = f;
  matmul(bench.device, { a, b, c, transposeA, transposeB, alpha, beta, compute });
  return { c };
}

function values(f: Form, seed: number): Values {
  const next = stream(seed);
  return { a: numbers(next, f.m * f.k), b: numbers(next, f.k * f.n), c: numbers(next, f.m * f.n) };
}

const absolute = (v: Values): Values => ({
  a: v.a.map(Math.abs),
  b: v.b.map(Math.abs),
  c: v.c.map(Math.abs),
});

describe("matmul", () => {
  for (const [compute, c] of [
    ["f32", "f32"],
    ["bf16", "f32"],
    ["bf16", "bf16"],
  ] as const) {
    test(`agrees with the reference in every orientation: compute ${compute}, c ${c}`, () => {
      for (const [m, n, k] of SHAPES) {
        for (const [ta, tb] of [
          [false, false],
          [true, false],
          [false, true],
          [true, true],
        ] as const) {
          for (const beta of [0, 1]) {
            const f: Form = { m, n, k, ta, tb, compute, c, beta };
            const v = values(f, m * 31 + n * 7 + k);
            const size = run(lab.reference, (b) => body(b, f, absolute(v), 0.5)).c!;
            const result = run(lab.reference, (b) => body(b, f, v, 0.5)).c!;
            // float32 sums of exact products; a bf16 result may round the other way.
            const allowed = sumOf(relativeTo(size, 1e-6), relativeTo(result, c === "bf16" ? BF16_STEP : 0));
            agree(`matmul ${JSON.stringify(f)}`, (b) => body(b, f, v, 0.5), { c: allowed });
          }
        }
      }
    });
  }

  test("computes its formula in every orientation", () => {
    for (const [ta, tb] of [
      [false, false],
      [true, false],
      [false, true],
      [true, true],
    ] as const) {
      const f: Form = { m: 3, n: 4, k: 5, ta, tb, compute: "f32", c: "f32", beta: 2 };
      const v = values(f, 3);
      const expected = v.c.map((before, at) => {
        const [i, j] = [Math.floor(at / f.n), at % f.n];
        let sum = 0;
        for (let l = 0; l < f.k; l++) {
          sum += v.a[ta ? l * f.m + i : i * f.k + l]! * v.b[tb ? j * f.k + l : l * f.n + j]!;
        }
        return 2 * before + 1.5 * sum;
      });
      close(`${ta} ${tb}`, run(lab.double, (b) => body(b, f, v, 1.5)).c!, expected, 1e-13);
    }
  });

  test("refuses shapes that do not meet", () => {
    on(lab.reference, ({ device, zeros }) => {
      const bad = (a: number[], b: number[], c: number[], text: RegExp) =>
        expect(() => matmul(device, { a: zeros(a), b: zeros(b), c: zeros(c) })).toThrow(text);
      bad([2, 3], [4, 5], [2, 5], /b is f32 \[4,5\]; expected f32 or bf16 \[3,5\]/);
      bad([2, 3], [3, 5], [2, 4], /b is f32 \[3,5\]; expected f32 or bf16 \[3,4\]/);
      bad([6], [3, 5], [2, 5], /a is f32 \[6\]; expected a matrix/);
    });
  });
});
