/** LoRA (paper §2.2, protocol §1.2): both factors train, A starts uniform, B at zero. */
import { f32, factor, type Method } from "./adapter.ts";
import { drawKaimingA, mergeDense } from "./draw.ts";
import { lowRankBackward, lowRankForward } from "./low-rank.ts";

export const lora: Method = {
  name: "lora",
  title: "LoRA",
  summary: "trains A [r,in] and B [out,r]",
  keepsInput: true,
  maxRank: () => null,
  trainable: ({ in: width, out, rank }) => ({ A: f32(rank, width), B: f32(out, rank) }),
  frozen: () => ({}),
  derived: () => ({}),

  initialise(device, adapter, _weight, draw) {
    drawKaimingA(device, factor(adapter.trainable, "A"), adapter.site, draw.seed);
  },
  prepare() {},

  forward: (pass, adapter, weight, x, y, beta) =>
    lowRankForward(pass, adapter, weight, factor(adapter.trainable, "A"), x, y, beta),

  backward(pass, adapter, weight, saved, x, dy, dx, betaDx) {
    if (!x) throw new Error("LoRA needs the linear's input");
    lowRankBackward(pass, adapter, weight, factor(adapter.trainable, "A"), saved, x, dy, dx, betaDx);
  },

  merge(device, adapter, weight, scratch) {
    const { A, B } = adapter.trainable;
    mergeDense(device, adapter, weight, A!, B!, scratch);
  },
};
