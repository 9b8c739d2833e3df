import { describe, expect, test } from "bun:test";
import { readF64 } from "../tensor.ts";
import { rmsNormBackward, rmsNormForward } from "./rms-norm.ts";
import {
  agree,
  aloneAsInBatch,
  type Bench,
  close,
  coarse,
  lab,
  numbers,
  on,
  pickRows,
  run,
  stream,
} from "./testing.ts";
import { BF16_STEP, largest, relativeTo, sumOf } from "./testing-compare.ts";
import { checkGradients, weighted } from "./testing-gradient.ts";

const EPS = 1e-5;
const SHAPES = [
  [0, 8],
  [1, 1],
  [1, 576],
  [17, 7],
  [17, 97],
  [130, 64],
  [5, 1000],
] as const;

function forward(
  bench: Bench,
  T: number,
  H: number,
  x: Float64Array,
  w: Float64Array,
  dtype: "f32" | "bf16",
) {
  const y = bench.out(dtype, [T, H]);
  const rstd = bench.out("f32", [T]);
  rmsNormForward(bench.device, bench.f32([T, H], x), bench.f32([H], w), EPS, y, rstd);
  return { y, rstd };
}

describe("rmsNorm", () => {
  test("computes its formula", () => {
    const [T, H] = [3, 5];
    const next = stream(1);
    const [x, w] = [numbers(next, T * H), numbers(next, H)];
    const { y, rstd } = run(lab.double, (bench) => forward(bench, T, H, x, w, "f32"));
    const scales = Array.from({ length: T }, (_, t) => {
      const squares = x.subarray(t * H, (t + 1) * H).reduce((sum, value) => sum + value * value, 0);
      return 1 / Math.sqrt(squares / H + EPS);
    });
    close("rstd", rstd!, scales, 1e-12);
    close(
      "y",
      y!,
      x.map((value, i) => value * scales[Math.floor(i / H)]! * w[i % H]!),
      1e-12,
    );
  });

  for (const dtype of ["f32", "bf16"] as const) {
    test(`forward agrees with the reference: y ${dtype}`, () => {
      for (const [T, H] of SHAPES) {
        const next = stream(T + H);
        const [x, w] = [numbers(next, T * H, 4), numbers(next, H)];
        const expected = run(lab.reference, (bench) => forward(bench, T, H, x, w, dtype));
        // A mean of positive squares, a root and two products: relative errors only.
        const y = sumOf(
          relativeTo(expected.y!, 1e-6),
          relativeTo(expected.y!, dtype === "bf16" ? BF16_STEP : 0),
        );
        const allowed = { y, rstd: relativeTo(expected.rstd!, 1e-6) };
        agree(`rmsNormForward ${T},${H}`, (bench) => forward(bench, T, H, x, w, dtype), allowed);
      }
    });
  }

  test("backward agrees with the reference and adds to dx and dw", () => {
    for (const [T, H] of SHAPES) {
      const next = stream(T * H);
      const [x, w, dy, dx0, dw0] = [T * H, H, T * H, T * H, H].map((n) => numbers(next, n));
      const body = (bench: Bench) => {
        const { rstd } = forward(bench, T, H, x!, w!, "f32");
        const [dx, dw] = [bench.f32([T, H], dx0!), bench.f32([H], dw0!)];
        const inputs = [bench.f32([T, H], dy!), bench.f32([T, H], x!), bench.f32([H], w!), rstd] as const;
        rmsNormBackward(bench.device, ...inputs, dx, dw);
        const dxAlone = bench.f32([T, H], dx0!);
        rmsNormBackward(bench.device, ...inputs, dxAlone, null);
        return { dx, dw, dxAlone };
      };
      const expected = run(lab.reference, body);
      // dx subtracts two terms of the size of rstd·w·dy; dw sums T of them.
      const dx = 4e-6 * (1 + largest(expected.dx!));
      agree(`rmsNormBackward ${T},${H}`, body, { dx, dxAlone: dx, dw: 2e-6 * (T + largest(expected.dw!)) });
    }
  });

  test("backward is the derivative of forward", () => {
    const [T, H] = [3, 4];
    const next = stream(6);
    const c = coarse(next, T * H);
    checkGradients({
      label: "rmsNorm",
      inputs: {
        x: { shape: [T, H], values: coarse(next, T * H) },
        w: { shape: [H], values: coarse(next, H) },
      },
      loss: (bench, { x, w }) => {
        const y = bench.out("f32", [T, H]);
        rmsNormForward(bench.device, x!, w!, EPS, y, null);
        return weighted(readF64(bench.device, y), c);
      },
      gradients: (bench, { x, w }) => {
        const [y, rstd, dx, dw] = [[T, H], [T], [T, H], [H]].map((shape) => bench.zeros(shape));
        rmsNormForward(bench.device, x!, w!, EPS, y!, rstd!);
        rmsNormBackward(bench.device, bench.f32([T, H], c), x!, w!, rstd!, dx!, dw!);
        return { x: dx!, w: dw! };
      },
    });
  });

  test("a row alone has the bytes it has in a batch", () => {
    const [T, H] = [64, 97];
    const next = stream(2);
    const [x, w] = [numbers(next, T * H), numbers(next, H)];
    for (const dtype of ["f32", "bf16"] as const) {
      aloneAsInBatch("rmsNorm", T, (bench, rows) =>
        forward(bench, rows.length, H, pickRows(x, H, rows), w, dtype),
      );
    }
  });

  test("refuses wrong shapes", () => {
    on(lab.reference, ({ device, zeros }) => {
      const call = () => rmsNormForward(device, zeros([2, 3]), zeros([4]), EPS, zeros([2, 3]), null);
      expect(call).toThrow(/w is f32 \[4\]; expected f32 \[3\]/);
      const rstd = () => rmsNormForward(device, zeros([2, 3]), zeros([3]), EPS, zeros([2, 3]), zeros([3]));
      expect(rstd).toThrow(/rstd is f32 \[3\]; expected f32 \[2\]/);
    });
  });
});
