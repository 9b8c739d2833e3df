/*
 * A few rows times an NF4 panel, straight from the codes: what decode does. The values are those nf4_expand writes and
 * every sum takes them in the same order, so that a row has the same bits here and in a batch.
 */
#pragma once

/* More rows find the codes better expanded once. Vectors of sums must stay in registers; the portable form has none. */
#if SB_ISA_LEVEL >= 2
constexpr int64_t kNf4Rows = 4;
#elif SB_ISA_LEVEL == 1
constexpr int64_t kNf4Rows = 1;
#else
constexpr int64_t kNf4Rows = 0;
#endif

/* Columns k..k+step-1 with whatever was replaced of them; the next slot of w.columns. */
template <bool half, bool brain, int64_t step>
int64_t nf4_patched(const CpuWeight &w, int64_t panel, int64_t k, int64_t slot, vf (*values)[kNf4Vectors]) {
  vf scales[kNf4Vectors];
  nf4_load_scales(nf4_scales(w, panel) + k / kNf4Block * kPanel, scales);
  for (int64_t i = 0; i < step; i++)
    nf4_column<half, brain>(nf4_codes(w, panel) + (k + i) * kNf4Bytes, scales, values[i]);
  for (; slot < w.columns.count && w.columns.indices[slot] < k + step; slot++) {
    const uint16_t *from = w.columns.values + slot * w.columns.length + panel * kPanel;
    for (int64_t i = 0; i < kNf4Vectors; i++)
      values[w.columns.indices[slot] - k][i] = vf_load_bf16(from + i * kLanes);
  }
  return slot;
}

/* sums[height][32] += left[words][height]ᵀ · W of a panel, words word0..word1-1. */
template <Format format, bool half, bool brain, int height>
void nf4_stream(const CpuWeight &w, int64_t panel, const float *left, int64_t word0, int64_t word1, float *sums,
                bool fresh) {
  constexpr int64_t step = format == Format::pairs ? 2 : 1; /* columns a word */
  vf s[height][kNf4Vectors];
#pragma GCC unroll 4
  for (int i = 0; i < height; i++)
#pragma GCC unroll 8
    for (int64_t v = 0; v < kNf4Vectors; v++)
      s[i][v] = fresh ? vf_zero() : vf_load(sums + i * kPanel + v * kLanes);

  const auto add = [&](const vf(*values)[kNf4Vectors], int64_t k) __attribute__((always_inline)) {
    const float *l = left + (k / step - word0) * height;
#pragma GCC unroll 8
    for (int64_t v = 0; v < kNf4Vectors; v++) {
#if SB_ISA_LEVEL >= 3
      const vf right = format == Format::pairs ? pair_lanes(values[0][v], values[1][v]) : values[0][v];
#else
      const vf right = values[0][v];
#endif
#pragma GCC unroll 4
      for (int i = 0; i < height; i++) s[i][v] = multiply_add<format>(vf_set(l[i]), right, s[i][v]);
    }
  };
  const int64_t end = product_min(word1 * step, w.in);
  int64_t slot = nf4_slot(w.columns, word0 * step);
  for (int64_t k = word0 * step; k < end;) {
    const int64_t next = slot < w.columns.count ? product_min(w.columns.indices[slot] / step * step, end) : end;
    nf4_each<step>(w, panel, k, next,
                   [&](const uint8_t *codes, const vf *scales, int64_t at) __attribute__((always_inline)) {
                     vf values[step][kNf4Vectors];
#pragma GCC unroll 2
                     for (int64_t i = 0; i < step; i++)
                       nf4_column<half, brain>(codes + i * kNf4Bytes, scales, values[i]);
                     add(values, at);
                   });
    k = next;
    if (k >= end) break;
    vf values[step][kNf4Vectors];
    slot = nf4_patched<half, brain, step>(w, panel, k, slot, values);
    add(values, k);
    k += step;
  }
#pragma GCC unroll 4
  for (int i = 0; i < height; i++)
#pragma GCC unroll 8
    for (int64_t v = 0; v < kNf4Vectors; v++) vf_store(sums + i * kPanel + v * kLanes, s[i][v]);
}

template <Format format, bool half, bool brain>
void nf4_stream_rows(const CpuWeight &w, int64_t panel, const float *left, int64_t rows, int64_t word0, int64_t word1,
                     float *sums, bool fresh) {
#if SB_ISA_LEVEL >= 1
  if (rows == 1) nf4_stream<format, half, brain, 1>(w, panel, left, word0, word1, sums, fresh);
#endif
#if SB_ISA_LEVEL >= 2
  else if (rows == 2) nf4_stream<format, half, brain, 2>(w, panel, left, word0, word1, sums, fresh);
  else if (rows == 3) nf4_stream<format, half, brain, 3>(w, panel, left, word0, word1, sums, fresh);
  else nf4_stream<format, half, brain, 4>(w, panel, left, word0, word1, sums, fresh);
#endif
}

/* Rows that were replaced are no columns of the stream, and lanes with phases of their own gain nothing from it. */
inline bool nf4_streams(const CpuWeight &w, int64_t rows) {
  return w.dtype == SB_NF4 && rows <= kNf4Rows && nf4_aligned(w) && w.rows.count == 0;
}
inline void nf4_stream(const CpuWeight &w, Format format, int64_t panel, const float *left, int64_t rows,
                       int64_t word0, int64_t word1, float *sums, bool fresh) {
#if SB_ISA_LEVEL >= 3
  if (format == Format::pairs) {
    (nf4_half(w) ? nf4_stream_rows<Format::pairs, true, false> : nf4_stream_rows<Format::pairs, false, false>)(
        w, panel, left, rows, word0, word1, sums, fresh);
    return;
  }
#endif
  constexpr Format f32 = Format::f32;
  if (nf4_half(w))
    (nf4_brain(w) ? nf4_stream_rows<f32, true, true> : nf4_stream_rows<f32, true, false>)(w, panel, left, rows, word0,
                                                                                          word1, sums, fresh);
  else
    (nf4_brain(w) ? nf4_stream_rows<f32, false, true> : nf4_stream_rows<f32, false, false>)(w, panel, left, rows,
                                                                                            word0, word1, sums, fresh);
}
