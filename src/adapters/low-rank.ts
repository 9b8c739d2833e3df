/**
 * The dense low-rank tail that LoRA, LoRA-FA and OA share: y = W·x + s·B·(A·drop(x)). They differ in how A starts and
 * whether it trains; with a frozen A, backward needs z[T,r] only, else the input too (design §1).
 */

import { arenaTensor } from "../native/arena.ts";
import { dropoutApply, linearBackward, linearForward, matmul } from "../native/ops/index.ts";
import type { Tensor } from "../native/tensor.ts";
import type { Weight } from "../native/weight.ts";
import { type Adapter, dropoutAt, factor, type Pass, type Saved } from "./adapter.ts";
import { droppedInput, withScratch } from "./draw.ts";

/** z[T,r] = drop(x)·Aᵀ in the compute type, kept for backward. */
export function projectDown(pass: Pass, adapter: Adapter, A: Tensor, x: Tensor): Tensor {
  const z = arenaTensor(pass.kept, pass.compute, [x.shape[0]!, adapter.site.rank]);
  withScratch(pass.scratch, () => {
    const a = droppedInput(pass, adapter.site, x);
    matmul(pass.device, { a, b: A, transposeB: true, c: z, compute: pass.compute });
  });
  return z;
}

export function lowRankForward(
  pass: Pass,
  adapter: Adapter,
  weight: Weight,
  A: Tensor,
  x: Tensor,
  y: Tensor,
  beta: number,
): Saved {
  const z = projectDown(pass, adapter, A, x);
  const tail = { z, u: factor(adapter.trainable, "B"), scale: adapter.site.scaling };
  linearForward(pass.device, weight, x, y, { tail, beta });
  return { z };
}

/** `x` null: A is frozen and gets no gradient. */
export function lowRankBackward(
  pass: Pass,
  adapter: Adapter,
  weight: Weight,
  A: Tensor,
  saved: Saved,
  x: Tensor | null,
  dy: Tensor,
  dx: Tensor | null,
  betaDx: number,
): void {
  const { site } = adapter;
  const u = factor(adapter.trainable, "B");
  withScratch(pass.scratch, () => {
    if (dx || x) {
      const dz = arenaTensor(pass.scratch, "f32", [dy.shape[0]!, site.rank]);
      linearBackward(pass.device, weight, dy, dx, { tail: { u, scale: site.scaling, dz }, beta: betaDx });
      if (x) gradientOfA(pass, adapter, dz, x);
      if (dx) addThroughMask(pass, adapter, dz, A, dx);
    }
    gradientOfB(pass, adapter, dy, factor(saved, "z"));
  });
}

/** dB[out,r] += s · dyᵀ·z. */
export function gradientOfB(pass: Pass, adapter: Adapter, dy: Tensor, z: Tensor): void {
  const c = factor(adapter.gradient, "B");
  matmul(pass.device, {
    a: dy,
    transposeA: true,
    b: z,
    c,
    alpha: adapter.site.scaling,
    beta: 1,
    compute: pass.compute,
  });
}

/** dA[r,in] += dzᵀ·drop(x). */
export function gradientOfA(pass: Pass, adapter: Adapter, dz: Tensor, x: Tensor): void {
  withScratch(pass.scratch, () => {
    const b = droppedInput(pass, adapter.site, x);
    matmul(pass.device, {
      a: dz,
      transposeA: true,
      b,
      c: factor(adapter.gradient, "A"),
      beta: 1,
      compute: pass.compute,
    });
  });
}

/** dx += mask ⊙ (dz·A). */
function addThroughMask(pass: Pass, adapter: Adapter, dz: Tensor, A: Tensor, dx: Tensor): void {
  const drop = dropoutAt(pass, adapter.site);
  if (!drop) {
    matmul(pass.device, { a: dz, b: A, c: dx, beta: 1, compute: pass.compute });
    return;
  }
  withScratch(pass.scratch, () => {
    const throughA = arenaTensor(pass.scratch, "f32", dx.shape);
    matmul(pass.device, { a: dz, b: A, c: throughA, compute: pass.compute });
    dropoutApply(pass.device, throughA, drop, dx, 1);
  });
}
