/** One suite that every method passes (settled 10-12), on the double build of the reference. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { type Arena, createArena, freeArena, release } from "../native/arena.ts";
import { buildLibrary } from "../native/build.ts";
import { closeDevice, type Device, openDevice } from "../native/device.ts";
import { randomUniform } from "../native/ops/index.ts";
import {
  createTensor,
  freeTensor,
  readF64,
  readI32,
  type Tensor,
  writeF32,
  writeI32,
  zero,
} from "../native/tensor.ts";
import { createWeight, freeWeight, readWeightRows, type Weight } from "../native/weight.ts";
import type { Adapter, AdapterSite, Method, Pass, Saved } from "./adapter.ts";
import { unscaledDora } from "./dora.ts";
import { withScratch } from "./draw.ts";
import { methods } from "./registry.ts";

const [T, IN, OUT, RANK] = [7, 11, 13, 5];
const site: AdapterSite = {
  name: "layers.0.self_attn.q_proj",
  module: 3,
  in: IN,
  out: OUT,
  rank: RANK,
  scaling: 2,
};

let device: Device;
let kept: Arena;
let scratch: Arena;

// Compiled here, because a first compilation outlasts the time limit of a hook.
await buildLibrary("reference-f64");

beforeAll(async () => {
  device = await openDevice({ library: "reference-f64" });
  kept = createArena(device, 1 << 20);
  scratch = createArena(device, 1 << 20);
});
afterEach(() => {
  release(kept, 0);
  release(scratch, 0);
});
afterAll(() => {
  freeArena(kept);
  freeArena(scratch);
  closeDevice(device);
});

/** A frozen weight whose values f32 holds exactly. */
function randomWeight(key: bigint): Weight {
  const values = createTensor(device, "f32", [OUT, IN]);
  randomUniform(device, key, -0.5, 0.5, values);
  const data = Float32Array.from(readF64(device, values));
  freeTensor(device, values);
  return createWeight(device, { name: "W", data, dtype: "f32", out: OUT, in: IN, compute: "f32" });
}

function random(key: bigint, ...shape: number[]): Tensor {
  const tensor = createTensor(device, "f32", shape);
  randomUniform(device, key, -1, 1, tensor);
  return tensor;
}

function makeAdapter(method: Method, weight: Weight, seed = 1): Adapter {
  const make = (shapes: ReturnType<Method["trainable"]>): Record<string, Tensor> =>
    Object.fromEntries(
      Object.entries(shapes).map(([name, s]) => [name, createTensor(device, s.dtype, s.shape)]),
    );
  const adapter: Adapter = {
    site,
    method,
    trainable: make(method.trainable(site)),
    gradient: make(method.trainable(site)),
    frozen: make(method.frozen(site)),
    derived: make(method.derived(site)),
  };
  method.initialise(device, adapter, weight, { seed });
  method.prepare(device, adapter, weight, scratch);
  return adapter;
}

/** Moves every factor away from its start, so that nothing is tested at zero. */
function disturb(adapter: Adapter, weight: Weight): void {
  let key = 100n;
  for (const tensor of Object.values(adapter.trainable)) {
    const noise = random(key++, ...tensor.shape);
    const values = readF64(device, tensor);
    writeF32(
      device,
      tensor,
      readF64(device, noise).map((v, i) => values[i]! + 0.3 * v),
    );
    freeTensor(device, noise);
  }
  adapter.method.prepare(device, adapter, weight, scratch);
}

const records = (): Pick<NonNullable<Pass["dropout"]>, "record" | "position"> => {
  const record = createTensor(device, "i32", [T]);
  const position = createTensor(device, "i32", [T]);
  writeI32(device, record, [4, 4, 4, 9, 9, 9, 9]);
  writeI32(device, position, [0, 1, 2, 0, 1, 2, 3]);
  return { record, position };
};

function makePass(p: number): Pass {
  return { device, compute: "f32", kept, scratch, dropout: p > 0 ? { p, key: 77n, ...records() } : null };
}

function run(pass: Pass, adapter: Adapter, weight: Weight, x: Tensor): { y: Float64Array; saved: Saved } {
  const y = createTensor(device, "f32", [T, OUT]);
  const saved = adapter.method.forward(pass, adapter, weight, x, y, 0);
  const values = readF64(device, y);
  freeTensor(device, y);
  return { y: values, saved };
}

function frozenProduct(weight: Weight, x: Tensor): Float64Array {
  const [w, input] = [wholeWeight(weight), readF64(device, x)];
  return Float64Array.from({ length: T * OUT }, (_, i) => {
    const [t, o] = [Math.floor(i / OUT), i % OUT];
    let sum = 0;
    for (let k = 0; k < IN; k++) sum += input[t * IN + k]! * w[o * IN + k]!;
    return sum;
  });
}

function wholeWeight(weight: Weight): Float64Array {
  const rows = createTensor(device, "i32", [OUT]);
  writeI32(
    device,
    rows,
    Int32Array.from({ length: OUT }, (_, i) => i),
  );
  const values = createTensor(device, "f32", [OUT, IN]);
  readWeightRows(device, weight, rows, values);
  const result = readF64(device, values);
  freeTensor(device, rows);
  freeTensor(device, values);
  return result;
}

function largestDifference(a: Float64Array, b: Float64Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((worst, v, i) => Math.max(worst, Math.abs(v - b[i]!)), 0);
}

/** Σ y ⊙ c: a scalar whose gradient with respect to y is c. */
const objective = (y: Float64Array, c: Float64Array): number => y.reduce((sum, v, i) => sum + v * c[i]!, 0);

/** Central differences of `f` with respect to every element of `tensor`. */
function finiteDifferences(tensor: Tensor, f: () => number, h = 1e-5): Float64Array {
  const values = readF64(device, tensor);
  const result = values.map((value, i) => {
    const at = (v: number): number => {
      values[i] = v;
      writeF32(device, tensor, values);
      return f();
    };
    const slope = (at(value + h) - at(value - h)) / (2 * h);
    values[i] = value;
    return slope;
  });
  writeF32(device, tensor, values);
  return result;
}

for (const method of [...Object.values(methods), unscaledDora]) {
  describe(method.norm ? `${method.name}, ${method.norm}` : method.name, () => {
    test("starts at ΔW = 0", () => {
      const weight = randomWeight(1n);
      const x = random(2n, T, IN);
      const { y } = run(makePass(0), makeAdapter(method, weight), weight, x);
      expect(largestDifference(y, frozenProduct(weight, x))).toBeLessThan(1e-12);
      freeWeight(device, weight);
    });

    for (const p of [0, 0.4]) {
      test(`gradients equal finite differences at dropout ${p}`, () => {
        const weight = randomWeight(1n);
        const adapter = makeAdapter(method, weight);
        disturb(adapter, weight);
        const x = random(2n, T, IN);
        const dy = random(3n, T, OUT);
        const dx = createTensor(device, "f32", [T, IN]);
        const pass = makePass(p);
        const { saved } = run(pass, adapter, weight, x);
        for (const gradient of Object.values(adapter.gradient)) zero(device, gradient);
        method.backward(pass, adapter, weight, saved, method.keepsInput ? x : null, dy, dx, 0);
        const c = readF64(device, dy);
        const { norm } = adapter.derived;
        const heldNorm = norm && readF64(device, norm);
        const f = (): number => {
          if (method.name === "full") method.prepare(device, adapter, weight, scratch);
          if (heldNorm) {
            // DoRA's norm is detached (settled 12): differences move m and the factors under the norm as it was.
            const m = readF64(device, adapter.trainable.m!);
            writeF32(
              device,
              adapter.derived.gain!,
              m.map((v, i) => v / heldNorm[i]!),
            );
          }
          return withScratch(kept, () => objective(run(pass, adapter, weight, x).y, c));
        };
        expect(largestDifference(readF64(device, dx), finiteDifferences(x, f))).toBeLessThan(1e-8);
        for (const [name, tensor] of Object.entries(adapter.trainable)) {
          const gradient = readF64(device, adapter.gradient[name]!);
          expect(gradient.some((v) => Math.abs(v) > 1e-3)).toBe(true);
          // A weight may hold its values in float32 whatever the build; in W the objective is linear, so a wide step is exact.
          const [h, limit] = method.name === "full" ? [0.5, 1e-6] : [1e-5, 1e-8];
          expect(largestDifference(gradient, finiteDifferences(tensor, f, h))).toBeLessThan(limit);
        }
        freeWeight(device, weight);
      });
    }

    test("backward adds to dx and to the factor gradients", () => {
      const weight = randomWeight(1n);
      const adapter = makeAdapter(method, weight);
      disturb(adapter, weight);
      const x = random(2n, T, IN);
      const dy = random(3n, T, OUT);
      const dx = createTensor(device, "f32", [T, IN]);
      const pass = makePass(0.4);
      const { saved } = run(pass, adapter, weight, x);
      const back = (beta: number): void =>
        method.backward(pass, adapter, weight, saved, method.keepsInput ? x : null, dy, dx, beta);
      for (const gradient of Object.values(adapter.gradient)) zero(device, gradient);
      back(0);
      const once = [dx, ...Object.values(adapter.gradient)].map((t) => readF64(device, t));
      back(1);
      [dx, ...Object.values(adapter.gradient)].forEach((t, i) => {
        expect(
          largestDifference(
            readF64(device, t),
            once[i]!.map((v) => 2 * v),
          ),
        ).toBeLessThan(1e-10);
      });
      freeWeight(device, weight);
    });

    test("merged = unmerged, and what is not chosen stays bit-equal", () => {
      const weight = randomWeight(1n);
      const before = wholeWeight(weight);
      const adapter = makeAdapter(method, weight);
      disturb(adapter, weight);
      const x = random(2n, T, IN);
      const { y } = run(makePass(0), adapter, weight, x);
      method.merge(device, adapter, weight, scratch);
      // The weight is held in f32 by contract; in this build f32 means double, so only sums differ.
      expect(largestDifference(y, frozenProduct(weight, x))).toBeLessThan(1e-10);
      const after = wholeWeight(weight);
      const index = adapter.frozen.index;
      if (index) {
        const chosen = new Set(readI32(device, index));
        expect(chosen.size).toBe(RANK);
        const changed = new Set<number>();
        after.forEach((v, i) => {
          if (v !== before[i]) changed.add(method.name === "sbora-fa" ? i % IN : Math.floor(i / IN));
        });
        expect(changed).toEqual(chosen);
      }
      freeWeight(device, weight);
    });

    test("counts the parameters of its formula", () => {
      const counted = Object.values(method.trainable(site)).reduce(
        (n, s) => n + s.shape.reduce((a, b) => a * b, 1),
        0,
      );
      const formula = {
        lora: RANK * (IN + OUT),
        dora: RANK * (IN + OUT) + OUT,
        oa: RANK * OUT,
        "lora-fa": RANK * OUT,
        "sbora-fa": RANK * OUT,
        "sbora-fb": RANK * IN,
        full: IN * OUT,
      }[method.name];
      expect(counted).toBe(formula);
    });

    test("same seed, same bytes; another seed, other draws", () => {
      const weight = randomWeight(1n);
      const bytes = (seed: number): string => {
        const adapter = makeAdapter(method, weight, seed);
        const real = Object.values(adapter.trainable).map((t) => [...readF64(device, t)]);
        const frozen = Object.values(adapter.frozen).map((t) =>
          t.dtype === "i32" ? [...readI32(device, t)] : [...readF64(device, t)],
        );
        return JSON.stringify([real, frozen]);
      };
      expect(bytes(5)).toBe(bytes(5));
      if (method.name !== "full") expect(bytes(5)).not.toBe(bytes(6));
      freeWeight(device, weight);
    });
  });
}

describe("DoRA's two norms", () => {
  /** m / ‖W + factor·B·A‖ by rows, in float64. */
  function gains({ trainable: { A, B, m } }: Adapter, weight: Weight, factor: number): number[] {
    const [w, a, b] = [wholeWeight(weight), readF64(device, A!), readF64(device, B!)];
    return [...readF64(device, m!)].map((magnitude, o) => {
      let square = 0;
      for (let k = 0; k < IN; k++) {
        let value = w[o * IN + k]!;
        for (let j = 0; j < RANK; j++) value += factor * b[o * RANK + j]! * a[j * IN + k]!;
        square += value * value;
      }
      return magnitude / Math.sqrt(square);
    });
  }

  test.each([
    ["with s, as Tables 3 and 4", methods.dora, 2],
    ["without s, as the official 4-bit code", unscaledDora, 1],
  ] as const)("%s", (_, method, factor) => {
    const weight = randomWeight(1n);
    const adapter = makeAdapter(method, weight);
    disturb(adapter, weight);
    const expected = Float64Array.from(gains(adapter, weight, factor));
    expect(largestDifference(readF64(device, adapter.derived.gain!), expected)).toBeLessThan(1e-12);
    // The other norm is another one here.
    const other = Float64Array.from(gains(adapter, weight, 3 - factor));
    expect(largestDifference(expected, other)).toBeGreaterThan(1e-2);
    freeWeight(device, weight);
  });

  test("without s, m starts anew while B·A is zero, and is kept afterwards; with s it always is", () => {
    const weight = randomWeight(1n);
    for (const method of [methods.dora, unscaledDora]) {
      const adapter = makeAdapter(method, weight);
      const { m, B } = adapter.trainable;
      const start = readF64(device, m!);
      const moved = start.map((v) => v + 0.5);
      const prepared = (): Float64Array => {
        writeF32(device, m!, moved);
        method.prepare(device, adapter, weight, scratch);
        return readF64(device, m!);
      };
      expect(prepared()).toEqual(method === unscaledDora ? start : moved);
      const gain = readF64(device, adapter.derived.gain!);
      expect(gain.every((v) => Math.abs(v - 1) < 1e-12 === (method === unscaledDora))).toBe(true);
      const values = readF64(device, B!);
      values[0] = 1e-3;
      writeF32(device, B!, values);
      expect(prepared()).toEqual(moved);
    }
    freeWeight(device, weight);
  });
});

test.each([methods.dora, unscaledDora])("DoRA refuses a row of zeros, whose norm it divides by", (method) => {
  const data = new Float32Array(OUT * IN).fill(0.5).fill(0, 4 * IN, 5 * IN);
  const zeroRow = createWeight(device, { name: "W", data, dtype: "f32", out: OUT, in: IN, compute: "f32" });
  expect(() => makeAdapter(method, zeroRow)).toThrow(/q_proj: row 4 of its weight is zero, and DoRA divides/);
  freeWeight(device, zeroRow);
});
