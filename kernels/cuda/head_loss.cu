/*
 * Head and cross-entropy by blocks of rows that depend on the vocabulary alone: logits of one block, the loss, then
 * dlogits, from which dx and dw are made before the next block overwrites them.
 */
#include "indices.cuh"
#include "product.h"
#include "numbers.cuh"

namespace gpu {

namespace {

constexpr int kLossThreads = 1024;

/* A part of Σ exp(logit - most). */
struct Exponentials {
  float most, sum;

  __device__ __forceinline__ void add(const Exponentials &other) {
    const float larger = fmaxf(most, other.most);
    if (larger == -INFINITY) return;
    sum = sum * expf(most - larger) + other.sum * expf(other.most - larger);
    most = larger;
  }
};

/* Of a whole block, by a fixed tree; every thread gets it. */
__device__ __forceinline__ Exponentials merge_block(Exponentials mine) {
  SHARED(Exponentials[kWarpLanes], parts);
  const auto merge_warp = [](Exponentials &part) {
#pragma unroll
    for (int distance = kWarpLanes / 2; distance > 0; distance /= 2)
      part.add({__shfl_xor_sync(kAllLanes, part.most, distance), __shfl_xor_sync(kAllLanes, part.sum, distance)});
  };
  merge_warp(mine);
  if (threadIdx.x % kWarpLanes == 0) parts[threadIdx.x / kWarpLanes] = mine;
  __syncthreads();
  Exponentials all = parts[threadIdx.x % kWarpLanes];
  merge_warp(all);
  return all;
}

/* loss of a row; with dlogits (of the compute type, [rows,width], zeros behind V), also weight·(softmax - onehot), which
 * may take the place of the logits. */
template <class D>
__global__ void __launch_bounds__(kLossThreads)
    head_loss_kernel(const float *logits, int64_t V, int64_t width, const int32_t *targets, int64_t first,
                     IndexCheck check, const float *weights, float *loss, D *dlogits) {
  const int64_t row = blockIdx.x;
  const int32_t target = targets[row];
  if (!check.good(first + row, target)) return;
  const float *from = logits + row * width, at_target = from[target];
  Exponentials mine{-INFINITY, 0};
  for (int64_t i = int64_t{threadIdx.x} * kFour; i < V; i += kLossThreads * kFour) {
    const Four v = load_four(from, i, V);
    float most = v.at[0];
#pragma unroll
    for (int j = 1; j < kFour; j++)
      if (i + j < V) most = fmaxf(most, v.at[j]);
    float sum = 0;
#pragma unroll
    for (int j = 0; j < kFour; j++)
      if (i + j < V) sum += expf(v.at[j] - most);
    mine.add({most, sum});
  }
  const Exponentials all = merge_block(mine); /* at_target has been read by all */
  const float log_sum = all.most + logf(all.sum);
  if (threadIdx.x == 0) loss[row] = log_sum - at_target;
  if (!dlogits) return;
  const float weight = weights[row];
  for (int64_t i = int64_t{threadIdx.x} * kFour; i < width; i += kLossThreads * kFour) {
    Four v = load_four(from, i, V);
#pragma unroll
    for (int j = 0; j < kFour; j++) {
      const float p = i + j < V ? expf(v.at[j] - log_sum) : 0.0f;
      v.at[j] = weight * (i + j == target ? p - 1.0f : p);
    }
    store_four(dlogits + row * width, i, width, v);
  }
}

/* Of rows first.. of the op. */
struct HeadBlock {
  int64_t first, rows;
  Operand x, gradients; /* [rows,H], [rows,V] */
  float *logits;
};

} // namespace

static int32_t logits_of(Room room, const Weight &w, const HeadBlock &block, int64_t width) {
  Product product{};
  product.m = block.rows;
  product.n = w.out;
  product.depth = w.in;
  product.left = block.x;
  product.right = weight_operand(w, false);
  product.results = {block.logits, SB_F32, width, 1, 0, nullptr};
  product.compute = w.compute;
  return multiply(room, product);
}

/* dx[rows,H]: its depth is the vocabulary, cut by the vocabulary. */
static int32_t input_gradient(Room room, const Weight &w, const HeadBlock &block, float *dx) {
  Product product{};
  product.m = block.rows;
  product.n = w.in;
  product.depth = w.out;
  product.left = block.gradients;
  product.right = weight_operand(w, true);
  product.results = {dx, SB_F32, w.in, 1, 0, nullptr};
  product.piece = kHeadPiece;
  product.compute = w.compute;
  return multiply(room, product);
}

/* dw[V,H] += */
static int32_t head_gradient(Room room, const Weight &w, const HeadBlock &block, float *dw) {
  Product product{};
  product.m = w.out;
  product.n = w.in;
  product.depth = block.rows;
  product.left = block.gradients;
  product.left.across = true;
  product.right = block.x;
  product.right.across = true;
  product.results = {dw, SB_F32, w.in, 1, 1, nullptr};
  product.compute = w.compute;
  return multiply(room, product);
}

/* x[M,H] W[V,H] targets[M] weights[M] loss[M] dx[M,H] or NULL, dw[V,H] or NULL */
int32_t head_loss(sb_context *sb, const sb_weight *weight, const void *x, int32_t x_dtype, int64_t M,
                  const int32_t *targets, const void *weights, void *loss, void *dx, void *dw) {
  Context &ctx = context(sb);
  const Weight &w = held(weight);
  const int64_t V = w.out, H = w.in, width = head_width(V), step = head_rows(V), most = M < step ? M : step;
  const bool gradient = dx || dw, narrow = w.compute == SB_BF16;
  Room room{ctx, "sb_head_loss", 0};
  auto *logits = static_cast<float *>(take(room, most * width * 4));
  void *dlogits = !logits || !gradient ? nullptr : narrow ? take(room, most * width * 2) : logits;
  if (!logits || (gradient && !dlogits)) return 1;
  const IndexCheck check = check_index(ctx, room.function, "targets", V);
  for (int64_t first = 0; first < M; first += step) {
    HeadBlock block{first, M - first < step ? M - first : step, {}, {}, logits};
    const auto *input = static_cast<const unsigned char *>(x) + first * H * (x_dtype == SB_F32 ? 4 : 2);
    block.x = plain_operand(input, x_dtype, H, false);
    block.gradients = plain_operand(dlogits, w.compute, width, false);
    if (logits_of(room, w, block, width)) return 1;
    with_dtype(w.compute, [&](auto zero) {
      using D = decltype(zero);
      launch(ctx, dim3(static_cast<unsigned>(block.rows)), kLossThreads, 0, head_loss_kernel<D>,
             static_cast<const float *>(logits), V, width, targets + first, first, check,
             weights ? static_cast<const float *>(weights) + first : nullptr, static_cast<float *>(loss) + first,
             static_cast<D *>(dlogits));
    });
    if (dx && input_gradient(room, w, block, static_cast<float *>(dx) + first * H)) return 1;
    if (dw && head_gradient(room, w, block, static_cast<float *>(dw))) return 1;
  }
  return finish(ctx, room.function);
}

} // namespace gpu
