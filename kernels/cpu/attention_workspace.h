/* How attention cuts its work, and the scratch a thread needs for it: one place, read by the ops and by
 * sb_block_workspace. */
#pragma once
#include <cstdint>

/* Rows (position, query head) of a task: K and V are brought to scratch once for all of them, which 96 make cheap; 32
 * positions where three heads share a KV head. */
constexpr int64_t kAttentionRows = 96;
/* Keys of a block, at absolute positions 0, 64, 128 .. of a sequence. The running softmax is rescaled at these borders
 * and nowhere else, so this number is part of the result. 16 KiB of K and of V at a head size of 64. */
constexpr int64_t kAttentionKeys = 64;
/* Every matrix in scratch lies in sheets of 64 columns, float[sheet][rows][80]: a step of five cache lines, an odd
 * number, spreads a column over all sets of the L1, and a fixed one is an offset in the instructions. */
constexpr int64_t kSheet = 64, kStep = 80;
static_assert(kAttentionKeys <= kSheet, "the scores of a row and a block of keys lie in one sheet");

constexpr int64_t sheets_of(int64_t D) { return (D + kSheet - 1) / kSheet; }

/* Rows of kStep floats. Forward: q, o by rows; Kᵀ by D; V by keys; scores by rows; sums of a vector (16 floats at most)
 * a row. Backward: q, do, dq by rows; Kᵀ, Vᵀ by D; K by keys; P and dS by rows. */
constexpr int64_t forward_lines(int64_t D) {
  return sheets_of(D) * (2 * kAttentionRows + kAttentionKeys) + D + kAttentionRows + kAttentionRows * 16 / kStep + 1;
}
constexpr int64_t backward_lines(int64_t D) {
  return sheets_of(D) * (3 * kAttentionRows + kAttentionKeys) + 2 * D + 2 * kAttentionRows;
}
/* Bytes a thread; a multiple of 64. */
constexpr int64_t attention_bytes(int64_t D) {
  return (forward_lines(D) > backward_lines(D) ? forward_lines(D) : backward_lines(D)) * kStep * int64_t{4};
}

/* Every thread has its scratch up to this head size; wider heads, which no known model has, may have to do with one
 * thread. */
constexpr int64_t kAttentionPlannedHead = 256;
constexpr int64_t attention_workspace(int32_t threads, int64_t width) {
  const int64_t all = threads * attention_bytes(width < kAttentionPlannedHead ? width : kAttentionPlannedHead);
  return all > attention_bytes(width) ? all : attention_bytes(width);
}
