import { columnsOf, matrix, rowsOf, whole } from "../check.ts";
import { check, type Device } from "../device.ts";
import type { Tensor } from "../layout.ts";

const MAX_K = 256;

/**
 * values[R,k] f32 and ids[R,k] i32: the k largest log-softmax values of each row of logits[R,V] f32, descending; ties go
 * to the lower id. 1 ≤ k ≤ min(V, 256).
 */
export function topkLogSoftmax(device: Device, logits: Tensor, values: Tensor, ids: Tensor): void {
  const op = "topkLogSoftmax";
  const R = rowsOf(op, "logits", logits);
  const V = columnsOf(logits);
  const k = whole(op, "k (columns of values)", columnsOf(values), 1, Math.min(V, MAX_K));
  check(
    device.symbols,
    device.symbols.sb_topk_log_softmax(
      device.context,
      matrix(op, "logits", logits, "f32", R, V),
      R,
      V,
      k,
      matrix(op, "values", values, "f32", R, k),
      matrix(op, "ids", ids, "i32", R, k),
    ),
  );
}
