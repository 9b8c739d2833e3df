/*
 * NF4 weights: how their panels are read. A panel (32 outputs) holds, in the order of columns,
 *     float scales[blocks][32]     of the blocks its rows lie in; row o's own start at block (o·in + column) / 64
 *     uint8 codes[in][16]          lanes 0..15 in the low halves, lanes 16..31 in the high halves; in padded to even
 * When in is a multiple of 64, blocks begin at the same columns in every row; otherwise each lane has its own phase.
 * Values leave as 32 floats a column, or as bf16 pairs; replaced columns and rows are laid over them.
 */
#pragma once

constexpr int64_t kNf4Bytes = kPanel / 2; /* codes of a column */

inline bool nf4_aligned(const CpuWeight &w) { return w.in % kNf4Block == 0; }
/* The most blocks a row lies in. */
constexpr int64_t nf4_row_blocks(int64_t in) {
  return in % kNf4Block == 0 ? in / kNf4Block : (in + 2 * (kNf4Block - 1)) / kNf4Block;
}
constexpr int64_t nf4_padded(int64_t in) { return (in + 1) / 2 * 2; }
constexpr int64_t nf4_panel_bytes(int64_t in) {
  return nf4_row_blocks(in) * kPanel * int64_t{4} + nf4_padded(in) * kNf4Bytes;
}
inline float *nf4_scales(const CpuWeight &w, int64_t panel) { return reinterpret_cast<float *>(panel_of(w, panel)); }
inline uint8_t *nf4_codes(const CpuWeight &w, int64_t panel) {
  return panel_of(w, panel) + nf4_row_blocks(w.in) * kPanel * 4;
}
/* Columns of a row that lie in a block begun in the row before. */
inline int64_t nf4_phase(const CpuWeight &w, int64_t row) { return row * w.in % kNf4Block; }

inline bool nf4_half(const CpuWeight &w) { return w.rounding == SB_F16; }
inline bool nf4_brain(const CpuWeight &w) { return w.rounding == SB_BF16 || w.compute == SB_BF16; }

/* ---- one element -------------------------------------------------------------------------------------------- */

/* The first of the ascending indices that is not below index. */
inline int64_t nf4_slot(const Nf4Lines &lines, int64_t index) {
  int64_t low = 0, high = lines.count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (lines.indices[middle] < index) low = middle + 1;
    else high = middle;
  }
  return low;
}
/* The line's value at `along`, or NULL when it is not replaced. */
inline const uint16_t *nf4_replaced(const Nf4Lines &lines, int64_t index, int64_t along) {
  const int64_t slot = nf4_slot(lines, index);
  const bool found = slot < lines.count && lines.indices[slot] == index;
  return found ? lines.values + slot * lines.length + along : nullptr;
}

inline float nf4_element(const CpuWeight &w, int64_t row, int64_t column) {
  const uint16_t *replaced = nf4_replaced(w.columns, column, row);
  if (!replaced) replaced = nf4_replaced(w.rows, row, column);
  if (replaced) return bf16_to_f32(*replaced);
  const int64_t panel = row / kPanel, lane = row % kPanel;
  const int32_t byte = nf4_codes(w, panel)[column * kNf4Bytes + lane % kNf4Bytes];
  const int64_t block = (nf4_phase(w, row) + column) / kNf4Block;
  float value = kNf4Codes[lane < kNf4Bytes ? byte & 15 : byte >> 4] * nf4_scales(w, panel)[block * kPanel + lane];
  if (nf4_half(w)) value = f16_to_f32(f32_to_f16(value));
  if (nf4_brain(w)) value = bf16_to_f32(f32_to_bf16(value));
  return value;
}

/* ---- vectors ------------------------------------------------------------------------------------------------ */

constexpr int64_t kNf4Vectors = kPanel / kLanes; /* of a column */

/* kLanes bytes to as many words. */
SB_INLINE vu nf4_load(const uint8_t *codes) {
#if SB_ISA_LEVEL >= 2
  return (vu)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(codes)));
#elif SB_ISA_LEVEL == 1
  return (vu)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(codes)));
#else
  return vu{codes[0], codes[1], codes[2], codes[3]};
#endif
}

/* The code book at the low four bits of every word; the bits above do not matter. */
SB_INLINE vf nf4_look_up(vu codes) {
#if SB_ISA_LEVEL >= 2
  return _mm512_permutexvar_ps((__m512i)codes, _mm512_loadu_ps(kNf4Codes));
#elif SB_ISA_LEVEL == 1
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(kNf4Codes), (__m256i)codes);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(kNf4Codes + 8), (__m256i)codes);
  return _mm256_blendv_ps(low, high, (__m256)_mm256_slli_epi32((__m256i)codes, 28));
#else
  vf values;
  for (int64_t i = 0; i < kLanes; i++) values[i] = kNf4Codes[codes[i] & 15];
  return values;
#endif
}

SB_INLINE vf round_to_f16(vf v) {
#if SB_ISA_LEVEL >= 2
  return _mm512_cvtph_ps(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif SB_ISA_LEVEL == 1
  return _mm256_cvtph_ps(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  for (int64_t i = 0; i < kLanes; i++) v[i] = f16_to_f32(f32_to_f16(v[i]));
  return v;
#endif
}

template <bool half, bool brain>
SB_INLINE vf nf4_round(vf v) {
  if constexpr (half) v = round_to_f16(v);
  if constexpr (brain) v = round_to_bf16(v);
  return v;
}

/* The 32 values of a column. */
template <bool half, bool brain>
SB_INLINE void nf4_column(const uint8_t *codes, const vf *scales, vf *values) {
#pragma GCC unroll 4
  for (int64_t i = 0; i < kNf4Vectors / 2; i++) {
    const vu both = nf4_load(codes + i * kLanes);
    values[i] = nf4_round<half, brain>(nf4_look_up(both) * scales[i]);
    values[i + kNf4Vectors / 2] = nf4_round<half, brain>(nf4_look_up(both >> 4) * scales[i + kNf4Vectors / 2]);
  }
}

SB_INLINE void nf4_load_scales(const float *from, vf *scales) {
#pragma GCC unroll 8
  for (int64_t i = 0; i < kNf4Vectors; i++) scales[i] = vf_load(from + i * kLanes);
}

/*
 * body(codes of column k, its scales, k) for columns k0..k1-1 in steps of `step`, which share their scales when blocks
 * are aligned and step is 1 or 2. Where they are not, the steps are single columns.
 */
template <int64_t step, class Body>
SB_INLINE void nf4_each(const CpuWeight &w, int64_t panel, int64_t k0, int64_t k1, const Body &body) {
  const float *scales = nf4_scales(w, panel);
  const uint8_t *codes = nf4_codes(w, panel);
  vf own[kNf4Vectors];
  if (nf4_aligned(w)) {
    for (int64_t k = k0; k < k1;) {
      const int64_t end = product_min(k1, (k / kNf4Block + 1) * kNf4Block);
      nf4_load_scales(scales + k / kNf4Block * kPanel, own);
      for (; k < end; k += step) body(codes + k * kNf4Bytes, own, k);
    }
    return;
  }
  alignas(64) float lanes[kPanel];
  int64_t phases[kPanel];
  for (int64_t lane = 0; lane < kPanel; lane++) phases[lane] = nf4_phase(w, panel * kPanel + lane);
  for (int64_t k = k0; k < k1; k++) {
    for (int64_t lane = 0; lane < kPanel; lane++)
      if (k == k0 || (phases[lane] + k) % kNf4Block == 0)
        lanes[lane] = scales[(phases[lane] + k) / kNf4Block * kPanel + lane];
    nf4_load_scales(lanes, own);
    body(codes + k * kNf4Bytes, own, k);
  }
}

/* ---- blocks of a panel -------------------------------------------------------------------------------------- */

/* Columns k0..k1-1 as to[k1-k0][32]. */
template <bool half, bool brain>
void nf4_expand_codes(const CpuWeight &w, int64_t panel, int64_t k0, int64_t k1, float *to) {
  nf4_each<1>(w, panel, k0, k1, [&](const uint8_t *codes, const vf *scales, int64_t k) {
    vf values[kNf4Vectors];
    nf4_column<half, brain>(codes, scales, values);
#pragma GCC unroll 8
    for (int64_t i = 0; i < kNf4Vectors; i++) vf_store(to + (k - k0) * kPanel + i * kLanes, values[i]);
  });
}

/* What was replaced of columns k0..k1-1: put(lane, k, bits). */
template <class Put>
SB_INLINE void nf4_overlay(const CpuWeight &w, int64_t panel, int64_t k0, int64_t k1, const Put &put) {
  for (int64_t slot = nf4_slot(w.columns, k0); slot < w.columns.count && w.columns.indices[slot] < k1; slot++) {
    const uint16_t *from = w.columns.values + slot * w.columns.length + panel * kPanel;
    for (int64_t lane = 0; lane < kPanel; lane++) put(lane, w.columns.indices[slot], from[lane]);
  }
  const int64_t row = panel * kPanel;
  for (int64_t slot = nf4_slot(w.rows, row); slot < w.rows.count && w.rows.indices[slot] < row + kPanel; slot++) {
    const uint16_t *from = w.rows.values + slot * w.rows.length;
    for (int64_t k = k0; k < product_min(k1, w.in); k++) put(w.rows.indices[slot] - row, k, from[k]);
  }
}

/* W of a panel, columns k0..k1-1, as float[k1-k0][32]. */
inline void nf4_expand(const CpuWeight &w, int64_t panel, int64_t k0, int64_t k1, float *to) {
  if (nf4_half(w)) (nf4_brain(w) ? nf4_expand_codes<true, true> : nf4_expand_codes<true, false>)(w, panel, k0, k1, to);
  else (nf4_brain(w) ? nf4_expand_codes<false, true> : nf4_expand_codes<false, false>)(w, panel, k0, k1, to);
  nf4_overlay(w, panel, k0, k1, [&](int64_t lane, int64_t k, uint16_t bits) {
    to[(k - k0) * kPanel + lane] = bf16_to_f32(bits);
  });
}

#if SB_ISA_LEVEL >= 3
/* The same as bf16 pairs along in, [word1-word0][32][2]; packing them is what rounds to bf16. */
template <bool half>
void nf4_expand_pair_codes(const CpuWeight &w, int64_t panel, int64_t k0, int64_t k1, float *to) {
  if (!nf4_aligned(w)) {
    /* Columns have scales of their own: by way of floats. */
    for (int64_t k = k0; k < k1; k += 2, to += kPanel) {
      alignas(64) float both[2 * kPanel] = {};
      nf4_expand_codes<half, false>(w, panel, k, product_min(k + 2, w.in), both);
      for (int64_t i = 0; i < kPanel; i += kLanes)
        vf_store(to + i, pair_lanes(vf_load(both + i), vf_load(both + kPanel + i)));
    }
    return;
  }
  nf4_each<2>(w, panel, k0, k1, [&](const uint8_t *codes, const vf *scales, int64_t k) {
    vf low[kNf4Vectors], high[kNf4Vectors];
    nf4_column<half, false>(codes, scales, low);
    nf4_column<half, false>(codes + kNf4Bytes, scales, high);
#pragma GCC unroll 2
    for (int64_t i = 0; i < kNf4Vectors; i++)
      vf_store(to + (k - k0) / 2 * kPanel + i * kLanes, pair_lanes(low[i], high[i]));
  });
}
inline void nf4_expand_pairs(const CpuWeight &w, int64_t panel, int64_t word0, int64_t word1, float *to) {
  const int64_t k0 = 2 * word0, k1 = product_min(2 * word1, w.in);
  (nf4_half(w) ? nf4_expand_pair_codes<true> : nf4_expand_pair_codes<false>)(w, panel, k0, k1, to);
  unsigned char *bytes = reinterpret_cast<unsigned char *>(to);
  nf4_overlay(w, panel, k0, k1, [&](int64_t lane, int64_t k, uint16_t bits) {
    memcpy(bytes + (((k - k0) / 2 * kPanel + lane) * 2 + (k - k0) % 2) * 2, &bits, sizeof bits);
  });
}
#endif
