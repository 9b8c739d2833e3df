import { finite, matrix, optionalMatrix, rowsOf, typeCode, whole } from "../check.ts";
import { check, type Device } from "../device.ts";
import { addressOf, describeTensor, sizeOf, type Tensor } from "../layout.ts";

export interface AttentionShape {
  /** N query heads; head h reads KV head h·K/N. */
  readonly heads: number;
  /** K, a divisor of N. */
  readonly kvHeads: number;
  /** D */
  readonly headSize: number;
  readonly scale: number;
}

/** Sequence b is rows offsets[b]..offsets[b+1); offsets i32 [sequences+1] or longer. */
export interface Packed {
  readonly offsets: Tensor;
  readonly sequences: number;
  /** Length of the longest sequence. */
  readonly longest: number;
}

export interface AttentionInputs {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly o: Tensor;
  readonly lse: Tensor;
  readonly dO: Tensor;
}

const MOST_HEADS = 2 ** 20;

/** Checks heads, KV heads and head size; returns nothing, the caller uses the shape. */
export function checkShape(op: string, shape: AttentionShape): void {
  whole(op, "heads", shape.heads, 1, MOST_HEADS);
  whole(op, "kvHeads", shape.kvHeads, 1, shape.heads);
  whole(op, "headSize", shape.headSize, 1, MOST_HEADS);
  finite(op, "scale", shape.scale);
  if (shape.heads % shape.kvHeads !== 0) {
    throw new TypeError(`${op}: ${shape.heads} heads are no multiple of ${shape.kvHeads} KV heads.`);
  }
}

/** Requires the same type of two tensors. */
export function sameType(op: string, name: string, tensor: Tensor, other: Tensor): void {
  if (tensor.dtype === other.dtype) return;
  throw new TypeError(
    `${op}: ${name} is ${describeTensor(tensor)}; expected ${other.dtype} like ${describeTensor(other)}.`,
  );
}

function offsetsOf(op: string, packed: Packed, T: number): number {
  const { offsets, sequences } = packed;
  whole(op, "sequences", sequences, 0, T);
  whole(op, "longest", packed.longest, 0, T);
  if (offsets.dtype !== "i32" || sizeOf(offsets) < sequences + 1) {
    throw new TypeError(`${op}: offsets is ${describeTensor(offsets)}; expected i32 [${sequences + 1}].`);
  }
  return addressOf(offsets);
}

/**
 * Causal attention over packed sequences. q[T,N,D], k, v[T,K,D], o[T,N,D] of one type (f32 or bf16); lse[T,N] f32 is the
 * log-sum-exp of the scaled scores, kept for backward (null: not wanted).
 */
export function attentionForward(
  device: Device,
  q: Tensor,
  k: Tensor,
  v: Tensor,
  shape: AttentionShape,
  packed: Packed,
  o: Tensor,
  lse: Tensor | null,
): void {
  const op = "attentionForward";
  const { heads: N, kvHeads: K, headSize: D, scale } = shape;
  checkShape(op, shape);
  const T = rowsOf(op, "q", q);
  sameType(op, "k", k, q);
  sameType(op, "v", v, q);
  sameType(op, "o", o, q);
  check(
    device.symbols,
    device.symbols.sb_attention_forward(
      device.context,
      matrix(op, "q", q, "real", T, N * D),
      matrix(op, "k", k, "real", T, K * D),
      matrix(op, "v", v, "real", T, K * D),
      typeCode(op, q.dtype),
      T,
      N,
      K,
      D,
      offsetsOf(op, packed, T),
      packed.sequences,
      packed.longest,
      scale,
      matrix(op, "o", o, "real", T, N * D),
      optionalMatrix(op, "lse", lse, "f32", T, N),
    ),
  );
}

/** dq[T,N,D], dk, dv[T,K,D] f32 (overwritten) from dO[T,N,D] f32 and what forward read and wrote. */
export function attentionBackward(
  device: Device,
  inputs: AttentionInputs,
  shape: AttentionShape,
  packed: Packed,
  gradients: { readonly dq: Tensor; readonly dk: Tensor; readonly dv: Tensor },
): void {
  const op = "attentionBackward";
  const { q, k, v, o, lse, dO } = inputs;
  const { heads: N, kvHeads: K, headSize: D, scale } = shape;
  checkShape(op, shape);
  const T = rowsOf(op, "q", q);
  sameType(op, "k", k, q);
  sameType(op, "v", v, q);
  sameType(op, "o", o, q);
  check(
    device.symbols,
    device.symbols.sb_attention_backward(
      device.context,
      matrix(op, "q", q, "real", T, N * D),
      matrix(op, "k", k, "real", T, K * D),
      matrix(op, "v", v, "real", T, K * D),
      matrix(op, "o", o, "real", T, N * D),
      typeCode(op, q.dtype),
      matrix(op, "dO", dO, "f32", T, N * D),
      matrix(op, "lse", lse, "f32", T, N),
      T,
      N,
      K,
      D,
      offsetsOf(op, packed, T),
      packed.sequences,
      packed.longest,
      scale,
      matrix(op, "dq", gradients.dq, "f32", T, N * D),
      matrix(op, "dk", gradients.dk, "f32", T, K * D),
      matrix(op, "dv", gradients.dv, "f32", T, K * D),
    ),
  );
}
