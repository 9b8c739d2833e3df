/*
 * product.h: the one matrix product behind linear_forward, linear_backward, matmul and head_loss,
 *
 *     sums[rows, n] = left[rows, depth] · right[depth, n].
 *
 * The left operand is packed whole into tiles of at most kTile rows, the right one is taken in panels of 32 columns:
 * in place where a weight already lies as multiply_tile reads it, else expanded, transposed or packed by blocks of
 * depth into a thread's own scratch, and used for all rows of the task. A task is a range of panels times a block of
 * rows; threads never share a sum.
 */
#pragma once
#include "product_workspace.h"
#include "product_pack.h"
#include "product_tile.h"

/* ---- workspace ---------------------------------------------------------------------------------------------- */

struct Workspace {
  float *scratch; /* [threads][kScratchFloats] */
  unsigned char *rest;
};

inline int32_t take_workspace(sb_cpu_context &ctx, const char *op, int64_t bytes, int64_t tokens, int64_t width,
                              Workspace &workspace) {
  if (bytes > ctx.workspace_bytes)
    return sb_fail("%s needs %lld bytes of workspace and %lld are reserved: call sb_reserve with tokens >= %lld and "
                   "width >= %lld first",
                   op, static_cast<long long>(bytes), static_cast<long long>(ctx.workspace_bytes),
                   static_cast<long long>(tokens), static_cast<long long>(width));
  workspace = {reinterpret_cast<float *>(ctx.workspace), ctx.workspace + scratch_bytes(ctx.threads)};
  return 0;
}

/* ---- left operand ------------------------------------------------------------------------------------------- */

/* Tiles of nearly equal height, no padding: tile t holds words[depth][rows row(t)..row(t+1)-1]. */
struct Left {
  float *words;
  int64_t rows, depth;

  int64_t tiles() const { return (rows + kTile - 1) / kTile; }
  int64_t row(int64_t tile) const { return tile * rows / tiles(); }
  float *tile(int64_t tile) const { return words + row(tile) * depth; }
};

/* Rows row..row+left.rows-1 of [tail | main]; tail may be NULL. Words of main are padded up to left.depth. */
inline void pack_left(sb_cpu_context &ctx, const Left &left, const Operand *tail, const Operand &main, int64_t row) {
  const int64_t tail_words = tail ? words_of(tail->form, tail->depth) : 0, words = left.depth - tail_words;
  /* Few tiles, as of a factor: cut the depth too, so that every thread has some. */
  const int64_t tiles = left.tiles(), pieces = product_max(product_min(4 * ctx.threads / tiles, words / 256), 1);
  parallel(ctx, tiles * pieces, [&](int64_t task, int32_t) {
    const int64_t tile = task / pieces, piece = task % pieces;
    const int64_t first = left.row(tile), height = left.row(tile + 1) - first;
    const int64_t from = words * piece / pieces, to = words * (piece + 1) / pieces;
    float *out = left.tile(tile);
    if (tail && piece == 0) pack(*tail, row + first, height, 0, tail_words, out, height);
    pack(main, row + first, height, from, to - from, out + (tail_words + from) * height, height);
  });
}

/* ---- the product -------------------------------------------------------------------------------------------- */

/*
 * Right:  int64_t tail;  words of depth before the main part (0: none), whose sums are scaled by tail_scale
 *         bool direct(int64_t tiles)   the main part's blocks are read in place, whatever their length
 *         bool streams(rows), stream(panel, left, rows, k0, k1, sums, fresh)   optional: the main part of so few rows is
 *                 multiplied without a block, one panel at a time
 *         int64_t longest()            optional: most words of a block that is read in place
 *         int64_t strip()              panels that block() makes at a time, 1..kStrip
 *         Block block(panel, panels, k0, k1, tiles, scratch)
 *                 words k0..k1-1, never across the end of the tail; k0 - tail is a multiple of kDepthBlock in the main
 *                 part; panels of a strip follow each other in scratch
 * Sink:   bool begin(panel, row, rows, sums)   false: sums start at zero; true: it has filled sums[rows][32]
 *         void end(panel, row, rows, sums)
 */
template <class Right, class Sink>
void multiply_strip(const Left &left, int64_t panel, int64_t panels, int64_t first_tile, int64_t last_tile,
                    const Right &right, const Sink &sink, float *scratch) {
  float *sums = scratch + kDepthBlock * kStrip * kPanel;
  const int64_t row = left.row(first_tile), rows = left.row(last_tile) - row, tiles = last_tile - first_tile;
  /* One tile streams a panel once from end to end; two or three still find a longer block in the L2. */
  int64_t direct_block = tiles == 1 ? left.depth : 4 * kDepthBlock;
  if constexpr (requires { right.longest(); }) direct_block = product_min(direct_block, right.longest());
  bool fresh = true;
  for (int64_t p = 0; p < panels; p++) fresh = !sink.begin(panel + p, row, rows, sums + p * rows * kPanel);
  for (int64_t k0 = 0, k1; k0 < left.depth; k0 = k1) {
    const bool in_tail = k0 < right.tail;
    const int64_t step = !in_tail && tiles <= 3 && right.direct(tiles) ? direct_block : kDepthBlock;
    k1 = product_min(k0 + step, in_tail ? right.tail : left.depth);
    if constexpr (requires { right.streams(rows); }) {
      if (!in_tail && right.streams(rows)) { /* then panels is 1 */
        right.stream(panel, left.tile(first_tile) + k0 * rows, rows, k0, k1, sums, fresh);
        fresh = false;
        continue;
      }
    }
    const Block block = right.block(panel, panels, k0, k1, tiles, scratch);
    const TileFunction *functions = kTileFunctions[static_cast<int>(block.format)];
    for (int64_t p = 0; p < panels; p++) {
      const void *data = static_cast<const float *>(block.data) + p * (k1 - k0) * kPanel;
      for (int64_t tile = first_tile; tile < last_tile; tile++) {
        const int64_t at = left.row(tile), height = left.row(tile + 1) - at;
        functions[height - 1](left.tile(tile) + k0 * height, data, k1 - k0, sums + (p * rows + at - row) * kPanel,
                              fresh);
      }
    }
    fresh = false;
    if (k1 == right.tail)
      for (int64_t i = 0; i < panels * rows * kPanel; i++) sums[i] *= right.tail_scale;
  }
  if (fresh)
    for (int64_t i = 0; i < panels * rows * kPanel; i++) sums[i] = 0;
  for (int64_t p = 0; p < panels; p++) sink.end(panel + p, row, rows, sums + p * rows * kPanel);
}

/* Blocks of rows that a product is cut into; with one of them, each panel is one task's. */
inline int64_t row_blocks(const sb_cpu_context &ctx, const Left &left, int64_t panels, int64_t strip) {
  /* A block of rows: half the L2 while the right operand, expanded or transposed, still serves enough of them. */
  constexpr int64_t kL2Bytes = 512 << 10, kServed = 224;
  const int64_t fit = product_max(kL2Bytes / (4 * product_max(left.depth, 1)), kServed);
  const int64_t tiles = left.tiles(), block_tiles = product_max(product_min(fit, kBlockRows / strip) / kTile, 1);
  /* Few panels: shorter blocks, so that every thread has some. */
  const int64_t wanted = product_min((2 * ctx.threads + panels - 1) / panels, tiles);
  return product_max((tiles + block_tiles - 1) / block_tiles, wanted);
}

template <class Right, class Sink>
void multiply(sb_cpu_context &ctx, const Left &left, int64_t panels, const Right &right, const Sink &sink,
              const Workspace &workspace) {
  if (left.rows == 0 || panels == 0) return;
  const int64_t tiles = left.tiles(), strip = right.strip(), blocks = row_blocks(ctx, left, panels, strip);
  /* Panels of a task: about 2^21 multiply-adds, but at least four tasks a thread where there are that many panels. */
  const int64_t work = left.rows / blocks * left.depth * kPanel + 1;
  const int64_t most = product_max(panels * blocks / (4 * ctx.threads), 1);
  const int64_t group = product_min(product_max(product_max((1 << 21) / work, 1), strip), most);
  const int64_t groups = (panels + group - 1) / group;
  parallel(ctx, blocks * groups, [&](int64_t task, int32_t thread) {
    const int64_t block = task / groups, first = task % groups * group, last = product_min(first + group, panels);
    float *scratch = workspace.scratch + thread * kScratchFloats;
    for (int64_t panel = first; panel < last; panel += strip)
      multiply_strip(left, panel, product_min(strip, last - panel), block * tiles / blocks,
                     (block + 1) * tiles / blocks, right, sink, scratch);
  });
}

/* ---- storing ------------------------------------------------------------------------------------------------ */

/* y[n <= 32] = beta·y + alpha·gain ⊙ sums, one rounding at the store; beta 0 does not read y. gain may be NULL. */
template <int32_t dtype>
void store_sums(void *y, int64_t n, const float *sums, float alpha, const float *gain, float beta) {
  if (n < kPanel) {
    alignas(64) unsigned char padded[kPanel * 4] = {};
    alignas(64) float padded_gain[kPanel] = {};
    memcpy(padded, y, n * kBytes<dtype>);
    if (gain) memcpy(padded_gain, gain, n * sizeof(float));
    store_sums<dtype>(padded, kPanel, sums, alpha, gain ? padded_gain : nullptr, beta);
    memcpy(y, padded, n * kBytes<dtype>);
    return;
  }
  for (int64_t i = 0; i < kPanel; i += kLanes) {
    vf v = vf_load(sums + i) * vf_set(alpha);
    if (gain) v = v * vf_load(gain + i);
    if (beta != 0) v = vf_fma(vf_set(beta), load_elements<dtype>(y, i), v);
    if constexpr (dtype == SB_F32) vf_store(static_cast<float *>(y) + i, v);
    else vf_store_bf16(static_cast<uint16_t *>(y) + i, v);
  }
}

/* Sums to a row-major matrix y[rows, columns], whose row 0 is the left operand's row 0. */
struct RowSink {
  void *y;
  int32_t dtype;
  int64_t ld, columns;
  float alpha;
  const float *gain;
  float beta;

  bool begin(int64_t, int64_t, int64_t, float *) const { return false; }
  void end(int64_t panel, int64_t row, int64_t rows, const float *sums) const {
    const int64_t column = panel * kPanel, n = product_min(columns - column, kPanel);
    const float *gains = gain ? gain + column : nullptr;
    for (int64_t i = 0; i < rows; i++) {
      const int64_t at = (row + i) * ld + column;
      if (dtype == SB_F32) store_sums<SB_F32>(static_cast<float *>(y) + at, n, sums + i * kPanel, alpha, gains, beta);
      else store_sums<SB_BF16>(static_cast<uint16_t *>(y) + at, n, sums + i * kPanel, alpha, gains, beta);
    }
  }
};

/* The right operand of matmul and of every tail: any matrix, packed block by block where it is used. */
inline Block pack_right(const Operand &m, int64_t panel, int64_t panels, int64_t k0, int64_t k1, float *scratch) {
  pack(m, panel * kPanel, product_min(m.rows - panel * kPanel, panels * kPanel), k0, k1 - k0, scratch, kPanel);
  return {scratch, m.form == Form::pairs ? Format::pairs : Format::f32};
}

struct PackedRight {
  Operand matrix;
  static constexpr int64_t tail = 0;
  static constexpr float tail_scale = 1;
  bool direct(int64_t) const { return false; }
  /* Stored by depth, a row of one panel is two cache lines: four panels make it a stretch the prefetchers follow. */
  int64_t strip() const { return matrix.k_major ? kStrip : 1; }
  Block block(int64_t panel, int64_t panels, int64_t k0, int64_t k1, int64_t, float *scratch) const {
    return pack_right(matrix, panel, panels, k0, k1, scratch);
  }
};
