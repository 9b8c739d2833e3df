/* Rotary positions: the table in double, the rotation in f32 over the pairs of a head. */
#include "grid.cuh"
#include "indices.cuh"

namespace gpu {

namespace {

struct Scaling {
  int32_t kind; /* as sb_rope_table says */
  double factor, low_factor, high_factor, original;
};

/* theta^(-2i/D), stretched. llama3: long waves by the factor, short ones not at all, between them a blend. */
__device__ double frequency(int64_t i, int64_t D, double theta, const Scaling &scaling) {
  constexpr double kTurn = 6.283185307179586476925286766559;
  const double plain = pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(D));
  if (scaling.kind == 0) return plain;
  const double stretched = plain / scaling.factor;
  if (scaling.kind == 1) return stretched;
  const double wave = kTurn / plain;
  if (wave > scaling.original / scaling.low_factor) return stretched;
  if (wave < scaling.original / scaling.high_factor) return plain;
  const double blend = (scaling.original / wave - scaling.low_factor) / (scaling.high_factor - scaling.low_factor);
  return (1 - blend) * stretched + blend * plain;
}

__global__ void rope_table_kernel(int64_t P, int64_t D, double theta, Scaling scaling, float *cosine, float *sine) {
  const int64_t p = row_of_warp(), half = D / 2;
  if (p >= P) return;
  for (int64_t i = threadIdx.x; i < half; i += kWarpLanes) {
    const double angle = static_cast<double>(p) * frequency(i, D, theta, scaling);
    cosine[p * half + i] = static_cast<float>(cos(angle));
    sine[p * half + i] = static_cast<float>(sin(angle));
  }
}

/* A block is a row, or 256 pairs of one; pairs of a row are counted head by head. */
template <class T>
__global__ void rope_kernel(T *x, int pairs, int half, const int32_t *positions, const float *cosine,
                              const float *sine, float sign, IndexCheck check) {
  const int64_t t = blockIdx.x;
  const int pair = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (pair >= pairs || !check.good(t, positions[t])) return;
  const int head = pair / half, i = pair % half;
  const int64_t angle = int64_t{positions[t]} * half + i;
  T *low = x + t * 2 * pairs + int64_t{head} * 2 * half + i, *high = low + half;
  const float c = cosine[angle], s = sine[angle] * sign, a = to_float(*low), b = to_float(*high);
  *low = to_element<T>(fmaf(a, c, -(b * s)));
  *high = to_element<T>(fmaf(b, c, a * s));
}

} // namespace

/* cosine[P,D/2] sine[P,D/2] */
int32_t rope_table(sb_context *sb, int64_t P, int64_t D, double theta, int32_t scaling, double factor,
                   double low_factor, double high_factor, double original, void *cosine, void *sine) {
  Context &ctx = context(sb);
  launch(ctx, warp_grid(P), warp_block(), 0, rope_table_kernel, P, D, theta,
         Scaling{scaling, factor, low_factor, high_factor, original}, static_cast<float *>(cosine),
         static_cast<float *>(sine));
  return finish(ctx, "sb_rope_table");
}

/* x[T,heads,D] positions[T] cosine[P,D/2] sine[P,D/2] */
int32_t rope(sb_context *sb, void *x, int32_t dtype, int64_t T, int64_t heads, int64_t D, const int32_t *positions,
             int64_t P, const void *cosine, const void *sine, int32_t inverse) {
  Context &ctx = context(sb);
  const int64_t half = D / 2, pairs = heads * half;
  if (T == 0) return 0;
  if (pairs > INT32_MAX) return sb_fail("sb_rope: a row has %lld pairs; expected fewer than 2^31",
                                        static_cast<long long>(pairs));
  const dim3 grid(static_cast<unsigned>(T), blocks_for(pairs, kThreads));
  with_dtype(dtype, [&](auto zero) {
    using E = decltype(zero);
    launch(ctx, grid, kThreads, 0, rope_kernel<E>, static_cast<E *>(x), static_cast<int>(pairs),
           static_cast<int>(half), positions, static_cast<const float *>(cosine), static_cast<const float *>(sine),
           inverse ? -1.0f : 1.0f, check_index(ctx, "sb_rope", "positions", P));
  });
  return finish(ctx, "sb_rope");
}

} // namespace gpu
