/* Where a product's sums go. */
#pragma once
#include "numbers.cuh"
#include "product.h"

namespace gpu {

__device__ __forceinline__ void load_pair(const float *from, float (&values)[2]) {
  const float2 v = *reinterpret_cast<const float2 *>(from);
  values[0] = v.x;
  values[1] = v.y;
}
__device__ __forceinline__ void load_pair(const bf16 *from, float (&values)[2]) {
  const unsigned both = *reinterpret_cast<const unsigned *>(from);
  values[0] = __uint_as_float(both << 16);
  values[1] = __uint_as_float(both & 0xffff0000u);
}
__device__ __forceinline__ void write_pair(float *to, float first, float second) {
  *reinterpret_cast<float2 *>(to) = make_float2(first, second);
}
__device__ __forceinline__ void write_pair(bf16 *to, float first, float second) {
  *reinterpret_cast<unsigned *>(to) = to_element<bf16>(first).bits | static_cast<unsigned>(to_element<bf16>(second).bits) << 16;
}

struct DeviceResults {
  void *to;
  bool narrow; /* bf16 */
  int64_t stride;
  float alpha, beta;
  const float *gain;

  template <class T> __device__ __forceinline__ void store_as(int64_t row, int64_t column, float value) const {
    T &at = static_cast<T *>(to)[row * stride + column];
    at = to_element<T>(beta != 0 ? fmaf(beta, to_float(at), value) : value);
  }
  __device__ __forceinline__ float scaled(int64_t column, float sum) const {
    const float value = sum * alpha;
    return gain ? value * gain[column] : value;
  }
  __device__ __forceinline__ void store(int64_t row, int64_t column, float sum) const {
    if (narrow) store_as<bf16>(row, column, scaled(column, sum));
    else store_as<float>(row, column, scaled(column, sum));
  }

  template <class T>
  __device__ __forceinline__ void store_pair_as(int64_t row, int64_t column, int64_t n, float first, float second) const {
    T *at = static_cast<T *>(to) + row * stride + column;
    if (column + 1 >= n || (reinterpret_cast<uintptr_t>(at) & (2 * sizeof(T) - 1)) != 0) {
      if (column < n) store_as<T>(row, column, first);
      if (column + 1 < n) store_as<T>(row, column + 1, second);
      return;
    }
    if (beta != 0) {
      float old[2];
      load_pair(at, old);
      first = fmaf(beta, old[0], first);
      second = fmaf(beta, old[1], second);
    }
    write_pair(at, first, second);
  }
  /* Columns column and column + 1 of n. */
  __device__ __forceinline__ void store_pair(int64_t row, int64_t column, int64_t n, float first, float second) const {
    if (column >= n) return;
    first = scaled(column, first);
    second = column + 1 < n ? scaled(column + 1, second) : 0.0f;
    if (narrow) store_pair_as<bf16>(row, column, n, first, second);
    else store_pair_as<float>(row, column, n, first, second);
  }
};

inline DeviceResults device_results(const Results &results) {
  return {results.to, results.dtype == SB_BF16, results.stride, results.alpha, results.beta, results.gain};
}

} // namespace gpu
