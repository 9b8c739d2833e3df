/*
 * Sums over a warp and a block, always as the same tree: a result depends on the number of threads a block has, which an
 * op fixes, and on nothing else.
 */
#pragma once
#include "device.h"

/* Every lane gets the sum of all. T is float or double. */
template <class T> __device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int distance = kWarpLanes / 2; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

/* Every thread of a block of `threads` (a multiple of 32, in x) gets the sum of all. May be called again and again. */
template <int threads, class T> __device__ __forceinline__ T block_sum(T value) {
  constexpr int kWarps = threads / kWarpLanes;
  SHARED(T[kWarps], sums);
  value = warp_sum(value);
  if (threadIdx.x % kWarpLanes == 0) sums[threadIdx.x / kWarpLanes] = value;
  __syncthreads();
  T total = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; warp++) total += sums[warp];
  __syncthreads(); /* the next call writes sums */
  return total;
}
