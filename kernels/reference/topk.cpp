/*
 * The k largest of log softmax(logits[row,:]) = logit - log Σ_v exp(logit[v]), descending, ties to the lower id. Found
 * by looking k times for the first entry, in that order, behind the one found before.
 */
#include "reference.h"

namespace reference {

/* Whether entry a of a row stands before entry b. */
static bool before(const real *row, int64_t a, int64_t b) { return row[a] > row[b] || (row[a] == row[b] && a < b); }

/* logits[R,V] values[R,k] ids[R,k] */
int32_t topk_log_softmax(sb_context *, const void *logits, int64_t R, int64_t V, int64_t k, void *values,
                         int32_t *ids) {
  for (int64_t i = 0; i < R * V; i++)
    if (std::isnan(reals(logits)[i]))
      return sb_fail("sb_topk_log_softmax: logits[%lld,%lld] is NaN", static_cast<long long>(i / V),
                     static_cast<long long>(i % V));
  for (int64_t r = 0; r < R; r++) {
    const real *row = reals(logits) + r * V;
    int64_t found = -1;
    double most = 0, log_sum = 0;
    for (int64_t j = 0; j < k; j++) {
      int64_t best = -1;
      for (int64_t v = 0; v < V; v++)
        if ((found < 0 || before(row, found, v)) && (best < 0 || before(row, v, best))) best = v;
      found = best;
      if (j == 0) {
        most = row[best];
        double sum = 0;
        for (int64_t v = 0; v < V; v++) sum += exp(row[v] - most);
        log_sum = log(sum);
      }
      ids[r * k + j] = static_cast<int32_t>(best);
      store(values, SB_F32, r * k + j, row[best] - most - log_sum);
    }
  }
  return 0;
}

} // namespace reference
