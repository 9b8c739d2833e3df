/**
 * SBoRA on 4-bit matrices: the columns or rows that a merge makes are kept, to be put beside the codes when the adapter
 * becomes active and to be dropped again; the codes never change, so what is there afterwards is the base, bit for bit.
 */
import { type Adapter, factor } from "../adapters/adapter.ts";
import type { Device } from "../native/device.ts";
import { dropReplaced } from "../native/nf4.ts";
import { axpby } from "../native/ops/index.ts";
import { copy, createTensor, freeTensor, type Tensor } from "../native/tensor.ts";
import {
  readWeightColumns,
  readWeightRows,
  type Weight,
  writeWeightColumns,
  writeWeightRows,
} from "../native/weight.ts";

export interface Beside {
  readonly weight: Weight;
  readonly along: "columns" | "rows";
  /** i32 [r] */
  readonly index: Tensor;
  /** f32 [out,r] or [r,in]; rounded to bf16 when they are put in. */
  readonly values: Tensor;
}

/** Whether lines can come and go: the matrix is 4-bit and its folder has none of its own, which would be dropped too. */
export function takesLines(weight: Weight): boolean {
  return weight.dtype === "nf4" && !weight.merged;
}

/** W + ΔW in the lines that the adapter changes. */
export function createBeside(device: Device, weight: Weight, adapter: Adapter): Beside {
  const { frozen, trainable, method, site } = adapter;
  const along = method.name === "sbora-fa" ? "columns" : "rows";
  const update = factor(trainable, along === "columns" ? "B" : "A");
  const index = createTensor(device, "i32", [site.rank]);
  const values = createTensor(device, "f32", update.shape);
  copy(device, index, factor(frozen, "index"));
  (along === "columns" ? readWeightColumns : readWeightRows)(device, weight, index, values);
  axpby(device, site.scaling, update, 1, values);
  return { weight, along, index, values };
}

export function freeBeside(device: Device, { index, values }: Beside): void {
  freeTensor(device, index);
  freeTensor(device, values);
}

export function putBeside(device: Device, { weight, along, index, values }: Beside): void {
  (along === "columns" ? writeWeightColumns : writeWeightRows)(device, weight, index, values);
}

export function dropBeside(device: Device, { weight }: Beside): void {
  dropReplaced(device, weight);
}
