/* x[t,:] = W[ids[t],:] ; backward dw[ids[t],:] += dx[t,:], each vocabulary row in token order. */
#include "reference.h"

namespace reference {

/* W[V,H] ids[T] x[T,H] */
int32_t embedding_forward(sb_context *, const sb_weight *weight, const int32_t *ids, int64_t T, void *x) {
  if (check_indices("sb_embedding_forward", "ids", ids, T, weight->out)) return 1;
  const int64_t H = weight->in;
  for (int64_t t = 0; t < T; t++)
    for (int64_t h = 0; h < H; h++) store(x, SB_F32, t * H + h, load_weight(weight, ids[t], h));
  return 0;
}

/* ids[T] dx[T,H] dw[V,H] */
int32_t embedding_backward(sb_context *, const int32_t *ids, int64_t T, const void *dx, int64_t V, int64_t H,
                           void *dw) {
  if (check_indices("sb_embedding_backward", "ids", ids, T, V)) return 1;
  std::vector<double> sums(static_cast<size_t>(H));
  for (int64_t v = 0; v < V; v++) {
    bool seen = false;
    for (int64_t h = 0; h < H; h++) sums[h] = reals(dw)[v * H + h];
    for (int64_t t = 0; t < T; t++) {
      if (ids[t] != v) continue;
      seen = true;
      for (int64_t h = 0; h < H; h++) sums[h] += reals(dx)[t * H + h];
    }
    for (int64_t h = 0; seen && h < H; h++) store(dw, SB_F32, v * H + h, sums[h]);
  }
  return 0;
}

} // namespace reference
