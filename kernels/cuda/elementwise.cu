/* axpby (also the cast) and the sum of squares behind a gradient's norm. */
#include "grid.cuh"
#include "reduce.cuh"

namespace gpu {

namespace {

template <class X, class Y> __global__ void axpby_kernel(float alpha, const X *x, float beta, Y *y, int64_t n) {
  const int64_t i = flat_index();
  if (i >= n) return;
  Four v = load_four(x, i, n);
#pragma unroll
  for (int j = 0; j < kFour; j++) v.at[j] *= alpha;
  if (beta != 0) {
    const Four before = load_four(y, i, n);
#pragma unroll
    for (int j = 0; j < kFour; j++) v.at[j] = fmaf(beta, before.at[j], v.at[j]);
  }
  store_four(y, i, n, v);
}

/* sums[b] = Σ x² of slice b. */
__global__ void sum_squares_slice_kernel(const float *x, int64_t n, int64_t slice, double *sums) {
  const int64_t first = int64_t{blockIdx.x} * slice, last = first + slice < n ? first + slice : n;
  double sum = 0;
  for (int64_t i = first + int64_t{threadIdx.x} * kFour; i < last; i += kTile) {
    const Four v = load_four(x, i, last);
#pragma unroll
    for (int j = 0; j < kFour; j++) sum += static_cast<double>(v.at[j]) * static_cast<double>(v.at[j]);
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void sum_squares_total_kernel(const double *sums, int slices, double *total) {
  const int i = static_cast<int>(threadIdx.x);
  const double sum = block_sum<kPartialSums>(i < slices ? sums[i] : 0.0);
  if (i == 0) *total = sum;
}

} // namespace

/* x[n] y[n] */
int32_t axpby(sb_context *sb, double alpha, const void *x, int32_t x_dtype, double beta, void *y, int32_t y_dtype,
              int64_t n) {
  Context &ctx = context(sb);
  with_dtype(x_dtype, [&](auto from) {
    with_dtype(y_dtype, [&](auto to) {
      using X = decltype(from);
      using Y = decltype(to);
      launch(ctx, flat_grid(n), kThreads, 0, axpby_kernel<X, Y>, static_cast<float>(alpha), static_cast<const X *>(x),
             static_cast<float>(beta), static_cast<Y *>(y), n);
    });
  });
  return finish(ctx, "sb_axpby");
}

/* x[n] sum[1]. At most kPartialSums slices, whose length depends on n alone. */
int32_t sum_squares(sb_context *sb, const void *x, int64_t n, double *sum) {
  Context &ctx = context(sb);
  const int64_t slice = ceil_div(ceil_div(n, kPartialSums), kTile) * kTile;
  const int slices = n == 0 ? 0 : static_cast<int>(ceil_div(n, slice));
  launch(ctx, dim3(slices), kThreads, 0, sum_squares_slice_kernel, static_cast<const float *>(x), n, slice,
         ctx.partial_sums);
  launch(ctx, 1, kPartialSums, 0, sum_squares_total_kernel, ctx.partial_sums, slices, sum);
  return finish(ctx, "sb_sum_squares");
}

} // namespace gpu
