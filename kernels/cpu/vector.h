/*
 * One vector type for every instruction set: vf holds kLanes floats, 16 under AVX-512, 8 under AVX2, 4 elsewhere.
 * Arithmetic is written with operators (the compilers' vector extension); what has no operator is a function here.
 * Included by isa.cpp inside the instruction set's own namespace.
 */
#pragma once

#if SB_ISA_LEVEL >= 2
constexpr int64_t kLanes = 16;
#elif SB_ISA_LEVEL == 1
constexpr int64_t kLanes = 8;
#else
constexpr int64_t kLanes = 4;
#endif

typedef float vf __attribute__((vector_size(kLanes * 4)));
typedef uint32_t vu __attribute__((vector_size(kLanes * 4)));
typedef int32_t vi __attribute__((vector_size(kLanes * 4)));

#define SB_INLINE inline __attribute__((always_inline))

/* ---- scalars ------------------------------------------------------------------------------------------------ */

SB_INLINE float bf16_to_f32(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &word, 4);
  return value;
}
/* To nearest even; a NaN stays one. */
SB_INLINE uint16_t f32_to_bf16(float value) {
  uint32_t word;
  memcpy(&word, &value, 4);
  if ((word & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(word >> 16 | 0x40);
  return static_cast<uint16_t>((word + 0x7fffu + (word >> 16 & 1)) >> 16);
}
/* IEEE half, to nearest even; a NaN stays one. No _Float16: g++ has it from 12 on (on ARM from 13), clang from 15. */
#if defined(__aarch64__)
SB_INLINE float f16_to_f32(uint16_t bits) {
  __fp16 half;
  memcpy(&half, &bits, 2);
  return static_cast<float>(half);
}
SB_INLINE uint16_t f32_to_f16(float value) {
  const __fp16 half = static_cast<__fp16>(value);
  uint16_t bits;
  memcpy(&bits, &half, 2);
  return bits;
}
#elif SB_ISA_LEVEL >= 1
SB_INLINE float f16_to_f32(uint16_t bits) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits))); }
SB_INLINE uint16_t f32_to_f16(float value) {
  return static_cast<uint16_t>(_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(value), 0)));
}
#else
SB_INLINE float f16_to_f32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, rest = bits & 0x7fff, fraction = rest & 0x3ff;
  uint32_t word = (rest << 13) + (112u << 23);
  if (rest >= 0x7c00) word = 0x7f800000u | fraction << 13 | (fraction ? 0x400000u : 0);
  float value;
  if (rest < 0x400) {
    value = static_cast<float>(fraction) * 0x1p-24f;
    memcpy(&word, &value, 4);
  }
  word |= sign;
  memcpy(&value, &word, 4);
  return value;
}
SB_INLINE uint16_t f32_to_f16(float value) {
  uint32_t word;
  memcpy(&word, &value, 4);
  const uint32_t sign = word >> 16 & 0x8000, rest = word & 0x7fffffffu;
  if (rest > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00 | (rest >> 13 & 0x3ff));
  if (rest >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00); /* 65520: halfway to 2^16 */
  if (rest < 0x38800000u) { /* below 2^-14: in [0.5, 1) a float's last bit is 2^-24, a half's here */
    float shifted;
    memcpy(&shifted, &rest, 4);
    shifted += 0.5f;
    memcpy(&word, &shifted, 4);
    return static_cast<uint16_t>(sign | (word - 0x3f000000u));
  }
  return static_cast<uint16_t>(sign | (rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13);
}
#endif

/* ---- loads and stores, at any address ----------------------------------------------------------------------- */

SB_INLINE vf vf_zero() { return vf{}; }
/* Not vf{} + value: -0 + 0 is 0, so the compilers keep that addition. */
SB_INLINE vf vf_set(float value) {
#if SB_ISA_LEVEL >= 2
  return _mm512_set1_ps(value);
#elif SB_ISA_LEVEL == 1
  return _mm256_set1_ps(value);
#else
  return vf{value, value, value, value};
#endif
}
SB_INLINE vf vf_load(const float *p) {
  vf v;
  memcpy(&v, p, sizeof v);
  return v;
}
SB_INLINE void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }

SB_INLINE vf vf_load_bf16(const uint16_t *p) {
#if SB_ISA_LEVEL >= 2
  return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p))), 16);
#elif SB_ISA_LEVEL == 1
  return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p))), 16);
#else
  vf v;
  for (int64_t i = 0; i < kLanes; i++) v[i] = bf16_to_f32(p[i]);
  return v;
#endif
}
SB_INLINE vf vf_load_f16(const uint16_t *p) {
#if SB_ISA_LEVEL >= 2
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
#elif SB_ISA_LEVEL == 1
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
#else
  vf v;
  for (int64_t i = 0; i < kLanes; i++) v[i] = f16_to_f32(p[i]);
  return v;
#endif
}

/* bf16 values in f32 lanes: to nearest even; a NaN stays one. */
SB_INLINE vf round_to_bf16(vf v) {
  const vu bits = (vu)v;
  const vu nan = (vu)((bits & 0x7fffffffu) > 0x7f800000u);
  const vu rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  return (vf)(((rounded & ~nan) | ((bits | 0x400000u) & nan)) & 0xffff0000u);
}
SB_INLINE void vf_store_bf16(uint16_t *p, vf v) {
  const vu words = (vu)round_to_bf16(v) >> 16;
#if SB_ISA_LEVEL >= 2
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtepi32_epi16((__m512i)words));
#elif SB_ISA_LEVEL == 1
  const __m128i low = _mm256_castsi256_si128((__m256i)words), high = _mm256_extracti128_si256((__m256i)words, 1);
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p), _mm_packus_epi32(low, high));
#else
  for (int64_t i = 0; i < kLanes; i++) p[i] = static_cast<uint16_t>(words[i]);
#endif
}

/* ---- arithmetic --------------------------------------------------------------------------------------------- */

/* a·b + c: fused from AVX2 on, two roundings in the portable form. */
SB_INLINE vf vf_fma(vf a, vf b, vf c) {
#if SB_ISA_LEVEL >= 2
  return _mm512_fmadd_ps(a, b, c);
#elif SB_ISA_LEVEL == 1
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}
/* b where a is NaN. */
SB_INLINE vf vf_max(vf a, vf b) { return a > b ? a : b; }
SB_INLINE vf vf_min(vf a, vf b) { return a < b ? a : b; }

/* Sum of the lanes, halves added to halves: one order an instruction set. */
SB_INLINE float vf_sum(vf v) {
  float lanes[kLanes];
  vf_store(lanes, v);
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; i++) lanes[i] += lanes[i + half];
  return lanes[0];
}
SB_INLINE float vf_largest(vf v) {
  float lanes[kLanes];
  vf_store(lanes, v);
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; i++) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  return lanes[0];
}

/*
 * e^x to about 1 ulp: x = n·ln 2 + r, |r| <= ln 2 / 2, a degree-6 polynomial in r, then n into the exponent in two
 * halves. Below -87.3 the result is 0 (no denormals), above 88.7 infinity; NaN stays NaN.
 */
SB_INLINE vf vf_exp(vf x) {
  const vf low = vf_set(-87.33654f), high = vf_set(88.72283f), magic = vf_set(12582912.0f); /* 1.5·2^23 */
  const vf clamped = x < low ? low : x > high ? high : x;
  const vf n = vf_fma(clamped, vf_set(1.44269504f), magic) - magic;
  vf r = vf_fma(n, vf_set(-0.693359375f), clamped);
  r = vf_fma(n, vf_set(2.12194440e-4f), r);
  vf p = vf_fma(vf_set(1.9875691500e-4f), r, vf_set(1.3981999507e-3f));
  p = vf_fma(p, r, vf_set(8.3334519073e-3f));
  p = vf_fma(p, r, vf_set(4.1665795894e-2f));
  p = vf_fma(p, r, vf_set(1.6666665459e-1f));
  p = vf_fma(p, r, vf_set(5.0000001201e-1f));
  p = vf_fma(p * r, r, r) + vf_set(1.0f);
#if SB_ISA_LEVEL >= 2
  const vf scaled = _mm512_scalef_ps(p, n);
#else
  const vi exponent = (vi)(n + magic) - (vi)magic, half = exponent >> 1; /* 2^128 has no f32: two factors */
  const vf scaled = p * (vf)((half + 127) << 23) * (vf)((exponent - half + 127) << 23);
#endif
  return x < low ? vf_zero() : x > high ? vf_set(INFINITY) : scaled;
}
/* x / (1 + e^-x) and its logistic factor. */
SB_INLINE vf vf_sigmoid(vf x) { return vf_set(1.0f) / (vf_set(1.0f) + vf_exp(-x)); }

/* ---- partial vectors ---------------------------------------------------------------------------------------- */

/* The first n lanes (0 <= n <= kLanes); zeros behind them, whose memory is not touched. */
SB_INLINE vf vf_load_some(const float *p, int64_t n) {
#if SB_ISA_LEVEL >= 2
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
#elif SB_ISA_LEVEL == 1
  alignas(32) static constexpr int32_t masks[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_maskload_ps(p, _mm256_loadu_si256(reinterpret_cast<const __m256i *>(masks + kLanes - n)));
#else
  vf v = {};
  memcpy(&v, p, n * sizeof(float));
  return v;
#endif
}
SB_INLINE void vf_store_some(float *p, vf v, int64_t n) {
#if SB_ISA_LEVEL >= 2
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
#elif SB_ISA_LEVEL == 1
  /* AMD takes dozens of cycles for a masked store. */
  if (n >= kLanes) return vf_store(p, v);
  __m128 rest = _mm256_castps256_ps128(v);
  if (n & 4) {
    _mm_storeu_ps(p, rest);
    rest = _mm256_extractf128_ps(v, 1);
    p += 4;
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64 *>(p), rest);
    rest = _mm_movehl_ps(rest, rest);
    p += 2;
  }
  if (n & 1) _mm_store_ss(p, rest);
#else
  memcpy(p, &v, n * sizeof(float));
#endif
}
