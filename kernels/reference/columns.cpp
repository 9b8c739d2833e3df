/* Ops on chosen columns of a matrix, and one number a column. */
#include "reference.h"

namespace reference {

/* z[t,j] = x[t,columns[j]] · mask[t,columns[j]]; x[T,n] columns[r] z[T,r] */
int32_t gather_columns(sb_context *, const void *x, int32_t x_dtype, int64_t T, int64_t n, const int32_t *columns,
                       int64_t r, const sb_dropout *drop, void *z, int32_t z_dtype) {
  if (check_indices("sb_gather_columns", "columns", columns, r, n)) return 1;
  for (int64_t t = 0; t < T; t++)
    for (int64_t j = 0; j < r; j++)
      store(z, z_dtype, t * r + j, load(x, x_dtype, t * n + columns[j]) * mask(drop, t, columns[j]));
  return 0;
}

/* y[t,columns[j]] += scale · z[t,j] · mask[t,columns[j]]; z[T,r] columns[r] y[T,n] */
int32_t scatter_add_columns(sb_context *, const void *z, int64_t T, int64_t r, const int32_t *columns,
                            const sb_dropout *drop, double scale, void *y, int32_t y_dtype, int64_t n) {
  if (check_indices("sb_scatter_add_columns", "columns", columns, r, n)) return 1;
  for (int64_t t = 0; t < T; t++)
    for (int64_t j = 0; j < r; j++) {
      const int64_t to = t * n + columns[j];
      store(y, y_dtype, to, load(y, y_dtype, to) + scale * reals(z)[t * r + j] * mask(drop, t, columns[j]));
    }
  return 0;
}

/* y[t,j] = x[t,j] · g[j]; x[T,n] g[n] y[T,n]; y may be x. */
int32_t scale_columns(sb_context *, const void *x, const void *g, int64_t T, int64_t n, void *y) {
  for (int64_t t = 0; t < T; t++)
    for (int64_t j = 0; j < n; j++)
      store(y, SB_F32, t * n + j, static_cast<double>(reals(x)[t * n + j]) * reals(g)[j]);
  return 0;
}

/* out[j] += Σ_t a[t,j]·b[t,j] / divisor[j]; a[T,n] b[T,n] divisor[n] or NULL (= 1), out[n] */
int32_t column_dot(sb_context *, const void *a, const void *b, int32_t b_dtype, int64_t T, int64_t n,
                   const void *divisor, void *out) {
  for (int64_t j = 0; j < n; j++) {
    double sum = 0;
    for (int64_t t = 0; t < T; t++) sum += reals(a)[t * n + j] * load(b, b_dtype, t * n + j);
    store(out, SB_F32, j, reals(out)[j] + (divisor ? sum / reals(divisor)[j] : sum));
  }
  return 0;
}

} // namespace reference
