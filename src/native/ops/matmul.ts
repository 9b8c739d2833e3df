import { finite, matrix, type Real, typeCode } from "../check.ts";
import { check, type Device } from "../device.ts";
import { describeTensor, type Tensor } from "../layout.ts";

export interface Product {
  /** [m,k], or [k,m] with transposeA; f32 or bf16. */
  readonly a: Tensor;
  /** [k,n], or [n,k] with transposeB; f32 or bf16. */
  readonly b: Tensor;
  /** [m,n]; f32 or bf16. */
  readonly c: Tensor;
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  readonly alpha?: number;
  readonly beta?: number;
  /** Type the operands are rounded to; default f32. */
  readonly compute?: Real;
}

function side(name: string, tensor: Tensor, axis: 0 | 1): number {
  const length = tensor.shape[axis];
  if (tensor.shape.length !== 2 || length === undefined) {
    throw new TypeError(`matmul: ${name} is ${describeTensor(tensor)}; expected a matrix.`);
  }
  return length;
}

/** c = beta·c + alpha · op(a)·op(b). */
export function matmul(device: Device, product: Product): void {
  const { a, b, c, transposeA = false, transposeB = false, alpha = 1, beta = 0 } = product;
  const op = "matmul";
  const m = side("c", c, 0);
  const n = side("c", c, 1);
  const k = side("a", a, transposeA ? 0 : 1);
  const lda = transposeA ? m : k;
  const ldb = transposeB ? k : n;
  side("b", b, 0);
  check(
    device.symbols,
    device.symbols.sb_matmul(
      device.context,
      transposeA ? 1 : 0,
      transposeB ? 1 : 0,
      m,
      n,
      k,
      finite(op, "alpha", alpha),
      matrix(op, transposeA ? "a (transposed)" : "a", a, "real", transposeA ? k : m, lda),
      typeCode(op, a.dtype),
      lda,
      matrix(op, transposeB ? "b (transposed)" : "b", b, "real", transposeB ? n : k, ldb),
      typeCode(op, b.dtype),
      ldb,
      finite(op, "beta", beta),
      matrix(op, "c", c, "real", m, n),
      typeCode(op, c.dtype),
      n,
      typeCode(op, product.compute ?? "f32"),
    ),
  );
}
