import { describe, expect, test } from "bun:test";
import { readF64 } from "../tensor.ts";
import { type RopeScaling, rope, ropeTable } from "./rope.ts";
import { agree, type Bench, close, integers, lab, numbers, on, run, stream } from "./testing.ts";
import { BF16_STEP, largest } from "./testing-compare.ts";
import { checkGradients, weighted } from "./testing-gradient.ts";

const LLAMA3: RopeScaling = {
  type: "llama3",
  factor: 8,
  lowFreqFactor: 1,
  highFreqFactor: 4,
  originalMaxPositions: 512,
};
const SCALINGS: RopeScaling[] = [null, { type: "linear", factor: 4 }, LLAMA3];

/** Frequency i of head size D, as Hugging Face's `_compute_llama3_parameters` has it. */
function frequency(i: number, D: number, theta: number, scaling: RopeScaling): number {
  const f = theta ** ((-2 * i) / D);
  if (scaling === null) return f;
  if (scaling.type === "linear") return f / scaling.factor;
  const { factor, lowFreqFactor: low, highFreqFactor: high, originalMaxPositions: original } = scaling;
  const wavelength = (2 * Math.PI) / f;
  if (wavelength < original / high) return f;
  if (wavelength > original / low) return f / factor;
  const smooth = (original / wavelength - low) / (high - low);
  return ((1 - smooth) * f) / factor + smooth * f;
}

function table(bench: Bench, positions: number, headSize: number, theta: number, scaling: RopeScaling) {
  const shape = [positions, headSize / 2];
  const made = { cosine: bench.out("f32", shape), sine: bench.out("f32", shape) };
  ropeTable(bench.device, { positions, headSize, theta, scaling }, made);
  return made;
}

describe("ropeTable", () => {
  for (const scaling of SCALINGS) {
    test(`computes its formula: ${scaling?.type ?? "no scaling"}`, () => {
      for (const [P, D, theta] of [
        [1, 2, 10000],
        [300, 64, 10000],
        [70, 128, 500000],
      ] as const) {
        const body = (bench: Bench) => table(bench, P, D, theta, scaling);
        const at = (f: (angle: number) => number) =>
          Float64Array.from({ length: (P * D) / 2 }, (_, n) => {
            const [p, i] = [Math.floor(n / (D / 2)), n % (D / 2)];
            return f(p * frequency(i, D, theta, scaling));
          });
        const actual = run(lab.double, body);
        // The angle grows to P; its rounding is P·1e-16.
        close("cosine", actual.cosine!, at(Math.cos), 1e-12);
        close("sine", actual.sine!, at(Math.sin), 1e-12);
        // Angles are float64 everywhere: one rounding to float32.
        agree(`ropeTable ${P},${D}`, body, { cosine: 1e-7, sine: 1e-7 });
      }
    });
  }
});

const SHAPES = [
  [0, 1, 8],
  [1, 1, 2],
  [17, 9, 64],
  [33, 5, 20],
  [64, 3, 128],
] as const;

describe("rope", () => {
  for (const dtype of ["f32", "bf16"] as const) {
    test(`agrees with the reference and its inverse takes it back: ${dtype}`, () => {
      for (const [T, heads, D] of SHAPES) {
        const next = stream(T + D);
        const x = numbers(next, T * heads * D);
        const positions = integers(next, T, 200);
        const body = (bench: Bench) => {
          const made = table(bench, 200, D, 10000, null);
          const at = bench.i32([T], positions);
          const [turned, back] = [0, 1].map(() => bench.real(dtype, [T, heads, D], x));
          rope(bench.device, turned!, heads, at, made);
          rope(bench.device, back!, heads, at, made);
          rope(bench.device, back!, heads, at, made, true);
          return { turned: turned!, back: back! };
        };
        // Two products and a sum of numbers up to 1; bf16 rounds once (twice on the way back).
        const once = dtype === "bf16" ? BF16_STEP : 5e-7;
        agree(`rope ${T},${heads},${D}`, body, { turned: 1.5 * once, back: 3 * once });
        for (const device of [lab.reference, lab.double]) {
          close("inverse", run(device, body).back!, x, dtype === "bf16" ? 3 * BF16_STEP : 5e-7);
        }
      }
    });
  }

  test("turns the pair (i, i + D/2) of every head", () => {
    const [T, heads, D, theta] = [3, 2, 6, 100];
    const x = numbers(stream(4), T * heads * D);
    const positions = [5, 0, 11];
    const { turned } = run(lab.double, (bench) => {
      const turned = bench.f32([T, heads * D], x);
      rope(bench.device, turned, heads, bench.i32([T], positions), table(bench, 12, D, theta, null));
      return { turned };
    });
    const expected = x.map((value, n) => {
      const d = n % D;
      const angle = positions[Math.floor(n / (heads * D))]! * frequency(d % (D / 2), D, theta, null);
      const partner = d < D / 2 ? -x[n + D / 2]! : x[n - D / 2]!;
      return value * Math.cos(angle) + partner * Math.sin(angle);
    });
    close("formula", turned!, expected, 1e-13);
    expect(largest(expected)).toBeGreaterThan(0.5);
  });

  test("its inverse is the derivative", () => {
    const [T, heads, D] = [2, 2, 4];
    const next = stream(9);
    const c = numbers(next, T * heads * D);
    const turn = (bench: Bench, x: Float64Array, inverse: boolean) => {
      const turned = bench.f32([T, heads * D], x);
      rope(bench.device, turned, heads, bench.i32([T], [3, 7]), table(bench, 8, D, 50, null), inverse);
      return turned;
    };
    checkGradients({
      label: "rope",
      inputs: { x: { shape: [T, heads * D], values: numbers(next, T * heads * D) } },
      loss: (bench, { x }) => {
        const turned = turn(bench, readF64(bench.device, x!), false);
        return weighted(readF64(bench.device, turned), c);
      },
      gradients: (bench) => ({ x: turn(bench, c, true) }),
    });
  });

  test("refuses wrong shapes, and a position beyond the table", () => {
    for (const device of [lab.reference, ...lab.fast.map(({ two }) => two)]) {
      on(device, (bench) => {
        const made = table(bench, 10, 4, 10000, null);
        const at = bench.i32([2], [0, 1]);
        expect(() => rope(device, bench.zeros([2, 12]), 2, at, made)).toThrow(
          /x is f32 \[2,12\]; expected .* \[2,8\]/,
        );
        for (const position of [10, -1]) {
          const beyond = bench.i32([2], [0, position]);
          expect(() => rope(device, bench.zeros([2, 8]), 2, beyond, made)).toThrow(String(position));
        }
      });
    }
  });
});
