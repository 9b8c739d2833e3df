/*
 * h = silu(gate)·up with silu(x) = x·σ(x), σ(x) = 1/(1+e^-x). Backward:
 *     dgate = dh·up·σ(gate)·(1 + gate·(1 - σ(gate))) ,  dup = dh·silu(gate)
 */
#include "reference.h"

namespace reference {

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* gate[n] up[n] h[n]; h may be gate or up. */
int32_t swiglu_forward(sb_context *, const void *gate, const void *up, int32_t dtype, int64_t n, void *h) {
  for (int64_t i = 0; i < n; i++) {
    const double x = load(gate, dtype, i);
    store(h, dtype, i, x * sigmoid(x) * load(up, dtype, i));
  }
  return 0;
}

/* gate[n] up[n] dh[n] dgate[n] dup[n]; dh may be dgate or dup. */
int32_t swiglu_backward(sb_context *, const void *gate, const void *up, int32_t dtype, const void *dh, int64_t n,
                        void *dgate, void *dup) {
  for (int64_t i = 0; i < n; i++) {
    const double x = load(gate, dtype, i), s = sigmoid(x), d = reals(dh)[i];
    store(dgate, SB_F32, i, d * load(up, dtype, i) * s * (1 + x * (1 - s)));
    store(dup, SB_F32, i, d * x * s);
  }
  return 0;
}

} // namespace reference
