import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { allocatedBytes, type Device } from "./device.ts";
import { createNf4Weight, dropReplaced, type Nf4Data, quantizeNf4 } from "./nf4.ts";
import { embeddingForward } from "./ops/embedding.ts";
import { linearBackward, linearForward } from "./ops/linear.ts";
import {
  agree,
  aloneAsInBatch,
  type Bench,
  distinct,
  everyDevice,
  lab,
  numbers,
  on,
  pickRows,
  run,
  runBytes,
  sameBytes,
  stream,
} from "./ops/testing.ts";
import { BF16_STEP, relativeTo, sumOf } from "./ops/testing-compare.ts";
import { readF64, type Tensor } from "./tensor.ts";
import {
  createWeight,
  freeWeight,
  readWeightColumns,
  readWeightRows,
  type Weight,
  type WeightDtype,
  weightRowSquares,
  writeWeightColumns,
  writeWeightRows,
} from "./weight.ts";

/** What bitsandbytes made (`scripts/peers/nf4_goldens.py`); the format's own reader lives on another floor. */
const FILE = readFileSync(join(import.meta.dir, "../formats/testdata/nf4.safetensors"));
const HEADER_BYTES = Number(FILE.readBigUInt64LE(0));
interface Entry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}
const HEADER: Record<string, Entry> = JSON.parse(FILE.toString("utf8", 8, 8 + HEADER_BYTES));
const bytesOf = (name: string): Uint8Array<ArrayBuffer> => {
  const [start, end] = HEADER[name]!.data_offsets;
  return new Uint8Array(FILE.subarray(8 + HEADER_BYTES + start, 8 + HEADER_BYTES + end));
};
const DTYPES: Record<string, WeightDtype> = { F32: "f32", F16: "f16", BF16: "bf16" };
const GOLDENS = Object.keys(HEADER)
  .filter((name) => name.endsWith(".input") && name !== "scales.input")
  .map((name) => {
    const { dtype, shape } = HEADER[name]!;
    return { name: name.slice(0, -6), dtype: DTYPES[dtype]!, out: shape[0]!, in: shape[1]! };
  });

/** The values of a 16- or 32-bit type as numbers. */
function widen(dtype: WeightDtype, bytes: Uint8Array<ArrayBuffer>): Float32Array {
  if (dtype === "f32") return new Float32Array(bytes.buffer);
  const bits = new Uint16Array(bytes.buffer);
  if (dtype === "f16") return Float32Array.from(new Float16Array(bits.buffer));
  return new Float32Array(Uint32Array.from(bits, (word) => word << 16).buffer);
}

function everyRow(bench: Bench, weight: Weight): Float64Array {
  const rows = bench.i32(
    [weight.out],
    Array.from({ length: weight.out }, (_, i) => i),
  );
  const values = bench.out("f32", [weight.out, weight.in]);
  readWeightRows(bench.device, weight, rows, values);
  return readF64(bench.device, values);
}

for (const [label, device] of everyDevice()) {
  describe(label, () => {
    test("codes, scales and values are bitsandbytes' on every golden", () => {
      for (const { name, ...shape } of GOLDENS) {
        const { codes, absmax } = quantizeNf4(device, { name, data: bytesOf(`${name}.input`), ...shape });
        expect([name, codes]).toEqual([name, bytesOf(`${name}.single.weight`)]);
        const scales = bytesOf(`${name}.single.weight.absmax`);
        expect([name, new Uint8Array(absmax.buffer)]).toEqual([name, scales]);
        on(device, (bench) => {
          const weight = createNf4Weight(device, { name, codes, absmax, ...shape, compute: "f32" });
          const wanted = widen(shape.dtype, bytesOf(`${name}.single.values`));
          expect([name, everyRow(bench, weight)]).toEqual([name, Float64Array.from(wanted)]);
          freeWeight(device, weight);
        });
      }
      expect(GOLDENS.length).toBeGreaterThan(15);
    });

    test("what does not fit is refused", () => {
      const data = new Float32Array(6);
      const shape = { name: "w", dtype: "f32", out: 2, in: 3, compute: "f32" } as const;
      data[4] = Number.NaN;
      expect(() => quantizeNf4(device, { data, ...shape })).toThrow(
        /w: .*NaN or infinity in row 1, column 1/,
      );
      const codes = new Uint8Array(3);
      expect(() =>
        createNf4Weight(device, { codes: new Uint8Array(2), absmax: new Float32Array(1), ...shape }),
      ).toThrow(/2 bytes of data for codes of \[2,3\] \(3 bytes\)/);
      expect(() => createNf4Weight(device, { codes, absmax: new Float32Array(2), ...shape })).toThrow(
        /8 bytes of data/,
      );
      const bad = Float32Array.of(Number.POSITIVE_INFINITY);
      expect(() => createNf4Weight(device, { codes, absmax: bad, ...shape })).toThrow(
        /the scale of block 0 is inf/,
      );
      const before = allocatedBytes(device);
      on(device, (bench) => {
        const weight = createNf4Weight(device, { codes, absmax: new Float32Array(1), ...shape });
        expect(() => embeddingForward(device, weight, bench.i32([1], [0]), bench.out("f32", [1, 3]))).toThrow(
          /is NF4/,
        );
        writeWeightRows(device, weight, bench.i32([1], [1]), bench.f32([1, 3], [1, 2, 3]));
        const column = bench.f32([2, 1], [1, 2]);
        expect(() => writeWeightColumns(device, weight, bench.i32([1], [1]), column)).toThrow(
          /holds 1 replaced rows; drop them first/,
        );
        dropReplaced(device, weight);
        writeWeightColumns(device, weight, bench.i32([1], [1]), column);
        freeWeight(device, weight);
        expect(() => dropReplaced(device, bench.weight(2, 2, [1, 2, 3, 4]))).toThrow(/is not NF4/);
      });
      expect(allocatedBytes(device)).toBe(before);
    });
  });
}

interface Case {
  readonly T: number;
  readonly in: number;
  readonly out: number;
  readonly dtype: WeightDtype;
  readonly compute: "f32" | "bf16";
  readonly replaced: "columns" | "rows" | undefined;
}

/** Blocks along rows, blocks across them, more than one depth block, one panel and several, one value. */
const SIZES = [
  [1, 1, 1],
  [3, 64, 33],
  [17, 80, 37],
  [30, 600, 70],
  [2, 13, 5],
  [20, 576, 96],
  [5, 1024, 40],
  [1, 576, 70],
  [4, 128, 33],
] as const;
const KINDS = [
  ["f32", "f32"],
  ["f16", "f32"],
  ["bf16", "f32"],
  ["f32", "bf16"],
  ["bf16", "bf16"],
] as const;
const CASES: Case[] = SIZES.flatMap(([T, width, out]) =>
  KINDS.flatMap(([dtype, compute]) =>
    ([undefined, "columns", "rows"] as const).map((replaced) => ({
      T,
      in: width,
      out,
      dtype,
      compute,
      replaced,
    })),
  ),
);

function problem(c: Case) {
  const next = stream(c.T * 1000 + c.in + c.out);
  const data = Float32Array.from(numbers(next, c.out * c.in, 0.25));
  const [limit, length] = c.replaced === "rows" ? [c.out, c.in] : [c.in, c.out];
  const n = Math.min(limit, 5);
  return {
    data,
    made: quantizeNf4(lab.reference, { name: "w", data, dtype: "f32", out: c.out, in: c.in }),
    x: numbers(next, c.T * c.in),
    dy: numbers(next, c.T * c.out),
    z: numbers(next, c.T * 3),
    u: numbers(next, c.out * 3),
    indices: distinct(next, n, limit),
    lines: numbers(next, n * length, 0.25),
  };
}
type Problem = ReturnType<typeof problem>;

/** Every result of the weight: its values, squares, forward and backward products. */
function everything(bench: Bench, c: Case, p: Problem, rows: readonly number[]): Record<string, Tensor> {
  const { device } = bench;
  const weight = nf4(device, c, p.made);
  try {
    const n = p.indices.length;
    const which = bench.i32([n], p.indices);
    if (c.replaced === "columns") writeWeightColumns(device, weight, which, bench.f32([c.out, n], p.lines));
    if (c.replaced === "rows") writeWeightRows(device, weight, which, bench.f32([n, c.in], p.lines));
    const T = rows.length;
    const out = (shape: number[]): Tensor => bench.out("f32", shape);
    const some = Math.min(c.in, 7);
    const results = {
      y: out([T, c.out]),
      dx: out([T, c.in]),
      dz: out([T, 3]),
      squares: out([c.out]),
      rows: out([c.out, c.in]),
      columns: out([c.out, some]),
    };
    const tail = { u: bench.f32([c.out, 3], p.u), scale: 2 };
    const z = bench.real(c.compute, [T, 3], pickRows(p.z, 3, rows));
    linearForward(device, weight, bench.real(c.compute, [T, c.in], pickRows(p.x, c.in, rows)), results.y, {
      tail: { ...tail, z },
    });
    const dy = bench.real(c.compute, [T, c.out], pickRows(p.dy, c.out, rows));
    linearBackward(device, weight, dy, results.dx, { tail: { ...tail, dz: results.dz } });
    weightRowSquares(device, weight, results.squares);
    readWeightRows(
      device,
      weight,
      bench.i32(
        [c.out],
        Array.from({ length: c.out }, (_, i) => i),
      ),
      results.rows,
    );
    readWeightColumns(
      device,
      weight,
      bench.i32(
        [some],
        Array.from({ length: some }, (_, i) => i),
      ),
      results.columns,
    );
    return results;
  } finally {
    freeWeight(device, weight);
  }
}

function nf4(device: Device, c: Case, made: Nf4Data): Weight {
  return createNf4Weight(device, {
    name: "w",
    ...made,
    dtype: c.dtype,
    out: c.out,
    in: c.in,
    compute: c.compute,
  });
}

const rowsUpTo = (T: number): number[] => Array.from({ length: T }, (_, i) => i);

describe("an NF4 weight", () => {
  for (const [dtype, compute] of KINDS) {
    test(`agrees with the reference: ${dtype}, compute ${compute}, without and with replaced lines`, () => {
      for (const c of CASES.filter((one) => one.dtype === dtype && one.compute === compute)) {
        const p = problem(c);
        const rows = rowsUpTo(c.T);
        const absolute = {
          ...p,
          ...{ x: p.x.map(Math.abs), dy: p.dy.map(Math.abs), z: p.z.map(Math.abs), u: p.u.map(Math.abs) },
          made: { codes: p.made.codes.map((both) => foldByte(both)), absmax: p.made.absmax },
          lines: p.lines.map(Math.abs),
        };
        const size = run(lab.reference, (bench) => everything(bench, c, absolute, rows));
        const sums = Object.fromEntries(Object.entries(size).map(([k, v]) => [k, relativeTo(v, 1e-6)]));
        agree(JSON.stringify(c), (bench) => everything(bench, c, p, rows), { ...sums, rows: 0, columns: 0 });
      }
    });
  }

  test("a row alone has the bytes it has in a batch", () => {
    for (const c of CASES.filter(({ T }) => T >= 17)) {
      const p = problem(c);
      aloneAsInBatch(JSON.stringify(c), c.T, (bench, rows) => {
        const { y, dx, dz } = everything(bench, c, p, rows);
        return { y: y!, dx: dx!, dz: dz! };
      });
    }
  });

  test("has the bytes of a dense weight with the same values", () => {
    for (const c of CASES.filter(({ dtype, compute }) =>
      dtype === "bf16" ? true : compute === "f32" && dtype === "f32",
    )) {
      const p = problem(c);
      for (const { isa, two } of lab.cpu) {
        const results = runBytes(two, (bench) => {
          const { y, dx, rows } = everything(bench, c, p, rowsUpTo(c.T));
          return { y: y!, dx: dx!, rows: rows! };
        });
        const dense = runBytes(two, (bench) => {
          const data = results.rows as Uint8Array<ArrayBuffer>;
          const kind = { dtype: "f32", out: c.out, in: c.in, compute: c.compute } as const;
          const weight = createWeight(two, { name: "dense", data, ...kind });
          const y = bench.out("f32", [c.T, c.out]);
          const dx = bench.out("f32", [c.T, c.in]);
          const tail = { u: bench.f32([c.out, 3], p.u), scale: 2 };
          const z = bench.real(c.compute, [c.T, 3], p.z);
          linearForward(two, weight, bench.real(c.compute, [c.T, c.in], p.x), y, { tail: { ...tail, z } });
          const dz = bench.out("f32", [c.T, 3]);
          linearBackward(two, weight, bench.real(c.compute, [c.T, c.out], p.dy), dx, {
            tail: { ...tail, dz },
          });
          freeWeight(two, weight);
          return { y, dx };
        });
        const { y, dx } = results;
        sameBytes(`${isa} ${JSON.stringify(c)}`, dense, { y: y!, dx: dx! });
      }
    }
  });

  test("takes 0.3 of bf16's memory, and what its lines take", () => {
    for (const { two } of lab.cpu) {
      const [out, width, n] = [576, 576, 32];
      const c: Case = { T: 1, out, in: width, dtype: "f32", compute: "bf16", replaced: undefined };
      const before = allocatedBytes(two);
      const weight = nf4(
        two,
        c,
        quantizeNf4(two, { name: "w", data: new Float32Array(out * width), dtype: "f32", out, in: width }),
      );
      const plain = allocatedBytes(two) - before;
      expect(plain).toBeLessThan(0.3 * 2 * out * width);
      on(two, (bench) => {
        const values = bench.zeros([out, n]);
        const inner = allocatedBytes(two);
        writeWeightColumns(two, weight, bench.i32([n], rowsUpTo(n)), values);
        const lines = allocatedBytes(two) - inner;
        expect(lines).toBeGreaterThan(2 * out * n);
        expect(lines).toBeLessThan(2.2 * out * n + 256);
        dropReplaced(two, weight);
      });
      expect(allocatedBytes(two) - before).toBe(plain);
      freeWeight(two, weight);
      expect(allocatedBytes(two)).toBe(before);
    }
  });
});

/** Both codes of a byte moved to the positive half of the code book: values of about the same size, all positive. */
function foldByte(both: number): number {
  const fold = (code: number): number => (code < 8 ? 15 - code : code);
  return (fold(both >> 4) << 4) | fold(both & 15);
}

for (const [label, device] of everyDevice()) {
  test(`${label}: lines are exact in bf16, join those already there, and dropping them gives the codes back`, () => {
    for (const kind of ["columns", "rows"] as const) {
      on(device, (bench) => {
        const [out, width] = [70, 100];
        const next = stream(11);
        const data = Float32Array.from(numbers(next, out * width, 0.5));
        const made = quantizeNf4(device, { name: "w", data, dtype: "f32", out, in: width });
        const weight = createNf4Weight(device, {
          name: "w",
          ...made,
          dtype: "f32",
          out,
          in: width,
          compute: "f32",
        });
        const expected = everyRow(bench, weight);
        const original = expected.slice();
        const length = kind === "columns" ? out : width;
        const write = (indices: number[], values: Float64Array): void => {
          const which = bench.i32([indices.length], indices);
          if (kind === "columns")
            writeWeightColumns(device, weight, which, bench.f32([out, indices.length], values));
          else writeWeightRows(device, weight, which, bench.f32([indices.length, width], values));
          indices.forEach((index, j) => {
            for (let i = 0; i < length; i++) {
              const at = kind === "columns" ? i * width + index : index * width + i;
              expected[at] = values[kind === "columns" ? i * indices.length + j : j * width + i]!;
            }
          });
        };
        // On the grid of bf16: written exactly.
        const grid = (n: number): Float64Array => numbers(next, n).map((v) => Math.round(v * 128) / 128);
        write([64, 3, 69], grid(3 * length));
        expect(everyRow(bench, weight)).toEqual(expected);
        write([3, 0, 65], grid(3 * length));
        expect(everyRow(bench, weight)).toEqual(expected);
        write([5], new Float64Array(length).fill(1 + 2 ** -9));
        const rounded = everyRow(bench, weight);
        expect(rounded.filter((value, i) => value !== expected[i]).length).toBe(length);
        expect(rounded.filter((value, i) => value !== expected[i]).every((value) => value === 1)).toBe(true);
        dropReplaced(device, weight);
        expect(everyRow(bench, weight)).toEqual(original);
        freeWeight(device, weight);
      });
    }
  });
}

test("bf16 values are one rounding away from f32 ones", () => {
  const c: Case = { T: 1, out: 8, in: 64, dtype: "f32", compute: "bf16", replaced: undefined };
  const p = problem(c);
  on(lab.reference, (bench) => {
    const narrow = nf4(lab.reference, c, p.made);
    const wide = nf4(lab.reference, { ...c, compute: "f32" }, p.made);
    const [a, b] = [everyRow(bench, narrow), everyRow(bench, wide)];
    const allowed = sumOf(relativeTo(b, BF16_STEP / 2));
    expect(a.every((value, i) => Math.abs(value - b[i]!) <= allowed[i]!)).toBe(true);
    expect(a.some((value, i) => value !== b[i])).toBe(true);
    freeWeight(lab.reference, narrow);
    freeWeight(lab.reference, wide);
  });
});
