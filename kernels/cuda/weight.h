/* A frozen matrix on the device. */
#pragma once
#include "context.h"

#include <vector>

namespace gpu {

/* Columns or rows of an NF4 weight that other values stand in for. */
struct ReplacedLines {
  std::vector<int32_t> indices; /* which line stands in slot 0, 1, … */
  int64_t length;               /* of a line */
  int32_t *slots;               /* device: of every line of the weight its slot, -1 for none; NULL: none replaced */
  void *values;                 /* device: bf16 [slots][length] */
};

struct Weight : sb_weight {
  void *data;       /* [out,stride] row-major, of `dtype`, zeros behind column in; NULL for NF4 */
  int64_t stride;   /* elements from row to row: in, rounded up to 16 bytes */
  int64_t bytes;    /* counted in the context's `allocated` */

  /* NF4. A row's codes begin at a byte that 16 divides: two a byte, the first in the high half, codes of 0 behind column
   * in. Scales lie as in files: one for 64 values of the matrix without padding. */
  uint8_t *codes;
  float *absmax;
  int32_t rounding; /* type that values are rounded to before the compute type */
  ReplacedLines columns, rows;
};

inline const Weight &held(const sb_weight *weight) { return *static_cast<const Weight *>(weight); }
inline Weight &held(sb_weight *weight) { return *static_cast<Weight *>(weight); }

/* A weight without memory yet; `bytes` are counted. */
Weight *new_weight(Context &ctx, int64_t out, int64_t in, int32_t dtype, int32_t compute, int64_t bytes);
/* "weight [out,in]: …" */
int32_t weight_out_of_memory(int64_t out, int64_t in, int64_t bytes);
int32_t weight_not_finite(int64_t out, int64_t in, int64_t index);

/* NF4 (nf4.cu): other values for lines. */
int32_t nf4_write_rows(Context &ctx, Weight &w, const int32_t *rows, int64_t n, const float *values);
int32_t nf4_write_columns(Context &ctx, Weight &w, const int32_t *columns, int64_t n, const float *values);
void nf4_free(Context &ctx, Weight &w);

} // namespace gpu
