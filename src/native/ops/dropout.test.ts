import { describe, expect, test } from "bun:test";
import { type Dropout, dropoutApply } from "./dropout.ts";
import {
  agree,
  aloneAsInBatch,
  type Bench,
  close,
  integers,
  lab,
  numbers,
  on,
  pickRows,
  run,
  stream,
} from "./testing.ts";
import { BF16_STEP, relativeTo } from "./testing-compare.ts";
import { philox } from "./testing-philox.ts";

const KEY = 0x0123456789abcdefn;
const SHAPES = [
  [0, 8],
  [1, 1],
  [3, 7],
  [17, 97],
  [64, 576],
] as const;

interface Where {
  readonly record: Int32Array;
  readonly position: Int32Array;
}

const where = (T: number): Where => ({
  record: integers(stream(T), T, 2 ** 31 - 1),
  position: integers(stream(T + 1), T, 2000),
});

function dropOf(bench: Bench, at: Where, p: number, module = 5): Dropout {
  const shape = [at.record.length];
  return {
    p,
    key: KEY,
    module,
    record: bench.i32(shape, at.record),
    position: bench.i32(shape, at.position),
  };
}

/** What the mask multiplies element (t, f) by. */
export function maskFactor(at: Where, t: number, f: number, p: number, module: number): number {
  const counter = [Math.floor(f / 4), at.position[t]!, at.record[t]!, module];
  const dropped = philox(counter, KEY)[f % 4]! < Math.floor(p * 2 ** 32);
  return dropped ? 0 : 1 / (1 - p);
}

describe("dropoutApply", () => {
  test("is the documented mask", () => {
    const [T, n] = [3, 11];
    const x = numbers(stream(1), T * n);
    const at = where(T);
    for (const p of [0, 0.05, 0.5, 0.999]) {
      const { y } = run(lab.double, (bench) => {
        const y = bench.out("f32", [T, n]);
        dropoutApply(bench.device, bench.f32([T, n], x), dropOf(bench, at, p, 2 ** 32 - 1), y);
        return { y };
      });
      const expected = x.map((value, i) => value * maskFactor(at, Math.floor(i / n), i % n, p, 2 ** 32 - 1));
      close(`p ${p}`, y!, expected, 1e-12 / (1 - p));
    }
  });

  for (const [from, to] of [
    ["f32", "f32"],
    ["bf16", "f32"],
    ["f32", "bf16"],
    ["bf16", "bf16"],
  ] as const) {
    test(`agrees with the reference: ${from} to ${to}`, () => {
      for (const [T, n] of SHAPES) {
        const next = stream(n);
        const [x, y0] = [numbers(next, T * n), numbers(next, T * n)];
        const at = where(T);
        for (const beta of [0, 1]) {
          const body = (bench: Bench) => {
            const y = beta === 0 ? bench.out(to, [T, n]) : bench.real(to, [T, n], y0);
            dropoutApply(bench.device, bench.real(from, [T, n], x), dropOf(bench, at, 0.1), y, beta);
            return { y };
          };
          const { y } = run(lab.reference, body);
          // The mask agrees bit for bit; the scaling is one rounding.
          agree(`dropout ${T},${n}`, body, { y: relativeTo(y!, to === "bf16" ? BF16_STEP : 3e-7, 3e-7) });
        }
        const inPlace = (bench: Bench) => {
          const y = bench.real(to, [T, n], x);
          dropoutApply(bench.device, y, dropOf(bench, at, 0.1), y);
          return { y };
        };
        agree(`dropout in place ${T},${n}`, inPlace, { y: to === "bf16" ? 2 * BF16_STEP : 3e-7 });
      }
    });
  }

  test("a token has the mask it has alone, and drops about p of its features", () => {
    const [T, n] = [64, 512];
    const x = new Float64Array(T * n).fill(1);
    const at = where(T);
    const body = (bench: Bench, rows: readonly number[]) => {
      const part = { record: pickRows(at.record, 1, rows), position: pickRows(at.position, 1, rows) };
      const y = bench.out("f32", [rows.length, n]);
      dropoutApply(
        bench.device,
        bench.f32([rows.length, n], pickRows(x, n, rows)),
        dropOf(bench, part, 0.3),
        y,
      );
      return { y };
    };
    aloneAsInBatch("dropout", T, body);
    const { y } = run(lab.reference, (bench) =>
      body(
        bench,
        Array.from({ length: T }, (_, i) => i),
      ),
    );
    const share = y!.filter((value) => value === 0).length / (T * n);
    expect(Math.abs(share - 0.3)).toBeLessThan(0.01);
  });

  test("refuses a bad p, module, key or row count", () => {
    on(lab.reference, (bench) => {
      const [x, y] = [bench.zeros([2, 3]), bench.zeros([2, 3])];
      const drop = dropOf(bench, where(2), 0.5);
      const call = (change: Partial<Dropout>) => () =>
        dropoutApply(bench.device, x, { ...drop, ...change }, y);
      expect(call({ p: 1 })).toThrow(/p is 1; expected 0 ≤ p < 1/);
      expect(call({ p: Number.NaN })).toThrow(/p is NaN/);
      expect(call({ module: -1 })).toThrow(/module is -1/);
      expect(call({ key: 2n ** 64n })).toThrow(/does not fit 64 bits/);
      expect(call({ record: bench.i32([3], [0, 0, 0]) })).toThrow(/record is i32 \[3\]; expected i32 \[2\]/);
    });
  });
});
