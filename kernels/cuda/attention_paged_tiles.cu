/*
 * Attention through a paged KV cache by tensor cores, head sizes 64 and 128. A row's blocks of keys are merged by the
 * thread block that computed them all, or, where few rows would leave the device idle, by a second kernel from what a
 * thread block each has left in the workspace: the same numbers.
 */
#include "attention_paged_block.cuh"

namespace gpu {

namespace {

/* Blocks' softmaxes in the workspace: entry 0 of a row is the merged one, entry 1 + i that of block first + i. */
struct Shares {
  PagedSoftmax *softmax; /* [entries][rows] */
  float *o;         /* [entries][rows][D]; NULL: thread blocks merge by themselves */
  int64_t rows;     /* T·N */
  int first;
};
template <int D> constexpr int64_t kShareBytes = D * int64_t{sizeof(float)} + sizeof(PagedSoftmax);

/* ---- kernels ---------------------------------------------------------------------------------------------------- */

/* use(tile, half, row, line of [T·N]) for the lane's rows that see keys. */
template <int D, int kTiles, class Use>
__device__ __forceinline__ void each_row(const PagedMemory<D, kTiles> &memory, const Paged &p, const PagedTile &tile,
                                         const Use &use) {
#pragma unroll
  for (int i = 0; i < kTiles; i++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const int row = row_of_lane(i, half);
      if (memory.positions[row] >= 0) use(i, half, row, tile.line(row, p.N));
    }
}

template <int D, int kTiles>
__global__ void __launch_bounds__(kTileThreads)
    attention_paged_tiles_kernel(const bf16 *q, const bf16 *cache_k, const bf16 *cache_v, Paged p, float factor,
                                 Shares shares, bf16 *o) {
  using M = PagedMemory<D, kTiles>;
  DYNAMIC_SHARED(M, memory);
  const PagedTile tile = find_tile(p, M::kRows);
  const bool alone = !shares.o; /* all blocks of keys are this thread block's */
  int key0 = alone ? 0 : (shares.first + static_cast<int>(blockIdx.y)) * kPagedKeys;
  if (tile.count == 0 || key0 > tile.last) return;
  const int thread = static_cast<int>(threadIdx.x), lane = lane_of_thread();
  if (thread < M::kRows) memory->positions[thread] = position_of(p, tile, thread);
  find_lines(*memory, p, tile, key0);
  __syncthreads();
  copy_rows<D, M::kRows>(memory->queries, q, tile.count, [&](int row) { return q + tile.line(row, p.N) * D; });
  start_copy(*memory, cache_k, memory->keys);
  start_copy(*memory, cache_v, memory->values);

  PagedSoftmax softmax[kTiles][2];
  float sums[kTiles][kValueTiles<D>][4];
#pragma unroll
  for (int i = 0; i < kTiles; i++) {
    softmax[i][0] = softmax[i][1] = no_keys();
#pragma unroll
    for (int d = 0; d < kValueTiles<D>; d++) sums[i][d][0] = sums[i][d][1] = sums[i][d][2] = sums[i][d][3] = 0;
  }
  PagedSoftmax block[kTiles][2];
  float block_o[kTiles][kValueTiles<D>][4];
  for (;;) {
    const bool more = alone && tile.last - key0 >= kPagedKeys;
    float s[kTiles][kScoreTiles][4];
    wait_copies<1>();
    __syncthreads(); /* queries and keys are there */
    make_scores(*memory, key0, s);
    __syncthreads(); /* memory.most is there, keys are read */
    if (more) find_lines(*memory, p, tile, key0 + kPagedKeys);
    make_weights(*memory, factor, s, block);
    wait_copies<0>();
    __syncthreads(); /* weights, sums, values and lines are there */
    if (more) start_copy(*memory, cache_k, memory->keys);
    make_values(*memory, block_o);
#pragma unroll
    for (int i = 0; i < kTiles; i++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const int row = row_of_lane(i, half);
        float sum = 0;
#pragma unroll
        for (int warp = 0; warp < kTileWarps; warp++) sum += memory->sum[warp][row];
        block[i][half].sum = sum;
        if (!alone) continue;
        const Factors by = merge(softmax[i][half], block[i][half]);
#pragma unroll
        for (int d = 0; d < kValueTiles<D>; d++)
#pragma unroll
          for (int k = 2 * half; k < 2 * half + 2; k++) sums[i][d][k] = merged(by, sums[i][d][k], block_o[i][d][k]);
      }
    if (!more) break;
    __syncthreads(); /* weights, sums and values are read */
    start_copy(*memory, cache_v, memory->values);
    key0 += kPagedKeys;
  }

  const int column = warp_of_thread() * (D / kTileWarps) + lane % 4 * 2;
  each_row(*memory, p, tile, [&](int i, int half, int row, int64_t line) {
    const int64_t entry = (1 + int64_t{blockIdx.y}) * shares.rows + line;
    const float inverse = 1 / softmax[i][half].sum;
    if (!alone && warp_of_thread() == 0 && lane % 4 == 0) shares.softmax[entry] = block[i][half];
#pragma unroll
    for (int d = 0; d < kValueTiles<D>; d++) {
      const int at = column + d * kMmaColumns;
      if (alone)
        *reinterpret_cast<unsigned *>(o + line * D + at) =
            pack_bf16(finished(sums[i][d][2 * half], inverse), finished(sums[i][d][2 * half + 1], inverse));
      else
        *reinterpret_cast<float2 *>(shares.o + entry * D + at) =
            make_float2(block_o[i][d][2 * half], block_o[i][d][2 * half + 1]);
    }
  });
}

constexpr int kMergeRows = 4;

/* A warp a row: merges `count` blocks from shares.first on. */
template <int D>
__global__ void attention_paged_merge_kernel(Paged p, Shares shares, int count, bf16 *o) {
  const int64_t row = int64_t{blockIdx.x} * kMergeRows + threadIdx.y, t = row / p.N;
  if (row >= shares.rows || !p.check_positions.good(t, p.positions[t])) return;
  const int last = p.positions[t] / kPagedKeys, end = last - shares.first + 1 < count ? last - shares.first + 1 : count;
  const int lane = static_cast<int>(threadIdx.x);
  if (end <= 0) return;
  PagedSoftmax softmax = shares.first == 0 ? no_keys() : shares.softmax[row];
  float sums[D / kWarpLanes];
#pragma unroll
  for (int i = 0; i < D / kWarpLanes; i++)
    sums[i] = shares.first == 0 ? 0.0f : shares.o[row * D + i * kWarpLanes + lane];
  for (int block = 0; block < end; block++) {
    const int64_t entry = (1 + int64_t{block}) * shares.rows + row;
    const Factors by = merge(softmax, shares.softmax[entry]);
#pragma unroll
    for (int i = 0; i < D / kWarpLanes; i++) sums[i] = merged(by, sums[i], shares.o[entry * D + i * kWarpLanes + lane]);
  }
  const bool complete = shares.first + end > last;
  const float inverse = 1 / softmax.sum;
#pragma unroll
  for (int i = 0; i < D / kWarpLanes; i++) {
    const int64_t at = row * D + i * kWarpLanes + lane;
    if (complete) o[at] = to_element<bf16>(finished(sums[i], inverse));
    else shares.o[at] = sums[i];
  }
  if (!complete && lane == 0) shares.softmax[row] = softmax;
}

/* ---- host ------------------------------------------------------------------------------------------------------- */

constexpr int64_t kEnoughBlocks = 256; /* two for each multiprocessor of the cards this is for */
constexpr int64_t kMostSplits = 65535; /* blocks along y */
/* Planned for: so many rows of the widest feature, 8,192 positions. With less, blocks of keys take turns. */
constexpr int64_t kPlannedRows = 16, kPlannedBlocks = 64;

template <int D, int kTiles> void attend_tiles(Context &ctx, const Paged &p, const PagedTensors &tensors) {
  using M = PagedMemory<D, kTiles>;
  const unsigned grid = paged_blocks(p, M::kRows);
  const int64_t rows = p.T * p.N, blocks = ceil_div(p.check_positions.end, kPagedKeys);
  const int64_t entries = ctx.workspace_bytes / (rows * kShareBytes<D>);
  int64_t step = entries - 1 < kMostSplits ? entries - 1 : kMostSplits;
  if (blocks < step) step = blocks;
  const auto start = [&](unsigned splits, const Shares &shares) {
    launch(ctx, dim3(grid, splits), kTileThreads, sizeof(M), attention_paged_tiles_kernel<D, kTiles>,
           static_cast<const bf16 *>(tensors.q), static_cast<const bf16 *>(tensors.cache_k),
           static_cast<const bf16 *>(tensors.cache_v), p, exponent_factor(tensors.scale), shares,
           static_cast<bf16 *>(tensors.o));
  };
  if (blocks <= 1 || step < 1 || grid >= kEnoughBlocks) return start(1, {});
  Shares shares = {reinterpret_cast<PagedSoftmax *>(ctx.workspace), nullptr, rows, 0};
  shares.o = reinterpret_cast<float *>(shares.softmax + (1 + step) * rows);
  for (int64_t first = 0; first < blocks; first += step) {
    const int count = static_cast<int>(blocks - first < step ? blocks - first : step);
    shares.first = static_cast<int>(first);
    start(static_cast<unsigned>(count), shares);
    launch(ctx, dim3(blocks_for(rows, kMergeRows)), dim3(kWarpLanes, kMergeRows), 0, attention_paged_merge_kernel<D>, p,
           shares, count, static_cast<bf16 *>(tensors.o));
  }
}

} // namespace

int64_t block_workspace(int64_t tokens, int64_t width) {
  const int64_t rows = tokens < kPlannedRows ? tokens : kPlannedRows;
  return rows * (1 + kPlannedBlocks) * ceil_div(width, 64) * kShareBytes<64>;
}

void attention_paged_tiles(Context &ctx, const Paged &p, const PagedTensors &tensors) {
  /* Four tiles of rows where a sequence has more than one fills (two on a card without shared memory for them); the
   * numbers are the same. */
  const bool chunks = p.T * (p.N / p.K) > kMmaRows * tensors.S;
  with_head_size(tensors.D, [&](auto size) {
    constexpr int D = decltype(size)::value;
    if (!chunks) return attend_tiles<D, 1>(ctx, p, tensors);
    constexpr size_t kBytes = sizeof(PagedMemory<D, 4>);
    if constexpr (kBytes > kSharedAnywhere)
      if (kBytes > static_cast<size_t>(ctx.shared_most)) return attend_tiles<D, 2>(ctx, p, tensors);
    attend_tiles<D, 4>(ctx, p, tensors);
  });
}

} // namespace gpu
