/*
 * y[t,h] = x[t,h]·rstd[t]·w[h] ,  rstd[t] = 1/√(mean_h x[t,h]² + eps). Backward, with g[h] = dy[t,h]·w[h]:
 *     dx[t,h] += rstd·g[h] - x[t,h]·rstd³·mean_h(g·x) ,  dw[h] += Σ_t dy[t,h]·x[t,h]·rstd[t]
 */
#include "reference.h"

namespace reference {

/* x[T,H] w[H] y[T,H] rstd[T] or NULL */
int32_t rms_norm_forward(sb_context *, const void *x, const void *w, int64_t T, int64_t H, double eps, void *y,
                         int32_t y_dtype, void *rstd) {
  for (int64_t t = 0; t < T; t++) {
    double squares = 0;
    for (int64_t h = 0; h < H; h++) {
      const double value = reals(x)[t * H + h];
      squares += value * value;
    }
    const double scale = 1 / sqrt(squares / static_cast<double>(H) + eps);
    for (int64_t h = 0; h < H; h++) store(y, y_dtype, t * H + h, reals(x)[t * H + h] * scale * reals(w)[h]);
    if (rstd) store(rstd, SB_F32, t, scale);
  }
  return 0;
}

/* dy[T,H] x[T,H] w[H] rstd[T] dx[T,H] dw[H] or NULL */
int32_t rms_norm_backward(sb_context *, const void *dy, const void *x, const void *w, const void *rstd, int64_t T,
                          int64_t H, void *dx, void *dw) {
  for (int64_t t = 0; t < T; t++) {
    const double scale = reals(rstd)[t];
    double dot = 0; /* Σ_h g·x */
    for (int64_t h = 0; h < H; h++)
      dot += static_cast<double>(reals(dy)[t * H + h]) * reals(w)[h] * reals(x)[t * H + h];
    const double shrink = scale * scale * scale * dot / static_cast<double>(H);
    for (int64_t h = 0; h < H; h++) {
      const double g = static_cast<double>(reals(dy)[t * H + h]) * reals(w)[h];
      store(dx, SB_F32, t * H + h, reals(dx)[t * H + h] + scale * g - shrink * reals(x)[t * H + h]);
    }
  }
  for (int64_t h = 0; dw && h < H; h++) {
    double sum = reals(dw)[h];
    for (int64_t t = 0; t < T; t++)
      sum += static_cast<double>(reals(dy)[t * H + h]) * reals(x)[t * H + h] * reals(rstd)[t];
    store(dw, SB_F32, h, sum);
  }
  return 0;
}

} // namespace reference
