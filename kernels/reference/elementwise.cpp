/* y = beta·y + alpha·x ; *sum = Σ x². */
#include "reference.h"

namespace reference {

/* x[n] y[n] */
int32_t axpby(sb_context *, double alpha, const void *x, int32_t x_dtype, double beta, void *y, int32_t y_dtype,
              int64_t n) {
  for (int64_t i = 0; i < n; i++)
    store(y, y_dtype, i, plus_kept(alpha * load(x, x_dtype, i), beta, y, y_dtype, i));
  return 0;
}

/* x[n] sum[1], float64 in every build */
int32_t sum_squares(sb_context *, const void *x, int64_t n, double *sum) {
  double total = 0;
  for (int64_t i = 0; i < n; i++) {
    const double value = reals(x)[i];
    total += value * value;
  }
  *sum = total;
  return 0;
}

} // namespace reference
