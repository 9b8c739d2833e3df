/* The gradients of attention (attention_backward.cu) by tensor cores, head sizes 64 and 128. */
#include "attention_backward.h"
#include "attention_tile.cuh"
#include "reduce.cuh"

namespace gpu {

namespace {

constexpr int kSide = 64; /* keys of a block, and rows of one: 16 a warp */
constexpr int kTiles = kSide / kMmaColumns;
/* Rows, or keys, pass through stages: the next are copied while these are worked on. One stage, and no copy beside the
 * work, where two are more shared memory than the card has (head size 128 on sm_86, 89, 120): the same numbers. */

/* ---- what dq holds of a row until it is written ----------------------------------------------------------------- */

/* dO in bf16, then the row's scalars: 2·D + 16 of its 4·D bytes. */
struct RowScalars {
  float lse, delta; /* lse in powers of two */
  float unused[2];
};
__device__ __forceinline__ const bf16 *kept_gradients(const float *dq_row) {
  return reinterpret_cast<const bf16 *>(dq_row);
}
template <int D> __device__ __forceinline__ const RowScalars *kept_scalars(const float *dq_row) {
  return reinterpret_cast<const RowScalars *>(dq_row + D / 2);
}

constexpr int kPrepareRows = 8;

/* A warp a row of [T·N, D]. */
template <int D>
__global__ void attention_backward_prepare_kernel(const float *d_o, const bf16 *o, const float *lse, int64_t rows,
                                                  float *dq) {
  const int64_t row = int64_t{blockIdx.x} * kPrepareRows + threadIdx.y;
  if (row >= rows) return;
  float *const kept = dq + row * D;
  const int column = static_cast<int>(threadIdx.x) * kFour;
  float delta = 0;
  if (column < D) {
    const Four gradient = load_aligned(d_o + row * D + column), value = load_aligned(o + row * D + column);
#pragma unroll
    for (int i = 0; i < kFour; i++) delta = fmaf(gradient.at[i], value.at[i], delta);
    store_aligned(reinterpret_cast<bf16 *>(kept) + column, gradient);
  }
  delta = warp_sum(delta);
  if (threadIdx.x == 0)
    *reinterpret_cast<float4 *>(kept + D / 2) = make_float4(lse[row] * kLog2E, delta, 0, 0);
}

__device__ __forceinline__ float probability(float score, float factor, float lse, bool sees) {
  return sees ? power_of_two(fmaf(score, factor, -lse)) : 0.0f;
}

/* ---- dk, dv: a block a piece of keys of one KV head ------------------------------------------------------------- */

template <int D> struct RowStage {
  bf16 queries[kSide * kStep<D>], gradients[kSide * kStep<D>];
  RowScalars scalars[kSide];
};
template <int D, int kStages> struct KeyMemory {
  bf16 keys[kSide * kStep<D>], values[kSide * kStep<D>];
  RowStage<D> stages[kStages];
};

/* to[16 rows of the warp, D] = factor · sums, the first `count` of the block's. */
template <int D>
__device__ __forceinline__ void store_gradients(const float (&sums)[1][D / kMmaColumns][4], float factor, int count,
                                                int64_t stride, float *to) {
  const int lane = lane_of_thread();
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const int row = warp_of_thread() * kMmaRows + lane / 4 + half * 8;
    if (row >= count) continue;
    float *const at = to + row * stride + lane % 4 * 2;
#pragma unroll
    for (int d = 0; d < D / kMmaColumns; d++)
      *reinterpret_cast<float2 *>(at + d * kMmaColumns) =
          make_float2(sums[0][d][2 * half] * factor, sums[0][d][2 * half + 1] * factor);
  }
}

template <int D, int kStages>
__global__ void __launch_bounds__(kTileThreads)
    attention_backward_keys_kernel(const bf16 *q, const bf16 *k, const bf16 *v, const float *kept, int N, int K,
                                   Packing packing, float factor, float scale, float *dk, float *dv) {
  using M = KeyMemory<D, kStages>;
  DYNAMIC_SHARED(M, memory);
  if (blockIdx.x == 0) check_offsets(packing);
  const int group = static_cast<int>(blockIdx.x) % K, G = N / K;
  const Piece piece = find_piece(packing, kSide, blockIdx.x / K);
  if (piece.first >= piece.length) return;
  const int64_t q_stride = int64_t{N} * D, k_stride = int64_t{K} * D;
  const int64_t k_first = (piece.start + piece.first) * k_stride + int64_t{group} * D;
  const int count = piece.length - piece.first;
  copy_rows<D, kSide>(memory->keys, k, count, [=](int row) { return k + k_first + row * k_stride; });
  copy_rows<D, kSide>(memory->values, v, count, [=](int row) { return v + k_first + row * k_stride; });

  /* Turn i: a block of rows, from the one with the first key on, of one head after the other. */
  const int blocks = (count + kSide - 1) / kSide, turns = blocks * G;
  const auto start_copy = [&](int turn) {
    RowStage<D> &stage = memory->stages[turn % kStages];
    const int head = group * G + turn / blocks, row0 = piece.first + turn % blocks * kSide, rows = piece.length - row0;
    const int64_t first = (piece.start + row0) * q_stride + int64_t{head} * D;
    const bf16 *const q_row = q + first;
    const float *const kept_row = kept + first;
    copy_rows<D, kSide>(stage.queries, q, rows, [=](int row) { return q_row + row * q_stride; });
    copy_rows<D, kSide>(stage.gradients, q, rows, [=](int row) { return kept_gradients(kept_row + row * q_stride); });
    const int row = static_cast<int>(threadIdx.x);
    if (row < kSide) /* zeros behind the last row: P is 1 there, dO and δ are 0 */
      copy_async(&stage.scalars[row], row < rows ? kept_scalars<D>(kept_row + row * q_stride) : kept_scalars<D>(kept),
                 row < rows ? 16 : 0);
  };
  if (kStages > 1) start_copy(0);
  commit_copies();

  const int lane = lane_of_thread();
  float dk_sums[1][D / kMmaColumns][4] = {}, dv_sums[1][D / kMmaColumns][4] = {};
  for (int turn = 0; turn < turns; turn++) {
    if (turn + kStages - 1 < turns) start_copy(turn + kStages - 1);
    commit_copies();
    wait_copies<kStages - 1>();
    __syncthreads();
    const RowStage<D> &stage = memory->stages[turn % kStages];
    const int behind = turn % blocks * kSide; /* rows of the block stand so far behind its keys */
    const auto row_of = [=](int j, int i) { return j * kMmaColumns + lane % 4 * 2 + i % 2; };
    float p[1][kTiles][4], ds[1][kTiles][4]; /* [keys, rows] */
    Rounded<1, kTiles> rounded;
    multiply_rows<D>(p, memory->keys, warp_of_thread() * kMmaRows, stage.queries, 0);
#pragma unroll
    for (int j = 0; j < kTiles; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int row = row_of(j, i), key = warp_of_thread() * kMmaRows + lane / 4 + i / 2 * 8;
        p[0][j][i] = probability(p[0][j][i], factor, stage.scalars[row].lse, key <= row + behind);
      }
    round_sums(rounded, p);
    add_products<D>(dv_sums, rounded, stage.gradients);
    multiply_rows<D>(ds, memory->values, warp_of_thread() * kMmaRows, stage.gradients, 0);
#pragma unroll
    for (int j = 0; j < kTiles; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) ds[0][j][i] = p[0][j][i] * (ds[0][j][i] - stage.scalars[row_of(j, i)].delta);
    round_sums(rounded, ds);
    add_products<D>(dk_sums, rounded, stage.queries);
    __syncthreads(); /* what is copied next goes to where this turn lay */
  }
  store_gradients<D>(dk_sums, scale, count, k_stride, dk + k_first);
  store_gradients<D>(dv_sums, 1, count, k_stride, dv + k_first);
}

/* ---- dq: a block a piece of rows of one query head -------------------------------------------------------------- */

template <int D> struct KeyStage {
  bf16 keys[kSide * kStep<D>], values[kSide * kStep<D>];
};
template <int D, int kStages> struct RowMemory {
  bf16 queries[kSide * kStep<D>], gradients[kSide * kStep<D>];
  KeyStage<D> stages[kStages];
};

template <int D, int kStages>
__global__ void __launch_bounds__(kTileThreads)
    attention_backward_rows_kernel(const bf16 *q, const bf16 *k, const bf16 *v, int N, int K, Packing packing,
                                   float factor, float scale, float *dq) {
  using M = RowMemory<D, kStages>;
  DYNAMIC_SHARED(M, memory);
  const int head = static_cast<int>(blockIdx.x) % N, group = head / (N / K);
  const Piece piece = find_piece(packing, kSide, (gridDim.x - 1 - blockIdx.x) / N);
  if (piece.first >= piece.length) return;
  const int64_t q_stride = int64_t{N} * D, k_stride = int64_t{K} * D;
  const int64_t q_first = (piece.start + piece.first) * q_stride + int64_t{head} * D;
  const int count = piece.length - piece.first;
  float *const rows = dq + q_first;
  copy_rows<D, kSide>(memory->queries, q, count, [=](int row) { return q + q_first + row * q_stride; });
  copy_rows<D, kSide>(memory->gradients, q, count, [=](int row) { return kept_gradients(rows + row * q_stride); });
  const auto start_copy = [&](int key0) {
    KeyStage<D> &stage = memory->stages[key0 / kSide % kStages];
    const int64_t first = (piece.start + key0) * k_stride + int64_t{group} * D;
    const bf16 *const k_row = k + first, *const v_row = v + first;
    copy_rows<D, kSide>(stage.keys, k, piece.length - key0, [=](int row) { return k_row + row * k_stride; });
    copy_rows<D, kSide>(stage.values, v, piece.length - key0, [=](int row) { return v_row + row * k_stride; });
  };
  if (kStages > 1) start_copy(0);
  commit_copies();

  const int lane = lane_of_thread(), first_row = warp_of_thread() * kMmaRows + lane / 4;
  float lse[2] = {0, 0}, delta[2] = {0, 0}; /* of the lane's rows, lane/4 and 8 behind it */
#pragma unroll
  for (int half = 0; half < 2; half++)
    if (first_row + 8 * half < count) {
      const RowScalars *const scalars = kept_scalars<D>(rows + (first_row + 8 * half) * q_stride);
      lse[half] = scalars->lse;
      delta[half] = scalars->delta;
    }
  float sums[1][D / kMmaColumns][4] = {};
  for (int key0 = 0; key0 <= piece.first; key0 += kSide) { /* the last block stands where the rows do */
    const int next = key0 + (kStages - 1) * kSide;
    if (next <= piece.first) start_copy(next);
    commit_copies();
    wait_copies<kStages - 1>();
    __syncthreads();
    const KeyStage<D> &stage = memory->stages[key0 / kSide % kStages];
    float s[1][kTiles][4], ds[1][kTiles][4]; /* [rows, keys] */
    multiply_rows<D>(s, memory->queries, warp_of_thread() * kMmaRows, stage.keys, 0);
    multiply_rows<D>(ds, memory->gradients, warp_of_thread() * kMmaRows, stage.values, 0);
    const int behind = piece.first - key0;
#pragma unroll
    for (int j = 0; j < kTiles; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int key = j * kMmaColumns + lane % 4 * 2 + i % 2, row = first_row + i / 2 * 8;
        const float p = probability(s[0][j][i], factor, lse[i / 2], key <= row + behind);
        ds[0][j][i] = p * (ds[0][j][i] - delta[i / 2]);
      }
    Rounded<1, kTiles> rounded;
    round_sums(rounded, ds);
    add_products<D>(sums, rounded, stage.keys);
    __syncthreads();
  }
  store_gradients<D>(sums, scale, count, q_stride, rows);
}

/* use(std::integral_constant<int, stages>), from the shared memory that two stages take. */
template <size_t bytes, class Use> void with_stages(const Context &ctx, const Use &use) {
  if constexpr (bytes > kSharedAnywhere)
    if (bytes > static_cast<size_t>(ctx.shared_most)) return use(std::integral_constant<int, 1>());
  use(std::integral_constant<int, 2>());
}

} // namespace

void attention_backward_tiles(Context &ctx, const Backward &b, const Packing &packing) {
  const bf16 *const q = static_cast<const bf16 *>(b.q), *const k = static_cast<const bf16 *>(b.k),
             *const v = static_cast<const bf16 *>(b.v);
  const int N = static_cast<int>(b.N), K = static_cast<int>(b.K);
  const int64_t pieces = piece_count(packing.T, packing.B, kSide), rows = packing.T * b.N;
  const float factor = exponent_factor(b.scale), scale = static_cast<float>(b.scale);
  with_head_size(b.D, [&](auto size) {
    constexpr int D = decltype(size)::value;
    launch(ctx, dim3(blocks_for(rows, kPrepareRows)), dim3(kWarpLanes, kPrepareRows), 0,
           attention_backward_prepare_kernel<D>, b.d_o, static_cast<const bf16 *>(b.o), b.lse, rows, b.dq);
    with_stages<sizeof(KeyMemory<D, 2>)>(ctx, [&](auto stages) {
      constexpr int kStages = decltype(stages)::value;
      launch(ctx, dim3(static_cast<unsigned>(pieces * K)), kTileThreads, sizeof(KeyMemory<D, kStages>),
             attention_backward_keys_kernel<D, kStages>, q, k, v, b.dq, N, K, packing, factor, scale, b.dk, b.dv);
    });
    with_stages<sizeof(RowMemory<D, 2>)>(ctx, [&](auto stages) {
      constexpr int kStages = decltype(stages)::value;
      launch(ctx, dim3(static_cast<unsigned>(pieces * N)), kTileThreads, sizeof(RowMemory<D, kStages>),
             attention_backward_rows_kernel<D, kStages>, q, k, v, N, K, packing, factor, scale, b.dq);
    });
  });
}

} // namespace gpu
