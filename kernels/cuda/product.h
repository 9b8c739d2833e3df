/*
 * Every matrix product of the library, as one form:
 *     sums[m,n] = tail_scale · Σ_j tail.left[m,j]·tail.right[n,j]  +  Σ_k left[m,k]·right[n,k]
 *     to[m,n]   = beta·to + alpha · gain[n] · sums
 * and, from the same left operand, a second right operand `beside` with a place of its own for its results. Operands are
 * rounded to the compute type, sums are f32. They run over the tail first, then from k = 0 to the last, in steps that
 * depend on neither m nor the kernel that was chosen: a row's result is the same in every batch.
 */
#pragma once
#include "product_room.h"
#include "weight.h"

namespace gpu {

/* Seen as [lines,depth]: a line for each row of the result (left) or each of its columns (right). */
struct Operand {
  const void *data;
  int32_t dtype;     /* f32, f16, bf16, or NF4: then `nf4` */
  int64_t stride;    /* elements from row to row as stored */
  bool across;       /* stored as [depth,lines] */
  const Weight *nf4; /* its rows are lines, or, across, the depth */
};

struct Results {
  void *to; /* [m,stride] */
  int32_t dtype;
  int64_t stride;
  float alpha, beta;
  const float *gain; /* [n] or NULL */
};

struct Product {
  int64_t m, n, depth;
  Operand left, right;
  Results results;

  int64_t tail_depth; /* 0: no tail */
  Operand tail_left, tail_right;
  float tail_scale;

  int64_t beside_n; /* 0: none */
  Operand beside;
  Results beside_results;

  /* The depth is cut into pieces of so many steps (0: not cut), summed apart, then one piece after the other: for results
   * that are small beside their depth. */
  int64_t piece;
  int32_t compute;
};

/* Part of the workspace that an op has not given away yet. */
struct Room {
  Context &ctx;
  const char *function;
  int64_t used;
};
/* NULL: sb_fail has been called. */
void *take(Room &room, int64_t bytes);

/* How the depth is cut. partial: [count][m,n], NULL where there is one piece. */
struct Pieces {
  int64_t count, depth; /* of each but the last */
  float *partial;
};

/* The kernels behind `multiply`: f32 FMA for operands of any type, and tensor cores for bf16 operands whose rows begin at
 * multiples of 16 bytes. */
void multiply_plain(Context &ctx, const Product &product, const Pieces &pieces);
void multiply_tiles(Context &ctx, const Product &product, const Pieces &pieces);

/* Launches the product. Non-zero: sb_fail has been called. */
int32_t multiply(Room &room, Product product);

/* The weight as right operand: W[out,in] across or not. */
Operand weight_operand(const Weight &w, bool across);
inline Operand plain_operand(const void *data, int32_t dtype, int64_t stride, bool across) {
  return {data, dtype, stride, across, nullptr};
}

} // namespace gpu
