import { columnsOf, finite, matrix, randomKey, rowsOf, typeCode, vector, whole } from "../check.ts";
import { check, type Device } from "../device.ts";
import type { Tensor } from "../layout.ts";

/**
 * Inverted dropout whose mask is a function of (key, module, record, position, feature) alone: never stored, the same
 * packed or alone, the same in backward.
 */
export interface Dropout {
  /** 0 ≤ p < 1 */
  readonly p: number;
  /** Stream of the run and the optimizer step. */
  readonly key: bigint;
  /** Which adapted linear; 32 bits. */
  readonly module: number;
  /** [T] i32 */
  readonly record: Tensor;
  /** [T] i32: position in the record. */
  readonly position: Tensor;
}

// One sb_dropout, filled for each call and read by the library before the call returns.
const packed = new Uint8Array(40);
const fields = new DataView(packed.buffer);

/** `sb_dropout` of T rows for a native call; null stays NULL. Valid until the next call of this function. */
export function dropoutStruct(op: string, drop: Dropout | null, T: number): Uint8Array | null {
  if (drop === null) return null;
  if (!(drop.p >= 0 && drop.p < 1)) throw new TypeError(`${op}: p is ${drop.p}; expected 0 ≤ p < 1.`);
  fields.setFloat64(0, drop.p, true);
  fields.setBigUint64(8, randomKey(op, drop.key), true);
  fields.setUint32(16, whole(op, "module", drop.module, 0, 2 ** 32 - 1), true);
  setAddress(24, vector(op, "record", drop.record, "i32", T));
  setAddress(32, vector(op, "position", drop.position, "i32", T));
  return packed;
}

function setAddress(offset: number, address: number): void {
  fields.setUint32(offset, address % 2 ** 32, true);
  fields.setUint32(offset + 4, Math.floor(address / 2 ** 32), true);
}

/** y[T,n] = beta·y + dropout(x[T,n]); f32 or bf16; y may alias x when beta = 0 and the types agree. */
export function dropoutApply(device: Device, x: Tensor, drop: Dropout, y: Tensor, beta = 0): void {
  const op = "dropoutApply";
  const T = rowsOf(op, "x", x);
  const n = columnsOf(x);
  check(
    device.symbols,
    device.symbols.sb_dropout_apply(
      device.context,
      matrix(op, "x", x, "real", T, n),
      typeCode(op, x.dtype),
      T,
      n,
      dropoutStruct(op, drop, T),
      finite(op, "beta", beta),
      matrix(op, "y", y, "real", T, n),
      typeCode(op, y.dtype),
    ),
  );
}
