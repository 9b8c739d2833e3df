/**
 * Full fine-tuning of one linear: W itself trains. The f32 master lies in the flat buffer; the weight that the products
 * read is rewritten from it after every optimizer step (`prepare`), rounded once to the type it is held in.
 */
import { type Arena, arenaTensor } from "../native/arena.ts";
import type { Device } from "../native/device.ts";
import { linearBackward, linearForward, matmul } from "../native/ops/index.ts";
import { createTensor, freeTensor, type Tensor, writeI32 } from "../native/tensor.ts";
import { readWeightRows, type Weight, writeWeightRows } from "../native/weight.ts";
import { f32, factor, type Method } from "./adapter.ts";
import { withScratch } from "./draw.ts";

export const full: Method = {
  name: "full",
  title: "Full FT",
  summary: "trains every weight, embedding and norms included",
  keepsInput: true,
  maxRank: () => null,
  trainable: ({ in: width, out }) => ({ W: f32(out, width) }),
  frozen: () => ({}),
  derived: () => ({}),

  initialise(device, adapter, weight) {
    readWholeWeight(device, weight, factor(adapter.trainable, "W"));
  },
  prepare(device, adapter, weight, scratch) {
    writeWholeWeight(device, weight, factor(adapter.trainable, "W"), scratch);
  },
  forward(pass, _adapter, weight, x, y, beta) {
    linearForward(pass.device, weight, x, y, { beta });
    return {};
  },
  backward(pass, adapter, weight, _saved, x, dy, dx, betaDx) {
    if (!x) throw new Error("full fine-tuning needs the linear's input");
    const c = factor(adapter.gradient, "W");
    matmul(pass.device, { a: dy, transposeA: true, b: x, c, beta: 1, compute: pass.compute });
    if (dx) linearBackward(pass.device, weight, dy, dx, { beta: betaDx });
  },
  merge(device, adapter, weight, scratch) {
    writeWholeWeight(device, weight, factor(adapter.trainable, "W"), scratch);
  },
};

/** master[out,in] = W. */
export function readWholeWeight(device: Device, weight: Weight, master: Tensor): void {
  const rows = createTensor(device, "i32", [weight.out]);
  writeI32(
    device,
    rows,
    Int32Array.from({ length: weight.out }, (_, i) => i),
  );
  readWeightRows(device, weight, rows, master);
  freeTensor(device, rows);
}

/** W = master[out,in], rounded to the type W is held in. */
export function writeWholeWeight(device: Device, weight: Weight, master: Tensor, scratch: Arena): void {
  withScratch(scratch, () => {
    const rows = arenaTensor(scratch, "i32", [weight.out]);
    writeI32(
      device,
      rows,
      Int32Array.from({ length: weight.out }, (_, i) => i),
    );
    writeWeightRows(device, weight, rows, master);
  });
}
