/* Elements of tensors: float and bf16 in memory, float in registers; four at a time where the address allows it. */
#pragma once
#include "../sbora.h"
#include "device.h"

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

/* ---- one element ------------------------------------------------------------------------------------------------ */

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(bf16 value) { return __uint_as_float(unsigned{value.bits} << 16); }
__device__ __forceinline__ float to_float(f16 value) { return __half2float(__ushort_as_half(value.bits)); }

/* Rounded to nearest, ties to even. */
template <class T> __device__ __forceinline__ T to_element(float value);
template <> __device__ __forceinline__ float to_element<float>(float value) { return value; }
template <> __device__ __forceinline__ bf16 to_element<bf16>(float value) {
  return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
}
template <> __device__ __forceinline__ f16 to_element<f16>(float value) {
  return {__half_as_ushort(__float2half_rn(value))};
}

/* ---- four neighbours -------------------------------------------------------------------------------------------- */

constexpr int kFour = 4;

struct Four {
  float at[kFour];
};

template <class T> __device__ __forceinline__ bool aligned_for_four(const T *address) {
  return (reinterpret_cast<uintptr_t>(address) & (kFour * sizeof(T) - 1)) == 0;
}

__device__ __forceinline__ Four load_aligned(const float *from) {
  const float4 v = *reinterpret_cast<const float4 *>(from);
  return {{v.x, v.y, v.z, v.w}};
}
__device__ __forceinline__ Four load_aligned(const bf16 *from) {
  const uint2 v = *reinterpret_cast<const uint2 *>(from);
  return {{__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xffff0000u), __uint_as_float(v.y << 16),
           __uint_as_float(v.y & 0xffff0000u)}};
}
__device__ __forceinline__ Four load_aligned(const f16 *from) {
  const uint2 v = *reinterpret_cast<const uint2 *>(from);
  const auto half = [](unsigned bits) { return to_float(f16{static_cast<uint16_t>(bits)}); };
  return {{half(v.x), half(v.x >> 16), half(v.y), half(v.y >> 16)}};
}
__device__ __forceinline__ void store_aligned(float *to, const Four &v) {
  *reinterpret_cast<float4 *>(to) = make_float4(v.at[0], v.at[1], v.at[2], v.at[3]);
}
template <class T> __device__ __forceinline__ void store_aligned(T *to, const Four &v) { /* 16 bits each */
  unsigned bits[kFour];
  for (int i = 0; i < kFour; i++) bits[i] = to_element<T>(v.at[i]).bits;
  *reinterpret_cast<uint2 *>(to) = make_uint2(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16);
}

/* from[i..i+3] of n elements; zeros behind the last. */
template <class T> __device__ __forceinline__ Four load_four(const T *from, int64_t i, int64_t n) {
  if (i + kFour <= n && aligned_for_four(from + i)) return load_aligned(from + i);
  Four v;
#pragma unroll
  for (int j = 0; j < kFour; j++) v.at[j] = i + j < n ? to_float(from[i + j]) : 0.0f;
  return v;
}

/* to[i..i+3] of n elements; nothing behind the last. */
template <class T> __device__ __forceinline__ void store_four(T *to, int64_t i, int64_t n, const Four &v) {
  if (i + kFour <= n && aligned_for_four(to + i)) return store_aligned(to + i, v);
#pragma unroll
  for (int j = 0; j < kFour; j++)
    if (i + j < n) to[i + j] = to_element<T>(v.at[j]);
}

/* ---- on the host ------------------------------------------------------------------------------------------------ */

/* use(element type's zero) for SB_F32 or SB_BF16: with_dtype(dtype, [&](auto zero) { using T = decltype(zero); … }). */
template <class Use> void with_dtype(int32_t dtype, const Use &use) {
  if (dtype == SB_BF16) use(bf16{});
  else use(float{});
}
/* The same, f16 too: what weights are held in. */
template <class Use> void with_weight_dtype(int32_t dtype, const Use &use) {
  if (dtype == SB_F16) use(f16{});
  else with_dtype(dtype, use);
}
