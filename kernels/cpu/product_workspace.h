/* How much workspace the products take: one place, read by the ops that take it and by sb_product_workspace. */
#pragma once
#include <cstdint>

constexpr int64_t kPanel = 32;           /* outputs of a panel, the width of every right operand */
constexpr int64_t kDepthBlock = 256;     /* words of depth a thread expands or transposes at a time: 32 KiB a panel */
constexpr int64_t kStrip = 4;            /* panels it packs side by side where that makes its reads longer */
constexpr int64_t kBlockRows = 512;      /* rows times panels it sums at a time: 64 KiB of sums */
constexpr int64_t kLeftBytes = 16 << 20; /* packed left operand of one pass; half of a usual L3 share */
constexpr int64_t kLeftRowsMin = 128;    /* but never fewer rows: below, expanding the right operand would show */
constexpr int64_t kHeadChunk = 4096;     /* vocabulary taken at a time as depth of the head's dx */

constexpr int64_t product_align(int64_t bytes) { return (bytes + 63) / 64 * 64; }
constexpr int64_t product_min(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t product_max(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t panels_of(int64_t n) { return (n + kPanel - 1) / kPanel; }

/* One thread: blocks of the right operand, then their sums. */
constexpr int64_t kScratchFloats = (kDepthBlock * kStrip + kBlockRows) * kPanel;
constexpr int64_t scratch_bytes(int32_t threads) { return threads * kScratchFloats * int64_t{4}; }

/* Rows of the left operand that one pass packs, `words` of 4 bytes deep, and what they take; bytes grow with both. */
constexpr int64_t left_rows(int64_t rows, int64_t words) {
  const int64_t fit = words > 0 ? kLeftBytes / (4 * words) : rows;
  return product_min(rows, product_max(fit, kLeftRowsMin));
}
constexpr int64_t left_bytes(int64_t rows, int64_t words) {
  return product_align(product_min(rows * words * 4, product_max(kLeftBytes, kLeftRowsMin * words * 4)));
}

constexpr int64_t product_bytes(int32_t threads, int64_t rows, int64_t words) {
  return scratch_bytes(threads) + left_bytes(rows, words);
}

/*
 * head_loss: logits of a block of rows, then one left operand after the other: x, a chunk of dlogits, x transposed;
 * none of them cut into passes. The rows of a block depend on V alone, since dw is summed block by block. As above,
 * the bytes are an upper bound that grows with every size.
 */
constexpr int64_t kLogits = 8 << 20; /* 32 MiB */
constexpr int64_t kHeadRows = 256, kHeadRowsMin = 32;
constexpr int64_t head_rows(int64_t V) {
  return product_max(product_min(kLogits / (panels_of(V) * kPanel), kHeadRows), kHeadRowsMin);
}
constexpr int64_t head_logits_bytes(int64_t M, int64_t V) {
  const int64_t width = panels_of(V) * kPanel;
  return product_align(product_min(M * width, product_max(kLogits, kHeadRowsMin * width)) * 4);
}
constexpr int64_t head_bytes(int32_t threads, int64_t M, int64_t H, int64_t V) {
  return scratch_bytes(threads) + head_logits_bytes(M, V) +
         product_align(product_min(M, kHeadRows) * product_max(H + 1, product_min(V, kHeadChunk)) * 4);
}
