/*
 * Index arrays are checked by the kernels that use them, entry by entry: one that is out of range is not used, and the
 * first to be met is told to the host (context.h). What else the op writes is then worth nothing.
 */
#pragma once
#include "context.h"

namespace gpu {

/* Of one index argument of one op. */
struct IndexCheck {
  Fault fault;
  const char *function, *argument;
  int64_t end; /* entries are in [0, end) */

  /* Whether entry `at` of the argument, of its row `row` where it is a table, may be used. */
  __device__ bool good(int64_t at, int64_t value, int64_t row = -1) const {
    if (value >= 0 && value < end) return true;
    tell(at, value, nullptr, row);
    return false;
  }
  /* expected: a host text, NULL for the range. */
  __device__ void tell(int64_t at, int64_t value, const char *expected, int64_t row = -1) const {
    if (atomicCAS(fault.raised, 0u, 1u) != 0u) return;
    FaultRecord &record = *fault.record;
    record.function = function;
    record.argument = argument;
    record.expected = expected;
    record.row = row;
    record.index = at;
    record.value = value;
    record.end = end;
    __threadfence_system();
    *static_cast<volatile int32_t *>(&record.raised) = 1;
  }
};

inline IndexCheck check_index(const Context &ctx, const char *function, const char *argument, int64_t end) {
  return {ctx.fault, function, argument, end};
}

/* Rows of a matrix whose height the op is not told. */
constexpr int64_t kNoEnd = int64_t{INT32_MAX} + 1;

} // namespace gpu
