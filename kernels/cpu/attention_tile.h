/*
 * The products inside attention, on matrices in scratch (sheets, attention_workspace.h):
 *
 *     sums[height, 1 or 2 vectors] (+)= left[height, depth] · right[depth, columns].
 *
 * One accumulator an output, sequential over depth. Nothing but the instruction set decides the order of a sum, so a
 * row has the same bits whatever rows stand beside it.
 */
#pragma once
#include "attention_workspace.h"

/* left: element (i, k) at i·kStep + k, transposed: at k·kStep + i. right: row k at k·kStep. columns: of sums, which may
 * end inside the last vector. fresh: sums start at zero. */
template <int height, int vectors, bool transposed>
void attention_tile(const float *left, const float *right, int64_t depth, float *sums, int64_t sums_step,
                    int64_t columns, bool fresh) {
  const int64_t last = columns - (vectors - 1) * kLanes; /* lanes of the last vector */
  vf s[height][vectors];
#pragma GCC unroll 16
  for (int i = 0; i < height; i++) {
    const float *from = sums + i * sums_step;
    if constexpr (vectors == 2) s[i][0] = fresh ? vf_zero() : vf_load(from);
    s[i][vectors - 1] = fresh             ? vf_zero()
                        : last >= kLanes ? vf_load(from + (vectors - 1) * kLanes)
                                         : vf_load_some(from + (vectors - 1) * kLanes, last);
  }
  for (int64_t k = 0; k < depth; k++) {
    vf r[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) r[v] = vf_load(right + k * kStep + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < height; i++) {
      const vf a = vf_set(transposed ? left[k * kStep + i] : left[i * kStep + k]);
#pragma GCC unroll 2
      for (int v = 0; v < vectors; v++) s[i][v] = vf_fma(a, r[v], s[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < height; i++) {
    float *to = sums + i * sums_step;
    if constexpr (vectors == 2) vf_store(to, s[i][0]);
    if (last >= kLanes) vf_store(to + (vectors - 1) * kLanes, s[i][vectors - 1]);
    else vf_store_some(to + (vectors - 1) * kLanes, s[i][vectors - 1], last);
  }
}

using AttentionTile = void (*)(const float *left, const float *right, int64_t depth, float *sums, int64_t sums_step,
                               int64_t columns, bool fresh);

#define SB_TILES_6(vectors, transposed)                                                                               \
  attention_tile<1, vectors, transposed>, attention_tile<2, vectors, transposed>,                                     \
      attention_tile<3, vectors, transposed>, attention_tile<4, vectors, transposed>,                                 \
      attention_tile<5, vectors, transposed>, attention_tile<6, vectors, transposed>
#if SB_ISA_LEVEL >= 2
#define SB_TILES(vectors, transposed)                                                                                 \
  {SB_TILES_6(vectors, transposed),          attention_tile<7, vectors, transposed>,                                  \
   attention_tile<8, vectors, transposed>,   attention_tile<9, vectors, transposed>,                                  \
   attention_tile<10, vectors, transposed>,  attention_tile<11, vectors, transposed>,                                 \
   attention_tile<12, vectors, transposed>,  attention_tile<13, vectors, transposed>,                                 \
   attention_tile<14, vectors, transposed>}
#else
#define SB_TILES(vectors, transposed)                                                                                 \
  { SB_TILES_6(vectors, transposed) }
#endif

/* [transposed][vectors - 1][height - 1]; kTile rows at most, as in product_tile.h and for the same reason. */
constexpr AttentionTile kAttentionTiles[2][2][kTile] = {{SB_TILES(1, false), SB_TILES(2, false)},
                                                        {SB_TILES(1, true), SB_TILES(2, true)}};
#undef SB_TILES
#undef SB_TILES_6

constexpr int64_t kPair = 2 * kLanes; /* columns of the widest tile */
static_assert(kSheet % kPair == 0, "a tile lies in one sheet");
constexpr int64_t vectors_for(int64_t columns) { return columns > kLanes ? 2 : 1; }

/* body(first, last): [begin, end) in tiles of at most kTile and nearly equal height. */
template <class Body>
SB_INLINE void each_tile(int64_t begin, int64_t end, const Body &body) {
  const int64_t n = end - begin, tiles = (n + kTile - 1) / kTile;
  for (int64_t tile = 0; tile < tiles; tile++) body(begin + tile * n / tiles, begin + (tile + 1) * n / tiles);
}

/* Of a block of keys, row i sees the first seen[i]. */
inline int64_t first_that_sees(const int64_t *seen, int64_t rows, int64_t key) {
  int64_t i = 0;
  while (i < rows && seen[i] <= key) i++;
  return i;
}
inline int64_t most_seen(const int64_t *seen, int64_t first, int64_t last) {
  int64_t most = 0;
  for (int64_t i = first; i < last; i++) most = product_max(most, seen[i]);
  return most;
}

/* ---- the three products ------------------------------------------------------------------------------------- */

/* scores[rows, keys] = x[rows, D] · yᵀ, y given as [D][keys]. A vector of keys starts at the first row that sees any of
 * them; rows above it keep what lies in scores. */
inline void multiply_by_keys(const float *x, const float *y, int64_t D, const int64_t *seen, int64_t rows,
                             int64_t keys, float *scores) {
  for (int64_t key = 0; key < keys; key += kPair) {
    const auto multiply = [&](int64_t begin, int64_t end, int64_t vectors) {
      each_tile(begin, end, [&](int64_t first, int64_t last) {
        const AttentionTile tile = kAttentionTiles[0][vectors - 1][last - first - 1];
        for (int64_t d = 0; d < D; d += kSheet)
          tile(x + (d / kSheet * kAttentionRows + first) * kStep, y + d * kStep + key, product_min(D - d, kSheet),
               scores + first * kStep + key, kStep, vectors * kLanes, d == 0);
      });
    };
    const int64_t one = first_that_sees(seen, rows, key), both = first_that_sees(seen, rows, key + kLanes);
    multiply(one, both, 1);
    multiply(both, rows, 2);
  }
}

/* sums[rows, D] (+)= p[rows, keys] · y[keys, D]; the p of keys that a row does not see are zero. */
inline void add_over_keys(const float *p, const float *y, int64_t D, const int64_t *seen, int64_t begin, int64_t end,
                          float *sums, bool fresh) {
  for (int64_t d = 0; d < D; d += kPair) {
    const int64_t vectors = vectors_for(D - d), sheet = d / kSheet, column = d % kSheet;
    each_tile(begin, end, [&](int64_t first, int64_t last) {
      kAttentionTiles[0][vectors - 1][last - first - 1](
          p + first * kStep, y + sheet * kAttentionKeys * kStep + column, most_seen(seen, first, last),
          sums + (sheet * kAttentionRows + first) * kStep + column, kStep, vectors * kLanes, fresh);
    });
  }
}

/* sums[keys, D] += pᵀ · x[rows, D]; sums is a tensor: rows of `step` floats, nothing behind column D is touched. */
inline void add_over_rows(const float *p, const float *x, int64_t D, const int64_t *seen, int64_t rows, int64_t keys,
                          float *sums, int64_t step) {
  for (int64_t d = 0; d < D; d += kPair) {
    const int64_t vectors = vectors_for(D - d), sheet = d / kSheet, column = d % kSheet;
    each_tile(0, keys, [&](int64_t first, int64_t last) {
      const int64_t row = first_that_sees(seen, rows, first);
      kAttentionTiles[1][vectors - 1][last - first - 1](
          p + row * kStep + first, x + (sheet * kAttentionRows + row) * kStep + column, rows - row,
          sums + first * step + d, step, product_min(D - d, vectors * kLanes), false);
    });
  }
}
