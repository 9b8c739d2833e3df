/*
 * Rotary positions. The table: cosine, sine of p·f_i with f_i = theta^(-2i/D), scaled by one of
 *     linear  f/factor
 *     llama3  by wavelength 2π/f: above original/low_factor f/factor, below original/high_factor f, and between them
 *             (1-s)·f/factor + s·f with s = (original/wavelength - low_factor) / (high_factor - low_factor)
 * The rotation of the pair (a, b) = (x[i], x[i+D/2]): (a·cos - b·sin, b·cos + a·sin); inverse: by the negative angle.
 */
#include "reference.h"

namespace reference {

/* cosine[P,D/2] sine[P,D/2] */
int32_t rope_table(sb_context *, int64_t P, int64_t D, double theta, int32_t scaling, double factor, double low_factor,
                   double high_factor, double original, void *cosine, void *sine) {
  const int64_t half = D / 2;
  for (int64_t i = 0; i < half; i++) {
    double f = pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(D));
    if (scaling == 1) f /= factor;
    if (scaling == 2) {
      const double waves = original * f / (2 * M_PI); /* original / wavelength */
      if (waves < low_factor) f /= factor;
      else if (waves <= high_factor) {
        const double s = (waves - low_factor) / (high_factor - low_factor);
        f = (1 - s) * f / factor + s * f;
      }
    }
    for (int64_t p = 0; p < P; p++) {
      store(cosine, SB_F32, p * half + i, cos(static_cast<double>(p) * f));
      store(sine, SB_F32, p * half + i, sin(static_cast<double>(p) * f));
    }
  }
  return 0;
}

/* x[T,heads,D] positions[T] cosine[P,D/2] sine[P,D/2] */
int32_t rope(sb_context *, void *x, int32_t dtype, int64_t T, int64_t heads, int64_t D, const int32_t *positions,
             int64_t P, const void *cosine, const void *sine, int32_t inverse) {
  if (check_indices("sb_rope", "positions", positions, T, P)) return 1;
  const int64_t half = D / 2;
  for (int64_t t = 0; t < T; t++)
    for (int64_t head = 0; head < heads; head++)
      for (int64_t i = 0; i < half; i++) {
        const double c = reals(cosine)[positions[t] * half + i];
        const double s = inverse ? -reals(sine)[positions[t] * half + i] : reals(sine)[positions[t] * half + i];
        const int64_t at = (t * heads + head) * D + i;
        const double a = load(x, dtype, at), b = load(x, dtype, at + half);
        store(x, dtype, at, a * c - b * s);
        store(x, dtype, at + half, b * c + a * s);
      }
  return 0;
}

} // namespace reference
