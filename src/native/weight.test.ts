import { describe, expect, test } from "bun:test";
import { everyDevice, on } from "./ops/testing.ts";
import { readF64 } from "./tensor.ts";
import { createWeight, freeWeight, readWeightRows, writeWeightRows } from "./weight.ts";

const WIDTH = 1024;
/** Every finite f16: 62 rows of 1024. */
const HALVES = Uint16Array.from({ length: 2 ** 16 }, (_, i) => i).filter((i) => (i & 0x7c00) !== 0x7c00);

/** Each midpoint of two neighbours in f16, and the float32 just below and just above it; both signs. */
function halfway(): Float32Array {
  const positive = new Float16Array(HALVES.slice(0, HALVES.length / 2).buffer);
  const values = new Float32Array(positive.length * 6);
  const bits = new Uint32Array(values.buffer);
  positive.forEach((low, i) => {
    values[6 * i] = (low + (positive[i + 1] ?? 2 ** 16)) / 2;
    for (const [j, step] of [0, -1, 1].entries()) {
      bits[6 * i + j] = bits[6 * i]! + step;
      bits[6 * i + j + 3] = bits[6 * i + j]! + 2 ** 31;
    }
  });
  return values;
}

for (const [label, device] of everyDevice()) {
  describe(label, () => {
    test("every f16 is read as it is, and writing rounds to nearest even", () => {
      on(device, (bench) => {
        const n = HALVES.length / WIDTH;
        const rows = bench.i32(
          [n],
          Array.from({ length: n }, (_, i) => n - 1 - i),
        );
        const shape = { dtype: "f16", out: n, in: WIDTH, compute: "f32" } as const;
        const weight = createWeight(device, { name: "halves", data: HALVES, ...shape });
        const values = bench.out("f32", [n, WIDTH]);
        const flipped = (data: Float16Array): Float64Array =>
          Float64Array.from(data, (_, i) => data[(n - 1 - Math.floor(i / WIDTH)) * WIDTH + (i % WIDTH)]!);
        readWeightRows(device, weight, rows, values);
        expect(readF64(device, values)).toEqual(flipped(new Float16Array(HALVES.buffer)));

        const all = halfway();
        for (let from = 0; from < all.length; from += n * WIDTH) {
          const some = all.subarray(from, from + n * WIDTH);
          writeWeightRows(device, weight, rows, bench.f32([n, WIDTH], some));
          readWeightRows(device, weight, rows, values);
          expect(readF64(device, values)).toEqual(Float64Array.from(Float16Array.from(some)));
        }
        freeWeight(device, weight);
      });
    });
  });
}
