import { columnsOf, finite, matrix, rowsOf, typeCode, vector } from "../check.ts";
import { check, type Device } from "../device.ts";
import { describeTensor, type Tensor } from "../layout.ts";
import { sameType } from "./attention.ts";

/** y[M,n] = x[rows,:]; rows[M] i32, each below x's rows; x, y of one type (f32 or bf16). */
export function gatherRows(device: Device, x: Tensor, rows: Tensor, y: Tensor): void {
  const op = "gatherRows";
  const n = columnsOf(x);
  const M = rowsOf(op, "rows", rows);
  sameType(op, "y", y, x);
  check(
    device.symbols,
    device.symbols.sb_gather_rows(
      device.context,
      matrix(op, "x", x, "real", rowsOf(op, "x", x), n),
      typeCode(op, x.dtype),
      n,
      vector(op, "rows", rows, "i32", M),
      M,
      matrix(op, "y", y, "real", M, n),
    ),
  );
}

/** x[rows,:] += y[M,n]; rows[M] i32, distinct, each below x's rows; f32. */
export function scatterAddRows(device: Device, y: Tensor, rows: Tensor, x: Tensor): void {
  const op = "scatterAddRows";
  const n = columnsOf(x);
  const M = rowsOf(op, "rows", rows);
  if (M > rowsOf(op, "x", x)) {
    throw new TypeError(`${op}: ${M} distinct rows of ${describeTensor(x)}.`);
  }
  check(
    device.symbols,
    device.symbols.sb_scatter_add_rows(
      device.context,
      matrix(op, "y", y, "f32", M, n),
      n,
      vector(op, "rows", rows, "i32", M),
      M,
      matrix(op, "x", x, "f32", rowsOf(op, "x", x), n),
    ),
  );
}

/** y[T,n]: row t of x times g[T]; all f32; y may alias x. */
export function scaleRows(device: Device, x: Tensor, g: Tensor, y: Tensor): void {
  const op = "scaleRows";
  const T = rowsOf(op, "x", x);
  const n = columnsOf(x);
  check(
    device.symbols,
    device.symbols.sb_scale_rows(
      device.context,
      matrix(op, "x", x, "f32", T, n),
      vector(op, "g", g, "f32", T),
      T,
      n,
      matrix(op, "y", y, "f32", T, n),
    ),
  );
}

/** out[n] = beta·out + alpha · Σ_j a[n,j]·b[n,j]; all f32. */
export function rowDot(device: Device, a: Tensor, b: Tensor, alpha: number, beta: number, out: Tensor): void {
  const op = "rowDot";
  const n = rowsOf(op, "a", a);
  const r = columnsOf(a);
  check(
    device.symbols,
    device.symbols.sb_row_dot(
      device.context,
      matrix(op, "a", a, "f32", n, r),
      matrix(op, "b", b, "f32", n, r),
      n,
      r,
      finite(op, "alpha", alpha),
      finite(op, "beta", beta),
      vector(op, "out", out, "f32", n),
    ),
  );
}
