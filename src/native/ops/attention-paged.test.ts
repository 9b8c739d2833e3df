import { describe, expect, test } from "bun:test";
import type { LibraryName } from "../build.ts";
import { closeDevice, openDevice, reserve } from "../device.ts";
import { type AttentionShape, attentionForward } from "./attention.ts";
import { attentionPaged, type KvCache, kvWrite } from "./attention-paged.ts";
import {
  agree,
  aloneAsInBatch,
  type Bench,
  close,
  distinct,
  lab,
  numbers,
  on,
  pickRows,
  run,
  runBytes,
  sameBytes,
  stream,
} from "./testing.ts";
import { BF16_STEP } from "./testing-compare.ts";

type Type = "f32" | "bf16";

interface Case {
  readonly lengths: readonly number[];
  readonly shape: AttentionShape;
  readonly page: number;
}

const shapeOf = (heads: number, kvHeads: number, headSize: number): AttentionShape => ({
  heads,
  kvHeads,
  headSize,
  scale: 1 / Math.sqrt(headSize),
});

const CASES: Case[] = [
  { lengths: [1], shape: shapeOf(1, 1, 1), page: 1 },
  { lengths: [17, 1, 33], shape: shapeOf(9, 3, 64), page: 16 },
  { lengths: [5, 70], shape: shapeOf(6, 1, 20), page: 7 },
  { lengths: [130], shape: shapeOf(4, 4, 32), page: 32 },
  { lengths: [140, 1], shape: shapeOf(3, 1, 128), page: 16 },
  { lengths: [3, 9], shape: shapeOf(40, 2, 64), page: 5 },
  { lengths: [35], shape: shapeOf(2, 1, 264), page: 16 },
];

const sum = (values: readonly number[]) => values.reduce((total, one) => total + one, 0);

/** Every token of every sequence, its pages scattered over the cache in random order. */
function layout({ lengths, page }: Case, seed: number) {
  const maxPages = Math.max(...lengths.map((length) => Math.ceil(length / page)));
  const pages = lengths.length * maxPages + 2;
  const order = distinct(stream(seed), pages, pages);
  const tables = lengths.flatMap((_, s) =>
    Array.from({ length: maxPages }, (_, i) => order[s * maxPages + i]!),
  );
  const sequences = lengths.flatMap((length, s) => Array.from({ length }, () => s));
  const positions = lengths.flatMap((length) => Array.from({ length }, (_, i) => i));
  const slots = positions.map((position, t) => {
    const entry = tables[sequences[t]! * maxPages + Math.floor(position / page)]!;
    return entry * page + (position % page);
  });
  return { maxPages, pages, tables, sequences, positions, slots };
}

function problem(one: Case, seed: number) {
  const { heads: N, kvHeads: K, headSize: D } = one.shape;
  const T = sum(one.lengths);
  const next = stream(seed);
  return {
    T,
    q: numbers(next, T * N * D, 2),
    k: numbers(next, T * K * D, 2),
    v: numbers(next, T * K * D),
    ...layout(one, seed),
  };
}
type Problem = ReturnType<typeof problem>;

/** Fills a cache with all tokens, then attends from the given rows. */
function body(bench: Bench, one: Case, p: Problem, type: Type, rows: readonly number[]) {
  const { heads: N, kvHeads: K, headSize: D } = one.shape;
  const size = [p.pages, K, one.page, D];
  const cache: KvCache = {
    k: bench.out(type, size),
    v: bench.out(type, size),
    pages: p.pages,
    page: one.page,
  };
  const [k, v] = [bench.real(type, [p.T, K, D], p.k), bench.real(type, [p.T, K, D], p.v)];
  kvWrite(bench.device, k, v, bench.i32([p.T], p.slots), cache, one.shape);
  const M = rows.length;
  const o = bench.out(type, [M, N, D]);
  const at = {
    tables: bench.i32([one.lengths.length, p.maxPages], p.tables),
    sequences: bench.i32(
      [M],
      rows.map((row) => p.sequences[row]!),
    ),
    positions: bench.i32(
      [M],
      rows.map((row) => p.positions[row]!),
    ),
  };
  attentionPaged(
    bench.device,
    bench.real(type, [M, N, D], pickRows(p.q, N * D, rows)),
    cache,
    one.shape,
    at,
    o,
  );
  return { o, cache };
}

const everyRow = (p: Problem) => Array.from({ length: p.T }, (_, i) => i);

describe("paged attention", () => {
  for (const type of ["f32", "bf16"] as const) {
    for (const one of CASES) {
      const { heads: N, kvHeads: K, headSize: D } = one.shape;
      const label = `${type} [${one.lengths}], ${N}/${K} heads of ${D}`;

      test(`is the packed attention: ${label}`, () => {
        const p = problem(one, 40);
        const packed = (bench: Bench) => {
          const offsets = [0];
          for (const length of one.lengths) offsets.push(offsets.at(-1)! + length);
          const [q, o] = [bench.real(type, [p.T, N, D], p.q), bench.out(type, [p.T, N, D])];
          const [k, v] = [bench.real(type, [p.T, K, D], p.k), bench.real(type, [p.T, K, D], p.v)];
          const where = {
            offsets: bench.i32([offsets.length], offsets),
            sequences: one.lengths.length,
            longest: Math.max(...one.lengths),
          };
          attentionForward(bench.device, q, k, v, one.shape, where, o, null);
          return { o };
        };
        const allowed = type === "bf16" ? 2 * BF16_STEP : 1e-5;
        for (const device of [lab.double, lab.reference, ...lab.fast.map(({ two }) => two)]) {
          const paged = run(device, (bench) => ({ o: body(bench, one, p, type, everyRow(p)).o }));
          close(`paged ${one.lengths}`, paged.o!, run(device, packed).o!, allowed);
        }
      });

      test(`agrees with the reference, and kvWrite leaves other slots alone: ${label}`, () => {
        const p = problem(one, 50);
        const rows = everyRow(p);
        const attended = (bench: Bench) => ({ o: body(bench, one, p, type, rows).o });
        // As packed attention: a mean of values up to 1 with weights that carry the rounding of the scores.
        agree(`paged ${one.lengths}`, attended, { o: type === "bf16" ? 2 * BF16_STEP : 1e-5 });
        const written = (bench: Bench) => {
          const { k, v } = body(bench, one, p, type, rows).cache;
          return { k, v };
        };
        agree("kvWrite", written, { k: 0, v: 0 });
        const { k } = run(lab.reference, written);
        expect(k!.filter((value) => !Number.isNaN(value)).length).toBe(p.T * K * D);
      });
    }

    test(`a row alone has the bytes it has in a batch or a chunk: ${type}`, () => {
      for (const one of [
        { lengths: [70, 5, 40], shape: shapeOf(6, 2, 32), page: 16 },
        { lengths: [150, 5, 40], shape: shapeOf(6, 2, 64), page: 16 },
      ]) {
        const p = problem(one, 60);
        const label = `paged ${type} ${one.shape.headSize}`;
        aloneAsInBatch(label, p.T, (bench, rows) => ({ o: body(bench, one, p, type, rows).o }));
      }
    });
  }

  test("the workspace that there is for long contexts does not show in a result", async () => {
    const one: Case = { lengths: [400, 300], shape: shapeOf(4, 1, 64), page: 16 };
    const p = problem(one, 70);
    const rows = [399, 130, 10, 699];
    for (const { label, two } of lab.fast) {
      const attended = (bench: Bench) => ({ o: body(bench, one, p, "bf16", rows).o });
      const much = runBytes(two, attended);
      for (const tokens of [0, 1, 3]) {
        const library = two.backend as LibraryName;
        const device = await openDevice({ library, isa: two.isa, threads: two.threads });
        try {
          reserve(device, { tokens, width: 64, rank: 0, vocabulary: 0 });
          sameBytes(`paged, ${label}, workspace for ${tokens}`, runBytes(device, attended), much);
        } finally {
          closeDevice(device);
        }
      }
    }
  });

  test("refuses wrong shapes", () => {
    on(lab.reference, (bench) => {
      const { device, zeros } = bench;
      const shape = shapeOf(4, 2, 8);
      const cache = { k: zeros([3, 2, 4, 8]), v: zeros([3, 2, 4, 8]), pages: 3, page: 4 };
      const one = bench.i32([1], [0]);
      const write = (c: KvCache) => kvWrite(device, zeros([1, 16]), zeros([1, 16]), one, c, shape);
      expect(() => write({ ...cache, pages: 4 })).toThrow(
        /cache.k is f32 \[3,2,4,8\]; expected f32 or bf16 \[256\]/,
      );
      expect(() => write({ ...cache, v: bench.bf16([3, 2, 4, 8], new Float64Array(192)) })).toThrow(
        /cache.v is bf16/,
      );
      const rows = {
        tables: bench.i32([1, 3], [0, 1, 2]),
        sequences: one,
        positions: bench.i32([2], [0, 0]),
      };
      const attend = () => attentionPaged(device, zeros([1, 32]), cache, shape, rows, zeros([1, 32]));
      expect(attend).toThrow(/positions is i32 \[2\]; expected i32 \[1\]/);
    });
  });

  test("slots, pages, sequences and positions outside their range are errors, not crashes", () => {
    for (const device of [lab.reference, ...lab.fast.map(({ two }) => two)]) {
      on(device, (bench) => {
        const { zeros } = bench;
        const shape = shapeOf(4, 2, 8);
        const cache = { k: zeros([3, 2, 4, 8]), v: zeros([3, 2, 4, 8]), pages: 3, page: 4 };
        const index = (value: number) => bench.i32([1], [value]);
        for (const slot of [-1, 12]) {
          const write = () => kvWrite(device, zeros([1, 16]), zeros([1, 16]), index(slot), cache, shape);
          expect(write).toThrow(String(slot));
        }
        for (const [entry, sequence, position] of [
          [3, 0, 0],
          [-1, 0, 0],
          [0, 1, 0],
          [0, -1, 0],
          [0, 0, 8],
          [0, 0, -1],
        ]) {
          const rows = {
            tables: bench.i32([1, 2], [entry!, entry!]),
            sequences: index(sequence!),
            positions: index(position!),
          };
          expect(() => attentionPaged(device, zeros([1, 32]), cache, shape, rows, zeros([1, 32]))).toThrow();
        }
      });
    }
  });
});
