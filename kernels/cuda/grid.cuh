/* How the elements of an op are dealt out to threads. */
#pragma once
#include "context.h"
#include "numbers.cuh"

namespace gpu {

constexpr int kThreads = 256;
constexpr int64_t kTile = int64_t{kThreads} * kFour; /* elements of a block that takes four a thread */

/* ---- n elements in one row: launch over flat_grid(n), kThreads -------------------------------------------------- */

inline dim3 flat_grid(int64_t n) { return dim3(blocks_for(n, kTile)); }
/* The first of this thread's four. */
__device__ __forceinline__ int64_t flat_index() {
  return (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kFour;
}

/* ---- [T,n], four columns a thread: launch over row_grid(T, n), kThreads ----------------------------------------- */

/* Rows lie along x, which may be long; columns beyond 2^26 do not occur. */
inline dim3 row_grid(int64_t T, int64_t n) { return dim3(static_cast<unsigned>(T), blocks_for(n, kTile)); }
__device__ __forceinline__ int64_t row_of_block() { return blockIdx.x; }
__device__ __forceinline__ int64_t column_of_thread() {
  return (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kFour;
}

/* ---- a warp a row, for rows of few elements or sums along them: warp_grid(T), warp_block() ---------------------- */

constexpr int kRowsOfBlock = 8;
inline dim3 warp_block() { return dim3(kWarpLanes, kRowsOfBlock); }
inline dim3 warp_grid(int64_t T) { return dim3(blocks_for(T, kRowsOfBlock)); }
/* The same in all lanes of a warp; may be T or more in the last block. */
__device__ __forceinline__ int64_t row_of_warp() { return int64_t{blockIdx.x} * kRowsOfBlock + threadIdx.y; }

/* ---- a sum down each column: column_grid(n), column_block() ----------------------------------------------------- */

/*
 * out[j] = merge(j, Σ_t term(t, j)). A block owns 32 columns; warp w of its 32 sums the rows w, w+32, … one after the
 * other, then the 32 sums are added from the first to the last.
 */
inline dim3 column_block() { return dim3(kWarpLanes, kWarpLanes); }
inline dim3 column_grid(int64_t n) { return dim3(blocks_for(n, kWarpLanes)); }
template <class Term, class Merge>
__device__ __forceinline__ void sum_columns(int64_t T, int64_t n, const Term &term, const Merge &merge) {
  SHARED(float[kWarpLanes][kWarpLanes], sums);
  const int64_t j = int64_t{blockIdx.x} * kWarpLanes + threadIdx.x;
  float sum = 0;
  if (j < n)
    for (int64_t t = threadIdx.y; t < T; t += kWarpLanes) sum = term(sum, t, j);
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || j >= n) return;
  float total = 0;
  for (int warp = 0; warp < kWarpLanes; warp++) total += sums[warp][threadIdx.x];
  merge(j, total);
}

} // namespace gpu
