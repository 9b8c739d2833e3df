/*
 * The frozen linear with its low-rank tail:
 *     y[t,o] = beta·y[t,o] + gain[o] · ( Σ_i x[t,i]·W[o,i] + scale · Σ_j z[t,j]·u[o,j] )
 * and its input gradient:
 *     dx[t,i] = beta·dx[t,i] + Σ_o dy[t,o]·W[o,i] ;  dz[t,j] = scale · Σ_o dy[t,o]·u[o,j]
 * x, z, u, dy are rounded to the weight's compute type; scale and gain multiply the sums.
 */
#include "reference.h"

namespace reference {

/* x[T,in] z[T,r] u[out,r] gain[out] or NULL, y[T,out] */
int32_t linear_forward(sb_context *, const sb_weight *weight, const void *x, int32_t x_dtype, int64_t T, const void *z,
                       int32_t z_dtype, const void *u, int64_t r, double scale, const void *gain, double beta, void *y,
                       int32_t y_dtype) {
  const int64_t in = weight->in, out = weight->out;
  const int32_t compute = weight->compute;
  for (int64_t t = 0; t < T; t++)
    for (int64_t o = 0; o < out; o++) {
      double main = 0, tail = 0;
      for (int64_t i = 0; i < in; i++)
        main += operand(load(x, x_dtype, t * in + i), compute) * load_weight(weight, o, i);
      for (int64_t j = 0; j < r; j++)
        tail += operand(load(z, z_dtype, t * r + j), compute) * operand(reals(u)[o * r + j], compute);
      const double product = (gain ? reals(gain)[o] : 1.0) * (main + scale * tail);
      store(y, y_dtype, t * out + o, plus_kept(product, beta, y, y_dtype, t * out + o));
    }
  return 0;
}

/* dy[T,out] u[out,r] dz[T,r] dx[T,in] or NULL */
int32_t linear_backward(sb_context *, const sb_weight *weight, const void *dy, int32_t dy_dtype, int64_t T,
                        const void *u, int64_t r, double scale, void *dz, double beta, void *dx) {
  const int64_t in = weight->in, out = weight->out;
  const int32_t compute = weight->compute;
  for (int64_t t = 0; t < T; t++) {
    for (int64_t i = 0; dx && i < in; i++) {
      double sum = 0;
      for (int64_t o = 0; o < out; o++)
        sum += operand(load(dy, dy_dtype, t * out + o), compute) * load_weight(weight, o, i);
      store(dx, SB_F32, t * in + i, plus_kept(sum, beta, dx, SB_F32, t * in + i));
    }
    for (int64_t j = 0; j < r; j++) {
      double sum = 0;
      for (int64_t o = 0; o < out; o++)
        sum += operand(load(dy, dy_dtype, t * out + o), compute) * operand(reals(u)[o * r + j], compute);
      store(dz, SB_F32, t * r + j, scale * sum);
    }
  }
  return 0;
}

} // namespace reference
