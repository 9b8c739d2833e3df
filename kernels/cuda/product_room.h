/* How much workspace the products take: read by the ops that take it, and by sb_reserve. */
#pragma once
#include "context.h"

namespace gpu {

constexpr int64_t room_for(int64_t bytes) { return (bytes + 255) / 256 * 256; }

/* ---- operands that are brought to bf16 before a product, and sums of pieces ----------------------------------------- */

/* Elements from row to row of a bf16 copy: rows begin at multiples of 16 bytes. */
constexpr int64_t kCopyStep = 8;
constexpr int64_t copy_stride(int64_t n) { return (n + kCopyStep - 1) / kCopyStep * kCopyStep; }
constexpr int64_t copy_bytes(int64_t rows, int64_t n) { return room_for(rows * copy_stride(n) * 2); }

/* A cut depth gives no more than so many blocks, each of a tile of so many rows and columns. */
constexpr int64_t kPieceBlocks = 256, kPieceTile = 128, kPieceLeast = 512, kPieceStep = 64;
constexpr int64_t kPieceBytes = kPieceBlocks * kPieceTile * kPieceTile * 4;

/* ---- head_loss ---------------------------------------------------------------------------------------------------- */

/* Logits of so many rows at a time: enough for whole tiles of the dx product, 128 MiB where the vocabulary is large. */
constexpr int64_t kHeadRows = 1024, kHeadRowsMin = 128, kHeadLogits = 32 << 20;
/* Vocabulary whose part of dx is summed apart. */
constexpr int64_t kHeadPiece = 16384;
/* Columns that logits lie in. */
constexpr int64_t head_width(int64_t V) { return (V + 7) / 8 * 8; }
constexpr int64_t head_rows(int64_t V) {
  const int64_t fit = kHeadLogits / head_width(V) / kHeadRowsMin * kHeadRowsMin;
  return fit < kHeadRowsMin ? kHeadRowsMin : fit < kHeadRows ? fit : kHeadRows;
}

} // namespace gpu
