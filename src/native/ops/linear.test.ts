import { describe, expect, test } from "bun:test";
import { readF64 } from "../tensor.ts";
import { linearBackward, linearForward } from "./linear.ts";
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
  type WeightKind,
} from "./testing.ts";
import { BF16_STEP, relativeTo, sumOf, type Tolerance } from "./testing-compare.ts";
import { checkGradients, weighted } from "./testing-gradient.ts";

interface Shape {
  readonly T: number;
  readonly in: number;
  readonly out: number;
  readonly r: number;
}

// Odd on purpose: empty, one, prime widths, r = 1, r = in, r > both, more than one block in every direction.
const SHAPES: Shape[] = [
  [0, 8, 8, 0],
  [0, 8, 8, 3],
  [1, 1, 1, 1],
  [1, 7, 5, 1],
  [1, 256, 193, 8],
  [17, 13, 11, 13],
  [17, 97, 101, 7],
  [5, 192, 256, 32],
  [3, 67, 130, 0],
  [64, 64, 64, 16],
  [33, 131, 257, 65],
  [6, 20, 9, 24],
  [130, 515, 301, 17],
].map(([T, width, out, r]) => ({ T: T!, in: width!, out: out!, r: r! }));

const KINDS: (Required<WeightKind> & { y: "f32" | "bf16" })[] = [
  { dtype: "f32", compute: "f32", y: "f32" },
  { dtype: "f16", compute: "f32", y: "f32" },
  { dtype: "bf16", compute: "f32", y: "f32" },
  { dtype: "bf16", compute: "bf16", y: "f32" },
  { dtype: "bf16", compute: "bf16", y: "bf16" },
  { dtype: "f32", compute: "bf16", y: "bf16" },
];

function problem(shape: Shape, seed: number) {
  const next = stream(seed);
  const { T, in: width, out, r } = shape;
  return {
    x: numbers(next, T * width),
    w: numbers(next, out * width),
    z: numbers(next, T * r),
    u: numbers(next, out * r),
    gain: numbers(next, out, 2),
    y: numbers(next, T * out),
    dy: numbers(next, T * out),
    dx: numbers(next, T * width),
  };
}
type Problem = ReturnType<typeof problem>;

const absolute = (p: Problem): Problem =>
  Object.fromEntries(Object.entries(p).map(([k, v]) => [k, v.map(Math.abs)])) as unknown as Problem;

function forward(bench: Bench, s: Shape, p: Problem, kind: (typeof KINDS)[0], scale: number, full: boolean) {
  const weight = bench.weight(s.out, s.in, p.w, kind);
  const x = bench.real(kind.compute, [s.T, s.in], p.x);
  const y = full ? bench.real(kind.y, [s.T, s.out], p.y) : bench.out(kind.y, [s.T, s.out]);
  const tail =
    s.r === 0
      ? {}
      : { tail: { z: bench.real(kind.compute, [s.T, s.r], p.z), u: bench.f32([s.out, s.r], p.u), scale } };
  const rest = full ? { gain: bench.f32([s.out], p.gain), beta: 0.5 } : {};
  linearForward(bench.device, weight, x, y, { ...tail, ...rest });
  return { y };
}

function backward(bench: Bench, s: Shape, p: Problem, kind: (typeof KINDS)[0], scale: number, beta: number) {
  const weight = bench.weight(s.out, s.in, p.w, kind);
  const dy = bench.real(kind.compute, [s.T, s.out], p.dy);
  const dx = beta === 0 ? bench.out("f32", [s.T, s.in]) : bench.f32([s.T, s.in], p.dx);
  if (s.r === 0) {
    linearBackward(bench.device, weight, dy, dx, { beta });
    return { dx };
  }
  const dz = bench.out("f32", [s.T, s.r]);
  linearBackward(bench.device, weight, dy, dx, {
    tail: { u: bench.f32([s.out, s.r], p.u), scale, dz },
    beta,
  });
  return { dx, dz };
}

/**
 * float32 sums of exact products: 1e-6 of Σ|products|, about ten roundings' worth. Under bf16 the operands are the same
 * numbers; only a scale that is no power of two may be folded in before or after the rounding.
 */
const SUM = 1e-6;

describe("linearForward", () => {
  for (const kind of KINDS) {
    test(`agrees with the reference: W ${kind.dtype}, compute ${kind.compute}, y ${kind.y}`, () => {
      SHAPES.forEach((shape, i) => {
        const p = problem(shape, 100 + i);
        for (const full of [false, true]) {
          const scale = kind.compute === "bf16" ? 2 : 1.7;
          const { y: size } = run(lab.reference, (b) => forward(b, shape, absolute(p), kind, scale, full));
          let allowed: Tolerance = relativeTo(size!, SUM);
          if (kind.y === "bf16") {
            const { y } = run(lab.reference, (b) => forward(b, shape, p, kind, scale, full));
            allowed = sumOf(allowed, relativeTo(y!, BF16_STEP));
          }
          agree(
            `linearForward ${JSON.stringify(shape)} ${full ? "gain, beta" : ""}`,
            (b) => forward(b, shape, p, kind, scale, full),
            { y: allowed },
          );
        }
      });
    });
  }

  test("computes its formula", () => {
    const s = { T: 3, in: 5, out: 4, r: 2 };
    const p = problem(s, 1);
    const { y } = run(lab.double, (b) => forward(b, s, p, KINDS[0]!, 1.5, true));
    const expected = p.y.map((before, at) => {
      const [t, o] = [Math.floor(at / s.out), at % s.out];
      let sum = 0;
      for (let i = 0; i < s.in; i++) sum += p.x[t * s.in + i]! * p.w[o * s.in + i]!;
      for (let j = 0; j < s.r; j++) sum += 1.5 * p.z[t * s.r + j]! * p.u[o * s.r + j]!;
      return 0.5 * before + p.gain[o]! * sum;
    });
    close("formula", y!, expected, 1e-13);
  });

  test("a row alone has the bytes it has in a batch", () => {
    for (const kind of KINDS) {
      for (const [width, out, r] of [
        [97, 101, 7],
        [192, 256, 32],
        [64, 70, 0],
      ] as const) {
        const s = { T: 64, in: width, out, r };
        const p = problem(s, 7);
        aloneAsInBatch(`linearForward ${kind.dtype} ${kind.compute}`, s.T, (bench, rows) => {
          const part = { ...p, x: pickRows(p.x, s.in, rows), z: pickRows(p.z, r, rows) };
          return forward(bench, { ...s, T: rows.length }, part, kind, 2, false);
        });
      }
    }
  });
});

describe("linearBackward", () => {
  for (const kind of KINDS.filter(({ y }) => y === "f32")) {
    test(`agrees with the reference: W ${kind.dtype}, compute ${kind.compute}`, () => {
      SHAPES.forEach((shape, i) => {
        const p = problem(shape, 200 + i);
        for (const beta of [0, 0.5]) {
          const scale = kind.compute === "bf16" ? 2 : 1.7;
          const size = run(lab.reference, (b) => backward(b, shape, absolute(p), kind, scale, beta));
          const allowed = Object.fromEntries(Object.entries(size).map(([k, v]) => [k, relativeTo(v, SUM)]));
          agree(
            `linearBackward ${JSON.stringify(shape)} beta ${beta}`,
            (b) => backward(b, shape, p, kind, scale, beta),
            allowed,
          );
        }
      });
    });
  }

  test("is the derivative of the forward product", () => {
    const next = stream(3);
    const s = { T: 3, in: 5, out: 4, r: 2 };
    const w = coarse(next, s.out * s.in);
    const u = coarse(next, s.out * s.r);
    const c = coarse(next, s.T * s.out);
    checkGradients({
      label: "linear",
      inputs: {
        x: { shape: [s.T, s.in], values: coarse(next, s.T * s.in) },
        z: { shape: [s.T, s.r], values: coarse(next, s.T * s.r) },
      },
      loss: (bench, { x, z }) => {
        const y = bench.out("f32", [s.T, s.out]);
        const tail = { z: z!, u: bench.f32([s.out, s.r], u), scale: 1.5 };
        linearForward(bench.device, bench.weight(s.out, s.in, w), x!, y, { tail });
        return weighted(readF64(bench.device, y), c);
      },
      gradients: (bench) => {
        const dy = bench.f32([s.T, s.out], c);
        const dx = bench.out("f32", [s.T, s.in]);
        const dz = bench.out("f32", [s.T, s.r]);
        const tail = { u: bench.f32([s.out, s.r], u), scale: 1.5, dz };
        linearBackward(bench.device, bench.weight(s.out, s.in, w), dy, dx, { tail });
        return { x: dx, z: dz };
      },
    });
  });

  test("without dx it computes dz alone, the same bytes", () => {
    const s = { T: 17, in: 40, out: 33, r: 5 };
    const p = problem(s, 5);
    for (const { two } of lab.fast) {
      const both = run(two, (b) => backward(b, s, p, KINDS[0]!, 2, 0));
      const alone = run(two, (b) => {
        const dz = b.out("f32", [s.T, s.r]);
        const tail = { u: b.f32([s.out, s.r], p.u), scale: 2, dz };
        linearBackward(b.device, b.weight(s.out, s.in, p.w), b.f32([s.T, s.out], p.dy), null, { tail });
        return { dz };
      });
      close("dz alone", alone.dz!, both.dz!, 0);
    }
  });

  test("a row alone has the bytes it has in a batch", () => {
    for (const kind of KINDS.filter(({ y }) => y === "f32")) {
      const s = { T: 64, in: 97, out: 101, r: 7 };
      const p = problem(s, 9);
      aloneAsInBatch(`linearBackward ${kind.compute}`, s.T, (bench, rows) =>
        backward(bench, { ...s, T: rows.length }, { ...p, dy: pickRows(p.dy, s.out, rows) }, kind, 2, 0),
      );
    }
  });
});

test("wrong shapes and types are refused with both shapes in the text", () => {
  on(lab.reference, (bench) => {
    const { device } = bench;
    const weight = bench.weight(3, 4, new Float64Array(12));
    const x = bench.zeros([2, 4]);
    const y = bench.zeros([2, 3]);
    const bad = (call: () => void, text: RegExp) => expect(call).toThrow(text);
    bad(
      () => linearForward(device, weight, bench.zeros([2, 5]), y),
      /x is f32 \[2,5\]; expected f32 or bf16 \[2,4\]/,
    );
    bad(() => linearForward(device, weight, x, bench.zeros([3, 3])), /y is f32 \[3,3\]; expected .* \[2,3\]/);
    bad(() => linearForward(device, weight, bench.i32([2, 4], new Int32Array(8)), y), /x is i32/);
    bad(() => linearForward(device, weight, x, y, { beta: Number.NaN }), /beta is NaN/);
    const tail = { z: bench.zeros([2, 2]), u: bench.zeros([3, 3]), scale: 1 };
    bad(
      () => linearForward(device, weight, x, y, { tail }),
      /z is f32 \[2,2\]; expected f32 or bf16 \[2,3\]/,
    );
    bad(() => linearForward(device, { ...weight, handle: 0 }, x, y), /has been freed/);
    bad(() => linearBackward(device, weight, y, null), /neither dx nor a tail/);
  });
});
