/* Whole rows: taken out, added back, scaled, multiplied pairwise. */
#include "grid.cuh"
#include "indices.cuh"
#include "reduce.cuh"

namespace gpu {

namespace {

template <class T>
__global__ void gather_rows_kernel(const T *x, int64_t n, const int32_t *rows, IndexCheck check, T *y) {
  const int64_t m = row_of_block(), i = column_of_thread();
  if (i >= n || !check.good(m, rows[m])) return;
  store_four(y + m * n, i, n, load_four(x + rows[m] * n, i, n));
}

/* rows are distinct: no two threads add to one place. */
__global__ void scatter_add_rows_kernel(const float *y, int64_t n, const int32_t *rows, IndexCheck check, float *x) {
  const int64_t m = row_of_block(), i = column_of_thread();
  if (i >= n || !check.good(m, rows[m])) return;
  float *to = x + rows[m] * n;
  Four sum = load_four(to, i, n);
  const Four more = load_four(y + m * n, i, n);
#pragma unroll
  for (int j = 0; j < kFour; j++) sum.at[j] += more.at[j];
  store_four(to, i, n, sum);
}

__global__ void scale_rows_kernel(const float *x, const float *g, int64_t n, float *y) {
  const int64_t t = row_of_block(), i = column_of_thread();
  if (i >= n) return;
  Four v = load_four(x + t * n, i, n);
#pragma unroll
  for (int j = 0; j < kFour; j++) v.at[j] *= g[t];
  store_four(y + t * n, i, n, v);
}

__global__ void row_dot_kernel(const float *a, const float *b, int64_t n, int64_t r, double alpha, double beta,
                           float *out) {
  const int64_t row = row_of_warp();
  if (row >= n) return;
  float sum = 0;
  for (int64_t j = threadIdx.x; j < r; j += kWarpLanes) sum = fmaf(a[row * r + j], b[row * r + j], sum);
  sum = warp_sum(sum);
  if (threadIdx.x == 0)
    out[row] = static_cast<float>(beta != 0 ? beta * static_cast<double>(out[row]) + alpha * sum : alpha * sum);
}

} // namespace

/* x[·,n] rows[M] y[M,n] */
int32_t gather_rows(sb_context *sb, const void *x, int32_t dtype, int64_t n, const int32_t *rows, int64_t M, void *y) {
  Context &ctx = context(sb);
  const IndexCheck check = check_index(ctx, "sb_gather_rows", "rows", kNoEnd);
  with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(ctx, row_grid(M, n), kThreads, 0, gather_rows_kernel<T>, static_cast<const T *>(x), n, rows, check,
           static_cast<T *>(y));
  });
  return finish(ctx, "sb_gather_rows");
}

/* y[M,n] rows[M] x[·,n] */
int32_t scatter_add_rows(sb_context *sb, const void *y, int64_t n, const int32_t *rows, int64_t M, void *x) {
  Context &ctx = context(sb);
  launch(ctx, row_grid(M, n), kThreads, 0, scatter_add_rows_kernel, static_cast<const float *>(y), n, rows,
         check_index(ctx, "sb_scatter_add_rows", "rows", kNoEnd), static_cast<float *>(x));
  return finish(ctx, "sb_scatter_add_rows");
}

/* x[T,n] g[T] y[T,n]; y may be x. */
int32_t scale_rows(sb_context *sb, const void *x, const void *g, int64_t T, int64_t n, void *y) {
  Context &ctx = context(sb);
  launch(ctx, row_grid(T, n), kThreads, 0, scale_rows_kernel, static_cast<const float *>(x),
         static_cast<const float *>(g), n, static_cast<float *>(y));
  return finish(ctx, "sb_scale_rows");
}

/* a[n,r] b[n,r] out[n] */
int32_t row_dot(sb_context *sb, const void *a, const void *b, int64_t n, int64_t r, double alpha, double beta,
                void *out) {
  Context &ctx = context(sb);
  launch(ctx, warp_grid(n), warp_block(), 0, row_dot_kernel, static_cast<const float *>(a),
         static_cast<const float *>(b), n, r, alpha, beta, static_cast<float *>(out));
  return finish(ctx, "sb_row_dot");
}

} // namespace gpu
