import { describe, expect, test } from "bun:test";
import { adamw } from "./adamw.ts";
import { agree, type Bench, close, lab, numbers, on, run, stream } from "./testing.ts";

const SETTINGS = { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, decay: 0.1, gradientScale: 0.5 };
const SIZES = [0, 1, 17, 1000, 70_003];

function problem(n: number) {
  const next = stream(n);
  // Some gradients are exactly 0: their moments stay 0 and nothing may be divided by it.
  const gradients = [0, 1, 2].map(() => numbers(next, n).map((value, i) => (i % 5 === 0 ? 0 : value)));
  return { p: numbers(next, n), gradients };
}

function threeSteps(n: number, { p, gradients }: ReturnType<typeof problem>) {
  return (bench: Bench) => {
    const [parameters, m, v] = [bench.f32([n], p), bench.zeros([n]), bench.zeros([n])];
    gradients.forEach((g, i) => {
      adamw(bench.device, { p: parameters, g: bench.f32([n], g), m, v }, { ...SETTINGS, step: i + 1 });
    });
    return { p: parameters, m, v };
  };
}

describe("adamw", () => {
  test("is its formula over three steps", () => {
    const n = 100;
    const start = problem(n);
    const actual = run(lab.double, threeSteps(n, start));
    const [p, m, v] = [start.p.slice(), new Float64Array(n), new Float64Array(n)];
    const { lr, beta1, beta2, eps, decay, gradientScale } = SETTINGS;
    start.gradients.forEach((gradient, t) => {
      for (let i = 0; i < n; i++) {
        const g = gradientScale * gradient[i]!;
        m[i] = beta1 * m[i]! + (1 - beta1) * g;
        v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
        const root = Math.sqrt(v[i]! / (1 - beta2 ** (t + 1)));
        p[i] = p[i]! * (1 - lr * decay) - (lr * (m[i]! / (1 - beta1 ** (t + 1)))) / (root + eps);
      }
    });
    close("p", actual.p!, p, 1e-13);
    close("m", actual.m!, m, 1e-14);
    close("v", actual.v!, v, 1e-14);
  });

  test("agrees with the reference, the same bytes with any number of threads", () => {
    for (const n of SIZES) {
      // p: a few roundings of a number up to 1 and of steps of lr; the moments: a few roundings of numbers up to 1.
      agree(`adamw ${n}`, threeSteps(n, problem(n)), { p: 1e-6, m: 2e-7, v: 1e-9 + 2e-7 });
    }
  });

  test("refuses wrong sizes and settings", () => {
    on(lab.reference, ({ device, zeros }) => {
      const state = { p: zeros([3]), g: zeros([3]), m: zeros([3]), v: zeros([3]) };
      const call = (change: object) => () => adamw(device, state, { ...SETTINGS, step: 1, ...change });
      expect(() => adamw(device, { ...state, v: zeros([4]) }, { ...SETTINGS, step: 1 })).toThrow(
        /v is f32 \[4\]/,
      );
      expect(call({ step: 0 })).toThrow(/step is 0/);
      expect(call({ lr: Number.NaN })).toThrow(/lr is NaN/);
      expect(call({ beta2: 1 })).toThrow(/beta2 is 1/);
    });
  });
});
