import { describe, expect, test } from "bun:test";
import { agree, type Bench, close, lab, numbers, on, run, stream } from "./testing.ts";
import { topkLogSoftmax } from "./topk.ts";

const SHAPES = [
  [0, 5, 1],
  [1, 1, 1],
  [3, 7, 7],
  [17, 257, 4],
  [5, 1000, 256],
  [2, 97, 96],
] as const;

/** Values on a coarse grid, so that there are ties to break. */
const tied = (seed: number, n: number) => numbers(stream(seed), n).map((value) => Math.round(value * 40) / 4);

function body(R: number, V: number, k: number, logits: Float64Array) {
  return (bench: Bench) => {
    const values = bench.out("f32", [R, k]);
    const ids = bench.out("i32", [R, k]);
    topkLogSoftmax(bench.device, bench.f32([R, V], logits), values, ids);
    return { values, ids };
  };
}

describe("topkLogSoftmax", () => {
  test("computes its formula; ties go to the lower id", () => {
    for (const [R, V, k] of SHAPES) {
      const logits = tied(V, R * V);
      const expected = { values: [] as number[], ids: [] as number[] };
      for (let row = 0; row < R; row++) {
        const line = [...logits.subarray(row * V, (row + 1) * V)];
        const top = Math.max(...line);
        const lse = top + Math.log(line.reduce((sum, logit) => sum + Math.exp(logit - top), 0));
        const order = line.map((_, id) => id).sort((a, b) => line[b]! - line[a]! || a - b);
        expected.ids.push(...order.slice(0, k));
        expected.values.push(...order.slice(0, k).map((id) => line[id]! - lse));
      }
      const actual = run(lab.double, body(R, V, k, logits));
      close("ids", actual.ids!, expected.ids, 0);
      close("values", actual.values!, expected.values, 1e-12);
    }
  });

  test("agrees with the reference", () => {
    for (const [R, V, k] of SHAPES) {
      for (const logits of [tied(V + 1, R * V), numbers(stream(V), R * V, 16)]) {
        // Log-softmax of values up to 32 apart: a few float32 roundings at that size. The order is exact.
        agree(`topk ${R},${V},${k}`, body(R, V, k, logits), { ids: 0, values: 1e-5 });
      }
    }
  });

  test("refuses a k that is too large", () => {
    on(lab.reference, (bench) => {
      const logits = bench.zeros([2, 5]);
      const call = () => topkLogSoftmax(bench.device, logits, bench.zeros([2, 6]), bench.out("i32", [2, 6]));
      expect(call).toThrow(/k \(columns of values\) is 6; expected a whole number from 1 to 5/);
    });
  });
});
