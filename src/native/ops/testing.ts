/**
 * Test harness of the native ops: opens the reference (float32 and float64), the CPU library in every form this processor
 * has, and the CUDA library on its emulation, runs one body on each, and compares. Imported by tests only.
 *
 * SBORA_TEST_LIBRARIES: a list out of reference, cpu, cuda-emulated, cuda (on a GPU), of which the reference is always
 * opened. Default: reference,cpu,cuda-emulated.
 */
import { expect } from "bun:test";
import { type Device, openDevice, reserve } from "../device.ts";
import {
  createTensor,
  type Dtype,
  freeTensor,
  readBytes,
  readF64,
  type Tensor,
  writeBytes,
  writeF32,
  writeI32,
} from "../tensor.ts";
import { createWeight, freeWeight, type Weight, type WeightDtype } from "../weight.ts";
import { compareValues, type Tolerance } from "./testing-compare.ts";

export type Values = Float64Array | Int32Array;
export type Outputs = Record<string, Tensor>;

/** Largest shapes any op test uses. */
const PLAN = { tokens: 512, width: 1024, rank: 256, vocabulary: 1024 };

/** A library that is tested against the reference, twice: `one` and `two` must give the same bytes. */
export interface Form {
  readonly label: string;
  readonly one: Device;
  readonly two: Device;
  /** How `two` differs from `one`: "1 and 2 threads". */
  readonly pair: string;
}

export interface CpuForm extends Form {
  readonly isa: string;
}

export interface Lab {
  /** float64 sums, float32 values: the truth for the CPU library. */
  readonly reference: Device;
  /** float64 throughout: the truth for derivatives. */
  readonly double: Device;
  /** One entry an instruction set, opened with one and with two threads. */
  readonly cpu: readonly CpuForm[];
  /** Those, and CUDA. */
  readonly fast: readonly Form[];
}

const LIBRARIES = (process.env.SBORA_TEST_LIBRARIES || "reference,cpu,cuda-emulated").split(",");

async function openLab(): Promise<Lab> {
  const open = async (options: Parameters<typeof openDevice>[0]) => {
    const device = await openDevice(options);
    reserve(device, PLAN);
    return device;
  };
  const reference = await open({ library: "reference", threads: 1 });
  const double = await open({ library: "reference-f64", threads: 1 });
  const cpu: CpuForm[] = [];
  if (LIBRARIES.includes("cpu")) {
    const probe = await open({ library: "cpu", threads: 1 });
    for (const isa of probe.isas) {
      const both = [1, 2].map((threads) => open({ library: "cpu", threads, isa }));
      const [one, two] = (await Promise.all(both)) as [Device, Device];
      cpu.push({ label: `cpu ${isa}`, isa, one, two, pair: "1 and 2 threads" });
    }
  }
  const fast: Form[] = [...cpu];
  if (LIBRARIES.includes("cuda-emulated")) {
    const one = await open({ library: "cuda-emulated", isa: "forward" });
    const two = await open({ library: "cuda-emulated", isa: "reversed" });
    fast.push({ label: "cuda emulated", one, two, pair: "threads forward and reversed" });
  }
  if (LIBRARIES.includes("cuda")) {
    const [one, two] = [await open({ library: "cuda" }), await open({ library: "cuda" })];
    fast.push({ label: "cuda", one, two, pair: "two contexts" });
  }
  return { reference, double, cpu, fast };
}

export const lab: Lab = await openLab();

/** Every device, named for messages. */
export function everyDevice(): [string, Device][] {
  const fast = lab.fast.flatMap(({ label, one, two, pair }): [string, Device][] => [
    [`${label}, first of ${pair}`, one],
    [`${label}, second of ${pair}`, two],
  ]);
  return [["reference", lab.reference], ["reference-f64", lab.double], ...fast];
}

/** A seeded stream of numbers in [-1, 1), exact in float32. */
export function stream(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return (((t ^ (t >>> 14)) >>> 0) >>> 8) / 2 ** 23 - 1;
  };
}

/** `n` numbers in [-scale, scale), exact in float32 for a power of two. */
export function numbers(next: () => number, n: number, scale = 1): Float64Array {
  return Float64Array.from({ length: n }, () => Math.fround(next() * scale));
}

/** Numbers on the grid of 1/64: exact in f16 and bf16 alike, so that a weight holds them in every type. */
export function coarse(next: () => number, n: number): Float64Array {
  return Float64Array.from({ length: n }, () => Math.round(next() * 127) / 128);
}

/** `n` whole numbers in [0, end). */
export function integers(next: () => number, n: number, end: number): Int32Array {
  return Int32Array.from({ length: n }, () => Math.min(end - 1, Math.floor(((next() + 1) / 2) * end)));
}

/** `n` distinct whole numbers in [0, end), in random order. */
export function distinct(next: () => number, n: number, end: number): Int32Array {
  const all = Int32Array.from({ length: end }, (_, i) => i);
  for (let i = 0; i < n; i++) {
    const j = i + Math.floor(((next() + 1) / 2) * (end - i));
    [all[i], all[j]] = [all[j]!, all[i]!];
  }
  return all.slice(0, n);
}

/** Makes tensors and weights on one device; everything is freed when the body of `on` ends. */
export interface Bench {
  readonly device: Device;
  f32(shape: readonly number[], values: ArrayLike<number>): Tensor;
  bf16(shape: readonly number[], values: ArrayLike<number>): Tensor;
  real(dtype: "f32" | "bf16", shape: readonly number[], values: ArrayLike<number>): Tensor;
  i32(shape: readonly number[], values: ArrayLike<number>): Tensor;
  /** An output that holds NaN everywhere: an element that is not written, or read where beta is 0, shows. */
  out(dtype: Dtype, shape: readonly number[]): Tensor;
  zeros(shape: readonly number[]): Tensor;
  weight(out: number, width: number, values: ArrayLike<number>, kind?: WeightKind): Weight;
}

export interface WeightKind {
  readonly dtype?: WeightDtype;
  readonly compute?: "f32" | "bf16";
}

function hostBits(dtype: WeightDtype, values: ArrayLike<number>): Float32Array | Uint16Array {
  const single = Float32Array.from(values);
  if (dtype === "f32") return single;
  if (dtype === "f16") return new Uint16Array(Float16Array.from(single).buffer);
  return Uint16Array.from(
    new Uint32Array(single.buffer),
    (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16,
  );
}

/** Runs `body` with a bench on `device` and frees what it made. */
export function on<R>(device: Device, body: (bench: Bench) => R): R {
  const tensors: Tensor[] = [];
  const weights: Weight[] = [];
  const make = (dtype: Dtype, shape: readonly number[]) => {
    const tensor = createTensor(device, dtype, shape);
    tensors.push(tensor);
    return tensor;
  };
  const bench: Bench = {
    device,
    f32: (shape, values) => bench.real("f32", shape, values),
    bf16: (shape, values) => bench.real("bf16", shape, values),
    real(dtype, shape, values) {
      const tensor = make(dtype, shape);
      writeF32(device, tensor, Float64Array.from(values));
      return tensor;
    },
    i32(shape, values) {
      const tensor = make("i32", shape);
      writeI32(device, tensor, Int32Array.from(values));
      return tensor;
    },
    out(dtype, shape) {
      const tensor = make(dtype, shape);
      writeBytes(device, tensor, readBytes(device, tensor).fill(0xff));
      return tensor;
    },
    zeros: (shape) => make("f32", shape),
    weight(out, width, values, kind = {}) {
      const { dtype = "f32", compute = "f32" } = kind;
      const data = hostBits(dtype, values);
      const weight = createWeight(device, { name: "w", data, dtype, out, in: width, compute });
      weights.push(weight);
      return weight;
    },
  };
  try {
    return body(bench);
  } finally {
    for (const weight of weights) freeWeight(device, weight);
    for (const tensor of tensors) freeTensor(device, tensor);
  }
}

/** Values of every output after `body` ran on `device`. */
export function run(device: Device, body: (bench: Bench) => Outputs): Record<string, Float64Array> {
  return on(device, (bench) =>
    Object.fromEntries(Object.entries(body(bench)).map(([name, tensor]) => [name, read(device, tensor)])),
  );
}

function read(device: Device, tensor: Tensor): Float64Array {
  if (tensor.dtype !== "i32") return readF64(device, tensor);
  return Float64Array.from(new Int32Array(readBytes(device, tensor).buffer));
}

/** Raw bytes of every output after `body` ran on `device`. */
export function runBytes(device: Device, body: (bench: Bench) => Outputs): Record<string, Uint8Array> {
  return on(device, (bench) =>
    Object.fromEntries(
      Object.entries(body(bench)).map(([name, tensor]) => [name, readBytes(device, tensor)]),
    ),
  );
}

/**
 * Runs `body` on the reference and on every form of the other libraries: values within the tolerance of each output, and
 * the same bytes from both devices of a form.
 */
export function agree(
  label: string,
  body: (bench: Bench) => Outputs,
  tolerances: Record<string, Tolerance>,
): void {
  const expected = run(lab.reference, body);
  for (const { label: form, one, two, pair } of lab.fast) {
    const actual = run(two, body);
    for (const [name, values] of Object.entries(actual)) {
      const allowed = tolerances[name];
      if (allowed === undefined) throw new Error(`${label}: no tolerance for ${name}`);
      const report = compareValues(`${label}, ${name}, ${form}`, values, expected[name]!, allowed);
      if (report !== null) throw new Error(report);
    }
    sameBytes(`${label}, ${form}, ${pair}`, runBytes(one, body), runBytes(two, body));
  }
  expect(Object.keys(expected).length).toBeGreaterThan(0);
}

/** Compares values computed on one device with expected ones. */
export function close(
  label: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  allowed: Tolerance,
): void {
  const report = compareValues(label, Float64Array.from(actual), Float64Array.from(expected), allowed);
  if (report !== null) throw new Error(report);
  expect(actual.length).toBe(expected.length);
}

/** Bit equality of named outputs. */
export function sameBytes(label: string, a: Record<string, Uint8Array>, b: Record<string, Uint8Array>): void {
  for (const [name, bytes] of Object.entries(a)) {
    const other = b[name]!;
    const first = bytes.findIndex((byte, i) => byte !== other[i]);
    if (first >= 0 || bytes.length !== other.length) {
      throw new Error(`${label}: ${name} differs from byte ${first} of ${bytes.length} on`);
    }
  }
  expect(Object.keys(a)).toEqual(Object.keys(b));
}

/** Rows `rows` of a flat [T, width] matrix. */
export function pickRows<V extends Values>(values: V, width: number, rows: readonly number[]): V {
  const picked = values.slice(0, rows.length * width) as V;
  rows.forEach((row, i) => {
    picked.set(values.subarray(row * width, (row + 1) * width), i * width);
  });
  return picked;
}

/**
 * A row's result does not depend on its neighbours: `body` computes the given rows of a problem with T rows; single rows
 * and a small group must have the very bytes they have in the whole batch.
 */
export function aloneAsInBatch(
  label: string,
  T: number,
  body: (bench: Bench, rows: readonly number[]) => Outputs,
): void {
  const everyRow = Array.from({ length: T }, (_, i) => i);
  for (const { label: form, two } of lab.fast) {
    const whole = runBytes(two, (bench) => body(bench, everyRow));
    for (const rows of [[0], [T - 1], [T >> 1], everyRow.slice(1, 6)]) {
      const expected = Object.fromEntries(
        Object.entries(whole).map(([name, bytes]) => {
          const width = bytes.length / T;
          const parts = rows.map((row) => bytes.subarray(row * width, (row + 1) * width));
          return [name, new Uint8Array(Buffer.concat(parts))];
        }),
      );
      const alone = runBytes(two, (bench) => body(bench, rows));
      sameBytes(`${label}, ${form}, rows ${rows} alone and among ${T}`, alone, expected);
    }
  }
}
