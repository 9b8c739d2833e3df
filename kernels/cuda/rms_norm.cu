/* RMS norm: a block a row for y and dx, columns for dw. */
#include "grid.cuh"
#include "reduce.cuh"

namespace gpu {

namespace {

template <class Y>
__global__ void rms_norm_forward_kernel(const float *x, const float *w, int64_t H, double eps, Y *y, float *rstd) {
  const int64_t t = blockIdx.x;
  const float *row = x + t * H;
  float squares = 0;
  for (int64_t i = int64_t{threadIdx.x} * kFour; i < H; i += kTile) {
    const Four v = load_four(row, i, H);
#pragma unroll
    for (int j = 0; j < kFour; j++) squares = fmaf(v.at[j], v.at[j], squares);
  }
  squares = block_sum<kThreads>(squares);
  const float scale = static_cast<float>(1 / sqrt(static_cast<double>(squares) / static_cast<double>(H) + eps));
  if (rstd && threadIdx.x == 0) rstd[t] = scale;
  for (int64_t i = int64_t{threadIdx.x} * kFour; i < H; i += kTile) {
    Four v = load_four(row, i, H);
    const Four weight = load_four(w, i, H);
#pragma unroll
    for (int j = 0; j < kFour; j++) v.at[j] = v.at[j] * scale * weight.at[j];
    store_four(y + t * H, i, H, v);
  }
}

/* dx += rstd·(dy ⊙ w) - x · rstd³/H · Σ dy ⊙ w ⊙ x */
__global__ void rms_norm_backward_kernel(const float *dy, const float *x, const float *w, const float *rstd, int64_t H,
                                float *dx) {
  const int64_t t = blockIdx.x, row = t * H;
  float dot = 0;
  for (int64_t i = int64_t{threadIdx.x} * kFour; i < H; i += kTile) {
    const Four d = load_four(dy + row, i, H), v = load_four(x + row, i, H), weight = load_four(w, i, H);
#pragma unroll
    for (int j = 0; j < kFour; j++) dot = fmaf(d.at[j] * weight.at[j], v.at[j], dot);
  }
  dot = block_sum<kThreads>(dot);
  const double r = rstd[t];
  const float scale = rstd[t], along = static_cast<float>(-dot * r * r * r / static_cast<double>(H));
  for (int64_t i = int64_t{threadIdx.x} * kFour; i < H; i += kTile) {
    const Four d = load_four(dy + row, i, H), v = load_four(x + row, i, H), weight = load_four(w, i, H);
    Four sum = load_four(dx + row, i, H);
#pragma unroll
    for (int j = 0; j < kFour; j++) sum.at[j] += fmaf(along, v.at[j], scale * (d.at[j] * weight.at[j]));
    store_four(dx + row, i, H, sum);
  }
}

/* dw += Σ_t rstd·(dy ⊙ x) */
__global__ void rms_norm_weight_kernel(const float *dy, const float *x, const float *rstd, int64_t T, int64_t H,
                                       float *dw) {
  sum_columns(
      T, H,
      [&](float sum, int64_t t, int64_t h) { return fmaf(dy[t * H + h], x[t * H + h] * rstd[t], sum); },
      [&](int64_t h, float sum) { dw[h] += sum; });
}

} // namespace

/* x[T,H] w[H] y[T,H] rstd[T] or NULL */
int32_t rms_norm_forward(sb_context *sb, const void *x, const void *w, int64_t T, int64_t H, double eps, void *y,
                         int32_t y_dtype, void *rstd) {
  Context &ctx = context(sb);
  with_dtype(y_dtype, [&](auto zero) {
    using Y = decltype(zero);
    launch(ctx, dim3(static_cast<unsigned>(T)), kThreads, 0, rms_norm_forward_kernel<Y>, static_cast<const float *>(x),
           static_cast<const float *>(w), H, eps, static_cast<Y *>(y), static_cast<float *>(rstd));
  });
  return finish(ctx, "sb_rms_norm_forward");
}

/* dy[T,H] x[T,H] w[H] rstd[T] dx[T,H] dw[H] or NULL */
int32_t rms_norm_backward(sb_context *sb, const void *dy, const void *x, const void *w, const void *rstd, int64_t T,
                          int64_t H, void *dx, void *dw) {
  Context &ctx = context(sb);
  const auto f = [](const void *tensor) { return static_cast<const float *>(tensor); };
  launch(ctx, dim3(static_cast<unsigned>(T)), kThreads, 0, rms_norm_backward_kernel, f(dy), f(x), f(w), f(rstd), H,
         static_cast<float *>(dx));
  if (dw && T > 0)
    launch(ctx, column_grid(H), column_block(), 0, rms_norm_weight_kernel, f(dy), f(x), f(rstd), T, H,
           static_cast<float *>(dw));
  return finish(ctx, "sb_rms_norm_backward");
}

} // namespace gpu
