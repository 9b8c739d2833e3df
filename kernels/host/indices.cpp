#include "indices.h"

#include "../backend.h"
#include <cstdlib>

int32_t check_indices(const char *function, const char *name, const int32_t *values, int64_t n, int64_t end) {
  for (int64_t i = 0; i < n; i++)
    if (values[i] < 0 || values[i] >= end)
      return sb_fail("%s: %s[%lld] is %d; expected at least 0 and below %lld", function, name,
                     static_cast<long long>(i), values[i], static_cast<long long>(end));
  return 0;
}

int32_t check_distinct(const char *function, const char *name, const int32_t *values, int64_t n, int64_t end) {
  if (check_indices(function, name, values, n, end)) return 1;
  bool *seen = static_cast<bool *>(calloc(end, sizeof *seen));
  if (!seen) return sb_fail("%s: %lld bytes could not be allocated", function, static_cast<long long>(end));
  int64_t i = 0;
  while (i < n && !seen[values[i]]) seen[values[i++]] = true;
  free(seen);
  if (i == n) return 0;
  return sb_fail("%s: %s[%lld] is %d, which stands before it already; expected distinct ones", function, name,
                 static_cast<long long>(i), values[i]);
}

int32_t check_not_negative(const char *function, const char *name, const int32_t *values, int64_t n) {
  return check_indices(function, name, values, n, int64_t{INT32_MAX} + 1);
}

int32_t check_offsets(const char *function, const int32_t *offsets, int64_t B, int64_t T, int64_t longest) {
  if (offsets[0] != 0) return sb_fail("%s: offsets[0] is %d; expected 0", function, offsets[0]);
  for (int64_t b = 0; b < B; b++) {
    const int64_t length = int64_t{offsets[b + 1]} - offsets[b];
    if (length < 0 || length > longest)
      return sb_fail("%s: offsets[%lld] is %d after %d; expected a sequence of 0 to %lld rows (longest)", function,
                     static_cast<long long>(b + 1), offsets[b + 1], offsets[b], static_cast<long long>(longest));
  }
  if (offsets[B] != T)
    return sb_fail("%s: offsets[%lld] is %d; expected T = %lld, the end of the last sequence", function,
                   static_cast<long long>(B), offsets[B], static_cast<long long>(T));
  return 0;
}

int32_t check_pages(const char *function, const int32_t *tables, int64_t S, int64_t max_pages, int64_t pages,
                    int64_t page, const int32_t *sequences, const int32_t *positions, int64_t T) {
  if (check_indices(function, "sequences", sequences, T, S)) return 1;
  const int64_t room = max_pages > INT32_MAX / page ? int64_t{INT32_MAX} + 1 : max_pages * page;
  if (check_indices(function, "positions", positions, T, room)) return 1;
  for (int64_t t = 0; t < T; t++)
    for (int64_t i = 0; i <= positions[t] / page; i++) {
      const int32_t entry = tables[sequences[t] * max_pages + i];
      if (entry < 0 || entry >= pages)
        return sb_fail("%s: tables[%d,%lld] is %d; expected at least 0 and below %lld", function, sequences[t],
                       static_cast<long long>(i), entry, static_cast<long long>(pages));
    }
  return 0;
}
