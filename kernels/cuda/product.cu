/* Who computes a product, and the workspace that products take. */
#include "cublaslt.h"

#include "grid.cuh"
#include "product_results.cuh"

namespace gpu {

void *take(Room &room, int64_t bytes) {
  void *memory = workspace(room.ctx, room.function, room.used + room_for(bytes));
  if (!memory) return nullptr;
  memory = static_cast<unsigned char *>(memory) + room.used;
  room.used += room_for(bytes);
  return memory;
}

int64_t product_workspace(int64_t tokens, int64_t width, int64_t rank, int64_t vocabulary) {
  const int64_t most = tokens > width ? tokens : width, longest = most > rank ? most : rank;
  const int64_t copies = copy_bytes(tokens, width) + 2 * copy_bytes(most, rank);
  const int64_t products = copies + (longest > kPieceLeast ? room_for(kPieceBytes) : 0);
  if (vocabulary == 0) return products;
  const int64_t rows = tokens < head_rows(vocabulary) ? tokens : head_rows(vocabulary), values = rows * head_width(vocabulary);
  const int64_t pieces = vocabulary > kHeadPiece ? ceil_div(vocabulary, kHeadPiece) : 0;
  const int64_t head = room_for(values * 4) + room_for(values * 2) + copies + room_for(pieces * rows * width * 4);
  return head > products ? head : products;
}

Operand weight_operand(const Weight &w, bool across) {
  return {w.data, w.dtype, w.stride, across, w.dtype == SB_NF4 ? &w : nullptr};
}

namespace {

/* results = Σ over pieces, from the first to the last. */
__global__ void product_pieces_kernel(const float *partial, int64_t pieces, int64_t m, int64_t n, DeviceResults results) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= m * n) return;
  float sum = 0;
  for (int64_t piece = 0; piece < pieces; piece++) sum += partial[piece * m * n + i];
  results.store(i / n, i % n, sum);
}

/* to[rows,to_stride] = from[rows,n], zeros behind column n. */
template <class T>
__global__ void product_copy_kernel(const T *from, int64_t stride, int64_t n, bf16 *to, int64_t to_stride) {
  const int64_t row = row_of_block(), i = column_of_thread();
  if (i < to_stride) store_four(to + row * to_stride, i, to_stride, load_four(from + row * stride, i, n));
}

} // namespace

/* Brings an operand [lines,depth] to bf16 rows that begin at multiples of 16 bytes; false: no room, sb_fail called. */
static bool align(Room &room, Operand &operand, int64_t lines, int64_t depth) {
  const bool aligned = operand.stride % kCopyStep == 0 && reinterpret_cast<uintptr_t>(operand.data) % 16 == 0;
  if (lines == 0 || depth == 0 || operand.nf4 || (operand.dtype == SB_BF16 && aligned)) return true;
  const int64_t rows = operand.across ? depth : lines, n = operand.across ? lines : depth, stride = copy_stride(n);
  auto *to = static_cast<bf16 *>(take(room, copy_bytes(rows, n)));
  if (!to) return false;
  with_dtype(operand.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(room.ctx, row_grid(rows, stride), kThreads, 0, product_copy_kernel<T>, static_cast<const T *>(operand.data),
           operand.stride, n, to, stride);
  });
  operand = plain_operand(to, SB_BF16, stride, operand.across);
  return true;
}

int32_t multiply(Room &room, Product p) {
  Context &ctx = room.ctx;
  Pieces pieces{1, p.depth, nullptr};
  if (p.piece > 0 && p.depth > p.piece) {
    pieces = {ceil_div(p.depth, p.piece), p.piece, nullptr};
    pieces.partial = static_cast<float *>(take(room, pieces.count * p.m * p.n * 4));
    if (!pieces.partial) return 1;
  }
  if (p.compute == SB_BF16) {
    const bool fit = align(room, p.left, p.m, p.depth) && align(room, p.right, p.n, p.depth) &&
                     align(room, p.tail_left, p.m, p.tail_depth) && align(room, p.tail_right, p.n, p.tail_depth) &&
                     align(room, p.beside, p.beside_n, p.depth);
    if (!fit) return 1;
    const Taken taken = multiply_cublaslt(room, p);
    if (taken == Taken::failed) return 1;
    if (taken == Taken::yes) p.n = p.tail_depth = 0;
    if (p.n > 0 || p.beside_n > 0) multiply_tiles(ctx, p, pieces);
  } else {
    multiply_plain(ctx, p, pieces);
  }
  if (pieces.count > 1)
    launch(ctx, blocks_for(p.m * p.n, kThreads), kThreads, 0, product_pieces_kernel,
           static_cast<const float *>(pieces.partial), pieces.count, p.m, p.n, device_results(p.results));
  return 0;
}

} // namespace gpu
