/*
 * NF4 weights: how their panels lie in memory. A panel (32 outputs) holds
 *     float  scales[blocks][32]          of the blocks its rows lie in; row o's own start at block (o·in + column) / 64
 *     uint32 codes[groups][32][step]     a group: eight words of depth, `step` columns each (2 where bf16 pairs are
 *                                        multiplied, else 1); a uint32: the eight codes of one output at one place in
 *                                        the step, the first in the lowest bits; in is padded with zeros
 * so that a vector shifted by four bits a word holds its codes where the table look-up reads them, and two vectors of
 * values become pairs by one conversion. When in is a multiple of 64, blocks begin at the same columns in every row;
 * otherwise each output has its own phase. nf4_words.h makes values of them.
 */
#pragma once

constexpr int64_t kNf4Group = 8; /* words of a group: codes of a uint32 */

inline bool nf4_aligned(const CpuWeight &w) { return w.in % kNf4Block == 0; }
/* The most blocks a row lies in. */
constexpr int64_t nf4_row_blocks(int64_t in) {
  return in % kNf4Block == 0 ? in / kNf4Block : (in + 2 * (kNf4Block - 1)) / kNf4Block;
}
/* Columns of a word of depth. */
constexpr int64_t nf4_step(int32_t compute) { return form_of(compute) == Form::pairs ? 2 : 1; }
constexpr int64_t nf4_groups(int64_t in, int64_t step) { return (in + kNf4Group * step - 1) / (kNf4Group * step); }
constexpr int64_t nf4_panel_bytes(int64_t in, int64_t step) {
  return (nf4_row_blocks(in) + nf4_groups(in, step) * step) * kPanel * int64_t{4};
}
inline float *nf4_scales(const CpuWeight &w, int64_t panel) { return reinterpret_cast<float *>(panel_of(w, panel)); }
inline uint32_t *nf4_codes(const CpuWeight &w, int64_t panel) {
  return reinterpret_cast<uint32_t *>(panel_of(w, panel)) + nf4_row_blocks(w.in) * kPanel;
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
  const int64_t panel = row / kPanel, lane = row % kPanel, step = nf4_step(w.compute), word = column / step;
  const uint32_t eight = nf4_codes(w, panel)[(word / kNf4Group * kPanel + lane) * step + column % step];
  const int64_t block = (nf4_phase(w, row) + column) / kNf4Block;
  float value = kNf4Codes[eight >> word % kNf4Group * 4 & 15] * nf4_scales(w, panel)[block * kPanel + lane];
  if (nf4_half(w)) value = f16_to_f32(f32_to_f16(value));
  if (nf4_brain(w)) value = bf16_to_f32(f32_to_bf16(value));
  return value;
}

#include "nf4_words.h"
