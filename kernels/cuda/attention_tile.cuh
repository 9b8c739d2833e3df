/*
 * Tiles of bf16 rows in shared memory and the two products of attention on them, by tensor cores, four warps a block:
 *
 *     multiply_rows   s = left · rightᵀ      both operands rows of tiles, along the head
 *     add_products    sums += s · right      s as multiply_rows leaves it, rounded to bf16 (round_sums); right by rows
 *
 * A tile has D = 64 or 128 columns, and 16 bytes more a row: the eight rows of a matrix that ldmatrix reads then lie in
 * different banks, and every address is one register and a constant. Sums are float[rows / 16][columns / 8][4]: element
 * i of a lane is row lane/4 + 8·(i/2), column 2·(lane%4) + i%2 of its 16 x 8.
 *
 * A row's sums do not depend on the other rows of its tile, with one exception: a key that a row does not see has
 * weight 0, and 0 · infinity is NaN. What lies behind the last key that any row of a block sees is loaded as zeros; an
 * infinite value before it, later in the same sequence, reaches earlier rows of its tile.
 */
#pragma once
#include "context.h"
#include "mma.cuh"
#include "numbers.cuh"

namespace gpu {

constexpr int kTileWarps = 4, kTileThreads = kTileWarps * kWarpLanes;
constexpr int kChunk = 8;     /* elements of 16 bytes */
constexpr int kMmaRows = 16;  /* of a, and of the sums */
constexpr int kMmaColumns = 8; /* of b, and of the sums */
constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

/* What multiplies scores so that p = 2^(s·factor - m); the tiles are for factors above 0, where the largest score stays
 * the largest. */
inline float exponent_factor(double scale) { return static_cast<float>(scale * 1.4426950408889634); }
/* Whether an op can take the tiles; else it takes the plain kernels, which are slow and need nothing. */
inline bool fits_tiles(int32_t dtype, int64_t D, double scale, std::initializer_list<const void *> tensors) {
  bool aligned = true;
  for (const void *tensor : tensors) aligned = aligned && reinterpret_cast<uintptr_t>(tensor) % 16 == 0;
  return dtype == SB_BF16 && (D == 64 || D == 128) && exponent_factor(scale) > 0 && aligned;
}
/* use(std::integral_constant<int, D>) for a head size of tiles. */
template <class Use> void with_head_size(int64_t D, const Use &use) {
  if (D == 64) use(std::integral_constant<int, 64>());
  else use(std::integral_constant<int, 128>());
}

__device__ __forceinline__ int lane_of_thread() { return static_cast<int>(threadIdx.x) % kWarpLanes; }
__device__ __forceinline__ int warp_of_thread() { return static_cast<int>(threadIdx.x) / kWarpLanes; }

/* 2^x of x <= 0 to about 2^-22 of it, one instruction; what would be denormal may be 0. */
__device__ __forceinline__ float power_of_two(float x) {
#if defined(__CUDACC__)
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return exp2f(x);
#endif
}

/* ---- tiles ------------------------------------------------------------------------------------------------------ */

template <int D> constexpr int kStep = D + kChunk; /* from row to row */

template <int D, class Element> __device__ __forceinline__ Element *chunk_of(Element *tile, int row, int chunk) {
  return tile + row * kStep<D> + chunk * kChunk;
}

/* Starts copying `rows` rows, zeros from row `count` on. from(row): where a row's D elements lie; base: any address
 * that may be read. */
template <int D, int rows, class From>
__device__ __forceinline__ void copy_rows(bf16 *tile, const bf16 *base, int count, const From &from) {
  constexpr int kChunks = D / kChunk;
  const int thread = static_cast<int>(threadIdx.x), chunk = thread % kChunks;
  for (int row = thread / kChunks; row < rows; row += kTileThreads / kChunks) {
    const bool there = row < count;
    copy_async(chunk_of<D>(tile, row, chunk), there ? from(row) + chunk * kChunk : base, there ? 16 : 0);
  }
}

/* ---- operands --------------------------------------------------------------------------------------------------- */

/* a[16,16]: rows row.., columns of the chunks chunk and chunk + 1. */
template <int D> __device__ __forceinline__ void load_a(unsigned (&a)[4], const bf16 *tile, int row, int chunk) {
  const int lane = lane_of_thread();
  load_matrices(a, chunk_of<D>(tile, row + lane % 16, chunk + lane / 16));
}

/* Two b[16,8], side by side. */
struct TwoB {
  unsigned first[2], second[2];
};

/* b's columns are rows row..row+15 of the tile, its rows the columns of the chunks chunk and chunk + 1. */
template <int D> __device__ __forceinline__ void load_b(TwoB &b, const bf16 *tile, int row, int chunk) {
  const int lane = lane_of_thread();
  unsigned r[4];
  load_matrices(r, chunk_of<D>(tile, row + lane / 16 * 8 + lane % 8, chunk + lane / 8 % 2));
  b = {{r[0], r[1]}, {r[2], r[3]}};
}
/* b's rows are rows row..row+15 of the tile, its columns those of the chunks chunk and chunk + 1. */
template <int D> __device__ __forceinline__ void load_b_rows(TwoB &b, const bf16 *tile, int row, int chunk) {
  const int lane = lane_of_thread();
  unsigned r[4];
  load_transposed(r, chunk_of<D>(tile, row + lane % 16, chunk + lane / 16));
  b = {{r[0], r[1]}, {r[2], r[3]}};
}

/* Rounded to nearest even; low in the low half. */
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
#if defined(__CUDACC__)
  unsigned two;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(two) : "f"(high), "f"(low));
  return two;
#else
  return to_element<bf16>(low).bits | unsigned{to_element<bf16>(high).bits} << 16;
#endif
}
/* Sums, rounded, as the left side of add_products: the a[16,16] of every two of them side by side. */
template <int kLeft, int kInner> struct Rounded {
  unsigned a[kLeft][kInner / 2][4];
};
template <int kLeft, int kInner>
__device__ __forceinline__ void round_sums(Rounded<kLeft, kInner> &to, const float (&s)[kLeft][kInner][4]) {
#pragma unroll
  for (int i = 0; i < kLeft; i++)
#pragma unroll
    for (int j = 0; j < kInner; j++)
#pragma unroll
      for (int half = 0; half < 2; half++)
        to.a[i][j / 2][j % 2 * 2 + half] = pack_bf16(s[i][j][2 * half], s[i][j][2 * half + 1]);
}

/* ---- products --------------------------------------------------------------------------------------------------- */

/* s[i][j] = rows left_row + 16·i.. of left times rows right_row + 8·j.. of right, summed along D. */
template <int D, int kLeft, int kRight>
__device__ __forceinline__ void multiply_rows(float (&s)[kLeft][kRight][4], const bf16 *left, int left_row,
                                              const bf16 *right, int right_row) {
#pragma unroll
  for (int i = 0; i < kLeft; i++)
#pragma unroll
    for (int j = 0; j < kRight; j++) s[i][j][0] = s[i][j][1] = s[i][j][2] = s[i][j][3] = 0;
#pragma unroll
  for (int chunk = 0; chunk < D / kChunk; chunk += 2) {
    unsigned a[kLeft][4];
#pragma unroll
    for (int i = 0; i < kLeft; i++) load_a<D>(a[i], left, left_row + i * kMmaRows, chunk);
#pragma unroll
    for (int j = 0; j < kRight; j += 2) {
      TwoB b;
      load_b<D>(b, right, right_row + j * kMmaColumns, chunk);
#pragma unroll
      for (int i = 0; i < kLeft; i++) {
        mma_bf16(s[i][j], a[i], b.first);
        mma_bf16(s[i][j + 1], a[i], b.second);
      }
    }
  }
}

/* sums[i] += s[i] times rows 0.. of right: kInner·8 of them, in order. */
template <int D, int kLeft, int kInner>
__device__ __forceinline__ void add_products(float (&sums)[kLeft][D / kMmaColumns][4],
                                             const Rounded<kLeft, kInner> &s, const bf16 *right) {
#pragma unroll
  for (int j = 0; j < kInner / 2; j++)
#pragma unroll
    for (int d = 0; d < D / kMmaColumns; d += 2) {
      TwoB b;
      load_b_rows<D>(b, right, j * kMmaRows, d);
#pragma unroll
      for (int i = 0; i < kLeft; i++) {
        mma_bf16(sums[i][d], s.a[i][j], b.first);
        mma_bf16(sums[i][d + 1], s.a[i][j], b.second);
      }
    }
}

/* ---- over the four lanes that share a row of sums --------------------------------------------------------------- */

__device__ __forceinline__ float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, 1));
  return fmaxf(value, __shfl_xor_sync(kAllLanes, value, 2));
}
__device__ __forceinline__ float quad_sum(float value) {
  value += __shfl_xor_sync(kAllLanes, value, 1);
  return value + __shfl_xor_sync(kAllLanes, value, 2);
}

} // namespace gpu
