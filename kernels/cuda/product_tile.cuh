/*
 * The bf16 product on tensor cores: tiles of both operands pass through shared memory in stages, filled by asynchronous
 * copies while the tensor cores work on an earlier one. The tail's depth, the main one, and for NF4 weights their values
 * computed on the way, are stages like all others; sums stay in registers from the first to the last.
 */
#pragma once
#include "mma.cuh"
#include "product_results.cuh"
#include "weight.cuh"

namespace gpu {

constexpr int kTileDepth = 64;   /* a line's part of a stage: 128 bytes */
constexpr int kChunk = 8;        /* bf16 of a copy: 16 bytes */

/* kRows x kColumns of the result a block, kWarpRows x kWarpColumns a warp. */
template <int kRows_, int kColumns_, int kWarpRows_, int kWarpColumns_, int kStages_, int kBlocks_> struct TileShape {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kWarpRows = kWarpRows_, kWarpColumns = kWarpColumns_;
  static constexpr int kStages = kStages_, kBlocks = kBlocks_; /* of a multiprocessor, hoped for */
  static constexpr int kWarpsDown = kRows / kWarpRows, kWarpsAcross = kColumns / kWarpColumns;
  static constexpr int kThreads = kWarpsDown * kWarpsAcross * kWarpLanes;
  static constexpr int kLeft = kRows * kTileDepth, kStage = kLeft + kColumns * kTileDepth; /* elements */
  static constexpr int kBytes = kStages * kStage * 2;
  static constexpr int kSumStride = kColumns + 8; /* floats from row to row of the sums: no bank is met twice */
  static_assert(kRows * kSumStride * 4 <= kBytes);
};

/* [lines,depth], or, where the kernel says so, stored as [depth,lines]; rows begin at multiples of 16 bytes. */
struct TileOperand {
  const bf16 *data;
  int64_t stride, lines;
};

struct TileProduct {
  TileOperand left, right, tail_left, tail_right, beside;
  Nf4View nf4; /* in right's place */
  int64_t m, n, depth, tail_depth, beside_n;
  float tail_scale;
  DeviceResults results, beside_results;
};

/* ---- a tile in shared memory: rows as stored, chunks of 16 bytes exchanged so that ldmatrix meets every bank once ---- */

/* kLines lines, kTileDepth deep. */
template <int kLines, bool kAcross> struct TileLayout {
  static constexpr int kRowChunks = (kAcross ? kLines : kTileDepth) / kChunk; /* of a row as stored */
  static constexpr int kChunks = kLines * kTileDepth / kChunk;

  static __device__ __forceinline__ int chunk_at(int row, int chunk) { return (row * kRowChunks + (chunk ^ (row & 7))) * kChunk; }

  /* The matrices of mma's left operand: lines line..line+15, depth k..k+15. */
  static __device__ __forceinline__ void load_left(unsigned (&registers)[4], const bf16 *tile, int line, int k) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
    if constexpr (kAcross)
      load_transposed(registers, tile + chunk_at(k + lane / 16 * 8 + lane % 8, line / kChunk + lane / 8 % 2));
    else load_matrices(registers, tile + chunk_at(line + lane % 16, k / kChunk + lane / 16));
  }
  /* Those of two right operands: lines line..line+7 in the first half of registers, line+8..line+15 in the second. */
  static __device__ __forceinline__ void load_right(unsigned (&registers)[4], const bf16 *tile, int line, int k) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
    if constexpr (kAcross)
      load_transposed(registers, tile + chunk_at(k + lane / 8 % 2 * 8 + lane % 8, line / kChunk + lane / 16));
    else load_matrices(registers, tile + chunk_at(line + lane / 16 * 8 + lane % 8, k / kChunk + lane / 8 % 2));
  }
};

/* Starts the copies of lines first.. at depth k0..; zeros behind the operand's lines and behind depth. */
template <int kLines, bool kAcross, int kThreads>
__device__ __forceinline__ void copy_tile(const TileOperand &from, int64_t first, int64_t k0, int64_t depth, bf16 *to) {
  using Layout = TileLayout<kLines, kAcross>;
  constexpr int kRowStep = kThreads / Layout::kRowChunks, kEach = Layout::kChunks / kThreads;
  static_assert(kThreads % Layout::kRowChunks == 0 && Layout::kChunks % kThreads == 0);
  const int row = static_cast<int>(threadIdx.x) / Layout::kRowChunks;
  const int chunk = static_cast<int>(threadIdx.x) % Layout::kRowChunks;
  const int64_t first_row = (kAcross ? k0 : first) + row, column = (kAcross ? first : k0) + chunk * kChunk;
  const int64_t rows = kAcross ? depth : from.lines, left = (kAcross ? from.lines : depth) - column;
  const int bytes = left >= kChunk ? 16 : left > 0 ? static_cast<int>(left) * 2 : 0;
  const bf16 *source = from.data + first_row * from.stride + column;
#pragma unroll
  for (int e = 0; e < kEach; e++) {
    const int some = first_row + e * kRowStep < rows ? bytes : 0;
    copy_async(to + Layout::chunk_at(row + e * kRowStep, chunk), some > 0 ? source + e * kRowStep * from.stride : from.data,
               some);
  }
}

/* The same of an NF4 weight: its codes are fetched while an earlier stage is worked on, and put as values behind that. */
template <int kLines, bool kAcross, int kThreads> struct Nf4Tile {
  using Layout = TileLayout<kLines, kAcross>;
  static constexpr int kRowStep = kThreads / Layout::kRowChunks, kEach = Layout::kChunks / kThreads;
  unsigned codes[kEach];
  float scales[kEach];
  int64_t row, column; /* of the first chunk, in the weight */

  __device__ __forceinline__ bool inside(const Nf4View &from, int e) const {
    return row + e * kRowStep < from.out && column < from.in;
  }
  __device__ __forceinline__ void fetch(const Nf4View &from, int64_t first, int64_t k0) {
    row = (kAcross ? k0 : first) + static_cast<int>(threadIdx.x) / Layout::kRowChunks;
    column = (kAcross ? first : k0) + static_cast<int>(threadIdx.x) % Layout::kRowChunks * kChunk;
    if (!from.simple) return;
#pragma unroll
    for (int e = 0; e < kEach; e++) {
      const int64_t at = row + e * kRowStep;
      codes[e] = inside(from, e) ? from.codes_of_eight(at, column) : 0;
      scales[e] = inside(from, e) ? from.scale_of(at, column) : 0.0f;
    }
  }
  __device__ __forceinline__ void put_one(int e, const float (&values)[kChunk], bf16 *to) const {
    unsigned words[kChunk / 2];
#pragma unroll
    for (int j = 0; j < kChunk / 2; j++)
      words[j] = to_element<bf16>(values[2 * j]).bits | static_cast<unsigned>(to_element<bf16>(values[2 * j + 1]).bits) << 16;
    const int at = static_cast<int>(threadIdx.x) / Layout::kRowChunks + e * kRowStep;
    *reinterpret_cast<uint4 *>(to + Layout::chunk_at(at, static_cast<int>(threadIdx.x) % Layout::kRowChunks)) =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
  __device__ __forceinline__ void put(const Nf4View &from, const float *book, bf16 *to) const {
    if (from.simple) {
#pragma unroll
      for (int e = 0; e < kEach; e++) {
        float values[kChunk];
        from.values_of(codes[e], scales[e], book, values);
        put_one(e, values, to);
      }
      return;
    }
#pragma unroll 1
    for (int e = 0; e < kEach; e++) {
      float values[kChunk] = {};
      if (inside(from, e)) from.read(row + e * kRowStep, column, book, values);
      put_one(e, values, to);
    }
  }
};

/* ---- a warp's sums -------------------------------------------------------------------------------------------------- */

template <class Shape> struct TileSums {
  static constexpr int kDown = Shape::kWarpRows / 16, kAcross = Shape::kWarpColumns / 8;
  float at[kDown][kAcross][4] = {};

  template <bool kLeftAcross, bool kRightAcross>
  __device__ __forceinline__ void add(const bf16 *stage, int row, int column) {
    using Left = TileLayout<Shape::kRows, kLeftAcross>;
    using Right = TileLayout<Shape::kColumns, kRightAcross>;
#pragma unroll
    for (int k = 0; k < kTileDepth; k += 16) {
      unsigned left[kDown][4], right[kAcross / 2][4];
#pragma unroll
      for (int i = 0; i < kDown; i++) Left::load_left(left[i], stage, row + i * 16, k);
#pragma unroll
      for (int j = 0; j < kAcross / 2; j++) Right::load_right(right[j], stage + Shape::kLeft, column + j * 16, k);
#pragma unroll
      for (int i = 0; i < kDown; i++)
#pragma unroll
        for (int j = 0; j < kAcross; j++) {
          const unsigned(&both)[4] = right[j / 2];
          mma_bf16(at[i][j], left[i], {both[j % 2 * 2], both[j % 2 * 2 + 1]});
        }
    }
  }
  __device__ __forceinline__ void scale(float factor) {
#pragma unroll
    for (int i = 0; i < kDown; i++)
#pragma unroll
      for (int j = 0; j < kAcross; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) at[i][j][e] *= factor;
  }
  /* To shared memory, rows of `stride` elements: the warp's first sum goes to [row,column]. */
  __device__ __forceinline__ void put(float *to, int stride, int row, int column) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
#pragma unroll
    for (int i = 0; i < kDown; i++)
#pragma unroll
      for (int half = 0; half < 2; half++)
#pragma unroll
        for (int j = 0; j < kAcross; j++)
          *reinterpret_cast<float2 *>(to + (row + i * 16 + half * 8 + lane / 4) * stride + column + j * 8 + lane % 4 * 2) =
              make_float2(at[i][j][half * 2], at[i][j][half * 2 + 1]);
  }
};

/* ---- the kernel ------------------------------------------------------------------------------------------------------- */

/* Which tile a block computes: those of few rows of tiles follow each other, so that what they read is found in L2. */
struct TilePlace {
  int64_t down, across;
};
__device__ __forceinline__ TilePlace tile_place(int64_t tile, int64_t tiles_down, int64_t tiles_across) {
  constexpr int64_t kBand = 8;
  const int64_t band = tile / (kBand * tiles_across), inside = tile % (kBand * tiles_across), first = band * kBand;
  const int64_t height = tiles_down - first < kBand ? tiles_down - first : kBand;
  return {first + inside % height, inside / height};
}

/* grid: (tiles, pieces). partial: [piece][m,n], NULL where the depth is not cut. */
template <class Shape, bool kLeftAcross, bool kRightAcross, bool kNf4>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    product_tile_kernel(TileProduct p, int64_t piece, float *partial) {
  constexpr int kThreads = Shape::kThreads, kStages = Shape::kStages;
  DYNAMIC_SHARED(bf16, stages);
  SHARED(float[16], book);
  if (kNf4 && threadIdx.x < 16) book[threadIdx.x] = nf4_book[threadIdx.x];
  if (kNf4) __syncthreads();

  const int64_t tiles_across = (p.n + Shape::kColumns - 1) / Shape::kColumns;
  const int64_t all_across = tiles_across + (p.beside_n + Shape::kColumns - 1) / Shape::kColumns;
  const TilePlace place = tile_place(blockIdx.x, (p.m + Shape::kRows - 1) / Shape::kRows, all_across);
  const bool beside = place.across >= tiles_across;
  const int64_t row = place.down * Shape::kRows;
  const int64_t column = (beside ? place.across - tiles_across : place.across) * Shape::kColumns;
  const int64_t n = beside ? p.beside_n : p.n;
  const int64_t from = blockIdx.y * piece, to = from + piece < p.depth ? from + piece : p.depth;
  const int tail_steps = beside ? 0 : static_cast<int>((p.tail_depth + kTileDepth - 1) / kTileDepth);
  const int steps = tail_steps + static_cast<int>((to - from + kTileDepth - 1) / kTileDepth);
  Nf4Tile<Shape::kColumns, kRightAcross, kThreads> values;

  const auto is_nf4 = [&](int step) { return kNf4 && !beside && step >= tail_steps && step < steps; };
  const auto stage_of = [&](int step) { return stages + step % kStages * Shape::kStage; };
  const auto start = [&](int step) {
    bf16 *left = stage_of(step), *right = left + Shape::kLeft;
    if (step < tail_steps) {
      const int64_t k0 = int64_t{step} * kTileDepth;
      copy_tile<Shape::kRows, kLeftAcross, kThreads>(p.tail_left, row, k0, p.tail_depth, left);
      copy_tile<Shape::kColumns, kRightAcross, kThreads>(p.tail_right, column, k0, p.tail_depth, right);
    } else if (step < steps) {
      const int64_t k0 = from + int64_t{step - tail_steps} * kTileDepth;
      copy_tile<Shape::kRows, kLeftAcross, kThreads>(p.left, row, k0, p.depth, left);
      if (is_nf4(step)) values.fetch(p.nf4, column, k0);
      else copy_tile<Shape::kColumns, kRightAcross, kThreads>(beside ? p.beside : p.right, column, k0, p.depth, right);
    }
    commit_copies();
  };
  const auto settle = [&](int step) {
    if (is_nf4(step)) values.put(p.nf4, book, stage_of(step) + Shape::kLeft);
  };

  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
  const int warp_row = warp / Shape::kWarpsAcross * Shape::kWarpRows;
  const int warp_column = warp % Shape::kWarpsAcross * Shape::kWarpColumns;
  const bool used = row + warp_row < p.m && column + warp_column < n;
  TileSums<Shape> sums;
#pragma unroll
  for (int step = 0; step < kStages - 1; step++) {
    start(step);
    settle(step);
  }
  for (int step = 0; step < steps; step++) {
    wait_copies<kStages - 2>();
    __syncthreads(); /* this stage is there, and nobody reads the one before it any more */
    start(step + kStages - 1);
    if (step == tail_steps && step > 0) sums.scale(p.tail_scale);
    if (used) sums.template add<kLeftAcross, kRightAcross>(stage_of(step), warp_row, warp_column);
    settle(step + kStages - 1);
  }

  /* Through shared memory, so that a warp writes whole lines, and by one loop: what a result may ask for (types, beta, gain)
   * compiled once and not for every sum a thread holds takes half of the compiler's time. */
  wait_copies<0>();
  __syncthreads();
  auto *tile = reinterpret_cast<float *>(stages);
  if (used) sums.put(tile, Shape::kSumStride, warp_row, warp_column);
  __syncthreads();
  const DeviceResults &results = beside ? p.beside_results : p.results;
  constexpr int kPairs = Shape::kColumns / 2;
  const int rows = p.m - row < Shape::kRows ? static_cast<int>(p.m - row) : Shape::kRows;
#pragma unroll 1
  for (int i = threadIdx.x; i < rows * kPairs; i += kThreads) {
    const int64_t r = row + i / kPairs, c = column + i % kPairs * 2;
    const float2 sum = *reinterpret_cast<const float2 *>(tile + i / kPairs * Shape::kSumStride + i % kPairs * 2);
    if (!partial) {
      results.store_pair(r, c, n, sum.x, sum.y);
      continue;
    }
    float *at = partial + (blockIdx.y * p.m + r) * p.n;
    if (c < p.n) at[c] = sum.x;
    if (c + 1 < p.n) at[c + 1] = sum.y;
  }
}

} // namespace gpu
