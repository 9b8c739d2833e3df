import { afterAll, beforeAll, expect, test } from "bun:test";
import { type CountedDevice, countOperations } from "./counted.ts";
import { closeDevice, openDevice } from "./device.ts";
import {
  axpby,
  linearBackward,
  linearForward,
  matmul,
  rmsNormForward,
  scatterAddColumns,
} from "./ops/index.ts";
import { createTensor, freeTensor, type Tensor, writeF32, writeI32, zero } from "./tensor.ts";
import { createWeight, freeWeight, type Weight } from "./weight.ts";

let bench: CountedDevice;
let weight: Weight;
const made: Tensor[] = [];
const [T, IN, OUT, R] = [3, 7, 5, 2];

const tensor = (...shape: number[]): Tensor => {
  const one = createTensor(bench.device, "f32", shape);
  zero(bench.device, one);
  made.push(one);
  return one;
};

beforeAll(async () => {
  bench = countOperations(await openDevice({ library: "reference", threads: 1 }));
  const data = new Float32Array(OUT * IN);
  weight = createWeight(bench.device, { name: "W", data, dtype: "f32", out: OUT, in: IN, compute: "f32" });
});
afterAll(() => {
  for (const one of made) freeTensor(bench.device, one);
  freeWeight(bench.device, weight);
  closeDevice(bench.device);
});

function counted(run: () => void): number[] {
  bench.reset();
  run();
  return [bench.total.multiplications, bench.total.additions];
}

test("a linear with its tail: in + r products an output, one addition more where it is added to what was there", () => {
  const [x, y, z, u] = [tensor(T, IN), tensor(T, OUT), tensor(T, R), tensor(OUT, R)];
  const { device } = bench;
  expect(counted(() => linearForward(device, weight, x, y))).toEqual([T * OUT * IN, T * OUT * (IN - 1)]);
  const tail = { z, u, scale: 2 };
  expect(counted(() => linearForward(device, weight, x, y, { tail, beta: 1 }))).toEqual([
    T * OUT * (IN + R),
    T * OUT * (IN + R),
  ]);
  const dz = tensor(T, R);
  expect(counted(() => linearBackward(device, weight, y, x, { tail: { u, scale: 1, dz } }))).toEqual([
    T * IN * OUT + T * R * OUT,
    T * IN * (OUT - 1) + T * R * (OUT - 1),
  ]);
  expect(counted(() => linearBackward(device, weight, y, null, { tail: { u, scale: 1, dz } }))).toEqual([
    T * R * OUT,
    T * R * (OUT - 1),
  ]);
});

test("products, sums and moves", () => {
  const { device } = bench;
  const [a, b, c] = [tensor(4, 3), tensor(3, 2), tensor(4, 2)];
  expect(counted(() => matmul(device, { a, b, c }))).toEqual([24, 16]);
  expect(counted(() => matmul(device, { a, b, c, beta: 1 }))).toEqual([24, 24]);
  expect(counted(() => axpby(device, 2, c, 0, c))).toEqual([0, 0]);
  expect(counted(() => axpby(device, 2, c, 1, c))).toEqual([0, 8]);
  const index = createTensor(device, "i32", [2]);
  writeI32(device, index, Int32Array.from([4, 1]));
  made.push(index);
  expect(counted(() => scatterAddColumns(device, tensor(T, 2), index, null, 1, tensor(T, OUT)))).toEqual([
    0, 6,
  ]);
  expect(bench.unknown.size).toBe(0);
});

test("what has no rule is named, not passed over", () => {
  const { device } = bench;
  const gain = tensor(IN);
  writeF32(device, gain, new Float32Array(IN).fill(1));
  counted(() => rmsNormForward(device, tensor(T, IN), gain, 1e-5, tensor(T, IN), null));
  expect([...bench.unknown]).toEqual(["sb_rms_norm_forward"]);
});
