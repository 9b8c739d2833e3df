import { finite, randomKey, vector } from "../check.ts";
import { check, type Device } from "../device.ts";
import { sizeOf, type Tensor } from "../layout.ts";

/** Fills x (f32) with uniform numbers in (low, high); element i depends on key and i alone. */
export function randomUniform(device: Device, key: bigint, low: number, high: number, x: Tensor): void {
  const op = "randomUniform";
  const n = sizeOf(x);
  check(
    device.symbols,
    device.symbols.sb_random_uniform(
      device.context,
      randomKey(op, key),
      finite(op, "low", low),
      finite(op, "high", high),
      n,
      vector(op, "x", x, "f32", n),
    ),
  );
}

/** Fills x (f32) with standard normal numbers; element i depends on key and i alone. */
export function randomNormal(device: Device, key: bigint, x: Tensor): void {
  const op = "randomNormal";
  const n = sizeOf(x);
  const to = vector(op, "x", x, "f32", n);
  check(device.symbols, device.symbols.sb_random_normal(device.context, randomKey(op, key), n, to));
}
