#include "nf4.h"
#include "../backend.h"
#include <cmath>
#include <cstring>

int32_t check_nf4_scales(const void *absmax, int64_t out, int64_t in) {
  for (int64_t block = 0; block < nf4_blocks(out * in); block++) {
    float scale;
    memcpy(&scale, static_cast<const char *>(absmax) + block * 4, sizeof scale);
    if (!std::isfinite(scale))
      return sb_fail("weight [%lld,%lld]: the scale of block %lld is %g; expected a finite number",
                     static_cast<long long>(out), static_cast<long long>(in), static_cast<long long>(block),
                     static_cast<double>(scale));
  }
  return 0;
}

int32_t replaced_already(const char *function, int64_t count, const char *lines) {
  return sb_fail("%s: the NF4 weight holds %lld replaced %s; drop them first (sb_weight_drop_replaced)", function,
                 static_cast<long long>(count), lines);
}
