/**
 * Makes one mistake, named on the command line, with the instrumented kernels: scripts/sanitize.ts runs it first and
 * expects a report, so that a run without reports means something.
 */
import { openDevice } from "../../src/native/device.ts";
import { openEmulationTest } from "../../src/native/emulation-test.ts";
import { axpby } from "../../src/native/ops/elementwise.ts";
import { createTensor, view } from "../../src/native/tensor.ts";

/** One byte written behind a block of 10: AddressSanitizer. */
async function overrun(): Promise<void> {
  const { symbols, context } = await openDevice({ library: "cpu", threads: 1 });
  const out = new BigInt64Array(1);
  symbols.sb_alloc(context, 10, out);
  symbols.sb_zero(context, Number(out[0]), 11);
}

/** An index read from an odd address: UBSan. */
async function misaligned(): Promise<void> {
  const { symbols, context } = await openDevice({ library: "cpu", threads: 1 });
  const out = new BigInt64Array(1);
  symbols.sb_alloc(context, 64, out);
  const memory = Number(out[0]);
  symbols.sb_gather_rows(context, memory, 0, 1, memory + 33, 1, memory + 16);
}

/** y = x with y one line before x in one tensor: what a task reads last, the next task writes first. ThreadSanitizer. */
async function race(): Promise<void> {
  const device = await openDevice({ library: "cpu", threads: 2 });
  const n = 1 << 20;
  const memory = createTensor(device, "f32", [n + 16]);
  // Not in every round does the second thread wake up in time to take a task.
  for (let round = 0; round < 100; round++) {
    axpby(device, 1, view(device, memory, 16, [n]), 0, view(device, memory, 0, [n]));
    await Bun.sleep(1);
  }
}

/** A mistake of kernels/cuda/emulation/selftest.cpp: between the threads of a CUDA block, or in its shared memory. */
async function emulated(name: string): Promise<void> {
  (await openEmulationTest())(name, "forward");
}

const mistakes: Record<string, () => Promise<void>> = {
  overrun,
  misaligned,
  race,
  "cuda-overrun": () => emulated("overrun"),
  "cuda-race": () => emulated("race"),
};
await mistakes[process.argv[2]!]!();
