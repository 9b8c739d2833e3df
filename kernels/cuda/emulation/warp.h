/* What the lanes of a warp do together: shuffles, votes, mma.sync, ldmatrix. Included by cuda.h. */
#pragma once

namespace emulation {

/* body(mask, records) once for all lanes of mask; records[lane] is the lane's `mine`. */
template <class Record, class Body> void together(unsigned mask, Record &mine, Body) {
  static_assert(sizeof(Body) == 1, "a body without captures");
  synchronize_warp(
      mask, [](unsigned lanes, void *const *records) { Body{}(lanes, reinterpret_cast<Record *const *>(records)); },
      &mine);
}

template <class T> struct Shuffled {
  T value;
  int source;
  T result;
};

template <class T> T shuffle(unsigned mask, T value, int source) {
  Shuffled<T> mine{value, source, value};
  together(mask, mine, [](unsigned lanes, Shuffled<T> *const *all) {
    for (int i = 0; i < kWarp; i++) {
      if (!(lanes >> i & 1)) continue;
      if (!all[all[i]->source]) fail("a shuffle reads a lane outside its mask");
      all[i]->result = all[all[i]->source]->value;
    }
  });
  return mine.result;
}

/* The lanes of mask whose predicate holds. */
inline unsigned vote(unsigned mask, bool predicate) {
  struct Vote {
    bool predicate;
    unsigned result;
  } mine{predicate, 0};
  together(mask, mine, [](unsigned lanes, Vote *const *all) {
    unsigned result = 0;
    for (int i = 0; i < kWarp; i++)
      if (lanes >> i & 1 && all[i]->predicate) result |= 1u << i;
    for (int i = 0; i < kWarp; i++)
      if (lanes >> i & 1) all[i]->result = result;
  });
  return mine.result;
}

} // namespace emulation

inline void __syncwarp(unsigned mask = 0xffffffffu) { emulation::vote(mask, true); }
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  return emulation::shuffle(mask, value, (emulation::lane() & ~(width - 1)) | (source & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const int lane = emulation::lane(), source = lane ^ bits;
  return emulation::shuffle(mask, value, (source & ~(width - 1)) == (lane & ~(width - 1)) ? source : lane);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  const int lane = emulation::lane(), source = lane + static_cast<int>(distance);
  return emulation::shuffle(mask, value, source <= (lane | (width - 1)) ? source : lane);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  const int lane = emulation::lane(), source = lane - static_cast<int>(distance);
  return emulation::shuffle(mask, value, source >= (lane & ~(width - 1)) ? source : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) { return emulation::vote(mask, predicate != 0); }
inline int __any_sync(unsigned mask, int predicate) { return emulation::vote(mask, predicate != 0) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return emulation::vote(mask, predicate != 0) == mask; }

/* ---- what mma.cuh does in PTX ----------------------------------------------------------------------------------- */

namespace emulation {

/*
 * mma.sync.m16n8k16, bf16 operands, f32 sums: d[16,8] += a[16,16] · b[16,8]. Two neighbours along k share a register, the
 * first in its low half. Lane l, with row = l/4 and pair = 2·(l%4), holds
 *     a[0] (row, pair) a[1] (row+8, pair) a[2] (row, pair+8) a[3] (row+8, pair+8)      (row, first of two columns)
 *     b[0] (pair, row) b[1] (pair+8, row)                                             (first of two rows, column)
 *     d[0] (row, pair) d[1] (row, pair+1) d[2] (row+8, pair) d[3] (row+8, pair+1)
 */
struct Mma {
  float d[4];
  unsigned a[4], b[2];
};

inline float bf16_half(unsigned two, int which) {
  return __uint_as_float(which ? two & 0xffff0000u : two << 16);
}

inline void mma_bf16_16x8x16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  Mma mine{{d[0], d[1], d[2], d[3]}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  together(0xffffffffu, mine, [](unsigned, Mma *const *all) {
    using Row = float __attribute__((vector_size(8 * sizeof(float)))); /* eight columns at once */
    float left[16][16];
    Row right[16], sums[16];
    for (int lane = 0; lane < kWarp; lane++) {
      const int row = lane / 4, pair = lane % 4 * 2;
      for (int i = 0; i < 4; i++) {
        sums[row + i / 2 * 8][pair + i % 2] = all[lane]->d[i];
        for (int j = 0; j < 2; j++) left[row + i % 2 * 8][pair + i / 2 * 8 + j] = bf16_half(all[lane]->a[i], j);
      }
      for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) right[pair + i * 8 + j][row] = bf16_half(all[lane]->b[i], j);
    }
    for (int row = 0; row < 16; row++)
      for (int k = 0; k < 16; k++) sums[row] += left[row][k] * right[k]; /* the products are exact */
    for (int lane = 0; lane < kWarp; lane++)
      for (int i = 0; i < 4; i++) all[lane]->d[i] = sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  });
  for (int i = 0; i < 4; i++) d[i] = mine.d[i];
}

/*
 * ldmatrix: `count` matrices of 8 x 8 16-bit values; lane 8·i + j gives the address of row j of matrix i. Lane l receives
 * of each matrix the values (l/4, 2·(l%4)) and the one behind it, or of the transposed matrix when `transposed`.
 */
template <int count, bool transposed> void load_matrices(unsigned (&registers)[count], const void *row) {
  struct Load {
    const void *row;
    unsigned result[count];
  } mine{row, {}};
  together(0xffffffffu, mine, [](unsigned, Load *const *all) {
    for (int matrix = 0; matrix < count; matrix++) {
      uint16_t values[8][8];
      for (int i = 0; i < 8; i++) {
        const void *from = all[matrix * 8 + i]->row;
        check_aligned(from, 16, "ldmatrix");
        memcpy(values[i], from, sizeof values[i]);
      }
      for (int lane = 0; lane < kWarp; lane++) {
        const int i = lane / 4, j = lane % 4 * 2;
        const unsigned low = transposed ? values[j][i] : values[i][j];
        const unsigned high = transposed ? values[j + 1][i] : values[i][j + 1];
        all[lane]->result[matrix] = low | high << 16;
      }
    }
  });
  for (int i = 0; i < count; i++) registers[i] = mine.result[i];
}

} // namespace emulation
