/*
 * A few rows times an NF4 panel, straight from the codes: what decode does. Every word of depth is made once, in
 * registers, and used for all rows. The values are those nf4_expand_words writes and every sum takes them in the same
 * order, so that a row has the same bits here and in a batch.
 */
#pragma once

/* Two vectors of sums a row, next to codes, scales and code book: what the registers hold. */
#if SB_ISA_LEVEL >= 2
constexpr int64_t kNf4Rows = 8;
#else
constexpr int64_t kNf4Rows = 4;
#endif
static_assert(kNf4Rows <= kTile, "rows of one tile: their words lie side by side");

/* sums[height][32] += left[words][height]ᵀ · W of a panel, words word0..word1-1. */
template <Format format, Nf4Rounding rounding, int height>
void nf4_stream_rows(const CpuWeight &w, int64_t panel, const float *left, int64_t word0, int64_t word1, float *sums,
                     bool fresh) {
  for (int64_t column = 0; column < kPanel; column += 2 * kLanes) {
    vf s[height][2];
#pragma GCC unroll 8
    for (int i = 0; i < height; i++) {
      s[i][0] = fresh ? vf_zero() : vf_load(sums + i * kPanel + column);
      s[i][1] = fresh ? vf_zero() : vf_load(sums + i * kPanel + column + kLanes);
    }
    nf4_each_word<format, rounding>(w, panel, column, word0, word1,
                                    [&](int64_t word, const vf *right) __attribute__((always_inline)) {
                                      const float *l = left + (word - word0) * height;
#pragma GCC unroll 8
                                      for (int i = 0; i < height; i++) {
                                        const vf a = vf_set(l[i]);
                                        s[i][0] = multiply_add<format>(a, right[0], s[i][0]);
                                        s[i][1] = multiply_add<format>(a, right[1], s[i][1]);
                                      }
                                    });
#pragma GCC unroll 8
    for (int i = 0; i < height; i++) {
      vf_store(sums + i * kPanel + column, s[i][0]);
      vf_store(sums + i * kPanel + column + kLanes, s[i][1]);
    }
  }
}

/* Rows that were replaced are no columns of the stream, and outputs with phases of their own gain nothing from it. */
inline bool nf4_streams(const CpuWeight &w, int64_t rows) {
  return w.dtype == SB_NF4 && rows <= kNf4Rows && nf4_aligned(w) && w.rows.count == 0;
}

template <Format format>
void nf4_stream(const CpuWeight &w, int64_t panel, const float *left, int64_t rows, int64_t word0, int64_t word1,
                float *sums, bool fresh) {
  nf4_with_rounding<format>(w, [&]<Nf4Rounding rounding>() {
    using Function = void (*)(const CpuWeight &, int64_t, const float *, int64_t, int64_t, float *, bool);
    constexpr Function functions[] = {
        nf4_stream_rows<format, rounding, 1>, nf4_stream_rows<format, rounding, 2>,
        nf4_stream_rows<format, rounding, 3>, nf4_stream_rows<format, rounding, 4>,
#if SB_ISA_LEVEL >= 2
        nf4_stream_rows<format, rounding, 5>, nf4_stream_rows<format, rounding, 6>,
        nf4_stream_rows<format, rounding, 7>, nf4_stream_rows<format, rounding, 8>,
#endif
    };
    functions[rows - 1](w, panel, left, word0, word1, sums, fresh);
  });
}
inline void nf4_stream(const CpuWeight &w, Format format, int64_t panel, const float *left, int64_t rows,
                       int64_t word0, int64_t word1, float *sums, bool fresh) {
#if SB_ISA_LEVEL >= 3
  if (format == Format::pairs) return nf4_stream<Format::pairs>(w, panel, left, rows, word0, word1, sums, fresh);
#endif
  nf4_stream<Format::f32>(w, panel, left, rows, word0, word1, sums, fresh);
}
