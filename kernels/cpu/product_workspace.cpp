#include "product_workspace.h"
#include "context.h"

int64_t sb_product_workspace(int32_t threads, int64_t tokens, int64_t width, int64_t rank, int64_t vocabulary) {
  /* The left operand has at most this many rows (matmul: either side), and is as deep at most, plus a tail; two more
   * words because a 16-bit weight and its tail are each padded to an even depth. */
  const int64_t rows = product_max(product_max(tokens, width), rank);
  const int64_t bytes = product_bytes(threads, rows, rows + rank + 2);
  return vocabulary > 0 ? product_max(bytes, head_bytes(threads, tokens, width, vocabulary)) : bytes;
}
