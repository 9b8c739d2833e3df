/*
 * The innermost loop of every matrix product: sums[height][32] += left[depth][height]ᵀ · right[depth][32].
 *
 * One accumulator an output, sequential over depth, the outputs side by side in vectors. Nothing but the instruction
 * set decides the order of a sum, so a row has the same bits alone, in a batch, and on any number of threads.
 */
#pragma once


/* Rows of a tile: as many as leave registers for two vectors of the right operand and one of the left. */
#if SB_ISA_LEVEL >= 2
constexpr int64_t kTile = 14;
#else
constexpr int64_t kTile = 6;
#endif

/*
 * How a block of the right operand lies in memory, and what a word (32 bits, one step of depth) of the left one is.
 *   f32    float[depth][32]                 word: float
 *   f16    half[depth][32]                  word: float
 *   bf16   bf16[depth/2][32][2]             word: float; depth even
 *   pairs  bf16[depth][32][2]               word: two bf16, for vdpbf16ps
 */
enum class Format { f32, f16, bf16, pairs };

struct Block {
  const void *data;
  Format format;
};

/* Two vectors of step k, from column on. half is the step's place in a bf16 pair, known where the loop is unrolled. */
template <Format format, int half>
inline __attribute__((always_inline)) void load_right(const void *data, int64_t k, int64_t column, vf &r0, vf &r1) {
  if constexpr (format == Format::f32 || format == Format::pairs) {
    const float *right = static_cast<const float *>(data) + k * kPanel + column;
    r0 = vf_load(right);
    r1 = vf_load(right + kLanes);
  } else if constexpr (format == Format::f16) {
    const uint16_t *right = static_cast<const uint16_t *>(data) + k * kPanel + column;
    r0 = vf_load_f16(right);
    r1 = vf_load_f16(right + kLanes);
  } else {
    const float *right = static_cast<const float *>(data) + k / 2 * kPanel + column;
    r0 = half ? bf16_high(vf_load(right)) : bf16_low(vf_load(right));
    r1 = half ? bf16_high(vf_load(right + kLanes)) : bf16_low(vf_load(right + kLanes));
  }
}

/* With few rows the right operand comes from memory, and the hardware's prefetchers stop at every 4 KiB of it. */
constexpr int kStreamedRows = 8;
template <Format format>
inline __attribute__((always_inline)) void prefetch_right(const void *data, int64_t k, int64_t column) {
  constexpr int64_t size = format == Format::f16 ? 2 : 4, ahead = 4096;
  const int64_t step = format == Format::bf16 ? k / 2 : k;
  for (int64_t byte = 0; byte < 2 * kLanes * size; byte += 64)
    prefetch(data, (step * kPanel + column) * size + ahead + byte);
}

template <Format format>
inline __attribute__((always_inline)) vf multiply_add(vf a, vf b, vf sum) {
#if SB_ISA_LEVEL >= 3
  if constexpr (format == Format::pairs)
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
#endif
  return vf_fma(a, b, sum);
}

template <Format format, int height>
void multiply_tile(const float *left, const void *right, int64_t depth, float *sums, bool fresh) {
  constexpr int steps = format == Format::bf16 ? 2 : 1;
  for (int64_t column = 0; column < kPanel; column += 2 * kLanes) {
    vf s[height][2];
#pragma GCC unroll 16
    for (int i = 0; i < height; i++) {
      s[i][0] = fresh ? vf_zero() : vf_load(sums + i * kPanel + column);
      s[i][1] = fresh ? vf_zero() : vf_load(sums + i * kPanel + column + kLanes);
    }
    const float *l = left;
    for (int64_t k = 0; k < depth; k += steps) {
      vf r0, r1;
      if constexpr (height <= kStreamedRows) prefetch_right<format>(right, k, column);
      load_right<format, 0>(right, k, column, r0, r1);
#pragma GCC unroll 16
      for (int i = 0; i < height; i++) {
        const vf a = vf_set(l[i]);
        s[i][0] = multiply_add<format>(a, r0, s[i][0]);
        s[i][1] = multiply_add<format>(a, r1, s[i][1]);
      }
      l += height;
      if constexpr (steps == 2) {
        load_right<format, 1>(right, k + 1, column, r0, r1);
#pragma GCC unroll 16
        for (int i = 0; i < height; i++) {
          const vf a = vf_set(l[i]);
          s[i][0] = multiply_add<format>(a, r0, s[i][0]);
          s[i][1] = multiply_add<format>(a, r1, s[i][1]);
        }
        l += height;
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < height; i++) {
      vf_store(sums + i * kPanel + column, s[i][0]);
      vf_store(sums + i * kPanel + column + kLanes, s[i][1]);
    }
  }
}

using TileFunction = void (*)(const float *left, const void *right, int64_t depth, float *sums, bool fresh);

#define SB_TILE_HEIGHTS_6(format)                                                                                     \
  multiply_tile<format, 1>, multiply_tile<format, 2>, multiply_tile<format, 3>, multiply_tile<format, 4>,             \
      multiply_tile<format, 5>, multiply_tile<format, 6>
#if SB_ISA_LEVEL >= 2
#define SB_TILE_HEIGHTS(format)                                                                                       \
  {SB_TILE_HEIGHTS_6(format), multiply_tile<format, 7>, multiply_tile<format, 8>, multiply_tile<format, 9>,           \
   multiply_tile<format, 10>, multiply_tile<format, 11>, multiply_tile<format, 12>, multiply_tile<format, 13>,        \
   multiply_tile<format, 14>}
#else
#define SB_TILE_HEIGHTS(format)                                                                                       \
  { SB_TILE_HEIGHTS_6(format) }
#endif

/* [format][height - 1] */
constexpr TileFunction kTileFunctions[][kTile] = {
    SB_TILE_HEIGHTS(Format::f32),
    SB_TILE_HEIGHTS(Format::f16),
    SB_TILE_HEIGHTS(Format::bf16),
#if SB_ISA_LEVEL >= 3
    SB_TILE_HEIGHTS(Format::pairs),
#endif
};
#undef SB_TILE_HEIGHTS
#undef SB_TILE_HEIGHTS_6
