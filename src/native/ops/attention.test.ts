import { describe, expect, test } from "bun:test";
import { sync } from "../device.ts";
import { readF64 } from "../tensor.ts";
import { type AttentionShape, attentionBackward, attentionForward, type Packed } from "./attention.ts";
import {
  agree,
  type Bench,
  close,
  coarse,
  everyDevice,
  lab,
  numbers,
  on,
  pickRows,
  run,
  runBytes,
  sameBytes,
  stream,
} from "./testing.ts";
import { BF16_STEP, largest } from "./testing-compare.ts";
import { checkGradients, weighted } from "./testing-gradient.ts";

type Type = "f32" | "bf16";

const shapeOf = (heads: number, kvHeads: number, headSize: number): AttentionShape => ({
  heads,
  kvHeads,
  headSize,
  scale: 1 / Math.sqrt(headSize),
});

/** Lengths of packed sequences (an empty one among them) and heads, KV heads, head size. */
const CASES: [number[], AttentionShape][] = [
  [[], shapeOf(1, 1, 8)],
  [[1], shapeOf(1, 1, 1)],
  [[17], shapeOf(4, 2, 16)],
  [[1, 16, 0, 3, 33], shapeOf(9, 3, 64)],
  [[5, 70], shapeOf(6, 1, 20)],
  [[131], shapeOf(3, 3, 48)],
  [[2, 65, 131], shapeOf(2, 1, 128)],
  [[150], shapeOf(2, 1, 64)],
  [Array.from({ length: 70 }, (_, i) => i % 4), shapeOf(2, 1, 64)],
  [[3, 40], shapeOf(2, 1, 300)],
];

const total = (lengths: number[]) => lengths.reduce((sum, one) => sum + one, 0);

function packing(bench: Bench, lengths: number[]): Packed {
  const offsets = [0];
  for (const length of lengths) offsets.push(offsets.at(-1)! + length);
  return {
    offsets: bench.i32([offsets.length], offsets),
    sequences: lengths.length,
    longest: Math.max(0, ...lengths),
  };
}

function problem(T: number, shape: AttentionShape, seed: number) {
  const next = stream(seed);
  const { heads: N, kvHeads: K, headSize: D } = shape;
  return {
    q: numbers(next, T * N * D, 2),
    k: numbers(next, T * K * D, 2),
    v: numbers(next, T * K * D),
    dO: numbers(next, T * N * D),
  };
}
type Problem = ReturnType<typeof problem>;

function forward(bench: Bench, lengths: number[], shape: AttentionShape, p: Problem, type: Type) {
  const T = total(lengths);
  const { heads: N, kvHeads: K, headSize: D } = shape;
  const q = bench.real(type, [T, N, D], p.q);
  const [k, v] = [bench.real(type, [T, K, D], p.k), bench.real(type, [T, K, D], p.v)];
  const [o, lse] = [bench.out(type, [T, N, D]), bench.out("f32", [T, N])];
  const packed = packing(bench, lengths);
  attentionForward(bench.device, q, k, v, shape, packed, o, lse);
  return { q, k, v, o, lse, packed };
}

function both(bench: Bench, lengths: number[], shape: AttentionShape, p: Problem, type: Type) {
  const T = total(lengths);
  const { heads: N, kvHeads: K, headSize: D } = shape;
  const { packed, ...saved } = forward(bench, lengths, shape, p, type);
  const [dq, dk, dv] = [N, K, K].map((heads) => bench.out("f32", [T, heads, D]));
  const dO = bench.f32([T, N, D], p.dO);
  attentionBackward(bench.device, { ...saved, dO }, shape, packed, { dq: dq!, dk: dk!, dv: dv! });
  return { o: saved.o, lse: saved.lse, dq: dq!, dk: dk!, dv: dv! };
}

describe("attention", () => {
  test("computes its formula", () => {
    const [lengths, shape] = [[3, 4], shapeOf(4, 2, 3)] as const;
    const { heads: N, kvHeads: K, headSize: D, scale } = shape;
    const p = problem(7, shape, 1);
    const { o, lse } = run(lab.double, (b) => {
      const made = forward(b, [...lengths], shape, p, "f32");
      return { o: made.o, lse: made.lse };
    });
    for (let t = 0; t < 7; t++) {
      const first = t < 3 ? 0 : 3;
      for (let h = 0; h < N; h++) {
        const g = Math.floor((h * K) / N);
        const scores = Array.from({ length: t - first + 1 }, (_, j) => {
          let dot = 0;
          for (let d = 0; d < D; d++) dot += p.q[(t * N + h) * D + d]! * p.k[((first + j) * K + g) * D + d]!;
          return scale * dot;
        });
        const sum = scores.reduce((s, score) => s + Math.exp(score), 0);
        close(`lse ${t},${h}`, [lse![t * N + h]!], [Math.log(sum)], 1e-12);
        for (let d = 0; d < D; d++) {
          const expected = scores.reduce(
            (s, score, j) => s + (Math.exp(score) / sum) * p.v[((first + j) * K + g) * D + d]!,
            0,
          );
          close(`o ${t},${h},${d}`, [o![(t * N + h) * D + d]!], [expected], 1e-12);
        }
      }
    }
  });

  for (const type of ["f32", "bf16"] as const) {
    CASES.forEach(([lengths, shape], i) => {
      const rows = lengths.length > 9 ? `${lengths.length} sequences` : `[${lengths}]`;
      const label = `${rows}, ${shape.heads}/${shape.kvHeads} heads of ${shape.headSize}`;
      test(`agrees with the reference, forward and backward: ${type} ${label}`, () => {
        const p = problem(total(lengths), shape, 20 + i);
        const expected = run(lab.reference, (b) => both(b, lengths, shape, p, type));
        // o is a mean of values up to 1, its weights carry the rounding of scores up to about 4·√D (1e-6 each).
        // Under bf16 probabilities may be rounded as product operands.
        const value = type === "bf16" ? 2 * BF16_STEP : 1e-5;
        const gradient = (name: string) => value * Math.max(1, largest(expected[name]!));
        const allowed = { o: value, lse: 1e-5, dq: gradient("dq"), dk: gradient("dk"), dv: gradient("dv") };
        agree(`attention ${label}`, (b) => both(b, lengths, shape, p, type), allowed);
      });
    });
  }

  test("backward is the derivative of forward", () => {
    const [lengths, shape] = [[2, 3], shapeOf(4, 2, 2)] as const;
    const { heads: N, kvHeads: K, headSize: D } = shape;
    const T = 5;
    const next = stream(3);
    const c = coarse(next, T * N * D);
    const input = (heads: number) => ({ shape: [T, heads, D], values: coarse(next, T * heads * D) });
    checkGradients({
      label: "attention",
      inputs: { q: input(N), k: input(K), v: input(K) },
      loss: (bench, { q, k, v }) => {
        const o = bench.out("f32", [T, N, D]);
        attentionForward(bench.device, q!, k!, v!, shape, packing(bench, [...lengths]), o, null);
        return weighted(readF64(bench.device, o), c);
      },
      gradients: (bench, tensors) => {
        const [q, k, v] = [tensors.q!, tensors.k!, tensors.v!];
        const packed = packing(bench, [...lengths]);
        const [o, lse] = [bench.zeros([T, N, D]), bench.zeros([T, N])];
        attentionForward(bench.device, q, k, v, shape, packed, o, lse);
        const dO = bench.f32([T, N, D], c);
        const [dq, dk, dv] = [N, K, K].map((heads) => bench.out("f32", [T, heads, D]));
        attentionBackward(bench.device, { q, k, v, o, lse, dO }, shape, packed, {
          dq: dq!,
          dk: dk!,
          dv: dv!,
        });
        return { q: dq!, k: dk!, v: dv! };
      },
    });
  });

  test("packed sequences have the bytes they have alone, beside NaN too", () => {
    const lengths = [17, 70, 1, 33];
    for (const [type, shape] of [
      ["f32", shapeOf(6, 2, 32)],
      ["bf16", shapeOf(6, 2, 32)],
      ["bf16", shapeOf(3, 1, 64)],
    ] as const) {
      const { heads: N, kvHeads: K, headSize: D } = shape;
      const p = problem(total(lengths), shape, 4);
      for (const [values, width] of [
        [p.q, N * D],
        [p.k, K * D],
        [p.v, K * D],
        [p.dO, N * D],
      ] as const) {
        values.fill(Number.NaN, 87 * width, 88 * width);
      }
      for (const { label, two } of lab.fast) {
        const packed = runBytes(two, (b) => both(b, lengths, shape, p, type));
        let first = 0;
        for (const length of lengths) {
          const rows = Array.from({ length }, (_, i) => first + i);
          const part = {
            q: pickRows(p.q, N * D, rows),
            k: pickRows(p.k, K * D, rows),
            v: pickRows(p.v, K * D, rows),
            dO: pickRows(p.dO, N * D, rows),
          };
          const alone = runBytes(two, (b) => both(b, [length], shape, part, type));
          const expected = Object.fromEntries(
            Object.entries(packed).map(([name, bytes]) => {
              const width = bytes.length / total(lengths);
              return [name, bytes.slice(first * width, (first + length) * width)];
            }),
          );
          sameBytes(`attention ${type} ${D}, ${label}, length ${length}`, alone, expected);
          first += length;
        }
      }
    }
  });

  test("large scores stay finite", () => {
    const shape = shapeOf(2, 1, 16);
    const p = problem(9, shape, 6);
    const big = { ...p, q: p.q.map((value) => 300 * value) };
    const expected = run(lab.reference, (b) => both(b, [9], shape, big, "f32"));
    // Scores reach 2000: their float32 rounding of 1e-4 stands in the exponent, and q of 600 in dk.
    const allowed = Object.fromEntries(
      Object.entries(expected).map(([k, v]) => [k, 2e-3 * Math.max(1, largest(v))]),
    );
    agree("attention, large scores", (b) => both(b, [9], shape, big, "f32"), allowed);
  });

  test("offsets with gaps, steps back or beyond the batch are errors, not crashes", () => {
    for (const [name, device] of everyDevice()) {
      for (const [type, shape] of [
        ["f32", shapeOf(2, 1, 8)],
        ["bf16", shapeOf(2, 1, 64)],
      ] as const) {
        const p = problem(6, shape, 8);
        for (const [offsets, longest, entry] of [
          [[1, 6], 6, "offsets[0] is 1"],
          [[0, 5], 6, "offsets[1] is 5"],
          [[0, 1 << 30], 6, `offsets[1] is ${1 << 30}`],
          [[0, 4, 3, 6], 6, "offsets[2] is 3"],
          [[0, 4, -(2 ** 31)], 6, `offsets[2] is ${-(2 ** 31)}`],
          [[0, 6], 5, "offsets[1] is 6"],
          [[0], 0, "offsets[0] is 0"],
        ] as const) {
          on(device, (bench) => {
            const { q, k, v, o, lse } = forward(bench, [6], shape, p, type);
            const bad = {
              offsets: bench.i32([offsets.length], offsets),
              sequences: offsets.length - 1,
              longest,
            };
            const label = `${name} ${type} [${offsets}]`;
            const messageOf = (call: () => void) => {
              try {
                call();
                sync(device);
              } catch (error) {
                return String(error);
              }
              return `${label}: no error`;
            };
            const [dq, dk, dv] = [2, 1, 1].map((heads) => bench.zeros([6, heads, shape.headSize]));
            const dO = bench.f32([6, 2, shape.headSize], p.dO);
            expect(messageOf(() => attentionForward(device, q, k, v, shape, bad, o, lse))).toContain(entry);
            const inputs = { q, k, v, o, lse, dO };
            const gradients = { dq: dq!, dk: dk!, dv: dv! };
            expect(messageOf(() => attentionBackward(device, inputs, shape, bad, gradients))).toContain(
              entry,
            );
          });
        }
      }
    }
  });

  test("refuses wrong shapes", () => {
    on(lab.reference, (bench) => {
      const { device, zeros } = bench;
      const packed = packing(bench, [3]);
      const call = (k: number[], shape = shapeOf(4, 2, 8), p = packed) =>
        attentionForward(device, zeros([3, 32]), zeros(k), zeros([3, 16]), shape, p, zeros([3, 32]), null);
      expect(() => call([3, 8])).toThrow(/k is f32 \[3,8\]; expected f32 or bf16 \[3,16\]/);
      expect(() => call([3, 16], shapeOf(4, 3, 8))).toThrow(/4 heads are no multiple of 3 KV heads/);
      expect(() => call([3, 16], undefined, { ...packed, sequences: 2 })).toThrow(/offsets is i32 \[2\]/);
    });
  });
});
