/* Chosen columns (SBoRA's one-hot factors) and products along columns (DoRA). */
#include "grid.cuh"
#include "indices.cuh"
#include "philox.cuh"

namespace gpu {

namespace {

template <class X, class Z>
__global__ void gather_columns_kernel(const X *x, int64_t T, int64_t n, const int32_t *columns, int64_t r,
                                      DropoutMask mask, IndexCheck check, Z *z) {
  const int64_t t = row_of_warp();
  if (t >= T) return;
  for (int64_t j = threadIdx.x; j < r; j += kWarpLanes) {
    const int32_t column = columns[j];
    if (!check.good(j, column)) continue;
    z[t * r + j] = to_element<Z>(to_float(x[t * n + column]) * mask.factor(t, column));
  }
}

/* columns are distinct: no two lanes add to one place. */
template <class Y>
__global__ void scatter_add_columns_kernel(const float *z, int64_t T, int64_t r, const int32_t *columns,
                                           DropoutMask mask, IndexCheck check, float scale, Y *y, int64_t n) {
  const int64_t t = row_of_warp();
  if (t >= T) return;
  for (int64_t j = threadIdx.x; j < r; j += kWarpLanes) {
    const int32_t column = columns[j];
    if (!check.good(j, column)) continue;
    Y &to = y[t * n + column];
    to = to_element<Y>(to_float(to) + z[t * r + j] * scale * mask.factor(t, column));
  }
}

__global__ void scale_columns_kernel(const float *x, const float *g, int64_t n, float *y) {
  const int64_t t = row_of_block(), i = column_of_thread();
  if (i >= n) return;
  Four v = load_four(x + t * n, i, n);
  const Four gain = load_four(g, i, n);
#pragma unroll
  for (int j = 0; j < kFour; j++) v.at[j] *= gain.at[j];
  store_four(y + t * n, i, n, v);
}

template <class B>
__global__ void column_dot_kernel(const float *a, const B *b, int64_t T, int64_t n, const float *divisor, float *out) {
  sum_columns(
      T, n, [&](float sum, int64_t t, int64_t j) { return fmaf(a[t * n + j], to_float(b[t * n + j]), sum); },
      [&](int64_t j, float sum) { out[j] += divisor ? sum / divisor[j] : sum; });
}

} // namespace

/* x[T,n] columns[r] z[T,r] */
int32_t gather_columns(sb_context *sb, const void *x, int32_t x_dtype, int64_t T, int64_t n, const int32_t *columns,
                       int64_t r, const sb_dropout *drop, void *z, int32_t z_dtype) {
  Context &ctx = context(sb);
  const IndexCheck check = check_index(ctx, "sb_gather_columns", "columns", n);
  with_dtype(x_dtype, [&](auto from) {
    with_dtype(z_dtype, [&](auto to) {
      using X = decltype(from);
      using Z = decltype(to);
      launch(ctx, warp_grid(T), warp_block(), 0, gather_columns_kernel<X, Z>, static_cast<const X *>(x), T, n, columns,
             r, dropout_mask(drop), check, static_cast<Z *>(z));
    });
  });
  return finish(ctx, "sb_gather_columns");
}

/* z[T,r] columns[r] y[T,n] */
int32_t scatter_add_columns(sb_context *sb, const void *z, int64_t T, int64_t r, const int32_t *columns,
                            const sb_dropout *drop, double scale, void *y, int32_t y_dtype, int64_t n) {
  Context &ctx = context(sb);
  const IndexCheck check = check_index(ctx, "sb_scatter_add_columns", "columns", n);
  with_dtype(y_dtype, [&](auto zero) {
    using Y = decltype(zero);
    launch(ctx, warp_grid(T), warp_block(), 0, scatter_add_columns_kernel<Y>, static_cast<const float *>(z), T, r,
           columns, dropout_mask(drop), check, static_cast<float>(scale), static_cast<Y *>(y), n);
  });
  return finish(ctx, "sb_scatter_add_columns");
}

/* x[T,n] g[n] y[T,n]; y may be x. */
int32_t scale_columns(sb_context *sb, const void *x, const void *g, int64_t T, int64_t n, void *y) {
  Context &ctx = context(sb);
  launch(ctx, row_grid(T, n), kThreads, 0, scale_columns_kernel, static_cast<const float *>(x),
         static_cast<const float *>(g), n, static_cast<float *>(y));
  return finish(ctx, "sb_scale_columns");
}

/* a[T,n] b[T,n] divisor[n] or NULL, out[n] */
int32_t column_dot(sb_context *sb, const void *a, const void *b, int32_t b_dtype, int64_t T, int64_t n,
                   const void *divisor, void *out) {
  Context &ctx = context(sb);
  with_dtype(b_dtype, [&](auto zero) {
    using B = decltype(zero);
    if (T > 0)
      launch(ctx, column_grid(n), column_block(), 0, column_dot_kernel<B>, static_cast<const float *>(a),
             static_cast<const B *>(b), T, n, static_cast<const float *>(divisor), static_cast<float *>(out));
  });
  return finish(ctx, "sb_column_dot");
}

} // namespace gpu
