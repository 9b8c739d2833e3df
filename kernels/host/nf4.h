/* NF4's constants, as bitsandbytes has them, and what both libraries say about its weights. */
#pragma once
#include <cstdint>

constexpr int64_t kNf4Block = 64; /* values of the flattened matrix that share one scale */

constexpr float kNf4Codes[16] = {
    -1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f, -0.28444138169288635f,
    -0.18477343022823334f, -0.09105003625154495f, 0.0f, 0.07958029955625534f, 0.16093020141124725f,
    0.24611230194568634f, 0.33791524171829224f, 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};
constexpr int32_t kNf4Zero = 7; /* the code of 0 */

/* A value just between two codes goes to the lower one. */
static constexpr float nf4_border(int32_t code) { return (kNf4Codes[code] + kNf4Codes[code + 1]) / 2; }

/* No value is divided by less. */
constexpr float kNf4Smallest = 1e-38f;

static constexpr int64_t nf4_blocks(int64_t n) { return (n + kNf4Block - 1) / kNf4Block; }

/* Code i of a matrix as it lies in files: two a byte, the first in the high half. */
static inline int32_t nf4_code(const uint8_t *codes, int64_t i) {
  return i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4;
}

/* Fails at the first of the scales of a weight [out,in] that is not finite; they may lie at any address. */
int32_t check_nf4_scales(const void *absmax, int64_t out, int64_t in);
/* Columns and rows of one weight are never replaced at once: which of them would win where they cross? */
int32_t replaced_already(const char *function, int64_t count, const char *lines);
