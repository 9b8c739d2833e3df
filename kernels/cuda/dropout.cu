/* Inverted dropout of whole rows: the four features of a thread share one Philox counter. */
#include "grid.cuh"
#include "philox.cuh"

namespace gpu {

namespace {

/* y may be x: each thread reads its four before it writes them. */
template <class X, class Y>
__global__ void dropout_kernel(const X *x, int64_t n, DropoutMask mask, float beta, Y *y) {
  const int64_t t = row_of_block(), f = column_of_thread();
  if (f >= n) return;
  Four v = load_four(x + t * n, f, n);
  if (mask.active) {
    const uint4 words = mask.words(t, f / 4);
    v.at[0] *= mask.factor_of(words.x);
    v.at[1] *= mask.factor_of(words.y);
    v.at[2] *= mask.factor_of(words.z);
    v.at[3] *= mask.factor_of(words.w);
  }
  if (beta != 0) {
    const Four before = load_four(y + t * n, f, n);
#pragma unroll
    for (int j = 0; j < kFour; j++) v.at[j] = fmaf(beta, before.at[j], v.at[j]);
  }
  store_four(y + t * n, f, n, v);
}

} // namespace

/* x[T,n] y[T,n] */
int32_t dropout_apply(sb_context *sb, const void *x, int32_t x_dtype, int64_t T, int64_t n, const sb_dropout *drop,
                      double beta, void *y, int32_t y_dtype) {
  Context &ctx = context(sb);
  with_dtype(x_dtype, [&](auto from) {
    with_dtype(y_dtype, [&](auto to) {
      using X = decltype(from);
      using Y = decltype(to);
      launch(ctx, row_grid(T, n), kThreads, 0, dropout_kernel<X, Y>, static_cast<const X *>(x), n, dropout_mask(drop),
             static_cast<float>(beta), static_cast<Y *>(y));
    });
  });
  return finish(ctx, "sb_dropout_apply");
}

} // namespace gpu
