import { columnsOf, finite, matrix, optionalVector, rowsOf, typeCode, vector } from "../check.ts";
import { check, type Device } from "../device.ts";
import type { Tensor } from "../layout.ts";

/** y[T,H] = x·rstd ⊙ w[H], rstd[T] = 1/√(mean(x²) + eps); x, w, rstd f32, y f32 or bf16. */
export function rmsNormForward(
  device: Device,
  x: Tensor,
  w: Tensor,
  eps: number,
  y: Tensor,
  rstd: Tensor | null,
): void {
  const op = "rmsNormForward";
  const T = rowsOf(op, "x", x);
  const H = columnsOf(x);
  if (!(eps >= 0)) throw new TypeError(`${op}: eps is ${eps}; expected 0 or more.`);
  check(
    device.symbols,
    device.symbols.sb_rms_norm_forward(
      device.context,
      matrix(op, "x", x, "f32", T, H),
      vector(op, "w", w, "f32", H),
      T,
      H,
      finite(op, "eps", eps),
      matrix(op, "y", y, "real", T, H),
      typeCode(op, y.dtype),
      optionalVector(op, "rstd", rstd, "f32", T),
    ),
  );
}

/** dx[T,H] += the gradient by x, dw[H] += the gradient by w (null: frozen); all f32. */
export function rmsNormBackward(
  device: Device,
  dy: Tensor,
  x: Tensor,
  w: Tensor,
  rstd: Tensor,
  dx: Tensor,
  dw: Tensor | null,
): void {
  const op = "rmsNormBackward";
  const T = rowsOf(op, "x", x);
  const H = columnsOf(x);
  check(
    device.symbols,
    device.symbols.sb_rms_norm_backward(
      device.context,
      matrix(op, "dy", dy, "f32", T, H),
      matrix(op, "x", x, "f32", T, H),
      vector(op, "w", w, "f32", H),
      vector(op, "rstd", rstd, "f32", T),
      T,
      H,
      matrix(op, "dx", dx, "f32", T, H),
      optionalVector(op, "dw", dw, "f32", H),
    ),
  );
}
