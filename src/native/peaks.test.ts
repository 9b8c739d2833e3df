import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { InputError } from "../errors.ts";
import { buildLibrary } from "./build.ts";
import { closeDevice, type Device, openDevice } from "./device.ts";
import { openPeakLibrary, type PeakLibrary } from "./peaks.ts";

setDefaultTimeout(120_000);

let device: Device;
let library: PeakLibrary;
beforeAll(async () => {
  await buildLibrary("cpu");
  device = await openDevice({ threads: 2 });
  library = await openPeakLibrary();
});
afterAll(() => closeDevice(device));

/** A machine without neighbours is not to be expected here: orders of magnitude only. */
const plausible = (rate: number): boolean => rate > 1e8 && rate < 1e14;

test("every instruction set of this processor has a peak", () => {
  for (const isa of device.isas) {
    for (const compute of ["f32", "bf16"] as const) {
      expect(plausible(library.flops({ ...device, isa }, compute, 0.005))).toBe(true);
    }
  }
});

test("reading a buffer gives a rate, again and again", () => {
  const buffer = library.openBuffer(8 << 20, device.threads);
  expect(buffer.bytes).toBe(8 << 20);
  for (let i = 0; i < 3; i++) expect(plausible(buffer.read())).toBe(true);
  buffer.close();
});

test("a buffer without a block for every thread is refused", () => {
  expect(() => library.openBuffer(512, 2)).toThrow("expected at least 1024");
  expect(() => library.openBuffer(Number.NaN, 2)).toThrow(TypeError);
  expect(() => library.openBuffer(2 ** 50, 2)).toThrow(InputError);
});
