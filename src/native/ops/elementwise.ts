import { finite, typeCode, vector } from "../check.ts";
import { beforeClose, check, type Device } from "../device.ts";
import { sizeOf, type Tensor } from "../layout.ts";
import { allocate } from "../tensor.ts";

/** y = beta·y + alpha·x, equal sizes, each f32 or bf16. Also the cast: alpha 1, beta 0. */
export function axpby(device: Device, alpha: number, x: Tensor, beta: number, y: Tensor): void {
  const op = "axpby";
  const n = sizeOf(x);
  check(
    device.symbols,
    device.symbols.sb_axpby(
      device.context,
      finite(op, "alpha", alpha),
      vector(op, "x", x, "real", n),
      typeCode(op, x.dtype),
      finite(op, "beta", beta),
      vector(op, "y", y, "real", n),
      typeCode(op, y.dtype),
      n,
    ),
  );
}

const slots = new WeakMap<Device, number>();
const result = new Float64Array(1);

/** An 8-byte device cell for a sum, made once per device and freed with it. */
function slotOf(device: Device): number {
  const known = slots.get(device);
  if (known !== undefined) return known;
  const slot = allocate(device, 8);
  slots.set(device, slot);
  beforeClose(device, () => {
    slots.delete(device);
    check(device.symbols, device.symbols.sb_free(device.context, slot));
  });
  return slot;
}

/** Σ x² in float64, x f32; waits for the ops before. */
export function sumSquares(device: Device, x: Tensor): number {
  const { symbols, context } = device;
  const n = sizeOf(x);
  const slot = slotOf(device);
  check(symbols, symbols.sb_sum_squares(context, vector("sumSquares", "x", x, "f32", n), n, slot));
  check(symbols, symbols.sb_read(context, slot, result, 8));
  return result[0]!;
}
