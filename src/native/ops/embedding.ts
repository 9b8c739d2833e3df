import { columnsOf, matrix, rowsOf, vector } from "../check.ts";
import { check, type Device } from "../device.ts";
import type { Tensor } from "../layout.ts";
import { handleOf, type Weight } from "../weight.ts";

/** x[T,H] f32 = W[ids]; ids[T] i32, each below the weight's rows. */
export function embeddingForward(device: Device, weight: Weight, ids: Tensor, x: Tensor): void {
  const op = "embeddingForward";
  const T = rowsOf(op, "ids", ids);
  check(
    device.symbols,
    device.symbols.sb_embedding_forward(
      device.context,
      handleOf(weight),
      vector(op, "ids", ids, "i32", T),
      T,
      matrix(op, "x", x, "f32", T, weight.in),
    ),
  );
}

/** dw[V,H] f32 += rows of dx[T,H] f32 by ids[T] i32, each vocabulary row in token order. */
export function embeddingBackward(device: Device, ids: Tensor, dx: Tensor, dw: Tensor): void {
  const op = "embeddingBackward";
  const T = rowsOf(op, "ids", ids);
  const V = rowsOf(op, "dw", dw);
  const H = columnsOf(dw);
  check(
    device.symbols,
    device.symbols.sb_embedding_backward(
      device.context,
      vector(op, "ids", ids, "i32", T),
      T,
      matrix(op, "dx", dx, "f32", T, H),
      V,
      H,
      matrix(op, "dw", dw, "f32", V, H),
    ),
  );
}
