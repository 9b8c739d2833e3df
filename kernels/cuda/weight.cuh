/* What kernels read of a weight: four neighbours of a row, from any type it is held in. */
#pragma once
#include "../host/nf4.h"
#include "numbers.cuh"
#include "weight.h"

namespace gpu {

/* Held in f32, f16 or bf16. */
template <class T> struct DenseView {
  const T *data;
  int64_t stride, in;

  /* Columns i..i+3, i a multiple of 4; zeros behind the last. */
  __device__ Four four(int64_t row, int64_t i) const { return load_four(data + row * stride, i, in); }
  __device__ float one(int64_t row, int64_t i) const { return to_float(data[row * stride + i]); }
};

namespace {
__constant__ float nf4_book[16] = {kNf4Codes[0],  kNf4Codes[1],  kNf4Codes[2],  kNf4Codes[3],
                                   kNf4Codes[4],  kNf4Codes[5],  kNf4Codes[6],  kNf4Codes[7],
                                   kNf4Codes[8],  kNf4Codes[9],  kNf4Codes[10], kNf4Codes[11],
                                   kNf4Codes[12], kNf4Codes[13], kNf4Codes[14], kNf4Codes[15]};
}

/* Held as NF4. */
struct Nf4View {
  const uint8_t *codes;
  int64_t code_stride; /* bytes from row to row */
  const float *absmax;
  int64_t in, last_block;
  bool through_f16, to_bf16;
  bool simple; /* eight columns share a scale, and no line is replaced */
  const int32_t *column_slots, *row_slots; /* NULL: none replaced */
  const bf16 *columns, *rows;
  int64_t out;

  __device__ float rounded(float product) const {
    if (through_f16) product = to_float(to_element<f16>(product));
    return to_bf16 ? to_float(to_element<bf16>(product)) : product;
  }
  /* Eight columns from i, a multiple of 8: codes, two a byte, and the scale of the first. */
  __device__ __forceinline__ unsigned codes_of_eight(int64_t row, int64_t i) const {
    return *reinterpret_cast<const unsigned *>(codes + row * code_stride + i / 2);
  }
  __device__ __forceinline__ float scale_of(int64_t row, int64_t i) const { return absmax[(row * in + i) / kNf4Block]; }
  static __device__ __forceinline__ unsigned code_of(unsigned bytes, int j) { return bytes >> (j / 2 * 8 + (j % 2 ? 0 : 4)) & 15; }
  /* book: the 16 values, in memory that is fast where lanes read different ones. */
  __device__ __forceinline__ void values_of(unsigned bytes, float scale, const float *book, float (&values)[8]) const {
#pragma unroll
    for (int j = 0; j < 8; j++) values[j] = rounded(book[code_of(bytes, j)] * scale);
  }

  /* Columns i..i+n-1 of a row, i a multiple of n, n 4 or 8, whatever the weight; zeros behind the last. */
  template <int n> __device__ void read(int64_t row, int64_t i, const float *book, float (&values)[n]) const {
    const uint8_t *from = codes + row * code_stride + i / 2;
    const unsigned bytes = n == 8 ? codes_of_eight(row, i) : *reinterpret_cast<const uint16_t *>(from);
    const int64_t flat = row * in + i, block = flat / kNf4Block;
    const int same = static_cast<int>(kNf4Block - flat % kNf4Block); /* values that share the first one's scale */
    const float scale = absmax[block], next = same < n && block < last_block ? absmax[block + 1] : scale;
#pragma unroll
    for (int j = 0; j < n; j++) values[j] = rounded(book[code_of(bytes, j)] * (j < same ? scale : next));
    if (column_slots)
#pragma unroll
      for (int j = 0; j < n; j++) {
        const int32_t slot = i + j < in ? column_slots[i + j] : -1;
        if (slot >= 0) values[j] = to_float(columns[slot * out + row]);
      }
    if (row_slots && row_slots[row] >= 0)
#pragma unroll
      for (int j = 0; j < n; j++)
        if (i + j < in) values[j] = to_float(rows[row_slots[row] * in + i + j]);
  }
  __device__ Four four(int64_t row, int64_t i) const {
    Four v;
    read(row, i, nf4_book, v.at);
    return v;
  }
  __device__ float one(int64_t row, int64_t i) const {
    const Four v = four(row, i / kFour * kFour);
    return i % 4 < 2 ? (i % 2 ? v.at[1] : v.at[0]) : (i % 2 ? v.at[3] : v.at[2]);
  }
};

/* Bytes of a row of codes. */
inline int64_t nf4_code_stride(int64_t in) { return ceil_div(in, 32) * 16; }

inline Nf4View nf4_view(const Weight &w) {
  const bool narrow = w.rounding == SB_BF16 || w.compute == SB_BF16;
  const bool simple = w.in % 8 == 0 && !w.columns.slots && !w.rows.slots;
  return {w.codes, nf4_code_stride(w.in), w.absmax, w.in, nf4_blocks(w.out * w.in) - 1, w.rounding == SB_F16, narrow,
          simple, w.columns.slots, w.rows.slots, static_cast<const bf16 *>(w.columns.values),
          static_cast<const bf16 *>(w.rows.values), w.out};
}

/* use(view of the weight). */
template <class Use> void with_view(const Weight &w, const Use &use) {
  if (w.dtype == SB_NF4) return use(nf4_view(w));
  with_weight_dtype(w.dtype, [&](auto zero) {
    using T = decltype(zero);
    use(DenseView<T>{static_cast<const T *>(w.data), w.stride, w.in});
  });
}

} // namespace gpu
