/*
 * Packing: writes a piece of any matrix as words[depth][stride], the form in which multiply_tile reads both operands
 * (stride = height of the tile on the left, 32 on the right). A word is a float, or two bf16
 * neighbours in depth.
 */
#pragma once
#include "product_words.h"

enum class Form { real, rounded, pairs }; /* f32; f32 rounded to bf16; two bf16 a word */

/* vdpbf16ps is there from level 3 on; below it bf16 operands are rounded and multiplied as f32. */
constexpr Form form_of(int32_t compute) {
  return compute == SB_F32 ? Form::real : SB_ISA_LEVEL >= 3 ? Form::pairs : Form::rounded;
}
constexpr int64_t words_of(Form form, int64_t depth) { return form == Form::pairs ? (depth + 1) / 2 : depth; }

/* A matrix as a product sees it: element (i, k), k along depth, stored [rows][ld], or [depth][ld] when k_major. */
struct Operand {
  const void *data;
  int32_t dtype; /* SB_F32 | SB_BF16 */
  bool k_major;
  int64_t ld, rows, depth;
  Form form;
};

/* ---- loading ------------------------------------------------------------------------------------------------ */

template <int32_t dtype>
inline vf load_elements(const void *data, int64_t offset) {
  if constexpr (dtype == SB_F32) return vf_load(static_cast<const float *>(data) + offset);
  else if constexpr (dtype == SB_F16) return vf_load_f16(static_cast<const uint16_t *>(data) + offset);
  else return vf_load_bf16(static_cast<const uint16_t *>(data) + offset);
}
template <int32_t dtype>
constexpr int64_t kBytes = dtype == SB_F32 ? 4 : 2;

/* Any address will do, also one behind the matrix. */
inline void prefetch(const void *data, int64_t bytes) {
  __builtin_prefetch(reinterpret_cast<const void *>(reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)));
}

/* The first `valid` lanes; zeros behind them, whose memory is not touched. */
template <int32_t dtype>
inline vf load_some(const void *data, int64_t offset, int64_t valid) {
  if (valid >= kLanes) return load_elements<dtype>(data, offset);
  if constexpr (dtype == SB_F32)
    return vf_load_some(static_cast<const float *>(data) + offset, product_max(valid, 0));
#if SB_ISA_LEVEL >= 2
  const __mmask16 lanes = valid > 0 ? (1u << valid) - 1 : 0;
  if constexpr (dtype == SB_BF16)
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, static_cast<const uint16_t *>(data) + offset)), 16));
#endif
  alignas(64) unsigned char some[kLanes * 4] = {};
  if (valid > 0)
    memcpy(some, static_cast<const unsigned char *>(data) + offset * kBytes<dtype>, valid * kBytes<dtype>);
  return load_elements<dtype>(some, 0);
}

/* kLanes words along depth; `valid` elements are left in the row. */
template <Form form, int32_t dtype>
inline vf load_words(const void *data, int64_t offset, int64_t valid) {
  if constexpr (form != Form::pairs) {
    const vf v = load_some<dtype>(data, offset, valid);
    return form == Form::rounded && dtype != SB_BF16 ? round_to_bf16(v) : v;
  } else {
    alignas(64) unsigned char some[2 * kLanes * kBytes<dtype>] = {};
    const unsigned char *from = static_cast<const unsigned char *>(data) + offset * kBytes<dtype>;
    if (valid < 2 * kLanes) {
      if (valid > 0) memcpy(some, from, valid * kBytes<dtype>);
      from = some;
    }
    vf words;
    if constexpr (dtype == SB_BF16) {
      memcpy(&words, from, sizeof words);
    } else {
      words = pair_neighbours(load_elements<dtype>(from, 0), load_elements<dtype>(from, kLanes));
    }
    return words;
  }
}

/* ---- packing ------------------------------------------------------------------------------------------------ */

/*
 * out[words][stride]: word k of row i = lane k of load(i, k), which returns kLanes words of row i from k on.
 * Columns rows..stride-1 become zero when stride is a panel's.
 */
template <class Load>
inline void pack_transposed(int64_t rows, int64_t words, float *out, int64_t stride, const Load &load) {
  for (int64_t k = 0; k < words; k += kLanes) {
    const int64_t steps = words - k < kLanes ? words - k : kLanes;
    for (int64_t i = 0; i < stride; i += kLanes) {
      const int64_t width = stride - i < kLanes ? stride - i : kLanes;
      vf block[kLanes];
      if (i + kLanes <= rows) {
#pragma GCC unroll 16
        for (int64_t j = 0; j < kLanes; j++) block[j] = load(i + j, k);
      } else {
#pragma GCC unroll 16
        for (int64_t j = 0; j < kLanes; j++) block[j] = i + j < rows ? load(i + j, k) : vf_zero();
      }
      transpose_words(block);
      float *to = out + k * stride + i;
      if (steps == kLanes && width == kLanes) {
#pragma GCC unroll 16
        for (int64_t j = 0; j < kLanes; j++) vf_store(to + j * stride, block[j]);
      } else {
        for (int64_t j = 0; j < steps; j++) vf_store_some(to + j * stride, block[j], width);
      }
    }
  }
}

template <Form form, int32_t dtype>
void pack_row_major(const Operand &m, int64_t row, int64_t rows, int64_t word, int64_t words, float *out,
                    int64_t stride) {
  constexpr int64_t per_word = form == Form::pairs ? 2 : 1;
  pack_transposed(rows, words, out, stride, [&](int64_t i, int64_t k) {
    const int64_t element = (word + k) * per_word;
    return load_words<form, dtype>(m.data, (row + i) * m.ld + element, m.depth - element);
  });
}

/*
 * The same from a matrix stored by depth: nothing to transpose. More rows than a panel's (stride 32) go to as many
 * panels behind each other.
 */
template <Form form, int32_t dtype>
void pack_k_major(const Operand &m, int64_t row, int64_t rows, int64_t word, int64_t words, float *out,
                  int64_t stride) {
  constexpr int64_t per_word = form == Form::pairs ? 2 : 1;
  constexpr int64_t kAhead = 8; /* rows are far apart in memory: no hardware prefetcher follows them */
  const int64_t step = m.ld * kBytes<dtype>, columns = stride == kPanel ? panels_of(rows) * kPanel : rows;
  for (int64_t k = 0; k < words; k++) {
    const int64_t element = (word + k) * per_word, left = m.depth - element; /* rows of m there are, from k's on */
    const unsigned char *from = static_cast<const unsigned char *>(m.data) + (element * m.ld + row) * kBytes<dtype>;
    float *to = out + k * stride;
    for (int64_t i = 0; i < columns; i += kLanes, from += kLanes * kBytes<dtype>) {
      vf v;
      prefetch(from, kAhead * per_word * step);
      if constexpr (form == Form::pairs) {
        prefetch(from, (kAhead * 2 + 1) * step);
        const auto low = left > 0 ? load_some<dtype>(from, 0, rows - i) : vf_zero();
        const auto high = left > 1 ? load_some<dtype>(from + step, 0, rows - i) : vf_zero();
        v = pair_lanes(low, high);
      } else {
        v = left > 0 ? load_some<dtype>(from, 0, rows - i) : vf_zero();
        if constexpr (form == Form::rounded && dtype != SB_BF16) v = round_to_bf16(v);
      }
      if (stride == kPanel) vf_store(to + i / kPanel * words * kPanel + i % kPanel, v);
      else vf_store_some(to + i, v, product_min(columns - i, kLanes));
    }
  }
}

/* Rows row..row+rows-1, words word..word+words-1 of m. Words beyond the depth are zero. */
template <Form form>
void pack_form(const Operand &m, int64_t row, int64_t rows, int64_t word, int64_t words, float *out, int64_t stride) {
  if (m.dtype == SB_F32)
    (m.k_major ? pack_k_major<form, SB_F32> : pack_row_major<form, SB_F32>)(m, row, rows, word, words, out, stride);
  else
    (m.k_major ? pack_k_major<form, SB_BF16> : pack_row_major<form, SB_BF16>)(m, row, rows, word, words, out, stride);
}
inline void pack(const Operand &m, int64_t row, int64_t rows, int64_t word, int64_t words, float *out,
                 int64_t stride) {
  if (m.form == Form::real) return pack_form<Form::real>(m, row, rows, word, words, out, stride);
#if SB_ISA_LEVEL >= 3
  pack_form<Form::pairs>(m, row, rows, word, words, out, stride);
#else
  pack_form<Form::rounded>(m, row, rows, word, words, out, stride);
#endif
}
