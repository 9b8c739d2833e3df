import { columnsOf, finite, matrix, optionalVector, rowsOf, typeCode, vector } from "../check.ts";
import { check, type Device } from "../device.ts";
import type { Tensor } from "../layout.ts";
import { type Dropout, dropoutStruct } from "./dropout.ts";

function rankOf(op: string, columns: Tensor, n: number): number {
  const r = rowsOf(op, "columns", columns);
  if (r > n) throw new TypeError(`${op}: ${r} distinct columns of a matrix with ${n}.`);
  return r;
}

/** z[T,r] = x[T,n][:, columns] under the mask (null: none); columns[r] i32, distinct; x, z f32 or bf16. */
export function gatherColumns(
  device: Device,
  x: Tensor,
  columns: Tensor,
  drop: Dropout | null,
  z: Tensor,
): void {
  const op = "gatherColumns";
  const T = rowsOf(op, "x", x);
  const n = columnsOf(x);
  const r = rankOf(op, columns, n);
  check(
    device.symbols,
    device.symbols.sb_gather_columns(
      device.context,
      matrix(op, "x", x, "real", T, n),
      typeCode(op, x.dtype),
      T,
      n,
      vector(op, "columns", columns, "i32", r),
      r,
      dropoutStruct(op, drop, T),
      matrix(op, "z", z, "real", T, r),
      typeCode(op, z.dtype),
    ),
  );
}

/** y[T,n][:, columns] += scale · z[T,r] under the mask of those features; z f32, y f32 or bf16. */
export function scatterAddColumns(
  device: Device,
  z: Tensor,
  columns: Tensor,
  drop: Dropout | null,
  scale: number,
  y: Tensor,
): void {
  const op = "scatterAddColumns";
  const T = rowsOf(op, "y", y);
  const n = columnsOf(y);
  const r = rankOf(op, columns, n);
  check(
    device.symbols,
    device.symbols.sb_scatter_add_columns(
      device.context,
      matrix(op, "z", z, "f32", T, r),
      T,
      r,
      vector(op, "columns", columns, "i32", r),
      dropoutStruct(op, drop, T),
      finite(op, "scale", scale),
      matrix(op, "y", y, "real", T, n),
      typeCode(op, y.dtype),
      n,
    ),
  );
}

/** y[T,n] = x ⊙ g[n], every row by the same gains; all f32; y may alias x. */
export function scaleColumns(device: Device, x: Tensor, g: Tensor, y: Tensor): void {
  const op = "scaleColumns";
  const T = rowsOf(op, "x", x);
  const n = columnsOf(x);
  check(
    device.symbols,
    device.symbols.sb_scale_columns(
      device.context,
      matrix(op, "x", x, "f32", T, n),
      vector(op, "g", g, "f32", n),
      T,
      n,
      matrix(op, "y", y, "f32", T, n),
    ),
  );
}

/** out[n] += Σ_t a[t,·]·b[t,·] / divisor[n] (null: 1); a, divisor, out f32, b f32 or bf16. */
export function columnDot(device: Device, a: Tensor, b: Tensor, divisor: Tensor | null, out: Tensor): void {
  const op = "columnDot";
  const T = rowsOf(op, "a", a);
  const n = columnsOf(a);
  check(
    device.symbols,
    device.symbols.sb_column_dot(
      device.context,
      matrix(op, "a", a, "f32", T, n),
      matrix(op, "b", b, "real", T, n),
      typeCode(op, b.dtype),
      T,
      n,
      optionalVector(op, "divisor", divisor, "f32", n),
      vector(op, "out", out, "f32", n),
    ),
  );
}
