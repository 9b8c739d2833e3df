/*
 * Vectors of words. A word is 32 bits, a float or two bf16; words travel as floats through loads, shuffles and stores
 * only, which keep their bits.
 */
#pragma once

inline vf bf16_low(vf words) { return (vf)((vu)words << 16); }
inline vf bf16_high(vf words) { return (vf)((vu)words & 0xffff0000u); }

/* Products only read pairs where vdpbf16ps is there, and it takes a denormal for zero as vcvtne2ps2bf16 does. */
#if SB_ISA_LEVEL >= 3
/* Word i = lanes 2i and 2i+1 of [first | second]. */
inline vf pair_neighbours(vf first, vf second) { return (vf)_mm512_cvtne2ps_pbh(second, first); }
/* Word i = lane i of both. */
inline vf pair_lanes(vf low, vf high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (vf)_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}
#endif

/* ---- transposition: kLanes rows of kLanes words, in place ---------------------------------------------------- */

#if SB_ISA_LEVEL >= 2
/* Four vectors of four 128-bit lanes, rows[0], rows[step] ..: the lanes of column l to rows[l * to]. */
template <int step, int to>
inline __attribute__((always_inline)) void transpose_quarters(vf *out, const vf *rows) {
  const vf a = _mm512_shuffle_f32x4(rows[0], rows[step], 0x88), b = _mm512_shuffle_f32x4(rows[0], rows[step], 0xdd);
  const vf c = _mm512_shuffle_f32x4(rows[2 * step], rows[3 * step], 0x88);
  const vf d = _mm512_shuffle_f32x4(rows[2 * step], rows[3 * step], 0xdd);
  out[0] = _mm512_shuffle_f32x4(a, c, 0x88);
  out[to] = _mm512_shuffle_f32x4(b, d, 0x88);
  out[2 * to] = _mm512_shuffle_f32x4(a, c, 0xdd);
  out[3 * to] = _mm512_shuffle_f32x4(b, d, 0xdd);
}
inline vf low_doubles(vf a, vf b) { return (vf)_mm512_unpacklo_pd((__m512d)a, (__m512d)b); }
inline vf high_doubles(vf a, vf b) { return (vf)_mm512_unpackhi_pd((__m512d)a, (__m512d)b); }

/* Eight rows of eight 64-bit units. */
inline __attribute__((always_inline)) void transpose_double_words(vf *rows) {
  vf t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[2 * i] = low_doubles(rows[2 * i], rows[2 * i + 1]);
    t[2 * i + 1] = high_doubles(rows[2 * i], rows[2 * i + 1]);
  }
  transpose_quarters<2, 2>(rows, t);
  transpose_quarters<2, 2>(rows + 1, t + 1);
}
inline __attribute__((always_inline)) void transpose_words(vf *rows) {
  vf t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 4) {
    const vf a = _mm512_unpacklo_ps(rows[i], rows[i + 1]), b = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    const vf c = _mm512_unpacklo_ps(rows[i + 2], rows[i + 3]), d = _mm512_unpackhi_ps(rows[i + 2], rows[i + 3]);
    t[i] = low_doubles(a, c);
    t[i + 1] = high_doubles(a, c);
    t[i + 2] = low_doubles(b, d);
    t[i + 3] = high_doubles(b, d);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) transpose_quarters<4, 4>(rows + i, t + i);
}
#elif SB_ISA_LEVEL == 1
inline __attribute__((always_inline)) void transpose_words(vf *rows) {
  vf t[8];
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    const vf a = _mm256_unpacklo_ps(rows[i], rows[i + 1]), b = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
    const vf c = _mm256_unpacklo_ps(rows[i + 2], rows[i + 3]), d = _mm256_unpackhi_ps(rows[i + 2], rows[i + 3]);
    t[i] = _mm256_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    rows[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
    rows[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
  }
}
#else
inline void transpose_words(vf *rows) {
  float words[kLanes * kLanes];
  for (int64_t i = 0; i < kLanes; i++) vf_store(words + i * kLanes, rows[i]);
  for (int64_t i = 0; i < kLanes; i++) {
    float column[kLanes];
    for (int64_t j = 0; j < kLanes; j++) column[j] = words[j * kLanes + i];
    rows[i] = vf_load(column);
  }
}
#endif
