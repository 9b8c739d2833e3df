import { expect, test } from "bun:test";
import { closeDevice, reserve } from "./device.ts";
import { axpby } from "./ops/index.ts";
import { openPlanningDevice } from "./planning-device.ts";
import { createTensor, freeTensor } from "./tensor.ts";
import { createWeight, freeWeight } from "./weight.ts";

test("tensors, ops and weights go through, and tensors are counted", () => {
  const device = openPlanningDevice();
  const [x, y] = [createTensor(device, "f32", [100]), createTensor(device, "bf16", [100])];
  expect(y.address - x.address).toBe(448);
  axpby(device, 2, x, 0, y);
  expect(device.memory).toEqual({ alive: 600, peak: 600 });
  freeTensor(device, x);
  expect(device.memory).toEqual({ alive: 200, peak: 600 });
  const source = {
    name: "w",
    data: new Float32Array(6),
    dtype: "f32",
    out: 2,
    in: 3,
    compute: "f32",
  } as const;
  const weight = createWeight(device, source);
  expect([weight.out, weight.in, weight.dtype]).toEqual([2, 3, "f32"]);
  freeWeight(device, weight);
  expect(() => freeWeight(device, weight)).toThrow("The weight w has been freed.");
  reserve(device, { tokens: 1, width: 1, rank: 1, vocabulary: 1 });
  closeDevice(device);
});
