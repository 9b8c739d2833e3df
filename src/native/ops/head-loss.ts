import { matrix, optionalMatrix, rowsOf, typeCode, vector } from "../check.ts";
import { check, type Device } from "../device.ts";
import type { Tensor } from "../layout.ts";
import { handleOf, type Weight } from "../weight.ts";

export interface HeadGradients {
  /** [M,H] f32, overwritten. */
  readonly dx?: Tensor;
  /** [V,H] f32, added to. */
  readonly dw?: Tensor;
}

/**
 * loss[M] f32 = -log softmax(x[M,H]·Wᵀ)[targets[M]], unweighted; the gradients are of Σ weights[m]·loss[m]. x f32 or
 * bf16, targets i32, weights f32. The logits are never held whole.
 */
export function headLoss(
  device: Device,
  weight: Weight,
  x: Tensor,
  targets: Tensor,
  weights: Tensor,
  loss: Tensor,
  options: HeadGradients = {},
): void {
  const op = "headLoss";
  const M = rowsOf(op, "x", x);
  check(
    device.symbols,
    device.symbols.sb_head_loss(
      device.context,
      handleOf(weight),
      matrix(op, "x", x, "real", M, weight.in),
      typeCode(op, x.dtype),
      M,
      vector(op, "targets", targets, "i32", M),
      vector(op, "weights", weights, "f32", M),
      vector(op, "loss", loss, "f32", M),
      optionalMatrix(op, "dx", options.dx, "f32", M, weight.in),
      optionalMatrix(op, "dw", options.dw, "f32", weight.out, weight.in),
    ),
  );
}
