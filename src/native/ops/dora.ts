import { vector } from "../check.ts";
import { check, type Device } from "../device.ts";
import { sizeOf, type Tensor } from "../layout.ts";

/** norm[n] = √squares[n], gain[n] = magnitude[n] / norm; all f32; norm may alias squares. */
export function doraGain(
  device: Device,
  squares: Tensor,
  magnitude: Tensor,
  norm: Tensor,
  gain: Tensor,
): void {
  const op = "doraGain";
  const n = sizeOf(squares);
  check(
    device.symbols,
    device.symbols.sb_dora_gain(
      device.context,
      vector(op, "squares", squares, "f32", n),
      vector(op, "magnitude", magnitude, "f32", n),
      n,
      vector(op, "norm", norm, "f32", n),
      vector(op, "gain", gain, "f32", n),
    ),
  );
}
