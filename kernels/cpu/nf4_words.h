/*
 * The values of an NF4 panel, word of depth by word of depth: 32 floats, or 32 pairs of bf16. Replaced columns are laid
 * over them on the way, replaced rows where a stretch of a panel is written out.
 */
#pragma once

/* ---- vectors ------------------------------------------------------------------------------------------------ */

SB_INLINE vu nf4_load(const uint32_t *codes) {
  vu words;
  memcpy(&words, codes, sizeof words);
  return words;
}

/* The code book at bits shift..shift+3 of every lane. */
SB_INLINE vf nf4_look_up(vu codes, int shift) {
#if SB_ISA_LEVEL >= 2
  return _mm512_permutexvar_ps((__m512i)(codes >> shift), _mm512_loadu_ps(kNf4Codes));
#elif SB_ISA_LEVEL == 1
  const __m256i index = (__m256i)(codes >> shift), sign = (__m256i)(codes << (28 - shift));
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(kNf4Codes), index);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(kNf4Codes + 8), index);
  return _mm256_blendv_ps(low, high, (__m256)sign);
#else
  vf values;
  for (int64_t i = 0; i < kLanes; i++) values[i] = kNf4Codes[codes[i] >> shift & 15];
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

/* What a value is rounded to before it is multiplied; making pairs of them rounds to bf16 anyway. */
enum class Nf4Rounding { none, half, brain, both };

template <Nf4Rounding rounding>
SB_INLINE vf nf4_round(vf v) {
  if constexpr (rounding == Nf4Rounding::half || rounding == Nf4Rounding::both) v = round_to_f16(v);
  if constexpr (rounding == Nf4Rounding::brain || rounding == Nf4Rounding::both) v = round_to_bf16(v);
  return v;
}

/* ---- words of depth ----------------------------------------------------------------------------------------- */

/* A format's words: `step` columns each, and vectors of codes that make two vectors of words. */
template <Format format>
struct Nf4Words {
  static constexpr int64_t step = format == Format::pairs ? 2 : 1, sources = 2 * step;
};

template <Format format>
SB_INLINE void nf4_join(const vf *values, vf *right) {
#if SB_ISA_LEVEL >= 3
  if constexpr (format == Format::pairs) {
    right[0] = pair_neighbours(values[0], values[1]);
    right[1] = pair_neighbours(values[2], values[3]);
    return;
  }
#endif
  right[0] = values[0];
  right[1] = values[1];
}

/* Lanes from..from+lanes-1 of a group's uint32 belong to outputs from/step..: each output's scale `step` times. */
template <Format format>
SB_INLINE void nf4_load_scales(const float *block, int64_t column, vf *scales) {
#if SB_ISA_LEVEL >= 3
  if constexpr (format == Format::pairs) {
    const __m512i low = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for (int64_t i = 0; i < 2; i++) {
      const vf sixteen = vf_load(block + column + i * kLanes);
      scales[2 * i] = _mm512_permutexvar_ps(low, sixteen);
      scales[2 * i + 1] = _mm512_permutexvar_ps(high, sixteen);
    }
    return;
  }
#endif
  scales[0] = vf_load(block + column);
  scales[1] = vf_load(block + column + kLanes);
}

/* Where blocks begin at columns of their own: the scales of the word of columns k.., zero behind the matrix. */
template <Format format>
SB_INLINE void nf4_gather_scales(const CpuWeight &w, int64_t panel, int64_t first, int64_t column, vf *scales) {
  constexpr int64_t step = Nf4Words<format>::step, sources = Nf4Words<format>::sources;
  alignas(64) float lanes[sources * kLanes];
  for (int64_t i = 0; i < sources * kLanes; i++) {
    const int64_t lane = column + i / step, k = first + i % step;
    const int64_t block = (nf4_phase(w, panel * kPanel + lane) + k) / kNf4Block;
    lanes[i] = k < w.in ? nf4_scales(w, panel)[block * kPanel + lane] : 0;
  }
  for (int64_t i = 0; i < sources; i++) scales[i] = vf_load(lanes + i * kLanes);
}

/* The replaced column in `slot` over what the codes of its word gave. */
template <Format format>
SB_INLINE void nf4_patch(const CpuWeight &w, int64_t panel, int64_t column, int64_t slot, vf *right) {
  const uint16_t *from = w.columns.values + slot * w.columns.length + panel * kPanel + column;
  for (int64_t i = 0; i < 2; i++) {
    const vf values = vf_load_bf16(from + i * kLanes);
    if constexpr (format != Format::pairs) right[i] = values;
    else if (w.columns.indices[slot] % 2) right[i] = (vf)(((vu)right[i] & 0xffffu) | (vu)values);
    else right[i] = (vf)(((vu)right[i] & 0xffff0000u) | ((vu)values >> 16));
  }
}

/*
 * body(word, right) for words word0..word1-1 of a panel (word0 a multiple of kNf4Group), outputs column..column+2·kLanes-1:
 * two vectors of words.
 */
template <Format format, Nf4Rounding rounding, class Body>
SB_INLINE void nf4_each_word(const CpuWeight &w, int64_t panel, int64_t column, int64_t word0, int64_t word1,
                             const Body &body) {
  constexpr int64_t step = Nf4Words<format>::step, sources = Nf4Words<format>::sources, none = INT64_MAX;
  const float *blocks = nf4_scales(w, panel);
  const uint32_t *codes = nf4_codes(w, panel) + (word0 / kNf4Group * kPanel + column) * step;
  const bool aligned = nf4_aligned(w);
  const int64_t borders = w.in & -w.in; /* rows begin, and so blocks do, at multiples of this power of two only */
  int64_t slot = nf4_slot(w.columns, word0 * step);
  int64_t next = slot < w.columns.count ? w.columns.indices[slot] : none; /* replaced column */
  vf scales[sources];
  for (int64_t word = word0; word < word1; word += kNf4Group, codes += kPanel * step) {
    vu eight[sources];
#pragma GCC unroll 4
    for (int64_t i = 0; i < sources; i++) {
      eight[i] = nf4_load(codes + i * kLanes);
      prefetch(codes + i * kLanes, 4096); /* where the hardware's prefetchers stop at every 4 KiB */
    }
    const auto make = [&](int64_t j) __attribute__((always_inline)) {
      vf values[sources], right[2];
#pragma GCC unroll 4
      for (int64_t i = 0; i < sources; i++)
        values[i] = nf4_round<rounding>(nf4_look_up(eight[i], static_cast<int>(4 * j)) * scales[i]);
      nf4_join<format>(values, right);
      while (next < (word + j + 1) * step) {
        nf4_patch<format>(w, panel, column, slot, right);
        next = ++slot < w.columns.count ? w.columns.indices[slot] : none;
      }
      body(word + j, right);
    };
    if (aligned) { /* then groups are whole, and lie within a block */
      if (word == word0 || word * step % kNf4Block == 0)
        nf4_load_scales<format>(blocks + word * step / kNf4Block * kPanel, column, scales);
#pragma GCC unroll 8
      for (int64_t j = 0; j < kNf4Group; j++) make(j);
    } else {
#pragma GCC unroll 1
      for (int64_t j = 0; j < product_min(kNf4Group, word1 - word); j++) {
        const int64_t k = (word + j) * step;
        if (k == word0 * step || k % borders < step) nf4_gather_scales<format>(w, panel, k, column, scales);
        make(j);
      }
    }
  }
}

/* run.template operator()<rounding>() with the weight's own. */
template <Format format, class Run>
SB_INLINE void nf4_with_rounding(const CpuWeight &w, const Run &run) {
  const bool brain = format != Format::pairs && nf4_brain(w);
  if (nf4_half(w)) brain ? run.template operator()<Nf4Rounding::both>() : run.template operator()<Nf4Rounding::half>();
  else brain ? run.template operator()<Nf4Rounding::brain>() : run.template operator()<Nf4Rounding::none>();
}

/* ---- stretches of a panel ----------------------------------------------------------------------------------- */

/* Rows of the panel that were replaced: put(lane, k, bits) for columns k0..k1-1. */
template <class Put>
SB_INLINE void nf4_overlay_rows(const CpuWeight &w, int64_t panel, int64_t k0, int64_t k1, const Put &put) {
  const int64_t row = panel * kPanel;
  for (int64_t slot = nf4_slot(w.rows, row); slot < w.rows.count && w.rows.indices[slot] < row + kPanel; slot++) {
    const uint16_t *from = w.rows.values + slot * w.rows.length;
    for (int64_t k = k0; k < product_min(k1, w.in); k++) put(w.rows.indices[slot] - row, k, from[k]);
  }
}

/* Words word0..word1-1 (word0 a multiple of kNf4Group) as to[word1-word0][32]. */
template <Format format>
inline void nf4_expand_words(const CpuWeight &w, int64_t panel, int64_t word0, int64_t word1, float *to) {
  nf4_with_rounding<format>(w, [&]<Nf4Rounding rounding>() {
    for (int64_t column = 0; column < kPanel; column += 2 * kLanes)
      nf4_each_word<format, rounding>(w, panel, column, word0, word1,
                                      [&](int64_t word, const vf *right) __attribute__((always_inline)) {
                                        float *out = to + (word - word0) * kPanel + column;
                                        vf_store(out, right[0]);
                                        vf_store(out + kLanes, right[1]);
                                      });
  });
  constexpr int64_t step = Nf4Words<format>::step;
  unsigned char *bytes = reinterpret_cast<unsigned char *>(to);
  nf4_overlay_rows(w, panel, word0 * step, word1 * step, [&](int64_t lane, int64_t k, uint16_t bits) {
    const int64_t at = ((k / step - word0) * kPanel + lane) * 4;
    if constexpr (format == Format::pairs) {
      memcpy(bytes + at + k % 2 * 2, &bits, sizeof bits);
    } else {
      const float value = bf16_to_f32(bits);
      memcpy(bytes + at, &value, sizeof value);
    }
  });
}

/* Columns k0..k1-1 (k0 a multiple of 16) as to[k1-k0][32], whatever the products take. */
inline void nf4_expand(const CpuWeight &w, int64_t panel, int64_t k0, int64_t k1, float *to) {
#if SB_ISA_LEVEL >= 3
  if (nf4_step(w.compute) == 2) {
    for (int64_t k = k0; k < k1; k += 2 * kNf4Group) {
      alignas(64) float pairs[kNf4Group * kPanel];
      const int64_t end = product_min(k + 2 * kNf4Group, k1);
      nf4_expand_words<Format::pairs>(w, panel, k / 2, (end + 1) / 2, pairs);
      for (int64_t column = k; column < end; column++)
        for (int64_t i = 0; i < kPanel; i += kLanes) {
          const vf both = vf_load(pairs + (column - k) / 2 * kPanel + i);
          vf_store(to + (column - k0) * kPanel + i, column % 2 ? bf16_high(both) : bf16_low(both));
        }
    }
    return;
  }
#endif
  nf4_expand_words<Format::f32>(w, panel, k0, k1, to);
}
