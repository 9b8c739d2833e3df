/**
 * What a GPU can do at best, in the place of `peaks.ts`: by the library's own largest products and copies, since there is
 * no other program on it. With cuBLASLt on the machine the bf16 figure is NVIDIA's rate of one square product.
 */
import type { Compute } from "../../src/adapters/adapter.ts";
import { type Device, reserve, sync } from "../../src/native/device.ts";
import { matmul } from "../../src/native/ops/index.ts";
import { copy, createTensor, freeTensor, sizeOf, type Tensor, writeF32 } from "../../src/native/tensor.ts";
import { summarize } from "../../src/reporting/statistics.ts";
import { timed } from "./interleave.ts";
import type { Machine } from "./peaks.ts";
import { randomValues } from "./random-weights.ts";

const SAMPLES = 5;
/** Side of the products, elements of the copies: enough to keep every multiprocessor busy for milliseconds. */
const SIZES = { f32: 4096, bf16: 8192, copied: 2 ** 28 } as const;
const QUICK_SIZES = { f32: 64, bf16: 64, copied: 2 ** 16 } as const;
/** More than the L2 of any card so far: what is cycled through to measure its memory. */
const CACHE_BYTES = 128 << 20;

/** `device` is a GPU, or its emulation. */
export function measureDevice(device: Device, quick: boolean): Machine {
  const sizes = quick ? QUICK_SIZES : SIZES;
  reserve(device, { tokens: sizes.bf16, width: sizes.bf16, rank: 1, vocabulary: 0 });
  const made: Tensor[] = [];
  const make = (dtype: Compute, ...shape: number[]): Tensor => {
    made.push(createTensor(device, dtype, shape));
    return made.at(-1)!;
  };
  const product = (compute: Compute): (() => number) => {
    const n = sizes[compute];
    const [a, b, c] = [make(compute, n, n), make(compute, n, n), make("f32", n, n)];
    for (const tensor of [a, b]) writeF32(device, tensor, randomValues(sizeOf(tensor), 1));
    return rateOf(device, (2 * n ** 3) / 1e9, () => matmul(device, { a, b, transposeB: true, c, compute }));
  };
  const flops = { f32: product("f32"), bf16: product("bf16") };
  const [from, to] = [make("f32", sizes.copied), make("f32", sizes.copied)];
  // Read and written.
  const read = rateOf(device, (2 * 4 * sizes.copied) / 1e9, () => copy(device, to, from));
  const samples = (take: () => number) => {
    take();
    return summarize(Array.from({ length: quick ? 2 : SAMPLES }, take));
  };
  return {
    f32: samples(flops.f32),
    bf16: samples(flops.bf16),
    bandwidth: samples(read),
    lastCacheBytes: CACHE_BYTES,
    load: 0,
    flops: (compute) => flops[compute](),
    read,
    close: () => {
      for (const tensor of made) freeTensor(device, tensor);
    },
  };
}

/** `amount` a second of `body`. */
function rateOf(device: Device, amount: number, body: () => void): () => number {
  return () => {
    sync(device);
    const milliseconds = timed(() => {
      body();
      sync(device);
    });
    return (amount / milliseconds) * 1000;
  };
}
