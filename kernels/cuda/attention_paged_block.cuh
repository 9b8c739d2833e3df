/*
 * Attention through a paged KV cache by tensor cores: what a thread block does with a block of keys. Keys are taken in
 * blocks of 128 at multiples of 128. Of each the block's own softmax is made (m_b, l_b, o_b: the largest score, Σ p,
 * Σ p·v), and a row's blocks are merged from the first to the last:
 *
 *     m' = max(m, m_b) ;  l = l·2^(m-m') + l_b·2^(m_b-m') ;  o = o·2^(m-m') + o_b·2^(m_b-m')
 *
 * The four warps of a thread block share its rows: for the scores each takes 32 keys, for o a quarter of the columns.
 */
#pragma once
#include "attention_paged.cuh"
#include "attention_tile.cuh"

namespace gpu {

constexpr int kPagedKeys = kTileThreads; /* 128: a thread looks up one */
constexpr int kWarpKeys = kPagedKeys / kTileWarps;
constexpr int kScoreTiles = kWarpKeys / kMmaColumns;
template <int D> constexpr int kValueTiles = D / kTileWarps / kMmaColumns;

/* ---- merging blocks of keys ------------------------------------------------------------------------------------- */

struct PagedSoftmax {
  float most, sum; /* most in powers of two */
};
__device__ __forceinline__ PagedSoftmax no_keys() { return {-INFINITY, 0}; }

/* What o and o_b are multiplied by. */
struct Factors {
  float kept, added;
};
__device__ __forceinline__ Factors merge(PagedSoftmax &row, const PagedSoftmax &block) {
  const float most = fmaxf(row.most, block.most);
  const Factors by = {power_of_two(row.most - most), power_of_two(block.most - most)};
  row = {most, fmaf(row.sum, by.kept, block.sum * by.added)};
  return by;
}
__device__ __forceinline__ float merged(const Factors &by, float o, float block_o) {
  return fmaf(o, by.kept, block_o * by.added);
}
/* + 0: -0 becomes 0, since blocks that a row does not see may or may not have been merged. */
__device__ __forceinline__ float finished(float o, float inverse) { return o * inverse + 0.0f; }

/* ---- a block of keys -------------------------------------------------------------------------------------------- */

template <int D, int kTiles> struct PagedMemory {
  static constexpr int kRows = kTiles * kMmaRows;
  bf16 queries[kRows * kStep<D>], keys[kPagedKeys * kStep<D>], values[kPagedKeys * kStep<D>];
  bf16 weights[kRows * kStep<kPagedKeys>]; /* p */
  int64_t lines[kPagedKeys];               /* where keys lie in the cache, -1: nowhere */
  int positions[kRows];
  float most[kTileWarps][kRows], sum[kTileWarps][kRows]; /* each warp's */
};

/* Row `half` of a tile's two that the lane holds sums of. */
__device__ __forceinline__ int row_of_lane(int tile, int half) {
  return tile * kMmaRows + lane_of_thread() / 4 + half * 8;
}

template <int D, int kTiles>
__device__ __forceinline__ void find_lines(PagedMemory<D, kTiles> &memory, const Paged &p, const PagedTile &tile,
                                           int key0) {
  const int j = static_cast<int>(threadIdx.x);
  memory.lines[j] = key0 + j <= tile.last ? cache_line(p, tile, key0 + j) : -1;
}

/* The keys or values of memory.lines; zeros for those that lie nowhere. */
template <int D, int kTiles>
__device__ __forceinline__ void start_copy(const PagedMemory<D, kTiles> &memory, const bf16 *cache, bf16 *to) {
  constexpr int kChunks = D / kChunk;
  const int thread = static_cast<int>(threadIdx.x), chunk = thread % kChunks;
  for (int row = thread / kChunks; row < kPagedKeys; row += kTileThreads / kChunks) {
    const int64_t line = memory.lines[row];
    copy_async(chunk_of<D>(to, row, chunk), line < 0 ? cache : cache + line * D + chunk * kChunk, line < 0 ? 0 : 16);
  }
  commit_copies();
}

/* s = the scores of the warp's keys, and the largest of each row to memory.most. */
template <int D, int kTiles>
__device__ __forceinline__ void make_scores(PagedMemory<D, kTiles> &memory, int key0,
                                            float (&s)[kTiles][kScoreTiles][4]) {
  const int lane = lane_of_thread(), warp = warp_of_thread(), first = key0 + warp * kWarpKeys;
  multiply_rows<D>(s, memory.queries, 0, memory.keys, warp * kWarpKeys);
#pragma unroll
  for (int tile = 0; tile < kTiles; tile++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = row_of_lane(tile, half), position = memory.positions[row];
      float most = -INFINITY;
#pragma unroll
      for (int j = 0; j < kScoreTiles; j++)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; i++) {
          if (first + j * kMmaColumns + lane % 4 * 2 + i % 2 > position) s[tile][j][i] = -INFINITY;
          most = fmaxf(most, s[tile][j][i]);
        }
      most = quad_max(most);
      if (lane % 4 == 0) memory.most[warp][row] = most;
    }
}

/* From scores to p, which goes to memory.weights, and Σ p of the warp's keys to memory.sum; softmax[..].most is set. */
template <int D, int kTiles>
__device__ __forceinline__ void make_weights(PagedMemory<D, kTiles> &memory, float factor,
                                             float (&s)[kTiles][kScoreTiles][4], PagedSoftmax (&block)[kTiles][2]) {
  const int lane = lane_of_thread(), warp = warp_of_thread();
#pragma unroll
  for (int tile = 0; tile < kTiles; tile++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = row_of_lane(tile, half);
      float most = memory.most[0][row], sum = 0;
#pragma unroll
      for (int other = 1; other < kTileWarps; other++) most = fmaxf(most, memory.most[other][row]);
      most *= factor;
      block[tile][half].most = most;
      const float base = most == -INFINITY ? 0.0f : most; /* no key of the block is seen: p = 0 */
#pragma unroll
      for (int j = 0; j < kScoreTiles; j++) {
        const float low = power_of_two(fmaf(s[tile][j][2 * half], factor, -base));
        const float high = power_of_two(fmaf(s[tile][j][2 * half + 1], factor, -base));
        sum += low;
        sum += high;
        bf16 *const chunk = chunk_of<kPagedKeys>(memory.weights, row, warp * kScoreTiles + j);
        *reinterpret_cast<unsigned *>(chunk + lane % 4 * 2) = pack_bf16(low, high);
      }
      sum = quad_sum(sum);
      if (lane % 4 == 0) memory.sum[warp][row] = sum;
    }
}

/* o_b = p · v for the warp's columns. */
template <int D, int kTiles>
__device__ __forceinline__ void make_values(const PagedMemory<D, kTiles> &memory,
                                            float (&o)[kTiles][kValueTiles<D>][4]) {
#pragma unroll
  for (int tile = 0; tile < kTiles; tile++)
#pragma unroll
    for (int d = 0; d < kValueTiles<D>; d++) o[tile][d][0] = o[tile][d][1] = o[tile][d][2] = o[tile][d][3] = 0;
#pragma unroll
  for (int key = 0; key < kPagedKeys; key += kMmaRows) {
    unsigned a[kTiles][4];
#pragma unroll
    for (int tile = 0; tile < kTiles; tile++)
      load_a<kPagedKeys>(a[tile], memory.weights, tile * kMmaRows, key / kChunk);
#pragma unroll
    for (int d = 0; d < kValueTiles<D>; d += 2) {
      TwoB b;
      load_b_rows<D>(b, memory.values, key, warp_of_thread() * kValueTiles<D> + d);
#pragma unroll
      for (int tile = 0; tile < kTiles; tile++) {
        mma_bf16(o[tile][d], a[tile], b.first);
        mma_bf16(o[tile][d + 1], a[tile], b.second);
      }
    }
  }
}

} // namespace gpu
