import { describe, expect, test } from "bun:test";
import { columnDot, gatherColumns, scaleColumns, scatterAddColumns } from "./columns.ts";
import { type Dropout, dropoutApply } from "./dropout.ts";
import { agree, type Bench, close, distinct, integers, lab, numbers, on, run, stream } from "./testing.ts";
import { BF16_STEP, relativeTo, sumOf } from "./testing-compare.ts";

// [T, n, r]
const SHAPES = [
  [0, 8, 3],
  [1, 1, 1],
  [5, 7, 7],
  [17, 97, 1],
  [33, 64, 32],
  [64, 576, 65],
] as const;
const TYPES = [
  ["f32", "f32"],
  ["bf16", "f32"],
  ["bf16", "bf16"],
  ["f32", "bf16"],
] as const;

function dropOf(bench: Bench, T: number): Dropout {
  const record = bench.i32([T], integers(stream(T), T, 10_000));
  const position = bench.i32([T], integers(stream(T + 1), T, 500));
  return { p: 0.25, key: 99n, module: 3, record, position };
}

describe("gatherColumns and scatterAddColumns", () => {
  for (const [from, to] of TYPES) {
    test(`gather agrees with the reference and with dropout of the whole: ${from} to ${to}`, () => {
      for (const [T, n, r] of SHAPES) {
        const x = numbers(stream(n + r), T * n);
        const columns = distinct(stream(r), r, n);
        const body = (bench: Bench) => {
          const [full, chosen] = [bench.real(from, [T, n], x), bench.i32([r], columns)];
          const [plain, dropped, masked, viaWhole] = [r, r, n, r].map((width) => bench.out(to, [T, width]));
          gatherColumns(bench.device, full, chosen, null, plain!);
          gatherColumns(bench.device, full, chosen, dropOf(bench, T), dropped!);
          dropoutApply(bench.device, full, dropOf(bench, T), masked!);
          gatherColumns(bench.device, masked!, chosen, null, viaWhole!);
          return { plain: plain!, dropped: dropped!, viaWhole: viaWhole! };
        };
        const result = run(lab.reference, body);
        if (from === "f32" && to === "f32") {
          const expected = Float64Array.from(
            { length: T * r },
            (_, i) => x[Math.floor(i / r) * n + columns[i % r]!]!,
          );
          close("formula", result.plain!, expected, 0);
        }
        const once = relativeTo(result.dropped!, to === "bf16" ? BF16_STEP : 3e-7);
        agree(`gatherColumns ${T},${n},${r}`, body, { plain: 0, dropped: once, viaWhole: once });
        for (const device of [lab.reference, ...lab.fast.map(({ two }) => two)]) {
          const { dropped, viaWhole } = run(device, body);
          close("dropped = gathered from the dropped whole", dropped!, viaWhole!, 0);
        }
      }
    });
  }

  for (const to of ["f32", "bf16"] as const) {
    test(`scatterAdd agrees with the reference and leaves other columns alone: y ${to}`, () => {
      for (const [T, n, r] of SHAPES) {
        const next = stream(n * r);
        const [z, y0] = [numbers(next, T * r), numbers(next, T * n)];
        const columns = distinct(next, r, n);
        const body = (bench: Bench) => {
          const [plain, dropped] = [0, 1].map(() => bench.real(to, [T, n], y0));
          const [small, chosen] = [bench.f32([T, r], z), bench.i32([r], columns)];
          scatterAddColumns(bench.device, small, chosen, null, 1.5, plain!);
          scatterAddColumns(bench.device, small, chosen, dropOf(bench, T), 1.5, dropped!);
          return { plain: plain!, dropped: dropped! };
        };
        const result = run(lab.reference, body);
        const near = (name: string) =>
          sumOf(relativeTo(result[name]!, to === "bf16" ? BF16_STEP : 1e-6, 1e-6));
        agree(`scatterAddColumns ${T},${n},${r}`, body, { plain: near("plain"), dropped: near("dropped") });
        if (to === "f32") {
          const expected = y0.slice();
          z.forEach((value, i) => {
            expected[Math.floor(i / r) * n + columns[i % r]!]! += 1.5 * value;
          });
          close("formula", run(lab.double, body).plain!, expected, 1e-14);
        }
      }
    });
  }

  test("scatterAdd is the transpose of gather: ⟨gather(x), z⟩ = ⟨x, scatter(z)⟩", () => {
    const [T, n, r] = [17, 31, 9];
    const next = stream(12);
    const [x, z, columns] = [numbers(next, T * n), numbers(next, T * r), distinct(next, r, n)];
    for (const masked of [false, true]) {
      const { gathered, scattered } = run(lab.double, (bench) => {
        const chosen = bench.i32([r], columns);
        const drop = masked ? dropOf(bench, T) : null;
        const [gathered, scattered] = [bench.out("f32", [T, r]), bench.zeros([T, n])];
        gatherColumns(bench.device, bench.f32([T, n], x), chosen, drop, gathered);
        scatterAddColumns(bench.device, bench.f32([T, r], z), chosen, drop, 1, scattered);
        return { gathered, scattered };
      });
      const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
      close("transpose", [dot(gathered!, z)], [dot(x, scattered!)], 1e-12);
    }
  });
});

describe("scaleColumns and columnDot", () => {
  test("agree with the reference and their formulas", () => {
    for (const [T, n] of SHAPES) {
      const next = stream(T + n);
      const [a, b, g, out0] = [T * n, T * n, n, n].map((size) => numbers(next, size));
      const divisor = g!.map((value) => 1.5 + value);
      for (const type of ["f32", "bf16"] as const) {
        const body = (abs: (value: number) => number) => (bench: Bench) => {
          const [left, right] = [bench.f32([T, n], a!.map(abs)), bench.real(type, [T, n], b!.map(abs))];
          const [plain, divided] = [0, 1].map(() => bench.f32([n], out0!.map(abs)));
          columnDot(bench.device, left, right, null, plain!);
          columnDot(bench.device, left, right, bench.f32([n], divisor), divided!);
          const [scaled, inPlace] = [bench.out("f32", [T, n]), bench.f32([T, n], a!)];
          scaleColumns(bench.device, bench.f32([T, n], a!), bench.f32([n], g!), scaled);
          scaleColumns(bench.device, inPlace, bench.f32([n], g!), inPlace);
          return { plain: plain!, divided: divided!, scaled, inPlace };
        };
        const plain = body((value) => value);
        const size = run(lab.reference, body(Math.abs));
        // Sums of T products: 1e-6 of Σ|products|. Scaling: one rounding, none at all between the two.
        agree(`columnDot ${T},${n}`, plain, {
          plain: relativeTo(size.plain!, 1e-6),
          divided: relativeTo(size.divided!, 1e-6),
          scaled: 0,
          inPlace: 0,
        });
        if (type === "bf16") continue;
        const result = run(lab.double, plain);
        const sum = out0!.map((before, j) => {
          let total = 0;
          for (let t = 0; t < T; t++) total += a![t * n + j]! * b![t * n + j]!;
          return before + total / divisor[j]!;
        });
        close("columnDot", result.divided!, sum, 1e-12);
        close(
          "scaleColumns",
          result.scaled!,
          a!.map((value, i) => value * g![i % n]!),
          1e-15,
        );
        close("in place", result.inPlace!, result.scaled!, 0);
      }
    }
  });
});

test("wrong shapes and columns outside the matrix are refused", () => {
  on(lab.reference, (bench) => {
    const { device, zeros } = bench;
    const columns = bench.i32([2], [0, 1]);
    expect(() => gatherColumns(device, zeros([3, 4]), columns, null, zeros([3, 3]))).toThrow(
      /z is f32 \[3,3\]/,
    );
    expect(() => gatherColumns(device, zeros([3, 1]), columns, null, zeros([3, 2]))).toThrow(
      /2 distinct columns/,
    );
    expect(() => columnDot(device, zeros([3, 4]), zeros([3, 4]), null, zeros([3]))).toThrow(
      /out is f32 \[3\]/,
    );
  });
  for (const device of [lab.reference, ...lab.fast.map(({ two }) => two)]) {
    on(device, (bench) => {
      for (const column of [-1, 4]) {
        const columns = bench.i32([2], [0, column]);
        const [x, z] = [bench.zeros([3, 4]), bench.zeros([3, 2])];
        expect(() => gatherColumns(device, x, columns, null, z)).toThrow(String(column));
        expect(() => scatterAddColumns(device, z, columns, null, 1, x)).toThrow(String(column));
      }
    });
  }
});
