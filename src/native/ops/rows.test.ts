import { describe, expect, test } from "bun:test";
import { gatherRows, rowDot, scaleRows, scatterAddRows } from "./rows.ts";
import { agree, type Bench, close, distinct, lab, numbers, on, run, stream } from "./testing.ts";
import { relativeTo } from "./testing-compare.ts";

// [rows of x, n, M]
const SHAPES = [
  [0, 8, 0],
  [1, 1, 1],
  [7, 5, 7],
  [17, 97, 3],
  [130, 64, 100],
] as const;

describe("gatherRows and scatterAddRows", () => {
  test("agree with the reference and their formulas", () => {
    for (const [R, n, M] of SHAPES) {
      const next = stream(R + n);
      const [x, y] = [numbers(next, R * n), numbers(next, M * n)];
      const rows = distinct(next, M, R);
      for (const type of ["f32", "bf16"] as const) {
        const body = (bench: Bench) => {
          const [chosen, gathered, added] = [
            bench.i32([M], rows),
            bench.out(type, [M, n]),
            bench.f32([R, n], x),
          ];
          gatherRows(bench.device, bench.real(type, [R, n], x), chosen, gathered);
          scatterAddRows(bench.device, bench.f32([M, n], y), chosen, added);
          return { gathered, added };
        };
        // Copies, and one addition of the same two numbers: exact.
        agree(`rows ${R},${n},${M}`, body, { gathered: 0, added: 0 });
        if (type === "bf16") continue;
        const result = run(lab.double, body);
        const expected = x.slice();
        y.forEach((value, i) => {
          expected[rows[Math.floor(i / n)]! * n + (i % n)]! += value;
        });
        close("scatterAddRows", result.added!, expected, 0);
        close(
          "gatherRows",
          result.gathered!,
          y.map((_, i) => x[rows[Math.floor(i / n)]! * n + (i % n)]!),
          0,
        );
      }
    }
  });
});

describe("scaleRows and rowDot", () => {
  test("agree with the reference and their formulas", () => {
    for (const [R, n] of SHAPES) {
      const next = stream(R * n + 1);
      const [a, b, g, out0] = [R * n, R * n, R, R].map((size) => numbers(next, size));
      const body = (abs: (value: number) => number, beta: number) => (bench: Bench) => {
        const [left, right] = [bench.f32([R, n], a!.map(abs)), bench.f32([R, n], b!.map(abs))];
        const dot = beta === 0 ? bench.out("f32", [R]) : bench.f32([R], out0!.map(abs));
        rowDot(bench.device, left, right, 1.5, beta, dot);
        const [scaled, inPlace] = [bench.out("f32", [R, n]), bench.f32([R, n], a!)];
        scaleRows(bench.device, bench.f32([R, n], a!), bench.f32([R], g!), scaled);
        scaleRows(bench.device, inPlace, bench.f32([R], g!), inPlace);
        return { dot, scaled, inPlace };
      };
      for (const beta of [0, 2]) {
        const plain = body((value) => value, beta);
        const size = run(lab.reference, body(Math.abs, beta));
        // Sums of n products: 1e-6 of Σ|products|. Scaling is one rounding of the same product.
        agree(`rowDot ${R},${n}`, plain, { dot: relativeTo(size.dot!, 1e-6), scaled: 0, inPlace: 0 });
        const result = run(lab.double, plain);
        const expected = out0!.map((before, i) => {
          let sum = 0;
          for (let j = 0; j < n; j++) sum += a![i * n + j]! * b![i * n + j]!;
          return beta * before + 1.5 * sum;
        });
        close("rowDot", result.dot!, expected, 1e-12);
        close(
          "scaleRows",
          result.scaled!,
          a!.map((value, i) => value * g![Math.floor(i / n)]!),
          1e-15,
        );
        close("in place", result.inPlace!, result.scaled!, 0);
      }
    }
  });
});

test("wrong shapes are refused", () => {
  on(lab.reference, (bench) => {
    const { device, zeros } = bench;
    const rows = bench.i32([2], [0, 1]);
    expect(() => gatherRows(device, zeros([3, 4]), rows, zeros([2, 5]))).toThrow(
      /y is f32 \[2,5\]; expected .* \[2,4\]/,
    );
    expect(() => scatterAddRows(device, zeros([2, 4]), rows, zeros([1, 4]))).toThrow(
      /2 distinct rows of f32 \[1,4\]/,
    );
    expect(() => scaleRows(device, zeros([3, 4]), zeros([4]), zeros([3, 4]))).toThrow(
      /g is f32 \[4\]; expected f32 \[3\]/,
    );
    expect(() => rowDot(device, zeros([3, 4]), zeros([4, 3]), 1, 0, zeros([3]))).toThrow(/b is f32 \[4,3\]/);
  });
});
