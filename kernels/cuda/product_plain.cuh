/*
 * Products without tensor cores: f32 FMA in tiles of shared memory. What f32 compute uses; with bf16 compute it gives what
 * the tensor cores' product is tested against.
 */
#pragma once
#include "product_results.cuh"
#include "weight.cuh"

namespace gpu {

constexpr int kPlainDepth = 16, kPlainColumns = 128, kPlainThreads = 256;

struct PlainOperand {
  const void *data;
  int32_t dtype;
  int64_t stride, lines;
  bool across;
};

template <class Right> struct PlainProduct {
  PlainOperand left, tail_left, tail_right, beside;
  Right right;
  int64_t m, n, depth, tail_depth, beside_n;
  float tail_scale;
  DeviceResults results, beside_results;
  bool narrow; /* operands are rounded to bf16 */
};

/* Four neighbours in memory of an operand: depth k..k+3 of a line, or, across, lines line..line+3 at k. */
__device__ __forceinline__ Four fetch_four(const PlainOperand &from, int64_t line, int64_t k, int64_t depth) {
  const int64_t row = from.across ? k : line, i = from.across ? line : k;
  const int64_t rows = from.across ? depth : from.lines, n = from.across ? from.lines : depth, at = row * from.stride;
  if (row >= rows) return {};
  if (from.dtype == SB_BF16) return load_four(static_cast<const bf16 *>(from.data) + at, i, n);
  if (from.dtype == SB_F16) return load_four(static_cast<const f16 *>(from.data) + at, i, n);
  return load_four(static_cast<const float *>(from.data) + at, i, n);
}

/* An NF4 weight in that place. */
struct PlainNf4 {
  Nf4View view;
  bool across;
};
__device__ __forceinline__ Four fetch_four(const PlainNf4 &from, int64_t line, int64_t k, int64_t) {
  const int64_t row = from.across ? k : line, i = from.across ? line : k;
  return row < from.view.out && i < from.view.in ? from.view.four(row, i) : Four{};
}

/* A stretch of an operand on its way from memory to shared memory: kLines lines, kPlainDepth deep. */
template <int kLines> struct PlainTile {
  static constexpr int kFours = kLines * kPlainDepth / kFour, kPitch = kLines + kFour;
  static constexpr int kEach = (kFours + kPlainThreads - 1) / kPlainThreads;
  using Memory = float[kPlainDepth][kPitch];
  Four fours[kEach];

  /* Where four i of the tile lies. */
  static __device__ __forceinline__ void place(bool across, int i, int &line, int &k) {
    if (across) k = i / (kLines / kFour), line = i % (kLines / kFour) * kFour;
    else line = i / (kPlainDepth / kFour), k = i % (kPlainDepth / kFour) * kFour;
  }
  template <class From>
  __device__ __forceinline__ void fetch(const From &from, int64_t first, int64_t k0, int64_t depth) {
#pragma unroll
    for (int e = 0; e < kEach; e++) {
      const int i = static_cast<int>(threadIdx.x) + e * kPlainThreads;
      int line, k;
      place(from.across, i, line, k);
      if (i < kFours) fours[e] = fetch_four(from, first + line, k0 + k, depth);
    }
  }
  __device__ __forceinline__ void put(Memory &to, bool across, bool narrow) const {
#pragma unroll
    for (int e = 0; e < kEach; e++) {
      const int i = static_cast<int>(threadIdx.x) + e * kPlainThreads;
      if (i >= kFours) continue;
      int line, k;
      place(across, i, line, k);
#pragma unroll
      for (int j = 0; j < kFour; j++) {
        const float value = narrow ? to_float(to_element<bf16>(fours[e].at[j])) : fours[e].at[j];
        to[across ? k : k + j][across ? line + j : line] = value;
      }
    }
  }
};

template <int kEach> struct PlainMemory {
  typename PlainTile<16 * kEach>::Memory left;
  typename PlainTile<kPlainColumns>::Memory right;
};

/* Thread (y, x) of 16 x 16 sums rows y·kEach.. and columns 4x.., 64+4x.. of a tile. */
template <int kEach> struct PlainSums {
  float at[kEach][8] = {};
  int y = static_cast<int>(threadIdx.x) / 16, x = static_cast<int>(threadIdx.x) % 16;

  __device__ int64_t row(int i) const { return y * kEach + i; }
  __device__ int64_t column(int j) const { return j / 4 * 64 + x * 4 + j % 4; }

  __device__ __forceinline__ void add(const PlainMemory<kEach> &memory, int k) {
    float a[kEach], b[8];
#pragma unroll
    for (int i = 0; i < kEach; i++) a[i] = memory.left[k][row(i)];
#pragma unroll
    for (int j = 0; j < 8; j++) b[j] = memory.right[k][column(j)];
#pragma unroll
    for (int i = 0; i < kEach; i++)
#pragma unroll
      for (int j = 0; j < 8; j++) at[i][j] = fmaf(a[i], b[j], at[i][j]);
  }
};

/* Adds depth from..to-1 of the tile at (row, column); the operands are `depth` deep. */
template <int kEach, class Right>
__device__ __forceinline__ void add_plain(const PlainOperand &left, const Right &right, int64_t depth, int64_t row,
                                          int64_t column, int64_t from, int64_t to, bool narrow,
                                          PlainMemory<kEach> &memory, PlainSums<kEach> &sums) {
  PlainTile<16 * kEach> next_left;
  PlainTile<kPlainColumns> next_right;
  if (from < to) {
    next_left.fetch(left, row, from, depth);
    next_right.fetch(right, column, from, depth);
  }
  for (int64_t k0 = from; k0 < to; k0 += kPlainDepth) {
    __syncthreads(); /* the tiles before have been used */
    next_left.put(memory.left, left.across, narrow);
    next_right.put(memory.right, right.across, narrow);
    __syncthreads();
    if (k0 + kPlainDepth < to) {
      next_left.fetch(left, row, k0 + kPlainDepth, depth);
      next_right.fetch(right, column, k0 + kPlainDepth, depth);
    }
#pragma unroll
    for (int k = 0; k < kPlainDepth; k++) sums.add(memory, k);
  }
}

/* grid: (tiles, pieces). partial: [piece][m,n], NULL where the depth is not cut. */
template <int kEach, class Right>
__global__ void __launch_bounds__(kPlainThreads)
    product_plain_kernel(PlainProduct<Right> p, int64_t piece, float *partial) {
  SHARED(PlainMemory<kEach>, memory);
  constexpr int kRows = 16 * kEach;
  const int64_t tiles_m = (p.m + kRows - 1) / kRows, tiles_n = (p.n + kPlainColumns - 1) / kPlainColumns;
  const int64_t row = blockIdx.x % tiles_m * kRows, tile = blockIdx.x / tiles_m;
  const bool beside = tile >= tiles_n;
  const int64_t column = (beside ? tile - tiles_n : tile) * kPlainColumns;
  const int64_t from = blockIdx.y * piece, to = from + piece < p.depth ? from + piece : p.depth;
  PlainSums<kEach> sums;
  if (beside) {
    add_plain(p.left, p.beside, p.depth, row, column, from, to, p.narrow, memory, sums);
  } else {
    if (p.tail_depth > 0) {
      add_plain(p.tail_left, p.tail_right, p.tail_depth, row, column, 0, p.tail_depth, p.narrow, memory, sums);
#pragma unroll
      for (int i = 0; i < kEach; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) sums.at[i][j] *= p.tail_scale;
    }
    add_plain(p.left, p.right, p.depth, row, column, from, to, p.narrow, memory, sums);
  }

  const DeviceResults &results = beside ? p.beside_results : p.results;
  const int64_t n = beside ? p.beside_n : p.n;
#pragma unroll
  for (int i = 0; i < kEach; i++)
#pragma unroll
    for (int j = 0; j < 8; j++) {
      const int64_t r = row + sums.row(i), c = column + sums.column(j);
      if (r >= p.m || c >= n) continue;
      if (partial) partial[(blockIdx.y * p.m + r) * p.n + c] = sums.at[i][j];
      else results.store(r, c, sums.at[i][j]);
    }
}

} // namespace gpu
