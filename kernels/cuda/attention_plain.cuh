/*
 * Attention for every type and head size, without tensor cores: what the two products need, for blocks of eight warps.
 * A warp stands for one row of the `few` side (a query row; in dk and dv a key), a lane for one of the 32 rows of the
 * `many` side. Both sides pass through shared memory 32 columns at a time. Sums lie in registers, kPlainColumns columns
 * a block; where a head is wider, blocks along y compute the scores again.
 *
 * A row's place is told by a function: its D elements, or NULL for a row that is not there (zeros).
 */
#pragma once
#include "grid.cuh"
#include "reduce.cuh"

namespace gpu {

constexpr int kFew = 8, kMany = kWarpLanes;
constexpr int kPlainThreads = kFew * kWarpLanes;
constexpr int kPlainSums = 8, kPlainColumns = kPlainSums * kWarpLanes;

inline unsigned plain_column_blocks(int64_t D) { return blocks_for(D, kPlainColumns); }
__device__ __forceinline__ int plain_warp() { return static_cast<int>(threadIdx.x) / kWarpLanes; }
__device__ __forceinline__ int plain_lane() { return static_cast<int>(threadIdx.x) % kWarpLanes; }
__device__ __forceinline__ int64_t plain_first_column() { return int64_t{blockIdx.y} * kPlainColumns; }

struct PlainScratch {
  float few[kFew][kWarpLanes];
  float many[kMany][kWarpLanes + 1]; /* a lane reads a row: the odd step spreads them over the banks */
  float weights[kFew][kMany];
};

/* rows[r][c] = row(r)[column + c], r < count. */
template <int count, int step, class Row>
__device__ __forceinline__ void fill_plain(float (&rows)[count][step], const Row &row, int64_t column, int64_t D) {
  const int64_t at = column + plain_lane();
  for (int r = plain_warp(); r < count; r += kFew) {
    const auto *const from = row(r);
    rows[r][plain_lane()] = from && at < D ? to_float(from[at]) : 0.0f;
  }
}

/* Σ_d few(warp)[d] · many(lane)[d] */
template <class Few, class Many>
__device__ float dot_rows(PlainScratch &scratch, int64_t D, const Few &few, const Many &many) {
  float sum = 0;
  for (int64_t column = 0; column < D; column += kWarpLanes) {
    __syncthreads();
    fill_plain(scratch.few, few, column, D);
    fill_plain(scratch.many, many, column, D);
    __syncthreads();
    for (int c = 0; c < kWarpLanes; c++)
      sum = fmaf(scratch.few[plain_warp()][c], scratch.many[plain_lane()][c], sum);
  }
  return sum;
}

/* sums[i] += Σ_j weight(j) · many(j)[first column + 32·i + lane], begin <= j < end in this warp; weight: lane j's. */
template <class Many>
__device__ void add_rows(PlainScratch &scratch, int64_t D, float weight, int begin, int end, const Many &many,
                         float (&sums)[kPlainSums]) {
  scratch.weights[plain_warp()][plain_lane()] = weight;
#pragma unroll
  for (int i = 0; i < kPlainSums; i++) {
    const int64_t column = plain_first_column() + i * kWarpLanes;
    if (column < D) {
      __syncthreads();
      fill_plain(scratch.many, many, column, D);
      __syncthreads();
      for (int j = begin; j < end; j++)
        sums[i] = fmaf(scratch.weights[plain_warp()][j], scratch.many[j][plain_lane()], sums[i]);
    }
  }
  __syncthreads(); /* the next call writes weights */
}

/* to[first column + 32·i + lane] = factor · sums[i] */
template <class T>
__device__ void store_plain(T *to, int64_t D, const float (&sums)[kPlainSums], float factor) {
#pragma unroll
  for (int i = 0; i < kPlainSums; i++) {
    const int64_t column = plain_first_column() + i * kWarpLanes + plain_lane();
    if (column < D) to[column] = to_element<T>(sums[i] * factor);
  }
}

/* A running softmax over blocks of 32 keys at multiples of 32. */
struct PlainRow {
  float most = -INFINITY, sum = 0;
  float values[kPlainSums] = {};
};

/*
 * The row of this warp, query(warp), sees keys 0..position; -1: no row is wanted, what it computes is worth nothing.
 * key(j), value(j) for j <= last, the largest position of the block.
 */
template <class Query, class Key, class Value>
__device__ PlainRow attend_plain(PlainScratch &scratch, int64_t D, float scale, int position, int last,
                                 const Query &query, const Key &key, const Value &value) {
  PlainRow row;
  for (int key0 = 0; key0 <= last; key0 += kMany) {
    const auto keys = [&](int j) { return key0 + j <= last ? key(key0 + j) : nullptr; };
    const auto values = [&](int j) { return key0 + j <= last ? value(key0 + j) : nullptr; };
    const float score = dot_rows(scratch, D, query, keys) * scale;
    const int left = position + 1 - key0, seen = left < 0 ? 0 : left < kMany ? left : kMany;
    const bool sees = plain_lane() < seen;
    const float now = fmaxf(row.most, warp_max(sees ? score : -INFINITY));
    const float p = sees ? expf(score - now) : 0.0f, shrink = expf(row.most - now);
    row.most = now;
    row.sum = row.sum * shrink + warp_sum(p);
#pragma unroll
    for (int i = 0; i < kPlainSums; i++) row.values[i] *= shrink;
    add_rows(scratch, D, p, 0, seen, values, row.values);
  }
  return row;
}

} // namespace gpu
