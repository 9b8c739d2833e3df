/*
 * AdamW (Loshchilov and Hutter 2019), g the gradient times gradient_scale:
 *     m = b1·m + (1-b1)·g ,  v = b2·v + (1-b2)·g²
 *     p = p·(1 - lr·decay) - lr · (m/(1-b1^step)) / (√(v/(1-b2^step)) + eps)
 */
#include "reference.h"

namespace reference {

/* p[n] g[n] m[n] v[n] */
int32_t adamw(sb_context *, void *p, const void *g, void *m, void *v, int64_t n, double lr, double b1, double b2,
              double eps, double decay, int64_t step, double gradient_scale) {
  const double unbias1 = 1 - pow(b1, static_cast<double>(step)), unbias2 = 1 - pow(b2, static_cast<double>(step));
  for (int64_t i = 0; i < n; i++) {
    const double gradient = gradient_scale * reals(g)[i];
    const double first = b1 * reals(m)[i] + (1 - b1) * gradient;
    const double second = b2 * reals(v)[i] + (1 - b2) * gradient * gradient;
    const double change = first / unbias1 / (sqrt(second / unbias2) + eps);
    store(m, SB_F32, i, first);
    store(v, SB_F32, i, second);
    store(p, SB_F32, i, reals(p)[i] * (1 - lr * decay) - lr * change);
  }
  return 0;
}

} // namespace reference
