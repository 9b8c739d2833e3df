import { columnsOf, finite, matrix, rowsOf, typeCode, vector, whole } from "../check.ts";
import { check, type Device } from "../device.ts";
import type { Tensor } from "../layout.ts";

/** cosine[P,D/2], sine[P,D/2] f32. */
export interface RopeTable {
  readonly cosine: Tensor;
  readonly sine: Tensor;
}

export type RopeScaling =
  | null
  | { readonly type: "linear"; readonly factor: number }
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositions: number;
    };

export interface RopeSetup {
  readonly positions: number;
  readonly headSize: number;
  readonly theta: number;
  readonly scaling: RopeScaling;
}

/** Fills `table` for positions 0..P-1 of heads of size D: angle = p · theta^(-2i/D), scaled. */
export function ropeTable(device: Device, setup: RopeSetup, table: RopeTable): void {
  const op = "ropeTable";
  const { positions: P, headSize: D, theta, scaling } = setup;
  whole(op, "positions", P, 1, 2 ** 31 - 1);
  if (D % 2 !== 0) throw new TypeError(`${op}: the head size ${D} is odd.`);
  const llama3 = scaling?.type === "llama3" ? scaling : null;
  check(
    device.symbols,
    device.symbols.sb_rope_table(
      device.context,
      P,
      whole(op, "headSize", D, 2, 2 ** 20),
      finite(op, "theta", theta),
      scaling === null ? 0 : llama3 === null ? 1 : 2,
      finite(op, "factor", scaling?.factor ?? 1),
      finite(op, "lowFreqFactor", llama3?.lowFreqFactor ?? 1),
      finite(op, "highFreqFactor", llama3?.highFreqFactor ?? 1),
      finite(op, "originalMaxPositions", llama3?.originalMaxPositions ?? 1),
      matrix(op, "cosine", table.cosine, "f32", P, D / 2),
      matrix(op, "sine", table.sine, "f32", P, D / 2),
    ),
  );
}

/**
 * Rotates x[T, heads·D] (f32 or bf16) in place by positions[T] i32, each below the table's rows; pairs are (i, i+D/2) as
 * in Hugging Face's LLaMA. `inverse` is the transpose: the backward pass.
 */
export function rope(
  device: Device,
  x: Tensor,
  heads: number,
  positions: Tensor,
  table: RopeTable,
  inverse = false,
): void {
  const op = "rope";
  const T = rowsOf(op, "x", x);
  const P = rowsOf(op, "cosine", table.cosine);
  const D = 2 * columnsOf(table.cosine);
  check(
    device.symbols,
    device.symbols.sb_rope(
      device.context,
      matrix(op, "x", x, "real", T, whole(op, "heads", heads, 1, 2 ** 20) * D),
      typeCode(op, x.dtype),
      T,
      heads,
      D,
      vector(op, "positions", positions, "i32", T),
      P,
      matrix(op, "cosine", table.cosine, "f32", P, D / 2),
      matrix(op, "sine", table.sine, "f32", P, D / 2),
      inverse ? 1 : 0,
    ),
  );
}
