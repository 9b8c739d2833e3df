/**
 * Any mix of adapters in one batch: the frozen product once for all rows, then each adapter's tail on its own rows. The
 * base's weights are never touched, and a row's result does not depend on the other rows.
 */
import { type Adapter, factor, type Pass } from "../adapters/adapter.ts";
import { factorA, withScratch } from "../adapters/draw.ts";
import { methods } from "../adapters/registry.ts";
import type { Linear } from "../model/linear.ts";
import type { Llama } from "../model/model.ts";
import { linearNames, linearShape } from "../model/shapes.ts";
import { arenaTensor } from "../native/arena.ts";
import {
  axpby,
  gatherColumns,
  linearForward,
  matmul,
  scaleColumns,
  scatterAddColumns,
} from "../native/ops/index.ts";
import { type Tensor, view } from "../native/tensor.ts";
import { type BaseBits, freeLive, type Live, loadLive } from "./resident.ts";
import type { RowSpan, WeightSets } from "./weight-sets.ts";

/** `grown`: called when adapters stand behind the linears whose rank is larger than any before; size workspaces anew. */
export function unmergedSets(model: Llama, base: BaseBits, grown: () => void): WeightSets {
  const lives = new Map<string, Live>();
  let spans: readonly RowSpan[] = [];
  let rank = 0;
  const mixed = (linear: Linear) => (pass: Pass, x: Tensor, y: Tensor, beta: number) =>
    withScratch(pass.scratch, () => {
      const { weight } = linear;
      const product = arenaTensor(pass.scratch, "f32", [x.shape[0]!, weight.out]);
      linearForward(pass.device, weight, x, product);
      let first = 0;
      for (const { weights, rows } of spans) {
        const adapter = lives.get(weights)?.adapters.get(linear);
        if (adapter) {
          const own = view(pass.device, x, first * weight.in, [rows, weight.in]);
          addTail(pass, adapter, own, view(pass.device, product, first * weight.out, [rows, weight.out]));
        }
        first += rows;
      }
      axpby(pass.device, 1, product, beta, y);
    });
  return {
    groupOf: () => "",
    hashOf: (weights) => lives.get(weights)?.info.hash ?? "",
    add(weights, dir) {
      const live = loadLive(model, base, dir);
      lives.set(weights, live);
      if (live.info.rank > rank) {
        rank = live.info.rank;
        attach(model, rank, mixed);
        grown();
      }
      return live.info;
    },
    remove(weights) {
      const live = lives.get(weights);
      lives.delete(weights);
      if (live) freeLive(model, live);
    },
    prepare(next) {
      spans = next;
    },
    swaps: () => ({ count: 0, milliseconds: 0 }),
    free() {
      for (const live of lives.values()) freeLive(model, live);
      lives.clear();
      for (const { linears } of model.layers) for (const name of linearNames) linears[name].adapter = null;
    },
  };
}

/** Puts something behind every linear that the pass calls in place of one adapter; only its forward is ever asked for. */
function attach(
  model: Llama,
  rank: number,
  mixed: (linear: Linear) => (pass: Pass, x: Tensor, y: Tensor, beta: number) => void,
): void {
  model.layers.forEach(({ linears }, layer) => {
    for (const name of linearNames) {
      const linear = linears[name];
      const run = mixed(linear);
      const site = { ...linearShape(model.config, layer, name), rank, scaling: 1 };
      const method: Adapter["method"] = {
        ...methods.lora,
        forward(pass, _adapter, _weight, x, y, beta) {
          run(pass, x, y, beta);
          return {};
        },
      };
      linear.adapter = { site, method, trainable: {}, gradient: {}, frozen: {}, derived: {} };
    }
  });
}

/** y[T,out] f32 += tail of x[T,in]; DoRA's gain after that. */
function addTail(pass: Pass, adapter: Adapter, x: Tensor, y: Tensor): void {
  const { device, compute, scratch } = pass;
  const { site, method, trainable, frozen, derived } = adapter;
  const alpha = site.scaling;
  withScratch(scratch, () => {
    const z = arenaTensor(scratch, "f32", [x.shape[0]!, site.rank]);
    if (method.name === "sbora-fb") {
      matmul(device, { a: x, b: factor(trainable, "A"), transposeB: true, c: z, compute });
      scatterAddColumns(device, z, factor(frozen, "index"), null, alpha, y);
      return;
    }
    if (method.name === "sbora-fa") gatherColumns(device, x, factor(frozen, "index"), null, z);
    else matmul(device, { a: x, b: factorA(adapter), transposeB: true, c: z, compute });
    matmul(device, { a: z, b: factor(trainable, "B"), transposeB: true, c: y, alpha, beta: 1, compute });
    if (method.name === "dora") scaleColumns(device, y, factor(derived, "gain"), y);
  });
}
