/*
 * CUDA's language and built-in functions for a C++ compiler, as far as kernels/cuda uses them, so that the very .cu files
 * run on a CPU. What it shows: indices, barriers, sums and their order, memory beyond its bounds (with a sanitizer). What
 * it cannot: speed, races between blocks, what asynchronous copies really overlap.
 */
#pragma once
#include "block.h"
#include "runtime.h"

#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

#define threadIdx (emulation::thread_index())
#define blockIdx (emulation::block_index())
#define blockDim (emulation::block_size())
#define gridDim (emulation::grid_size())

/* One object a block: its key is an object of the place where it is declared. */
#define SHARED(type, name)                                                                                            \
  static const char name##_key = 0;                                                                                   \
  auto &name = *static_cast<Shared<type> *>(                                                                          \
      emulation::shared_memory(&name##_key, sizeof(Shared<type>), alignof(Shared<type>)))
#define DYNAMIC_SHARED(type, name) type *const name = static_cast<type *>(emulation::dynamic_shared_memory())
template <class T> using Shared = T;

inline void __syncthreads() { emulation::synchronize_block(); }

/* ---- vectors ---------------------------------------------------------------------------------------------------- */

namespace emulation {

/* A GPU reads and writes a vector only where its size divides the address. */
template <size_t bytes> struct Vector {
  Vector() = default;
  Vector(const Vector &from) { check_aligned(&from, bytes, "a vector is read"); }
  Vector &operator=(const Vector &from) {
    check_aligned(this, bytes, "a vector is written");
    check_aligned(&from, bytes, "a vector is read");
    return *this;
  }
};

} // namespace emulation

struct alignas(8) float2 : emulation::Vector<8> {
  float x, y;
};
struct alignas(16) float4 : emulation::Vector<16> {
  float x, y, z, w;
};
struct alignas(8) uint2 : emulation::Vector<8> {
  unsigned x, y;
};
struct alignas(16) uint4 : emulation::Vector<16> {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {{}, x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {{}, x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {{}, x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {{}, x, y, z, w}; }

/* ---- bits and numbers ------------------------------------------------------------------------------------------- */

template <class To, class From> To emulation_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
inline unsigned __float_as_uint(float value) { return emulation_bits<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return emulation_bits<float>(bits); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __ffs(int value) { return __builtin_ffs(value); }
inline int __clz(int value) { return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value)); }
inline float rsqrtf(float value) { return 1.0f / sqrtf(value); }
inline float __expf(float value) { return expf(value); }
inline float __fdividef(float a, float b) { return a / b; }
template <class T> T __ldg(const T *from) { return *from; }

struct __nv_bfloat16 {
  uint16_t bits;
};
struct __half {
  uint16_t bits;
};
inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t bits) { return {bits}; }
inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
inline float __bfloat162float(__nv_bfloat16 value) { return __uint_as_float(unsigned{value.bits} << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  const unsigned word = __float_as_uint(value);
  if (value != value) return {0x7fff};
  return {static_cast<uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16)};
}
inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline uint16_t __half_as_ushort(__half value) { return value.bits; }
inline float __half2float(__half value) {
  const int exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
  float magnitude = exponent == 0 ? ldexpf(fraction, -24) : ldexpf(1024 + fraction, exponent - 25);
  if (exponent == 31) magnitude = fraction == 0 ? INFINITY : NAN;
  return value.bits >> 15 ? -magnitude : magnitude;
}
inline __half __float2half_rn(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (value != value) return {0x7fff};
  int exponent; /* |value| in [2^(exponent-1), 2^exponent); below 2^-14 the spacing stays that of 2^-14 */
  frexpf(value, &exponent);
  if (std::isinf(value) || exponent > 16) return {static_cast<uint16_t>(sign | 0x7c00)};
  if (value == 0 || exponent < -13) exponent = -13;
  const int steps = static_cast<int>(nearbyintf(ldexpf(fabsf(value), 11 - exponent)));
  return {static_cast<uint16_t>(sign + ((exponent + 13) << 10) + steps)};
}

/* ---- atomics: the threads of a grid take turns, so that any read and write is one ------------------------------- */

#define EMULATION_ATOMIC(name, result)                                                                                \
  template <class T> __attribute__((no_sanitize("thread"))) T name(T *at, T value) {                                 \
    const T before = *at;                                                                                             \
    *at = result;                                                                                                     \
    return before;                                                                                                    \
  }
EMULATION_ATOMIC(atomicAdd, before + value)
EMULATION_ATOMIC(atomicMax, before < value ? value : before)
EMULATION_ATOMIC(atomicMin, value < before ? value : before)
EMULATION_ATOMIC(atomicOr, before | value)
EMULATION_ATOMIC(atomicExch, value)
#undef EMULATION_ATOMIC
template <class T> __attribute__((no_sanitize("thread"))) T atomicCAS(T *at, T expected, T value) {
  const T before = *at;
  if (before == expected) *at = value;
  return before;
}
inline void __threadfence() {}
inline void __threadfence_system() {}

#include "warp.h"
