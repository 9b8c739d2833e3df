import { afterAll, beforeAll, expect, test } from "bun:test";
import { closeDevice, type Device, openDevice } from "./device.ts";
import { axpby } from "./ops/index.ts";
import { createTensor, freeTensor, readF32, writeF32 } from "./tensor.ts";
import { type TimedDevice, timeCalls } from "./timed.ts";

let timed: TimedDevice;
beforeAll(async () => {
  timed = timeCalls(await openDevice({ library: "reference", threads: 1 }));
});
afterAll(() => closeDevice(timed.device));

const calls = (name: string): number => timed.times.get(name)!.calls;

test("calls go through, are counted and take time", () => {
  const device: Device = timed.device;
  const [x, y] = [createTensor(device, "f32", [3]), createTensor(device, "f32", [3])];
  writeF32(device, x, [1, 2, 3]);
  axpby(device, 2, x, 0, y);
  axpby(device, 2, x, 1, y);
  expect([...readF32(device, y)]).toEqual([4, 8, 12]);
  expect([calls("sb_axpby"), calls("sb_alloc"), calls("sb_matmul")]).toEqual([2, 2, 0]);
  expect(timed.times.get("sb_axpby")!.milliseconds).toBeGreaterThan(0);
  freeTensor(device, x);
  freeTensor(device, y);
});

test("reset starts over", () => {
  timed.reset();
  expect(
    [...timed.times.values()].every(({ calls, milliseconds }) => calls === 0 && milliseconds === 0),
  ).toBe(true);
});
