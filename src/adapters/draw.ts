/** What several method files share: index draws, factor init, scratch memory, the dropped input, a dense merge. */
import { InputError } from "../errors.ts";
import { type Arena, arenaTensor, mark, release } from "../native/arena.ts";
import type { Device } from "../native/device.ts";
import { dropoutApply, matmul, randomUniform } from "../native/ops/index.ts";
import { distinctIntegers } from "../native/philox.ts";
import { streamKey } from "../native/streams.ts";
import { type Tensor, view, writeI32 } from "../native/tensor.ts";
import { readWeightRows, type Weight, writeWeightRows } from "../native/weight.ts";
import { type Adapter, type AdapterSite, type DrawOptions, dropoutAt, factor, type Pass } from "./adapter.ts";

/** Runs `body` and gives back whatever it took from the arena. */
export function withScratch<T>(arena: Arena, body: () => T): T {
  const start = mark(arena);
  try {
    return body();
  } finally {
    release(arena, start);
  }
}

/**
 * Draws rank distinct indices below `width`, uniformly, in drawn (unsorted) order, one independent draw a site
 * (protocol §1.6), skipping `draw.avoid`.
 */
export function drawIndices(
  device: Device,
  index: Tensor,
  site: AdapterSite,
  width: number,
  draw: DrawOptions,
): void {
  const avoid = draw.avoid ?? new Set<number>();
  const free = width - avoid.size;
  if (site.rank > free) {
    throw new InputError(
      `${site.name}: rank ${site.rank} needs as many free indices below ${width}, but ${avoid.size} are to be ` +
        `avoided and only ${free} are left. Lower the rank or avoid fewer adapters.`,
    );
  }
  const order = distinctIntegers(streamKey(draw.seed, "index", site.module), width, width);
  writeI32(device, index, order.filter((i) => !avoid.has(i)).slice(0, site.rank));
}

/** A [r,in] ~ U(−1/√in, 1/√in): Kaiming uniform with a = √5 (protocol §1.2). */
export function drawKaimingA(device: Device, A: Tensor, site: AdapterSite, seed: number): void {
  const bound = 1 / Math.sqrt(site.in);
  randomUniform(device, streamKey(seed, "init", site.module), -bound, bound, A);
}

/** The adapter's input: x itself, or x under this module's dropout mask, in scratch memory of x's dtype. */
export function droppedInput(pass: Pass, site: AdapterSite, x: Tensor): Tensor {
  const drop = dropoutAt(pass, site);
  if (!drop) return x;
  const dropped = arenaTensor(pass.scratch, x.dtype, x.shape);
  dropoutApply(pass.device, x, drop, dropped);
  return dropped;
}

/** Rows of W handled at once when a dense ΔW is merged: bounds the memory, not the result. */
export const MERGE_ROWS = 128;

/**
 * W[rows] = finish(W[rows] + s·B[rows]·A) block by block of rows, f32, one rounding. `finish` may change the block
 * (rows first .. first + values.shape[0]) before it is written.
 */
export function mergeDense(
  device: Device,
  adapter: Adapter,
  weight: Weight,
  A: Tensor,
  B: Tensor,
  scratch: Arena,
  finish: (values: Tensor, first: number) => void = () => {},
): void {
  const { site } = adapter;
  for (let first = 0; first < site.out; first += MERGE_ROWS) {
    const count = Math.min(MERGE_ROWS, site.out - first);
    withScratch(scratch, () => {
      const rows = arenaTensor(scratch, "i32", [count]);
      writeI32(
        device,
        rows,
        Int32Array.from({ length: count }, (_, i) => first + i),
      );
      const values = arenaTensor(scratch, "f32", [count, site.in]);
      readWeightRows(device, weight, rows, values);
      const b = view(device, B, first * site.rank, [count, site.rank]);
      matmul(device, { a: b, b: A, c: values, alpha: site.scaling, beta: 1, compute: "f32" });
      finish(values, first);
      writeWeightRows(device, weight, rows, values);
    });
  }
}

/** Frozen A for the methods that keep one, else the trained one. */
export function factorA(adapter: Adapter): Tensor {
  return factor(
    adapter.method.name === "lora" || adapter.method.name === "dora" ? adapter.trainable : adapter.frozen,
    "A",
  );
}
