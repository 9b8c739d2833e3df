/* Philox4x32-10 on kLanes counters at once, the dropout mask made from it, and dropout of whole rows. */

/* ---- Philox (Salmon et al. 2011) ----------------------------------------------------------------------------- */

/* Upper halves of the 64-bit products. */
SB_INLINE vu multiply_high(vu a, uint32_t factor) {
#if SB_ISA_LEVEL >= 2
  const __m512i f = _mm512_set1_epi64(factor), even = _mm512_mul_epu32((__m512i)a, f);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)a, 32), f);
  return (vu)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
#elif SB_ISA_LEVEL == 1
  const __m256i f = _mm256_set1_epi64x(factor), even = _mm256_mul_epu32((__m256i)a, f);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)a, 32), f);
  return (vu)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
#else
  vu high;
  for (int64_t i = 0; i < kLanes; i++) high[i] = static_cast<uint32_t>((static_cast<uint64_t>(a[i]) * factor) >> 32);
  return high;
#endif
}

/* words[0..3], of kLanes counters, become the cipher of themselves. */
SB_INLINE void philox(vu words[4], uint64_t key) {
  constexpr uint32_t kFactor0 = 0xD2511F53u, kFactor1 = 0xCD9E8D57u;
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  for (int32_t round = 0; round < 10; round++) {
    const vu first = words[0], third = words[2];
    words[0] = multiply_high(third, kFactor1) ^ words[1] ^ key0;
    words[1] = third * kFactor1;
    words[2] = multiply_high(first, kFactor0) ^ words[3] ^ key1;
    words[3] = first * kFactor0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

/* In every 128-bit lane: out[i] = (words[0][i], words[1][i], words[2][i], words[3][i]). */
SB_INLINE void transpose_quads(const vu words[4], vu out[4]) {
#if SB_ISA_LEVEL >= 2
  const __m512i *w = reinterpret_cast<const __m512i *>(words);
  const __m512i a = _mm512_unpacklo_epi32(w[0], w[1]), b = _mm512_unpackhi_epi32(w[0], w[1]);
  const __m512i c = _mm512_unpacklo_epi32(w[2], w[3]), d = _mm512_unpackhi_epi32(w[2], w[3]);
  out[0] = (vu)_mm512_unpacklo_epi64(a, c);
  out[1] = (vu)_mm512_unpackhi_epi64(a, c);
  out[2] = (vu)_mm512_unpacklo_epi64(b, d);
  out[3] = (vu)_mm512_unpackhi_epi64(b, d);
#elif SB_ISA_LEVEL == 1
  const __m256i *w = reinterpret_cast<const __m256i *>(words);
  const __m256i a = _mm256_unpacklo_epi32(w[0], w[1]), b = _mm256_unpackhi_epi32(w[0], w[1]);
  const __m256i c = _mm256_unpacklo_epi32(w[2], w[3]), d = _mm256_unpackhi_epi32(w[2], w[3]);
  out[0] = (vu)_mm256_unpacklo_epi64(a, c);
  out[1] = (vu)_mm256_unpackhi_epi64(a, c);
  out[2] = (vu)_mm256_unpacklo_epi64(b, d);
  out[3] = (vu)_mm256_unpackhi_epi64(b, d);
#else
  for (int64_t i = 0; i < 4; i++)
    for (int64_t j = 0; j < 4; j++) out[i][j] = words[j][i];
#endif
}

constexpr int64_t kPhiloxBlock = 4 * kLanes; /* words of kLanes counters */

/* Words of the counters (first + 0..kLanes-1, c1, c2, c3) one after the other. Lanes take the counters in the order in
 * which transpose_quads puts them side by side. first + kLanes must not pass 2^32. */
SB_INLINE void philox_block(uint32_t first, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t key, vu out[4]) {
  vu words[4] = {vu{}, vu{} + c1, vu{} + c2, vu{} + c3};
  for (int64_t lane = 0; lane < kLanes; lane++)
    words[0][lane] = static_cast<uint32_t>(lane % 4 * (kLanes / 4) + lane / 4);
  words[0] = words[0] + first;
  philox(words, key);
  transpose_quads(words, out);
}

/* ---- the mask ------------------------------------------------------------------------------------------------ */

struct DropoutMask {
  bool active;        /* false: every factor is 1 */
  uint32_t threshold; /* words below it drop their feature */
  float kept;         /* factor of the others */
  uint32_t module;
  uint64_t key;
  const int32_t *record, *position;

  SB_INLINE vf factors(vu words) const { return words < vu{} + threshold ? vf_zero() : vf_set(kept); }
  /* Of features 4·first .. 4·first + kPhiloxBlock - 1 of token t, in order. */
  SB_INLINE void block(int64_t t, int64_t first, vf out[4]) const {
    vu words[4] = {};
    if (!active) return (void)(out[0] = out[1] = out[2] = out[3] = vf_set(1));
    philox_block(static_cast<uint32_t>(first), static_cast<uint32_t>(position[t]), static_cast<uint32_t>(record[t]),
                 module, key, words);
    for (int64_t i = 0; i < 4; i++) out[i] = factors(words[i]);
  }
  /* Of any kLanes features of token t. */
  SB_INLINE vf chosen(int64_t t, vu features) const {
    vu words[4] = {features >> 2, vu{} + static_cast<uint32_t>(position[t]), vu{} + static_cast<uint32_t>(record[t]),
                   vu{} + module};
    philox(words, key);
    const vu lane = features & 3u;
    const vu low = lane == 0u ? words[0] : words[1], high = lane == 2u ? words[2] : words[3];
    return factors(lane < 2u ? low : high);
  }
};

inline DropoutMask dropout_mask(const sb_dropout *drop) {
  if (!drop || drop->p <= 0) return {};
  return {true,
          static_cast<uint32_t>(drop->p * 4294967296.0),
          static_cast<float>(1 / (1 - drop->p)),
          static_cast<uint32_t>(drop->module),
          drop->key,
          drop->record,
          drop->position};
}

/* ---- whole rows ---------------------------------------------------------------------------------------------- */

int32_t dropout_apply(sb_context *context, const void *x, int32_t x_dtype, int64_t T, int64_t n,
                      const sb_dropout *drop, double beta, void *y, int32_t y_dtype) noexcept {
  const DropoutMask mask = dropout_mask(drop);
  const vf b = vf_set(static_cast<float>(beta));
  with_dtype(x_dtype, [&](auto from) {
    with_dtype(y_dtype, [&](auto to) {
      parallel_rows(sb_cpu(context), T, 2 * n, [&](int64_t first, int64_t last) {
        for (int64_t t = first; t < last; t++) {
          for (int64_t block = 0; block < n; block += kPhiloxBlock) {
            vf factors[4];
            mask.block(t, block / 4, factors);
            for (int64_t j = 0, i = block; j < 4 && i < n; j++, i += kLanes) {
              vf v = load_some<from()>(x, t * n + i, n - i) * factors[j];
              if (beta != 0) v = vf_fma(b, load_some<to()>(y, t * n + i, n - i), v);
              store_part<to()>(y, t * n + i, v, n - i);
            }
          }
        }
      });
    });
  });
  return 0;
}
