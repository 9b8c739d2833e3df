/* Rows of the embedding by id, and the gradient's way back. */
#include "grid.cuh"
#include "indices.cuh"
#include "weight.h"

namespace gpu {

namespace {

template <class W>
__global__ void embedding_forward_kernel(const W *weight, int64_t stride, int64_t H, const int32_t *ids,
                                         IndexCheck check, float *x) {
  const int64_t t = row_of_block(), i = column_of_thread();
  if (i >= H || !check.good(t, ids[t])) return;
  store_four(x + t * H, i, H, load_four(weight + ids[t] * stride, i, H));
}

/*
 * dw[id,:] += dx[t,:] for every token t of an id, in the order of tokens. The block of an id's first token adds them
 * all; the blocks of its other tokens have nothing to do.
 */
__global__ void embedding_backward_kernel(const int32_t *ids, int64_t T, const float *dx, int64_t H, IndexCheck check,
                                float *dw) {
  constexpr int kWarps = kThreads / kWarpLanes;
  SHARED(unsigned[kWarps], matches); /* of a stretch of kThreads tokens, a bit each */
  const int64_t t = blockIdx.x;
  const int32_t id = ids[t];
  if (!check.good(t, id)) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  for (int64_t from = 0; from < T; from += kThreads) {
    const int64_t other = from + threadIdx.x;
    const unsigned found = __ballot_sync(kAllLanes, other < T && ids[other] == id);
    __syncthreads(); /* the stretch before has been read */
    if (lane == 0) matches[warp] = found;
    __syncthreads();
    for (int w = 0; w < kWarps; w++)
      for (unsigned left = matches[w]; left != 0; left &= left - 1) {
        const int64_t token = from + w * kWarpLanes + __ffs(static_cast<int>(left)) - 1;
        if (token < t) return; /* by all threads: t is not the first */
        for (int64_t h = threadIdx.x; h < H; h += kThreads) dw[id * H + h] += dx[token * H + h];
      }
  }
}

} // namespace

/* W[V,H] ids[T] x[T,H] */
int32_t embedding_forward(sb_context *sb, const sb_weight *weight, const int32_t *ids, int64_t T, void *x) {
  Context &ctx = context(sb);
  const IndexCheck check = check_index(ctx, "sb_embedding_forward", "ids", weight->out);
  with_weight_dtype(weight->dtype, [&](auto zero) {
    using W = decltype(zero);
    launch(ctx, row_grid(T, weight->in), kThreads, 0, embedding_forward_kernel<W>,
           static_cast<const W *>(held(weight).data), held(weight).stride, weight->in, ids, check,
           static_cast<float *>(x));
  });
  return finish(ctx, "sb_embedding_forward");
}

/* ids[T] dx[T,H] dw[V,H] */
int32_t embedding_backward(sb_context *sb, const int32_t *ids, int64_t T, const void *dx, int64_t V, int64_t H,
                           void *dw) {
  Context &ctx = context(sb);
  launch(ctx, dim3(static_cast<unsigned>(T)), kThreads, 0, embedding_backward_kernel, ids, T,
         static_cast<const float *>(dx), H, check_index(ctx, "sb_embedding_backward", "ids", V),
         static_cast<float *>(dw));
  return finish(ctx, "sb_embedding_backward");
}

} // namespace gpu
