import { columnsOf, finite, matrix, optionalMatrix, optionalVector, rowsOf, typeCode } from "../check.ts";
import { check, type Device } from "../device.ts";
import type { Tensor } from "../layout.ts";
import { handleOf, type Weight } from "../weight.ts";

/** scale · z[T,r] · u[out,r]ᵀ; z f32 or bf16, u f32. */
export interface ForwardTail {
  readonly z: Tensor;
  readonly u: Tensor;
  readonly scale: number;
}

/** dz[T,r] f32 = scale · dy · u[out,r]. */
export interface BackwardTail {
  readonly u: Tensor;
  readonly scale: number;
  readonly dz: Tensor;
}

export interface LinearForwardOptions {
  readonly tail?: ForwardTail;
  /** [out] f32, default 1. */
  readonly gain?: Tensor;
  readonly beta?: number;
}

export interface LinearBackwardOptions {
  readonly tail?: BackwardTail;
  readonly beta?: number;
}

/** y[T,out] = beta·y + gain ⊙ (x[T,in]·Wᵀ + tail); x, y f32 or bf16. */
export function linearForward(
  device: Device,
  weight: Weight,
  x: Tensor,
  y: Tensor,
  options: LinearForwardOptions = {},
): void {
  const op = "linearForward";
  const { tail, gain, beta = 0 } = options;
  const T = rowsOf(op, "x", x);
  const r = tail === undefined ? 0 : columnsOf(tail.u);
  check(
    device.symbols,
    device.symbols.sb_linear_forward(
      device.context,
      handleOf(weight),
      matrix(op, "x", x, "real", T, weight.in),
      typeCode(op, x.dtype),
      T,
      r === 0 ? null : optionalMatrix(op, "z", tail?.z, "real", T, r),
      tail === undefined ? 0 : typeCode(op, tail.z.dtype),
      r === 0 ? null : optionalMatrix(op, "u", tail?.u, "f32", weight.out, r),
      r,
      tail === undefined ? 0 : finite(op, "scale", tail.scale),
      optionalVector(op, "gain", gain, "f32", weight.out),
      finite(op, "beta", beta),
      matrix(op, "y", y, "real", T, weight.out),
      typeCode(op, y.dtype),
    ),
  );
}

/** dx[T,in] f32 = beta·dx + dy[T,out]·W (null: not wanted), and the tail's dz; dy f32 or bf16. */
export function linearBackward(
  device: Device,
  weight: Weight,
  dy: Tensor,
  dx: Tensor | null,
  options: LinearBackwardOptions = {},
): void {
  const op = "linearBackward";
  const { tail, beta = 0 } = options;
  const T = rowsOf(op, "dy", dy);
  const r = tail === undefined ? 0 : columnsOf(tail.u);
  if (dx === null && r === 0) throw new TypeError(`${op}: neither dx nor a tail is given.`);
  check(
    device.symbols,
    device.symbols.sb_linear_backward(
      device.context,
      handleOf(weight),
      matrix(op, "dy", dy, "real", T, weight.out),
      typeCode(op, dy.dtype),
      T,
      r === 0 ? null : optionalMatrix(op, "u", tail?.u, "f32", weight.out, r),
      r,
      tail === undefined ? 0 : finite(op, "scale", tail.scale),
      r === 0 ? null : optionalMatrix(op, "dz", tail?.dz, "f32", T, r),
      finite(op, "beta", beta),
      optionalMatrix(op, "dx", dx, "f32", T, weight.in),
    ),
  );
}
