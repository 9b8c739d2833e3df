/* The gradients of attention (attention_backward.cu) for every type and head size, without tensor cores. */
#include "attention_backward.h"
#include "attention_plain.cuh"

namespace gpu {

namespace {

/* δ of row [T·N], a warp a row; dq's first column holds it for the keys' pass. */
template <class T>
__global__ void attention_backward_delta_kernel(const float *d_o, const T *o, int64_t rows, int64_t D, float *dq) {
  const int64_t row = row_of_warp();
  if (row >= rows) return;
  float delta = 0;
  for (int64_t d = threadIdx.x; d < D; d += kWarpLanes) delta = fmaf(d_o[row * D + d], to_float(o[row * D + d]), delta);
  delta = warp_sum(delta);
  if (threadIdx.x == 0) dq[row * D] = delta;
}

/* dk, dv: a warp a key of one KV head, a lane a row. */
template <class T>
__global__ void __launch_bounds__(kPlainThreads, 2)
    attention_backward_keys_plain_kernel(const T *q, const T *k, const T *v, const float *d_o, const float *lse,
                                         const float *dq, int N, int K, int64_t D, Packing packing, float scale,
                                         float *dk, float *dv) {
  SHARED(PlainScratch, scratch);
  if (blockIdx.x == 0 && blockIdx.y == 0) check_offsets(packing);
  const int group = static_cast<int>(blockIdx.x) % K, G = N / K;
  const Piece piece = find_piece(packing, kFew, blockIdx.x / K);
  if (piece.first >= piece.length) return;
  const int key = piece.first + plain_warp();
  const int64_t key_line = ((piece.start + piece.first) * K + group) * D;
  const auto key_of = [&](const T *from, int r) -> const T * {
    return piece.first + r < piece.length ? from + key_line + int64_t{r} * K * D : nullptr;
  };
  float dk_sums[kPlainSums] = {}, dv_sums[kPlainSums] = {};
  for (int head = group * G; head < group * G + G; head++)
    for (int row0 = piece.first / kMany * kMany; row0 < piece.length; row0 += kMany) {
      const int rows = piece.length - row0 < kMany ? piece.length - row0 : kMany;
      const int64_t line = (piece.start + row0) * N + head;
      const auto query = [&](int r) -> const T * { return r < rows ? q + (line + int64_t{r} * N) * D : nullptr; };
      const auto gradient = [&](int r) -> const float * {
        return r < rows ? d_o + (line + int64_t{r} * N) * D : nullptr;
      };
      const float score = scale * dot_rows(scratch, D, [&](int r) { return key_of(k, r); }, query);
      const float dp = dot_rows(scratch, D, [&](int r) { return key_of(v, r); }, gradient);
      const int first = key > row0 ? key - row0 : 0; /* the first row that sees the key */
      float p = 0, ds = 0;
      if (plain_lane() >= first && plain_lane() < rows) {
        const int64_t row = line + int64_t{plain_lane()} * N;
        p = expf(score - lse[row]);
        ds = p * (dp - dq[row * D]);
      }
      add_rows(scratch, D, p, first, rows, gradient, dv_sums);
      add_rows(scratch, D, ds, first, rows, query, dk_sums);
    }
  if (key >= piece.length) return;
  const int64_t at = key_line + int64_t{plain_warp()} * K * D;
  store_plain(dk + at, D, dk_sums, scale);
  store_plain(dv + at, D, dv_sums, 1);
}

/* dq: a warp a row of one query head, a lane a key. */
template <class T>
__global__ void __launch_bounds__(kPlainThreads, 2)
    attention_backward_rows_plain_kernel(const T *q, const T *k, const T *v, const T *o, const float *d_o,
                                         const float *lse, int N, int K, int64_t D, Packing packing, float scale,
                                         float *dq) {
  SHARED(PlainScratch, scratch);
  const int head = static_cast<int>(blockIdx.x) % N, group = head / (N / K);
  const Piece piece = find_piece(packing, kFew, (gridDim.x - 1 - blockIdx.x) / N);
  if (piece.first >= piece.length) return;
  const int end = piece.first + kFew < piece.length ? piece.first + kFew : piece.length;
  const int position = piece.first + plain_warp();
  const auto line_of = [&](int r) { return (piece.start + piece.first + r) * N + head; };
  const auto query = [&](int r) -> const T * { return piece.first + r < end ? q + line_of(r) * D : nullptr; };
  const auto gradient = [&](int r) -> const float * {
    return piece.first + r < end ? d_o + line_of(r) * D : nullptr;
  };
  const int64_t row = line_of(plain_warp());
  float delta = 0, row_lse = 0; /* δ once more: other blocks of columns may have written dq */
  if (position < end) {
    for (int64_t d = plain_lane(); d < D; d += kWarpLanes)
      delta = fmaf(d_o[row * D + d], to_float(o[row * D + d]), delta);
    row_lse = lse[row];
  }
  delta = warp_sum(delta);
  float sums[kPlainSums] = {};
  for (int key0 = 0; key0 < end; key0 += kMany) {
    const auto line = [&](const T *from, int j) -> const T * {
      return key0 + j < end ? from + ((piece.start + key0 + j) * K + group) * D : nullptr;
    };
    const auto key = [&](int j) { return line(k, j); };
    const float score = scale * dot_rows(scratch, D, query, key);
    const float dp = dot_rows(scratch, D, gradient, [&](int j) { return line(v, j); });
    const int left = position < end ? position + 1 - key0 : 0, seen = left < 0 ? 0 : left < kMany ? left : kMany;
    const float ds = plain_lane() < seen ? expf(score - row_lse) * (dp - delta) : 0.0f;
    add_rows(scratch, D, ds, 0, seen, key, sums);
  }
  if (position < end) store_plain(dq + row * D, D, sums, scale);
}

} // namespace

void attention_backward_plain(Context &ctx, const Backward &b, const Packing &packing) {
  const int N = static_cast<int>(b.N), K = static_cast<int>(b.K);
  const int64_t pieces = piece_count(packing.T, packing.B, kFew), rows = packing.T * b.N;
  const unsigned columns = plain_column_blocks(b.D);
  const float scale = static_cast<float>(b.scale);
  with_dtype(b.dtype, [&](auto zero) {
    using E = decltype(zero);
    const E *const q = static_cast<const E *>(b.q), *const k = static_cast<const E *>(b.k),
            *const v = static_cast<const E *>(b.v), *const o = static_cast<const E *>(b.o);
    launch(ctx, warp_grid(rows), warp_block(), 0, attention_backward_delta_kernel<E>, b.d_o, o, rows, b.D, b.dq);
    launch(ctx, dim3(static_cast<unsigned>(pieces * K), columns), kPlainThreads, 0,
           attention_backward_keys_plain_kernel<E>, q, k, v, b.d_o, b.lse, b.dq, N, K, b.D, packing, scale, b.dk, b.dv);
    launch(ctx, dim3(static_cast<unsigned>(pieces * N), columns), kPlainThreads, 0,
           attention_backward_rows_plain_kernel<E>, q, k, v, o, b.d_o, b.lse, N, K, b.D, packing, scale, b.dq);
  });
}

} // namespace gpu
