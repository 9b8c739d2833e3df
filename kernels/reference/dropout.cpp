/*
 * Inverted dropout, y[t,f] = beta·y[t,f] + x[t,f]·mask[t,f]. The word of feature f of row t is lane f%4 of
 * philox(counter = (f/4, position[t], record[t], module), key); mask = 0 where it is below floor(p·2³²), else 1/(1-p).
 */
#include "reference.h"

namespace reference {

/* drop->record[T] drop->position[T] */
double mask(const sb_dropout *drop, int64_t t, int64_t feature) {
  if (!drop) return 1;
  const Words counter = {{static_cast<uint32_t>(feature / 4), static_cast<uint32_t>(drop->position[t]),
                          static_cast<uint32_t>(drop->record[t]), static_cast<uint32_t>(drop->module)}};
  const uint32_t word = philox(counter, drop->key).lane[feature % 4];
  return word < floor(drop->p * 4294967296.0) ? 0 : 1 / (1 - drop->p);
}

/* x[T,n] y[T,n]; y may be x. */
int32_t dropout_apply(sb_context *, const void *x, int32_t x_dtype, int64_t T, int64_t n, const sb_dropout *drop,
                      double beta, void *y, int32_t y_dtype) {
  for (int64_t t = 0; t < T; t++)
    for (int64_t f = 0; f < n; f++) {
      const int64_t i = t * n + f;
      store(y, y_dtype, i, plus_kept(load(x, x_dtype, i) * mask(drop, t, f), beta, y, y_dtype, i));
    }
  return 0;
}

} // namespace reference
