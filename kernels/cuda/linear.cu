/*
 * The frozen linear with its low-rank tail, and its input gradient.
 *     forward   y[T,out] = beta·y + gain ⊙ (scale · z[T,r]·uᵀ + x[T,in]·Wᵀ)
 *     backward  dx[T,in] = beta·dx + dy[T,out]·W ,  dz[T,r] = scale · dy·u
 * The tail goes first: its sums are scaled once and W's are added to them, so that bf16 operands are x, z, u and W
 * themselves and not scale·u rounded.
 */
#include "product.h"

namespace gpu {

/* x[T,in] z[T,r] u[out,r] gain[out] or NULL, y[T,out] */
int32_t linear_forward(sb_context *sb, const sb_weight *weight, const void *x, int32_t x_dtype, int64_t T,
                       const void *z, int32_t z_dtype, const void *u, int64_t r, double scale, const void *gain,
                       double beta, void *y, int32_t y_dtype) {
  const Weight &w = held(weight);
  Room room{context(sb), "sb_linear_forward", 0};
  Product product{};
  product.m = T;
  product.n = w.out;
  product.depth = w.in;
  product.left = plain_operand(x, x_dtype, w.in, false);
  product.right = weight_operand(w, false);
  product.results = {y, y_dtype, w.out, 1, static_cast<float>(beta), static_cast<const float *>(gain)};
  product.tail_depth = r;
  product.tail_left = plain_operand(z, z_dtype, r, false);
  product.tail_right = plain_operand(u, SB_F32, r, false);
  product.tail_scale = static_cast<float>(scale);
  product.compute = w.compute;
  if (multiply(room, product)) return 1;
  return finish(room.ctx, room.function);
}

/* dy[T,out] u[out,r] dz[T,r] dx[T,in] or NULL */
int32_t linear_backward(sb_context *sb, const sb_weight *weight, const void *dy, int32_t dy_dtype, int64_t T,
                        const void *u, int64_t r, double scale, void *dz, double beta, void *dx) {
  const Weight &w = held(weight);
  Room room{context(sb), "sb_linear_backward", 0};
  Product product{};
  product.m = T;
  product.n = dx ? w.in : 0;
  product.depth = w.out;
  product.left = plain_operand(dy, dy_dtype, w.out, false);
  product.right = weight_operand(w, true);
  product.results = {dx, SB_F32, w.in, 1, static_cast<float>(beta), nullptr};
  product.beside_n = r;
  product.beside = plain_operand(u, SB_F32, r, true);
  product.beside_results = {dz, SB_F32, r, static_cast<float>(scale), 0, nullptr};
  product.compute = w.compute;
  if (multiply(room, product)) return 1;
  return finish(room.ctx, room.function);
}

} // namespace gpu
