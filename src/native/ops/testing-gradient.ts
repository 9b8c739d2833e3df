/** Proof of backward formulas: central differences of the forward op on the float64 build of the reference. */
import type { Tensor } from "../tensor.ts";
import { type Bench, close, lab, on, run } from "./testing.ts";
import { largest } from "./testing-compare.ts";

export interface Input {
  readonly shape: readonly number[];
  readonly values: Float64Array;
}
export type Inputs = Record<string, Input>;
export type Tensors = Record<string, Tensor>;

/** Exact in binary, so that x ± STEP of a coarse x is exact too. The error of a difference is about STEP² = 4e-9·f‴/6. */
const STEP = 2 ** -14;
/** Richardson: differences at STEP and STEP/2 cancel the f‴ term. */
const RELATIVE = 1e-6;

export interface GradientCase {
  readonly label: string;
  /** Differentiated by every element of each. */
  readonly inputs: Inputs;
  /** The scalar whose derivative is checked, computed with float64 tensors of the inputs. */
  loss(bench: Bench, inputs: Tensors): number;
  /** The op's own gradients, by name of input. */
  gradients(bench: Bench, inputs: Tensors): Tensors;
}

/** Σ c·v, the usual scalar over an output. */
export function weighted(values: ArrayLike<number>, c: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * c[i]!;
  return sum;
}

function upload(bench: Bench, inputs: Inputs): Tensors {
  return Object.fromEntries(
    Object.entries(inputs).map(([name, { shape, values }]) => [name, bench.f32(shape, values)]),
  );
}

function lossAt(test: GradientCase, name: string, index: number, delta: number): number {
  const input = test.inputs[name]!;
  const values = input.values.slice();
  values[index] = values[index]! + delta;
  return on(lab.double, (bench) =>
    test.loss(bench, upload(bench, { ...test.inputs, [name]: { ...input, values } })),
  );
}

/** Holds every gradient the op returns to finite differences, 1e-6 relative to the largest of them. */
export function checkGradients(test: GradientCase): void {
  const analytic = run(lab.double, (bench) => test.gradients(bench, upload(bench, test.inputs)));
  for (const [name, gradient] of Object.entries(analytic)) {
    const numeric = Float64Array.from(gradient, (_, i) => {
      const slope = (h: number) => (lossAt(test, name, i, h) - lossAt(test, name, i, -h)) / (2 * h);
      return (4 * slope(STEP / 2) - slope(STEP)) / 3;
    });
    close(`${test.label}: d${name}`, gradient, numeric, RELATIVE * Math.max(1e-3, largest(numeric)));
  }
}
