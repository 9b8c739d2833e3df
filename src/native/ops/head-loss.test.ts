import { describe, expect, test } from "bun:test";
import { readF64 } from "../tensor.ts";
import { headLoss } from "./head-loss.ts";
import {
  agree,
  aloneAsInBatch,
  type Bench,
  close,
  coarse,
  integers,
  lab,
  numbers,
  on,
  pickRows,
  run,
  stream,
} from "./testing.ts";
import { largest } from "./testing-compare.ts";
import { checkGradients, weighted } from "./testing-gradient.ts";

const SHAPES = [
  [0, 5, 7],
  [1, 1, 2],
  [1, 64, 193],
  [17, 31, 101],
  [67, 96, 509],
  [130, 40, 1000],
] as const;

function problem(M: number, H: number, V: number, seed: number) {
  const next = stream(seed);
  return {
    x: numbers(next, M * H, 2),
    w: coarse(next, V * H),
    targets: integers(next, M, V),
    // Some labels weigh nothing.
    weights: numbers(next, M).map((value) => (value < -0.6 ? 0 : Math.abs(value))),
    dw: numbers(next, V * H),
  };
}

type Problem = ReturnType<typeof problem>;
interface Kind {
  readonly compute: "f32" | "bf16";
  readonly gradients: boolean;
}

function body(bench: Bench, [M, H, V]: readonly [number, number, number], p: Problem, kind: Kind) {
  const { compute } = kind;
  const weight = bench.weight(V, H, p.w, { dtype: compute, compute });
  const x = bench.real(compute, [M, H], p.x);
  const [targets, weights] = [bench.i32([M], p.targets), bench.f32([M], p.weights)];
  const loss = bench.out("f32", [M]);
  if (!kind.gradients) {
    headLoss(bench.device, weight, x, targets, weights, loss);
    return { loss };
  }
  const dx = bench.out("f32", [M, H]);
  const dw = bench.f32([V, H], p.dw);
  headLoss(bench.device, weight, x, targets, weights, loss, { dx, dw });
  return { loss, dx, dw };
}

describe("headLoss", () => {
  for (const compute of ["f32", "bf16"] as const) {
    test(`agrees with the reference: compute ${compute}`, () => {
      for (const shape of SHAPES) {
        const [M, H, V] = shape;
        const p = problem(M, H, V, M + V);
        const expected = run(lab.reference, (b) => body(b, shape, p, { compute, gradients: true }));
        // Loss: float32 logits of H products of at most 2, then exp and log. Gradients: under bf16 the softmax is a
        // product operand and may be rounded.
        const loss = 2e-6 * (1 + H);
        const relative = compute === "bf16" ? 2 ** -7 : 1e-5;
        const allowed = {
          loss,
          dx: relative * largest(expected.dx!),
          dw: relative * largest(expected.dw!),
        };
        agree(`headLoss ${shape}`, (b) => body(b, shape, p, { compute, gradients: true }), allowed);
        agree(`headLoss ${shape}, loss alone`, (b) => body(b, shape, p, { compute, gradients: false }), {
          loss,
        });
      }
    });

    test(`a label's loss and dx do not depend on the others: compute ${compute}`, () => {
      const [M, H, V] = [70, 48, 301];
      const p = problem(M, H, V, 5);
      aloneAsInBatch(`headLoss ${compute}`, M, (bench, rows) => {
        const part = {
          ...p,
          x: pickRows(p.x, H, rows),
          targets: pickRows(p.targets, 1, rows),
          weights: pickRows(p.weights, 1, rows),
        };
        const { loss, dx } = body(bench, [rows.length, H, V], part, { compute, gradients: true });
        return { loss, dx: dx! };
      });
    });
  }

  test("computes its formula, also where logits are large", () => {
    const [M, H, V] = [3, 4, 6];
    const p = problem(M, H, V, 8);
    const big = { ...p, x: p.x.map((value) => 400 * value) };
    for (const one of [p, big]) {
      const { loss } = run(lab.double, (b) => body(b, [M, H, V], one, { compute: "f32", gradients: false }));
      const expected = Array.from({ length: M }, (_, m) => {
        const logits = Array.from({ length: V }, (_, v) => {
          let sum = 0;
          for (let h = 0; h < H; h++) sum += one.x[m * H + h]! * one.w[v * H + h]!;
          return sum;
        });
        const top = Math.max(...logits);
        const total = logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0);
        return top + Math.log(total) - logits[one.targets[m]!]!;
      });
      close("formula", loss!, expected, 1e-10);
    }
  });

  test("dx and dw are the derivatives of the weighted loss", () => {
    const [M, H, V] = [3, 4, 5];
    const next = stream(2);
    const targets = integers(next, M, V);
    const weights = Float64Array.from([0.25, 0, 0.75]);
    const setup = (bench: Bench, values: ArrayLike<number>) => ({
      weight: bench.weight(V, H, values),
      targets: bench.i32([M], targets),
      weights: bench.f32([M], weights),
      loss: bench.out("f32", [M]),
    });
    checkGradients({
      label: "headLoss",
      inputs: {
        x: { shape: [M, H], values: coarse(next, M * H) },
        w: { shape: [V, H], values: coarse(next, V * H) },
      },
      loss: (bench, { x, w }) => {
        const s = setup(bench, readF64(bench.device, w!));
        headLoss(bench.device, s.weight, x!, s.targets, s.weights, s.loss);
        return weighted(readF64(bench.device, s.loss), weights);
      },
      gradients: (bench, { x, w }) => {
        const s = setup(bench, readF64(bench.device, w!));
        const [dx, dw] = [bench.out("f32", [M, H]), bench.zeros([V, H])];
        headLoss(bench.device, s.weight, x!, s.targets, s.weights, s.loss, { dx, dw });
        return { x: dx, w: dw };
      },
    });
  });

  test("refuses wrong shapes, and a target outside the vocabulary", () => {
    on(lab.reference, (bench) => {
      const weight = bench.weight(3, 4, new Float64Array(12));
      const [x, loss, weights] = [bench.zeros([2, 4]), bench.zeros([2]), bench.zeros([2])];
      const targets = bench.i32([2], [0, 2]);
      const call = (t = targets, dx = x) => headLoss(bench.device, weight, x, t, weights, loss, { dx });
      expect(() => call(bench.i32([3], [0, 0, 0]))).toThrow(/targets is i32 \[3\]; expected i32 \[2\]/);
      expect(() => call(targets, bench.zeros([2, 3]))).toThrow(/dx is f32 \[2,3\]; expected f32 \[2,4\]/);
    });
    for (const device of [lab.reference, ...lab.fast.map(({ two }) => two)]) {
      on(device, (bench) => {
        const weight = bench.weight(3, 4, new Float64Array(12));
        const targets = bench.i32([2], [0, 3]);
        const call = () =>
          headLoss(device, weight, bench.zeros([2, 4]), targets, bench.zeros([2]), bench.zeros([2]));
        expect(call).toThrow("3");
      });
    }
  });
});
