/* DoRA's norms and gains. */
#include "grid.cuh"

namespace gpu {

namespace {

/* norm may be squares: each thread reads its four before it writes them. */
__global__ void dora_gain_kernel(const float *squares, const float *magnitude, int64_t n, float *norm, float *gain) {
  const int64_t i = flat_index();
  if (i >= n) return;
  Four root = load_four(squares, i, n), ratio = load_four(magnitude, i, n);
#pragma unroll
  for (int j = 0; j < kFour; j++) {
    root.at[j] = sqrtf(root.at[j]);
    ratio.at[j] /= root.at[j];
  }
  store_four(gain, i, n, ratio);
  store_four(norm, i, n, root);
}

} // namespace

/* squares[n] magnitude[n] norm[n] gain[n] */
int32_t dora_gain(sb_context *sb, const void *squares, const void *magnitude, int64_t n, void *norm, void *gain) {
  Context &ctx = context(sb);
  launch(ctx, flat_grid(n), kThreads, 0, dora_gain_kernel, static_cast<const float *>(squares),
         static_cast<const float *>(magnitude), n, static_cast<float *>(norm), static_cast<float *>(gain));
  return finish(ctx, "sb_dora_gain");
}

} // namespace gpu
