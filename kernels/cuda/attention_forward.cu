/*
 * Causal attention over packed sequences. A block takes a piece of rows of one query head and goes through the keys in
 * blocks at multiples of 64 (plain: 32) of the sequence with a running softmax:
 *
 *     m' = max(m, s_j) ;  p_j = e^(s_j - m') ;  l = l·e^(m-m') + Σ p_j ;  o = o·e^(m-m') + Σ p_j v_j
 *
 * and at the end o / l. Tiles compute with powers of two: scores times scale·log2(e).
 */
#include "attention_packed.cuh"
#include "attention_plain.cuh"
#include "attention_tile.cuh"

namespace gpu {

namespace {

/* ---- tiles ------------------------------------------------------------------------------------------------------ */

constexpr int kKeys = 64;       /* of a block of keys; part of the result */
constexpr int kWarpTiles = 2;   /* of 16 rows a warp: each operand read from shared memory is used twice */
constexpr int kWarpRows = kWarpTiles * kMmaRows;
constexpr int kRows = kTileWarps * kWarpRows;

template <int D> constexpr size_t kForwardBytes = sizeof(bf16) * (kRows + 2 * kKeys) * kStep<D>;
static_assert(kForwardBytes<128> <= kSharedAnywhere);

/* The running softmax of a lane's rows, two a tile: lane/4 and lane/4 + 8. */
template <int D> struct Running {
  float most[kWarpTiles][2], sum[kWarpTiles][2]; /* sum: of this lane's columns */
  float o[kWarpTiles][D / kMmaColumns][4];
};

/* Scores of keys that a row does not see become -infinity. ahead: how far row 0 of the warp stands behind key 0. */
__device__ __forceinline__ void hide_keys(float (&s)[kWarpTiles][kKeys / kMmaColumns][4], int ahead) {
  const int lane = lane_of_thread();
#pragma unroll
  for (int tile = 0; tile < kWarpTiles; tile++)
#pragma unroll
    for (int j = 0; j < kKeys / kMmaColumns; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int row = tile * kMmaRows + lane / 4 + i / 2 * 8, key = j * kMmaColumns + lane % 4 * 2 + i % 2;
        if (key > row + ahead) s[tile][j][i] = -INFINITY;
      }
}

/* From scores to p; the softmax moves on. */
template <int D>
__device__ __forceinline__ void soften(float (&s)[kWarpTiles][kKeys / kMmaColumns][4], float factor, Running<D> &r) {
#pragma unroll
  for (int tile = 0; tile < kWarpTiles; tile++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      float most = -INFINITY;
#pragma unroll
      for (int j = 0; j < kKeys / kMmaColumns; j++)
        most = fmaxf(most, fmaxf(s[tile][j][2 * half], s[tile][j][2 * half + 1]));
      const float before = r.most[tile][half], now = fmaxf(before, quad_max(most) * factor);
      const float shrink = power_of_two(before - now);
      float sum = r.sum[tile][half] * shrink;
#pragma unroll
      for (int j = 0; j < kKeys / kMmaColumns; j++)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; i++) {
          s[tile][j][i] = power_of_two(fmaf(s[tile][j][i], factor, -now));
          sum += s[tile][j][i];
        }
      r.most[tile][half] = now;
      r.sum[tile][half] = sum;
#pragma unroll
      for (int d = 0; d < D / kMmaColumns; d++) {
        r.o[tile][d][2 * half] *= shrink;
        r.o[tile][d][2 * half + 1] *= shrink;
      }
    }
}

/* o and lse of the warp's rows. o passes through the warp's part of the query tile: chunks are written whole. */
template <int D>
__device__ __forceinline__ void store_rows(const Running<D> &r, bf16 *queries, int count, int64_t stride, bf16 *o,
                                           int64_t lse_stride, float *lse) {
  const int lane = lane_of_thread(), first = warp_of_thread() * kWarpRows;
#pragma unroll
  for (int tile = 0; tile < kWarpTiles; tile++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = first + tile * kMmaRows + lane / 4 + half * 8;
      const float sum = quad_sum(r.sum[tile][half]), inverse = 1 / sum;
#pragma unroll
      for (int d = 0; d < D / kMmaColumns; d++)
        *reinterpret_cast<unsigned *>(chunk_of<D>(queries, row, d) + lane % 4 * 2) =
            pack_bf16(r.o[tile][d][2 * half] * inverse, r.o[tile][d][2 * half + 1] * inverse);
      if (lse && lane % 4 == 0 && row < count) lse[row * lse_stride] = (r.most[tile][half] + log2f(sum)) * kLn2;
    }
  __syncwarp();
  constexpr int kChunks = D / kChunk;
  for (int i = lane; i < kWarpRows * kChunks; i += kWarpLanes) {
    const int row = first + i / kChunks, chunk = i % kChunks;
    if (row < count)
      *reinterpret_cast<uint4 *>(o + row * stride + chunk * kChunk) =
          *reinterpret_cast<const uint4 *>(chunk_of<D>(queries, row, chunk));
  }
}

/* Blocks: pieces from the last to the first (the longer, the earlier), the heads of each side by side. */
template <int D>
__global__ void __launch_bounds__(kTileThreads)
    attention_forward_tiles_kernel(const bf16 *q, const bf16 *k, const bf16 *v, int N, int K, Packing packing,
                                   float factor, bf16 *o, float *lse) {
  DYNAMIC_SHARED(bf16, queries);
  bf16 *const keys = queries + kRows * kStep<D>, *const values = keys + kKeys * kStep<D>;
  if (blockIdx.x == 0) check_offsets(packing);
  const int head = static_cast<int>(blockIdx.x) % N, group = head / (N / K);
  const Piece piece = find_piece(packing, kRows, (gridDim.x - 1 - blockIdx.x) / N);
  if (piece.first >= piece.length) return;

  const int64_t q_stride = int64_t{N} * D, k_stride = int64_t{K} * D;
  const int64_t q_first = (piece.start + piece.first) * q_stride + int64_t{head} * D;
  const int count = piece.length - piece.first < kRows ? piece.length - piece.first : kRows;
  const int end = piece.first + count; /* one behind the last key */
  const auto start_copy = [&](bf16 *tile, const bf16 *from, int key0) {
    const bf16 *const first = from + (piece.start + key0) * k_stride + int64_t{group} * D;
    copy_rows<D, kKeys>(tile, from, piece.length - key0, [=](int row) { return first + row * k_stride; });
    commit_copies();
  };
  copy_rows<D, kRows>(queries, q, count, [=](int row) { return q + q_first + row * q_stride; });
  start_copy(keys, k, 0);

  const int first_row = piece.first + warp_of_thread() * kWarpRows;
  Running<D> running;
#pragma unroll
  for (int tile = 0; tile < kWarpTiles; tile++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      running.most[tile][half] = -INFINITY;
      running.sum[tile][half] = 0;
#pragma unroll
      for (int d = 0; d < D / kMmaColumns; d++) running.o[tile][d][2 * half] = running.o[tile][d][2 * half + 1] = 0;
    }
  for (int key0 = 0; key0 < end; key0 += kKeys) {
    const bool sees = first_row < end && key0 < first_row + kWarpRows; /* the warp's rows see keys of the block */
    Rounded<kWarpTiles, kKeys / kMmaColumns> p;
    wait_copies<0>();
    __syncthreads(); /* keys are there, values are read */
    start_copy(values, v, key0);
    if (sees) {
      float s[kWarpTiles][kKeys / kMmaColumns][4];
      multiply_rows<D>(s, queries, warp_of_thread() * kWarpRows, keys, 0);
      if (key0 + kKeys - 1 > first_row) hide_keys(s, first_row - key0);
      soften(s, factor, running);
      round_sums(p, s);
    }
    wait_copies<0>();
    __syncthreads(); /* values are there, keys are read */
    if (key0 + kKeys < end) start_copy(keys, k, key0 + kKeys);
    if (sees) add_products<D>(running.o, p, values);
  }
  const int64_t row0 = (piece.start + piece.first) * N + head;
  store_rows(running, queries, count, q_stride, o + q_first, N, lse ? lse + row0 : nullptr);
}

/* ---- plain ------------------------------------------------------------------------------------------------------ */

template <class T>
__global__ void __launch_bounds__(kPlainThreads, 2)
    attention_forward_plain_kernel(const T *q, const T *k, const T *v, int N, int K, int64_t D, Packing packing,
                                   float scale, T *o, float *lse) {
  SHARED(PlainScratch, scratch);
  if (blockIdx.x == 0 && blockIdx.y == 0) check_offsets(packing);
  const int head = static_cast<int>(blockIdx.x) % N, group = head / (N / K);
  const Piece piece = find_piece(packing, kFew, (gridDim.x - 1 - blockIdx.x) / N);
  if (piece.first >= piece.length) return;
  const int end = piece.first + kFew < piece.length ? piece.first + kFew : piece.length;
  const int position = piece.first + plain_warp() < end ? piece.first + plain_warp() : -1;
  const auto query = [&](int r) -> const T * {
    return piece.first + r < end ? q + ((piece.start + piece.first + r) * N + head) * D : nullptr;
  };
  const auto line = [&](const T *from, int j) { return from + ((piece.start + j) * K + group) * D; };
  const auto key = [&](int j) { return line(k, j); };
  const auto value = [&](int j) { return line(v, j); };
  const PlainRow row = attend_plain(scratch, D, scale, position, end - 1, query, key, value);
  if (position < 0) return;
  const int64_t at = (piece.start + position) * N + head;
  store_plain(o + at * D, D, row.values, 1 / row.sum);
  if (lse && plain_lane() == 0 && blockIdx.y == 0) lse[at] = row.most + logf(row.sum);
}

} // namespace

/* q[T,N,D] k[T,K,D] v[T,K,D] offsets[B+1] o[T,N,D] lse[T,N] or NULL */
int32_t attention_forward(sb_context *sb, const void *q, const void *k, const void *v, int32_t dtype, int64_t T,
                          int64_t N, int64_t K, int64_t D, const int32_t *offsets, int64_t B, int64_t longest,
                          double scale, void *o, void *lse) {
  static constexpr char kName[] = "sb_attention_forward";
  Context &ctx = context(sb);
  const Packing packing = make_packing(ctx, kName, offsets, B, T, longest);
  const int heads = static_cast<int>(N), kv_heads = static_cast<int>(K);
  const auto grid = [&](int step) { return static_cast<unsigned>(piece_count(T, B, step) * N); };
  if (fits_tiles(dtype, D, scale, {q, k, v, o})) {
    with_head_size(D, [&](auto size) {
      constexpr int kD = decltype(size)::value;
      launch(ctx, grid(kRows), kTileThreads, kForwardBytes<kD>, attention_forward_tiles_kernel<kD>,
             static_cast<const bf16 *>(q), static_cast<const bf16 *>(k), static_cast<const bf16 *>(v), heads, kv_heads,
             packing, exponent_factor(scale), static_cast<bf16 *>(o), static_cast<float *>(lse));
    });
  } else {
    with_dtype(dtype, [&](auto zero) {
      using E = decltype(zero);
      launch(ctx, dim3(grid(kFew), plain_column_blocks(D)), kPlainThreads, 0, attention_forward_plain_kernel<E>,
             static_cast<const E *>(q), static_cast<const E *>(k), static_cast<const E *>(v), heads, kv_heads, D,
             packing, static_cast<float>(scale), static_cast<E *>(o), static_cast<float *>(lse));
    });
  }
  return finish(ctx, kName);
}

} // namespace gpu
