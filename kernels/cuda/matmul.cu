/* c = beta·c + alpha · op(a)·op(b): the factor gradients and every small product. */
#include "product.h"

namespace gpu {

/*
 * A result that is small beside its depth would keep few of the device's multiprocessors busy: its depth is cut, by the
 * shape alone. Only where a is transposed, as in factor gradients: then the depth is the tokens of a batch, else the
 * results' rows are, and a row must not depend on how many there are.
 */
static int64_t piece_of(int64_t m, int64_t n, int64_t k) {
  const int64_t pieces = kPieceBlocks / (ceil_div(m, kPieceTile) * ceil_div(n, kPieceTile));
  if (pieces < 2) return 0;
  const int64_t piece = ceil_div(ceil_div(k, pieces), kPieceStep) * kPieceStep;
  return piece < kPieceLeast ? kPieceLeast : piece;
}

/* As stored: a[m,k] or a[k,m], b[k,n] or b[n,k], c[m,n]; their rows lda, ldb, ldc elements apart. */
int32_t matmul(sb_context *sb, int32_t transpose_a, int32_t transpose_b, int64_t m, int64_t n, int64_t k, double alpha,
               const void *a, int32_t a_dtype, int64_t lda, const void *b, int32_t b_dtype, int64_t ldb, double beta,
               void *c, int32_t c_dtype, int64_t ldc, int32_t compute) {
  Room room{context(sb), "sb_matmul", 0};
  Product product{};
  product.m = m;
  product.n = n;
  product.depth = k;
  product.left = plain_operand(a, a_dtype, lda, transpose_a != 0);
  product.right = plain_operand(b, b_dtype, ldb, transpose_b == 0);
  product.results = {c, c_dtype, ldc, static_cast<float>(alpha), static_cast<float>(beta), nullptr};
  product.piece = transpose_a ? piece_of(m, n, k) : 0;
  product.compute = compute;
  if (multiply(room, product)) return 1;
  return finish(room.ctx, room.function);
}

} // namespace gpu
