/*
 * c[i,j] = beta·c[i,j] + alpha · Σ_q op(a)[i,q]·op(b)[q,j], op = transpose when its flag is set; a, b are rounded to
 * the compute type.
 */
#include "reference.h"

namespace reference {

/* As stored: a[m,k] or a[k,m], b[k,n] or b[n,k], c[m,n]; their rows lda, ldb, ldc elements apart. */
int32_t matmul(sb_context *, int32_t transpose_a, int32_t transpose_b, int64_t m, int64_t n, int64_t k, double alpha,
               const void *a, int32_t a_dtype, int64_t lda, const void *b, int32_t b_dtype, int64_t ldb, double beta,
               void *c, int32_t c_dtype, int64_t ldc, int32_t compute) {
  for (int64_t i = 0; i < m; i++)
    for (int64_t j = 0; j < n; j++) {
      double sum = 0;
      for (int64_t q = 0; q < k; q++) {
        const double left = load(a, a_dtype, transpose_a ? q * lda + i : i * lda + q);
        const double right = load(b, b_dtype, transpose_b ? j * ldb + q : q * ldb + j);
        sum += operand(left, compute) * operand(right, compute);
      }
      store(c, c_dtype, i * ldc + j, plus_kept(alpha * sum, beta, c, c_dtype, i * ldc + j));
    }
  return 0;
}

} // namespace reference
