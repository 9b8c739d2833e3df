/**
 * DoRA (protocol §1.3): W' = m ⊙ V/‖V‖row with V = W + s·B·A; the norm is detached, so no gradient flows through it to
 * A or B. With gain g = m/‖V‖:  y = W·x + (g−1) ⊙ (W·drop(x)) + g ⊙ (s·B·A·drop(x)), which at p = 0 is g ⊙ (V·x).
 *
 * The norm is taken by rows as ‖w‖² + 2s⟨w,BA⟩ + s²‖BA‖², once an optimizer step; W + s·B·A is never formed.
 *
 * The official 4-bit code takes another norm (protocol §1.9): ‖W + B·A‖row, without s, and m starts anew from ‖W‖row for
 * as long as B·A is zero. `unscaledDora` is that.
 */
import { InputError } from "../errors.ts";
import { arenaTensor } from "../native/arena.ts";
import type { Device } from "../native/device.ts";
import {
  axpby,
  columnDot,
  doraGain,
  dropoutApply,
  linearBackward,
  linearForward,
  matmul,
  rowDot,
  scaleColumns,
  scaleRows,
} from "../native/ops/index.ts";
import { copy, readF64, type Tensor, view, writeF32 } from "../native/tensor.ts";
import { weightRowSquares } from "../native/weight.ts";
import { type Adapter, dropoutAt, f32, factor, type Method, type Pass } from "./adapter.ts";
import { drawKaimingA, droppedInput, mergeDense, withScratch } from "./draw.ts";
import { gradientOfA, gradientOfB, projectDown } from "./low-rank.ts";

/** Which of the two norms. */
export const doraNorms = ["scaled", "unscaled"] as const;
export type DoraNorm = (typeof doraNorms)[number];

export const dora: Method = {
  name: "dora",
  title: "DoRA",
  summary: "trains A [r,in], B [out,r] and a magnitude m [out] per output row",
  keepsInput: true,
  maxRank: () => null,
  trainable: ({ in: width, out, rank }) => ({ A: f32(rank, width), B: f32(out, rank), m: f32(out) }),
  frozen: () => ({}),
  derived: ({ out }) => ({ squares: f32(out), norm: f32(out), gain: f32(out) }),

  initialise(device, adapter, weight, draw) {
    drawKaimingA(device, factor(adapter.trainable, "A"), adapter.site, draw.seed);
    const { squares, norm, gain } = adapter.derived;
    weightRowSquares(device, weight, squares!);
    // B = 0, so ‖V‖ = ‖w‖ and m starts there; `norm` is the square root that doraGain takes on the way.
    doraGain(device, squares!, squares!, norm!, gain!);
    copy(device, factor(adapter.trainable, "m"), norm!);
    refuseZeroRow(adapter.site.name, readF64(device, gain!));
  },

  prepare(device, adapter, weight, scratch) {
    const { site, method } = adapter;
    const { rank, out } = site;
    const unscaled = method.norm === "unscaled";
    const s = unscaled ? 1 : site.scaling;
    const { A, B, m } = adapter.trainable;
    const { squares, norm, gain } = adapter.derived;
    weightRowSquares(device, weight, squares!);
    copy(device, norm!, squares!);
    withScratch(scratch, () => {
      // ⟨w,BA⟩ by rows: (W·Aᵀ) ⊙ B summed over r. linearForward gives A·Wᵀ [r,out]; the identity product turns it.
      const aw = arenaTensor(scratch, "f32", [rank, out]);
      linearForward(device, weight, A!, aw);
      const wa = arenaTensor(scratch, "f32", [out, rank]);
      matmul(device, { a: aw, transposeA: true, b: identity(device, scratch, rank), c: wa });
      rowDot(device, wa, B!, 2 * s, 1, norm!);
      // ‖BA‖² by rows: (B·(A·Aᵀ)) ⊙ B summed over r.
      const gram = arenaTensor(scratch, "f32", [rank, rank]);
      matmul(device, { a: A!, b: A!, transposeB: true, c: gram });
      matmul(device, { a: B!, b: gram, c: wa });
      rowDot(device, wa, B!, s * s, 1, norm!);
      if (unscaled) restartMagnitude(device, adapter, wa, scratch);
    });
    doraGain(device, norm!, m!, norm!, gain!);
  },

  forward(pass, adapter, weight, x, y, beta) {
    const { site } = adapter;
    const { A, B } = adapter.trainable;
    const T = x.shape[0]!;
    const z = projectDown(pass, adapter, A!, x);
    // g ⊙ (W·drop(x) + tail) is kept: dm = Σ dy ⊙ that / m.
    const gained = arenaTensor(pass.kept, pass.compute, [T, site.out]);
    withScratch(pass.scratch, () => {
      const dropped = droppedInput(pass, site, x);
      const tail = { z, u: B!, scale: site.scaling };
      linearForward(pass.device, weight, dropped, gained, { tail, gain: factor(adapter.derived, "gain") });
      if (dropped === x) {
        axpby(pass.device, 1, gained, beta, y);
        return;
      }
      // The ungained part reads the undropped x: W·x − W·drop(x) = W·(x − drop(x)).
      const rest = arenaTensor(pass.scratch, x.dtype, x.shape);
      copy(pass.device, rest, x);
      axpby(pass.device, -1, dropped, 1, rest);
      linearForward(pass.device, weight, rest, y, { beta });
      axpby(pass.device, 1, gained, 1, y);
    });
    return { z, gained };
  },

  backward(pass, adapter, weight, saved, x, dy, dx, betaDx) {
    if (!x) throw new Error("DoRA needs the linear's input");
    const { site } = adapter;
    const { A, B, m } = adapter.trainable;
    columnDot(pass.device, dy, factor(saved, "gained"), m!, factor(adapter.gradient, "m"));
    withScratch(pass.scratch, () => {
      const gained = arenaTensor(pass.scratch, "f32", dy.shape);
      scaleColumns(pass.device, dy, factor(adapter.derived, "gain"), gained);
      const dz = arenaTensor(pass.scratch, "f32", [dy.shape[0]!, site.rank]);
      const tail = { u: B!, scale: site.scaling, dz };
      const drop = dropoutAt(pass, site);
      if (drop) {
        linearBackward(pass.device, weight, gained, null, { tail });
        if (dx) inputGradientUnderDropout(pass, adapter, weight, dy, gained, dz, dx, betaDx);
      } else {
        linearBackward(pass.device, weight, gained, dx, { tail, beta: betaDx });
        if (dx) matmul(pass.device, { a: dz, b: A!, c: dx, beta: 1, compute: pass.compute });
      }
      gradientOfA(pass, adapter, dz, x);
      gradientOfB(pass, adapter, gained, factor(saved, "z"));
    });
  },

  merge(device, adapter, weight, scratch) {
    const { A, B } = adapter.trainable;
    this.prepare(device, adapter, weight, scratch);
    const gain = factor(adapter.derived, "gain");
    mergeDense(device, adapter, weight, A!, B!, scratch, (values, first) =>
      scaleRows(device, values, view(device, gain, first, [values.shape[0]!]), values),
    );
  },
};

/** m/‖w‖ of a row of zeros is 0/0, which would be NaN losses from the first step on. */
function refuseZeroRow(name: string, gain: Float64Array): void {
  const row = gain.findIndex(Number.isNaN);
  if (row < 0) return;
  throw new InputError(
    `${name}: row ${row} of its weight is zero, and DoRA divides by the norm of every row; leave the module out ` +
      `(--targets) or take another method.`,
  );
}

/** DoRA as the official 4-bit code has it. */
export const unscaledDora: Method = { ...dora, norm: "unscaled" };

/** dx = betaDx·dx + dy·W + mask ⊙ ( ((g−1)⊙dy)·W + dz·A ); `gained` holds g⊙dy and is overwritten. */
function inputGradientUnderDropout(
  pass: Pass,
  adapter: Adapter,
  weight: Parameters<Method["backward"]>[2],
  dy: Tensor,
  gained: Tensor,
  dz: Tensor,
  dx: Tensor,
  betaDx: number,
): void {
  const { device, scratch } = pass;
  linearBackward(device, weight, dy, dx, { beta: betaDx });
  withScratch(scratch, () => {
    const difference = arenaTensor(scratch, "f32", dy.shape);
    copy(device, difference, gained);
    axpby(device, -1, dy, 1, difference);
    const masked = arenaTensor(scratch, "f32", dx.shape);
    linearBackward(device, weight, difference, masked);
    matmul(device, { a: dz, b: factor(adapter.trainable, "A"), c: masked, beta: 1, compute: pass.compute });
    dropoutApply(device, masked, dropoutAt(pass, adapter.site)!, dx, 1);
  });
}

/** m = ‖W‖row while all of B·A is zero; `bg` [out,r] holds B·(A·Aᵀ). */
function restartMagnitude(
  device: Device,
  { trainable, derived }: Adapter,
  bg: Tensor,
  scratch: Parameters<Method["prepare"]>[3],
): void {
  const ba = arenaTensor(scratch, "f32", [bg.shape[0]!]);
  rowDot(device, bg, factor(trainable, "B"), 1, 0, ba);
  if (readF64(device, ba).some((square) => square !== 0)) return;
  const { squares, norm, gain } = derived;
  doraGain(device, squares!, squares!, norm!, gain!);
  copy(device, factor(trainable, "m"), norm!);
  // `norm` holds squares until the caller takes their root.
  copy(device, norm!, squares!);
}

function identity(device: Device, scratch: Parameters<Method["prepare"]>[3], n: number): Tensor {
  const values = new Float32Array(n * n);
  for (let i = 0; i < n; i++) values[i * n + i] = 1;
  const tensor = arenaTensor(scratch, "f32", [n, n]);
  writeF32(device, tensor, values);
  return tensor;
}
