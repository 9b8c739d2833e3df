/*
 * Patches: chosen lines of a weight in two states, told by where the bits that they are held in differ.
 *     columns  bits[out][n], lines ascending, so that a warp's lanes walk along a row of the weight
 *     rows     bits[n][stride], zeros behind column in: flipped 16 bytes at a time
 */
#include "grid.cuh"
#include "weight.cuh"

#include "../host/indices.h"

#include <algorithm>
#include <numeric>

namespace gpu {

namespace {

struct Patch : sb_patch {
  bool by_columns;
  int64_t n;
  int32_t *lines; /* [n], ascending; behind them [n]: which of the values each was made from */
  void *bits;
  int64_t bytes; /* counted in the context's `allocated` */
};

__device__ __forceinline__ uint32_t bits_of(float value) { return __float_as_uint(value); }
__device__ __forceinline__ uint16_t bits_of(bf16 value) { return value.bits; }
__device__ __forceinline__ uint16_t bits_of(f16 value) { return value.bits; }

template <class T, class Bits>
__global__ void patch_fill_columns_kernel(const T *data, int64_t stride, int64_t out, const int32_t *lines, int64_t n,
                                          const float *values, Bits *bits) {
  const int64_t row = row_of_warp();
  if (row >= out) return;
  for (int64_t k = threadIdx.x; k < n; k += kWarpLanes)
    bits[row * n + k] = static_cast<Bits>(bits_of(to_element<T>(values[row * n + lines[n + k]])) ^
                                          bits_of(data[row * stride + lines[k]]));
}

template <class T, class Bits>
__global__ void patch_fill_rows_kernel(const T *data, int64_t stride, int64_t in, const int32_t *lines, int64_t n,
                                       const float *values, Bits *bits) {
  const int64_t k = row_of_block(), first = column_of_thread();
  const T *from = data + lines[k] * stride;
  for (int64_t i = first; i < first + kFour && i < stride; i++)
    bits[k * stride + i] =
        i < in ? static_cast<Bits>(bits_of(to_element<T>(values[lines[n + k] * in + i])) ^ bits_of(from[i])) : Bits{0};
}

template <class Bits>
__global__ void patch_flip_columns_kernel(Bits *data, int64_t stride, int64_t out, const int32_t *lines, int64_t n,
                                          const Bits *bits) {
  const int64_t row = row_of_warp();
  if (row >= out) return;
  for (int64_t k = threadIdx.x; k < n; k += kWarpLanes) data[row * stride + lines[k]] ^= bits[row * n + k];
}

/* words: of 16 bytes in a row. */
__global__ void patch_flip_rows_kernel(uint4 *data, int64_t words, const int32_t *lines, const uint4 *bits) {
  const int64_t k = row_of_block(), i = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (i >= words) return;
  uint4 v = data[lines[k] * words + i];
  const uint4 flip = bits[k * words + i];
  data[lines[k] * words + i] = make_uint4(v.x ^ flip.x, v.y ^ flip.y, v.z ^ flip.z, v.w ^ flip.w);
}

/* use(element type's zero, bits' zero) */
template <class Use> void with_bits(int32_t dtype, const Use &use) {
  if (dtype == SB_F32) use(float{}, uint32_t{});
  else if (dtype == SB_F16) use(f16{}, uint16_t{});
  else use(bf16{}, uint16_t{});
}

} // namespace

static void fill(Context &ctx, const Weight &w, const Patch &p, const float *values) {
  with_bits(w.dtype, [&](auto element, auto zero) {
    using T = decltype(element);
    using Bits = decltype(zero);
    const T *data = static_cast<const T *>(w.data);
    Bits *bits = static_cast<Bits *>(p.bits);
    if (p.by_columns)
      launch(ctx, warp_grid(w.out), warp_block(), 0, patch_fill_columns_kernel<T, Bits>, data, w.stride, w.out, p.lines,
             p.n, values, bits);
    else
      launch(ctx, row_grid(p.n, w.stride), kThreads, 0, patch_fill_rows_kernel<T, Bits>, data, w.stride, w.in, p.lines,
             p.n, values, bits);
  });
}

/* index[n], values[n,in] or [out,n] */
int32_t patch_create(sb_context *sb, sb_weight *weight, int32_t by_columns, const int32_t *index, int64_t n,
                     const void *values, sb_patch **patch) {
  static constexpr char kFunction[] = "sb_patch_create";
  Context &ctx = context(sb);
  const Weight &w = held(weight);
  std::vector<int32_t> chosen(static_cast<size_t>(n)), lines(static_cast<size_t>(2 * n));
  if (n > 0) cudaMemcpyAsync(chosen.data(), index, static_cast<size_t>(n * 4), cudaMemcpyDefault, ctx.stream);
  if (wait(ctx, kFunction) || check_distinct(kFunction, "index", chosen.data(), n, by_columns ? w.in : w.out)) return 1;
  const auto places = lines.begin() + n;
  std::iota(places, lines.end(), 0);
  std::sort(places, lines.end(), [&](int32_t a, int32_t b) { return chosen[a] < chosen[b]; });
  for (int64_t k = 0; k < n; k++) lines[k] = chosen[lines[n + k]];

  const int64_t size = w.dtype == SB_F32 ? 4 : 2, bits = n * (by_columns ? w.out : w.stride) * size, bytes = bits + 8 * n;
  auto *p = new Patch{{weight}, by_columns != 0, n, nullptr, nullptr, bytes};
  ctx.allocated += bytes;
  p->lines = static_cast<int32_t *>(device_memory(8 * n));
  p->bits = device_memory(bits);
  if (!p->lines || !p->bits) {
    patch_free(sb, p);
    return sb_fail("%s: %lld bytes could not be allocated", kFunction, static_cast<long long>(bytes));
  }
  upload(ctx, p->lines, lines.data(), 8 * n);
  if (n > 0) fill(ctx, w, *p, static_cast<const float *>(values));
  *patch = p;
  return finish(ctx, kFunction);
}

int32_t patch_free(sb_context *sb, sb_patch *patch) {
  Context &ctx = context(sb);
  auto *p = static_cast<Patch *>(patch);
  ctx.allocated -= p->bytes;
  free_device_memory(ctx, p->lines);
  free_device_memory(ctx, p->bits);
  delete p;
  return 0;
}

static void flip(Context &ctx, const Patch &p) {
  Weight &w = held(p.weight);
  if (p.n == 0) return;
  if (!p.by_columns) {
    const int64_t words = w.stride * (w.dtype == SB_F32 ? 4 : 2) / 16;
    launch(ctx, dim3(static_cast<unsigned>(p.n), blocks_for(words, kThreads)), kThreads, 0, patch_flip_rows_kernel,
           static_cast<uint4 *>(w.data), words, p.lines, static_cast<const uint4 *>(p.bits));
    return;
  }
  with_bits(w.dtype, [&](auto, auto zero) {
    using Bits = decltype(zero);
    launch(ctx, warp_grid(w.out), warp_block(), 0, patch_flip_columns_kernel<Bits>, static_cast<Bits *>(w.data),
           w.stride, w.out, p.lines, p.n, static_cast<const Bits *>(p.bits));
  });
}

/* An XOR each, so that their order does not matter. */
int32_t patch_flip(sb_context *sb, sb_patch *const *patches, int64_t count) {
  Context &ctx = context(sb);
  for (int64_t i = 0; i < count; i++) flip(ctx, *static_cast<const Patch *>(patches[i]));
  return finish(ctx, "sb_patch_flip");
}

} // namespace gpu
