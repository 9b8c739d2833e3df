/* Ops on chosen rows of a matrix, and one number a row. */
#include "reference.h"

namespace reference {

/* y[m,:] = x[rows[m],:]; x[·,n] rows[M] y[M,n] */
int32_t gather_rows(sb_context *, const void *x, int32_t dtype, int64_t n, const int32_t *rows, int64_t M, void *y) {
  if (check_not_negative("sb_gather_rows", "rows", rows, M)) return 1;
  for (int64_t m = 0; m < M; m++)
    for (int64_t j = 0; j < n; j++) store(y, dtype, m * n + j, load(x, dtype, rows[m] * n + j));
  return 0;
}

/* x[rows[m],:] += y[m,:]; y[M,n] rows[M] x[·,n] */
int32_t scatter_add_rows(sb_context *, const void *y, int64_t n, const int32_t *rows, int64_t M, void *x) {
  if (check_not_negative("sb_scatter_add_rows", "rows", rows, M)) return 1;
  for (int64_t m = 0; m < M; m++)
    for (int64_t j = 0; j < n; j++) {
      const int64_t to = rows[m] * n + j;
      store(x, SB_F32, to, static_cast<double>(reals(x)[to]) + reals(y)[m * n + j]);
    }
  return 0;
}

/* y[t,j] = x[t,j] · g[t]; x[T,n] g[T] y[T,n]; y may be x. */
int32_t scale_rows(sb_context *, const void *x, const void *g, int64_t T, int64_t n, void *y) {
  for (int64_t t = 0; t < T; t++)
    for (int64_t j = 0; j < n; j++)
      store(y, SB_F32, t * n + j, static_cast<double>(reals(x)[t * n + j]) * reals(g)[t]);
  return 0;
}

/* out[i] = beta·out[i] + alpha · Σ_j a[i,j]·b[i,j]; a[n,r] b[n,r] out[n] */
int32_t row_dot(sb_context *, const void *a, const void *b, int64_t n, int64_t r, double alpha, double beta,
                void *out) {
  for (int64_t i = 0; i < n; i++) {
    double sum = 0;
    for (int64_t j = 0; j < r; j++) sum += static_cast<double>(reals(a)[i * r + j]) * reals(b)[i * r + j];
    store(out, SB_F32, i, plus_kept(alpha * sum, beta, out, SB_F32, i));
  }
  return 0;
}

} // namespace reference
