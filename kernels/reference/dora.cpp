/* norm[i] = √squares[i] ; gain[i] = magnitude[i] / norm[i], from the norm before it is rounded. */
#include "reference.h"

namespace reference {

/* squares[n] magnitude[n] norm[n] gain[n]; norm may be squares. */
int32_t dora_gain(sb_context *, const void *squares, const void *magnitude, int64_t n, void *norm, void *gain) {
  for (int64_t i = 0; i < n; i++) {
    const double root = sqrt(static_cast<double>(reals(squares)[i]));
    store(norm, SB_F32, i, root);
    store(gain, SB_F32, i, reals(magnitude)[i] / root);
  }
  return 0;
}

} // namespace reference
