/* The gradients of attention: what its two ways, tiles and plain, are given. */
#pragma once
#include "attention_packed.cuh"

namespace gpu {

/* The op's arguments, as sb_attention_backward has them. */
struct Backward {
  const void *q, *k, *v, *o;
  int32_t dtype;
  const float *d_o, *lse;
  int64_t N, K, D;
  double scale;
  float *dq, *dk, *dv;
};

void attention_backward_tiles(Context &ctx, const Backward &b, const Packing &packing);
void attention_backward_plain(Context &ctx, const Backward &b, const Packing &packing);

} // namespace gpu
