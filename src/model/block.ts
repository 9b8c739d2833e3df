/** One transformer block for training: forward and, next to it, the hand-written backward. */
import type { Pass, Saved } from "../adapters/adapter.ts";
import { withScratch } from "../adapters/draw.ts";
import { arenaTensor } from "../native/arena.ts";
import {
  type AttentionShape,
  attentionBackward,
  attentionForward,
  type Packed,
  type RopeTable,
  rmsNormBackward,
  rmsNormForward,
  rope,
  swigluBackward,
  swigluForward,
} from "../native/ops/index.ts";
import { copy, type Tensor } from "../native/tensor.ts";
import { backward, forward, keepsInput } from "./linear.ts";
import type { Layer } from "./model.ts";
import type { LinearName } from "./shapes.ts";

/** What every block of a pass shares. */
export interface BlockContext {
  readonly attention: AttentionShape;
  readonly ffn: number;
  readonly eps: number;
  readonly rope: RopeTable;
  readonly packed: Packed;
  /** i32 [T], position of each token in its sequence. */
  readonly positions: Tensor;
}

/** Norm gradients, only where norms train (`full`). */
export interface NormGradients {
  readonly inputNorm: Tensor;
  readonly postNorm: Tensor;
}

/** What backward needs of one block. T tokens, H hidden, F ffn, N heads, K KV heads, D head size. */
export interface BlockSaved {
  readonly x: Tensor; // [T,H] f32, the residual stream as it came in
  readonly rstd1: Tensor; // [T]
  readonly xn1: Tensor | null; // [T,H], kept only where q, k or v ask for it
  readonly q: Tensor; // [T,N·D]
  readonly k: Tensor; // [T,K·D]
  readonly v: Tensor; // [T,K·D]
  readonly o: Tensor; // [T,N·D]
  readonly lse: Tensor; // [T,N]
  readonly mid: Tensor; // [T,H] f32, the residual stream after attention
  readonly rstd2: Tensor; // [T]
  readonly xn2: Tensor | null; // [T,H], kept only where gate or up ask for it
  readonly gate: Tensor; // [T,F]
  readonly up: Tensor; // [T,F]
  readonly h: Tensor | null; // [T,F], kept only where down asks for it
  readonly linears: Readonly<Record<LinearName, Saved>>;
}

/**
 * y = x + attention(norm(x)); out = y + mlp(norm(y)). x, out: the residual stream [T,H] f32.
 * @param out null: nobody reads the output, the block runs again for what its backward needs
 */
export function blockForward(
  pass: Pass,
  layer: Layer,
  context: BlockContext,
  x: Tensor,
  out: Tensor | null,
): BlockSaved {
  const { device, kept, scratch, compute } = pass;
  const { attention: a, eps, packed, positions, ffn } = context;
  const { linears } = layer;
  const [T, H] = x.shape as [number, number];
  const [N, K, D] = [a.heads, a.kvHeads, a.headSize];
  const saved: Partial<Record<LinearName, Saved>> = {};

  // attention
  const rstd1 = arenaTensor(kept, "f32", [T]);
  const q = arenaTensor(kept, compute, [T, N * D]);
  const k = arenaTensor(kept, compute, [T, K * D]);
  const v = arenaTensor(kept, compute, [T, K * D]);
  const keepXn1 = keepsInput(linears.q_proj) || keepsInput(linears.k_proj) || keepsInput(linears.v_proj);
  const xn1 = withScratch(scratch, () => {
    const xn = arenaTensor(keepXn1 ? kept : scratch, compute, [T, H]);
    rmsNormForward(device, x, layer.inputNorm, eps, xn, rstd1);
    saved.q_proj = forward(pass, linears.q_proj, xn, q);
    saved.k_proj = forward(pass, linears.k_proj, xn, k);
    saved.v_proj = forward(pass, linears.v_proj, xn, v);
    return keepXn1 ? xn : null;
  });
  rope(device, q, N, positions, context.rope);
  rope(device, k, K, positions, context.rope);
  const o = arenaTensor(kept, compute, [T, N * D]);
  const lse = arenaTensor(kept, "f32", [T, N]);
  attentionForward(device, q, k, v, a, packed, o, lse);
  const mid = arenaTensor(kept, "f32", [T, H]);
  copy(device, mid, x);
  saved.o_proj = forward(pass, linears.o_proj, o, mid, 1);

  // mlp
  const rstd2 = arenaTensor(kept, "f32", [T]);
  const gate = arenaTensor(kept, compute, [T, ffn]);
  const up = arenaTensor(kept, compute, [T, ffn]);
  const keepXn2 = keepsInput(linears.gate_proj) || keepsInput(linears.up_proj);
  const xn2 = withScratch(scratch, () => {
    const xn = arenaTensor(keepXn2 ? kept : scratch, compute, [T, H]);
    rmsNormForward(device, mid, layer.postNorm, eps, xn, rstd2);
    saved.gate_proj = forward(pass, linears.gate_proj, xn, gate);
    saved.up_proj = forward(pass, linears.up_proj, xn, up);
    return keepXn2 ? xn : null;
  });
  const keepH = keepsInput(linears.down_proj);
  const h = withScratch(scratch, () => {
    saved.down_proj = {};
    if (!out && !linears.down_proj.adapter) return null;
    const product = arenaTensor(keepH ? kept : scratch, compute, [T, ffn]);
    swigluForward(device, gate, up, product);
    // What a method saves does not depend on what its product is added to.
    if (out) copy(device, out, mid);
    const y = out ?? arenaTensor(scratch, "f32", [T, H]);
    saved.down_proj = forward(pass, linears.down_proj, product, y, out ? 1 : 0);
    return keepH ? product : null;
  });

  const all = saved as Record<LinearName, Saved>;
  return { x, rstd1, xn1, q, k, v, o, lse, mid, rstd2, xn2, gate, up, h, linears: all };
}

/**
 * dx[T,H] f32 holds the gradient of the block's output and receives that of its input. `first`: nothing below trains,
 * so the gradient is not carried past this block's q, k and v.
 */
export function blockBackward(
  pass: Pass,
  layer: Layer,
  context: BlockContext,
  saved: BlockSaved,
  dx: Tensor,
  norms: NormGradients | null,
  first: boolean,
): void {
  const { device, scratch } = pass;
  const { linears } = layer;
  const [T, H] = dx.shape as [number, number];
  const f32 = (width: number): Tensor => arenaTensor(scratch, "f32", [T, width]);

  // mlp
  withScratch(scratch, () => {
    const dh = f32(context.ffn);
    backward(pass, linears.down_proj, saved.linears.down_proj, saved.h, dx, dh);
    const dgate = f32(context.ffn);
    swigluBackward(device, saved.gate, saved.up, dh, dgate, dh);
    const dxn = f32(H);
    backward(pass, linears.gate_proj, saved.linears.gate_proj, saved.xn2, dgate, dxn);
    backward(pass, linears.up_proj, saved.linears.up_proj, saved.xn2, dh, dxn, 1);
    rmsNormBackward(device, dxn, saved.mid, layer.postNorm, saved.rstd2, dx, norms?.postNorm ?? null);
  });

  // attention
  withScratch(scratch, () => {
    const { heads: N, kvHeads: K, headSize: D } = context.attention;
    const dO = f32(N * D);
    backward(pass, linears.o_proj, saved.linears.o_proj, saved.o, dx, dO);
    const [dq, dk, dv] = [f32(N * D), f32(K * D), f32(K * D)];
    const { q, k, v, o, lse } = saved;
    attentionBackward(device, { q, k, v, o, lse, dO }, context.attention, context.packed, { dq, dk, dv });
    rope(device, dq, N, context.positions, context.rope, true);
    rope(device, dk, K, context.positions, context.rope, true);
    const dxn = first ? null : f32(H);
    backward(pass, linears.q_proj, saved.linears.q_proj, saved.xn1, dq, dxn);
    backward(pass, linears.k_proj, saved.linears.k_proj, saved.xn1, dk, dxn, 1);
    backward(pass, linears.v_proj, saved.linears.v_proj, saved.xn1, dv, dxn, 1);
    if (dxn)
      rmsNormBackward(device, dxn, saved.x, layer.inputNorm, saved.rstd1, dx, norms?.inputNorm ?? null);
  });
}
