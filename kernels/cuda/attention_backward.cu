/*
 * The gradients of attention, with P recomputed from lse and δ_i = Σ_d dO_id · O_id:
 *
 *     P = e^(S - lse) ;  dS = P ⊙ (dO·Vᵀ - δ) ;  dq = scale · dS·K ;  dk = scale · dSᵀ·q ;  dv = Pᵀ·dO
 *
 * Every gradient is one sum in order, so there are two passes: dk and dv by blocks of keys, over the query heads of the
 * KV head, one after the other, and the rows of each; then dq by blocks of rows, over the keys. Until a row of dq is
 * written, its memory holds what both passes need of the row (attention_backward_tiles.cu, _plain.cu): no workspace.
 */
#include "attention_backward.h"
#include "attention_tile.cuh"

namespace gpu {

/* q, o, d_o, dq[T,N,D] k, v, dk, dv[T,K,D] lse[T,N] offsets[B+1] */
int32_t attention_backward(sb_context *sb, const void *q, const void *k, const void *v, const void *o, int32_t dtype,
                           const void *d_o, const void *lse, int64_t T, int64_t N, int64_t K, int64_t D,
                           const int32_t *offsets, int64_t B, int64_t longest, double scale, void *dq, void *dk,
                           void *dv) {
  static constexpr char kName[] = "sb_attention_backward";
  Context &ctx = context(sb);
  const Packing packing = make_packing(ctx, kName, offsets, B, T, longest);
  const Backward b = {q, k, v, o, dtype, static_cast<const float *>(d_o), static_cast<const float *>(lse),
                      N, K, D, scale,
                      static_cast<float *>(dq), static_cast<float *>(dk), static_cast<float *>(dv)};
  if (fits_tiles(dtype, D, scale, {q, k, v, o, d_o, dq, dk, dv})) attention_backward_tiles(ctx, b, packing);
  else attention_backward_plain(ctx, b, packing);
  return finish(ctx, kName);
}

} // namespace gpu
