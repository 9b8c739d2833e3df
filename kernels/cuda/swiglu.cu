/* h = silu(gate) ⊙ up and its gradients. A thread reads its elements before it writes them, so the aliases are safe. */
#include "grid.cuh"

namespace gpu {

namespace {

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class T> __global__ void swiglu_forward_kernel(const T *gate, const T *up, int64_t n, T *h) {
  const int64_t i = flat_index();
  if (i >= n) return;
  const Four x = load_four(gate, i, n);
  Four v = load_four(up, i, n);
#pragma unroll
  for (int j = 0; j < kFour; j++) v.at[j] *= x.at[j] * sigmoid(x.at[j]);
  store_four(h, i, n, v);
}

template <class T>
__global__ void swiglu_backward_kernel(const T *gate, const T *up, const float *dh, int64_t n, float *dgate,
                                       float *dup) {
  const int64_t i = flat_index();
  if (i >= n) return;
  Four x = load_four(gate, i, n), v = load_four(up, i, n);
  const Four gradient = load_four(dh, i, n);
#pragma unroll
  for (int j = 0; j < kFour; j++) {
    const float logistic = sigmoid(x.at[j]), scaled = gradient.at[j] * logistic;
    v.at[j] = scaled * v.at[j] * fmaf(x.at[j], 1.0f - logistic, 1.0f);
    x.at[j] = scaled * x.at[j];
  }
  store_four(dgate, i, n, v);
  store_four(dup, i, n, x);
}

} // namespace

/* gate[n] up[n] h[n] */
int32_t swiglu_forward(sb_context *sb, const void *gate, const void *up, int32_t dtype, int64_t n, void *h) {
  Context &ctx = context(sb);
  with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(ctx, flat_grid(n), kThreads, 0, swiglu_forward_kernel<T>, static_cast<const T *>(gate),
           static_cast<const T *>(up), n, static_cast<T *>(h));
  });
  return finish(ctx, "sb_swiglu_forward");
}

/* gate[n] up[n] dh[n] dgate[n] dup[n] */
int32_t swiglu_backward(sb_context *sb, const void *gate, const void *up, int32_t dtype, const void *dh, int64_t n,
                        void *dgate, void *dup) {
  Context &ctx = context(sb);
  with_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(ctx, flat_grid(n), kThreads, 0, swiglu_backward_kernel<T>, static_cast<const T *>(gate),
           static_cast<const T *>(up), static_cast<const float *>(dh), n, static_cast<float *>(dgate),
           static_cast<float *>(dup));
  });
  return finish(ctx, "sb_swiglu_backward");
}

} // namespace gpu
