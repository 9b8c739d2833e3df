/*
 * Packed sequences cut into pieces of at most `step` rows, a block a piece. The lengths lie on the device, so pieces
 * are numbered with gaps: sequence b begins at number offsets[b] / step + b, which is far enough from the next one's.
 */
#pragma once
#include "indices.cuh"

namespace gpu {

struct Packing {
  const int32_t *offsets; /* [B+1] */
  int64_t B, T, longest;
  IndexCheck check;
  const char *expected; /* of offsets, a host text */
};

inline Packing make_packing(const Context &ctx, const char *function, const int32_t *offsets, int64_t B, int64_t T,
                            int64_t longest) {
  return {offsets, B, T, longest, check_index(ctx, function, "offsets", T + 1),
          "0 at first, T at last, and no sequence shorter than 0 or longer than `longest`"};
}

/* At least one, so that offsets are always checked. */
inline int64_t piece_count(int64_t T, int64_t B, int64_t step) { return T / step + B + 1; }

/* Tells what is wrong with the offsets: the work of one block. */
__device__ inline void check_offsets(const Packing &p) {
  for (int64_t b = threadIdx.x; b <= p.B; b += blockDim.x) {
    const int64_t end = p.offsets[b], length = b == 0 ? 0 : end - p.offsets[b - 1];
    const bool good = (b > 0 || end == 0) && (b < p.B || end == p.T) && length >= 0 && length <= p.longest;
    if (!good) p.check.tell(b, end, p.expected);
  }
}

/* Rows first, first+1, … of the sequence that is rows start..start+length-1 of the batch. */
struct Piece {
  int64_t start;
  int length, first; /* first >= length: there is no such piece */
};

/* The same in every thread of a warp; all lanes must come. Safe whatever the offsets are. */
__device__ inline Piece find_piece(const Packing &p, int step, int64_t number) {
  if (p.B == 0) return {0, 0, 0};
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  int64_t low = 0, high = p.B; /* number(low) <= number < number(high) */
  while (high - low > 1) {
    const int64_t stride = (high - low + kWarpLanes - 1) / kWarpLanes, at = low + lane * stride;
    const bool before = at < high && p.offsets[at] / step + at <= number;
    const int count = __popc(__ballot_sync(kAllLanes, before));
    low += (count > 0 ? count - 1 : 0) * stride;
    if (low + stride < high) high = low + stride;
  }
  const int64_t start = p.offsets[low], end = p.offsets[low + 1], first = (number - (start / step + low)) * step;
  if (start < 0 || end < start || end > p.T || first < 0 || first >= end - start) return {0, 0, 0};
  return {start, static_cast<int>(end - start), static_cast<int>(first)};
}

} // namespace gpu
