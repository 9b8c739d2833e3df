/* Random numbers from Philox words, the last steps in double, so that every library gives the same bits. */
#include "grid.cuh"
#include "philox.cuh"

namespace gpu {

namespace {

__device__ __forceinline__ uint4 words_at(int64_t i, uint64_t key) {
  const uint64_t counter = static_cast<uint64_t>(i) / 4;
  return philox(make_uint4(static_cast<unsigned>(counter), static_cast<unsigned>(counter >> 32), 0, 0), key);
}

__device__ __forceinline__ double unit(unsigned word) { return (word + 0.5) / 4294967296.0; }

__global__ void random_uniform_kernel(uint64_t key, double low, double high, int64_t n, float *x) {
  const int64_t i = flat_index();
  if (i >= n) return;
  const uint4 words = words_at(i, key);
  Four v;
#pragma unroll
  for (int j = 0; j < kFour; j++) v.at[j] = static_cast<float>(low + (high - low) * unit(word_of(words, j)));
  store_four(x, i, n, v);
}

/* Box and Muller */
__global__ void random_normal_kernel(uint64_t key, int64_t n, float *x) {
  constexpr double kTurn = 6.283185307179586476925286766559;
  const int64_t i = flat_index();
  if (i >= n) return;
  const uint4 words = words_at(i, key);
  Four v;
#pragma unroll
  for (int j = 0; j < kFour; j += 2) {
    const double radius = sqrt(-2 * log(unit(word_of(words, j)))), angle = kTurn * unit(word_of(words, j + 1));
    v.at[j] = static_cast<float>(radius * cos(angle));
    v.at[j + 1] = static_cast<float>(radius * sin(angle));
  }
  store_four(x, i, n, v);
}

} // namespace

/* x[n] */
int32_t random_uniform(sb_context *sb, uint64_t key, double low, double high, int64_t n, void *x) {
  Context &ctx = context(sb);
  launch(ctx, flat_grid(n), kThreads, 0, random_uniform_kernel, key, low, high, n, static_cast<float *>(x));
  return finish(ctx, "sb_random_uniform");
}

/* x[n] */
int32_t random_normal(sb_context *sb, uint64_t key, int64_t n, void *x) {
  Context &ctx = context(sb);
  launch(ctx, flat_grid(n), kThreads, 0, random_normal_kernel, key, n, static_cast<float *>(x));
  return finish(ctx, "sb_random_normal");
}

} // namespace gpu
