/** Whether the emulation that the CUDA kernels are proven on sees what it must see: each mistake is planted and found. */
import { describe, expect, test } from "bun:test";
import { closeDevice, openDevice, sync } from "./device.ts";
import { openEmulationTest } from "./emulation-test.ts";
import { axpby, sumSquares } from "./ops/elementwise.ts";
import { gatherRows } from "./ops/rows.ts";
import { createTensor, freeTensor, readF64, writeF32, writeI32 } from "./tensor.ts";

const ORDERS = ["forward", "reversed"] as const;
const RIGHT = ["shuffles", "barrier", "early exit", "tensor cores", "tensor cores, transposed", "asked for"];
const WRONG: Record<string, RegExp> = {
  "missing barrier": /^\[0\] is -?nan, expected 1/,
  deadlock:
    /^block \(0,0,0\), thread \(0,0,0\) waits for ever: of 48 threads 32 wait at __syncthreads and 16 in a warp/,
  disagreement: /different collectives/,
  "shuffle outside": /a shuffle reads a lane outside its mask/,
  "unaligned matrix": /ldmatrix: an address that is no multiple of 16/,
  "unaligned vector": /thread \(\d+,0,0\): a vector is read: an address that is no multiple of 16/,
  "unaligned store": /a vector is written: an address that is no multiple of 8/,
  "unaligned copy": /cp\.async: an address that is no multiple of 16/,
  "much declared": /shared memory of more than 48 KiB is declared/,
  "not asked for": /^65536 bytes of dynamic shared memory; expected at most 49152, as was asked for$/,
  "more than there is": /^104448 bytes of dynamic shared memory; expected at most 101376, the device's most$/,
  "tall grid": /^a grid of 65536 blocks in y or z; expected at most 65535$/,
  "long grid": /^a grid of 2147483648 blocks in x/,
  "large block": /^a block of 1056 threads; expected 1 to 1024$/,
  poison: /^NaN$/,
  "early copy": /^NaN$/,
  "early read": /^old value, then the changed source$/,
  "early reuse": /^2$/,
  "pageable upload": /^an invalid value$/,
};

// Not in a hook: those must be done in 5 seconds, and this compiles.
const find = await openEmulationTest();

for (const order of ORDERS) {
  describe(`threads ${order}`, () => {
    for (const name of RIGHT) {
      test(`${name}: nothing is found`, () => {
        expect(find(name, order)).toBe("");
      });
    }
    for (const [name, finding] of Object.entries(WRONG)) {
      test(`${name} is found`, () => {
        expect(find(name, order)).toMatch(finding);
      });
    }
  });
}

test("nothing runs before it is waited for, and all that was given to the stream is right then", async () => {
  const device = await openDevice({ library: "cuda-emulated", isa: "deferred" });
  const n = 3_000_000; // Three halves of the staging memory.
  const [x, y] = [createTensor(device, "f32", [n]), createTensor(device, "f32", [n])];
  const values = Float32Array.from({ length: n }, (_, i) => i % 1000);
  writeF32(device, x, values);
  values.fill(0);
  writeF32(device, y, values);
  axpby(device, 2, x, 1, y);
  const y1 = readF64(device, y);
  expect(y1.findIndex((value, i) => value !== 2 * (i % 1000))).toBe(-1);
  expect(sumSquares(device, y)).toBe(y1.reduce((sum, value) => sum + value * value, 0));
  for (const tensor of [x, y]) freeTensor(device, tensor);
  closeDevice(device);
});

test("an index that the device finds wrong is told by the next call that waits, once", async () => {
  const device = await openDevice({ library: "cuda-emulated", isa: "deferred" });
  const [x, y] = [createTensor(device, "f32", [4, 8]), createTensor(device, "f32", [2, 8])];
  const rows = createTensor(device, "i32", [2]);
  writeI32(device, rows, [0, -1]);
  gatherRows(device, x, rows, y);
  expect(() => sync(device)).toThrow(
    /^sb_gather_rows: rows\[1\] is -1; expected at least 0 and below 2147483648$/,
  );
  sync(device);
  gatherRows(device, x, rows, y);
  expect(() => readF64(device, y)).toThrow(/^sb_gather_rows: rows\[1\] is -1/);
  for (const tensor of [x, y, rows]) freeTensor(device, tensor);
  closeDevice(device);
});

test("an order of threads that nobody has is refused", async () => {
  await expect(openDevice({ library: "cuda-emulated", isa: "sideways" })).rejects.toThrow(
    /isa is "sideways"; the emulation has "forward", "reversed", "deferred"/,
  );
});
