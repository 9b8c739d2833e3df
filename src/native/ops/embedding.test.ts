import { describe, expect, test } from "bun:test";
import { embeddingBackward, embeddingForward } from "./embedding.ts";
import { agree, type Bench, close, coarse, integers, lab, numbers, on, run, stream } from "./testing.ts";
import { relativeTo } from "./testing-compare.ts";

const SHAPES = [
  [0, 5, 3],
  [1, 1, 1],
  [17, 5, 7],
  [64, 131, 96],
  [300, 3, 65],
] as const;

describe("embedding", () => {
  for (const dtype of ["f32", "f16", "bf16"] as const) {
    test(`forward copies rows: ${dtype}`, () => {
      for (const [T, V, H] of SHAPES) {
        const next = stream(T + V);
        const w = coarse(next, V * H);
        const ids = integers(next, T, V);
        const body = (bench: Bench) => {
          const x = bench.out("f32", [T, H]);
          embeddingForward(bench.device, bench.weight(V, H, w, { dtype }), bench.i32([T], ids), x);
          return { x };
        };
        const expected = Float64Array.from(
          { length: T * H },
          (_, i) => w[ids[Math.floor(i / H)]! * H + (i % H)]!,
        );
        close("formula", run(lab.double, body).x!, expected, 0);
        agree(`embeddingForward ${T},${V},${H}`, body, { x: 0 });
      }
    });
  }

  test("backward sums rows by id onto what is there", () => {
    for (const [T, V, H] of SHAPES) {
      const next = stream(T * V);
      const ids = integers(next, T, V);
      const dx = numbers(next, T * H);
      const dw = numbers(next, V * H);
      const body = (sign: (value: number) => number) => (bench: Bench) => {
        const sum = bench.f32([V, H], dw.map(sign));
        embeddingBackward(bench.device, bench.i32([T], ids), bench.f32([T, H], dx.map(sign)), sum);
        return { dw: sum };
      };
      const plain = body((value) => value);
      const expected = dw.slice();
      ids.forEach((id, t) => {
        for (let h = 0; h < H; h++) expected[id * H + h]! += dx[t * H + h]!;
      });
      close("formula", run(lab.double, plain).dw!, expected, 1e-12);
      // A sum of float32 numbers in a fixed order.
      const size = run(lab.reference, body(Math.abs)).dw!;
      agree(`embeddingBackward ${T},${V},${H}`, plain, { dw: relativeTo(size, 1e-6) });
    }
  });

  test("refuses wrong shapes", () => {
    on(lab.reference, (bench) => {
      const weight = bench.weight(3, 4, new Float64Array(12));
      const ids = bench.i32([2], [0, 1]);
      const x = bench.zeros([2, 3]);
      expect(() => embeddingForward(bench.device, weight, ids, x)).toThrow(
        /x is f32 \[2,3\]; expected f32 \[2,4\]/,
      );
      expect(() => embeddingBackward(bench.device, ids, x, bench.zeros([3, 4]))).toThrow(/dx is f32 \[2,3\]/);
    });
  });

  test("an id outside the vocabulary is an error, not a crash", () => {
    for (const device of [lab.reference, ...lab.fast.map(({ two }) => two)]) {
      on(device, (bench) => {
        const weight = bench.weight(3, 4, new Float64Array(12));
        for (const id of [-1, 3, 2 ** 31 - 1]) {
          const ids = bench.i32([2], [0, id]);
          expect(() => embeddingForward(device, weight, ids, bench.zeros([2, 4]))).toThrow(String(id));
          expect(() => embeddingBackward(device, ids, bench.zeros([2, 4]), bench.zeros([3, 4]))).toThrow(
            String(id),
          );
        }
      });
    }
  });
});
