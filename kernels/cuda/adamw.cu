/* AdamW over flat buffers: scalars in double once, elements in f32, as on the CPU. */
#include "grid.cuh"

#include <cmath>

namespace gpu {

namespace {

struct Step {
  float keep1, add1, keep2, add2, rate, unbias, floor, shrink, scale;
};

__global__ void adamw_kernel(float *p, const float *g, float *m, float *v, int64_t n, Step s) {
  const int64_t i = flat_index();
  if (i >= n) return;
  Four before = load_four(p, i, n), mean = load_four(m, i, n), square = load_four(v, i, n);
  const Four gradients = load_four(g, i, n);
#pragma unroll
  for (int j = 0; j < kFour; j++) {
    const float gradient = gradients.at[j] * s.scale;
    mean.at[j] = fmaf(s.keep1, mean.at[j], s.add1 * gradient);
    square.at[j] = fmaf(s.keep2, square.at[j], s.add2 * gradient * gradient);
    /* What p loses as one number: 1 - lr·decay would round a small decay away. */
    const float ratio = mean.at[j] / fmaf(sqrtf(square.at[j]), s.unbias, s.floor);
    before.at[j] -= fmaf(s.shrink, before.at[j], s.rate * ratio);
  }
  store_four(p, i, n, before);
  store_four(m, i, n, mean);
  store_four(v, i, n, square);
}

} // namespace

/* p[n] g[n] m[n] v[n] */
int32_t adamw(sb_context *sb, void *p, const void *g, void *m, void *v, int64_t n, double lr, double b1, double b2,
              double eps, double decay, int64_t step, double gradient_scale) {
  Context &ctx = context(sb);
  const auto f = [](double value) { return static_cast<float>(value); };
  const double count = static_cast<double>(step);
  const Step s = {f(b1),  f(1 - b1),   f(b2), f(1 - b2), f(lr / (1 - pow(b1, count))), f(1 / sqrt(1 - pow(b2, count))),
                  f(eps), f(lr * decay), f(gradient_scale)};
  launch(ctx, flat_grid(n), kThreads, 0, adamw_kernel, static_cast<float *>(p), static_cast<const float *>(g),
         static_cast<float *>(m), static_cast<float *>(v), n, s);
  return finish(ctx, "sb_adamw");
}

} // namespace gpu
