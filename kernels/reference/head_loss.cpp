/*
 * Head and cross-entropy of M rows that carry a label:
 *     logit[v] = Σ_h x[m,h]·W[v,h] ,  p = softmax(logit) ,  loss[m] = -log p[targets[m]]
 *     dlogit[v] = weights[m] · (p[v] - [v = targets[m]])
 *     dx[m,h] = Σ_v dlogit[v]·W[v,h] ,  dw[v,h] += Σ_m dlogit[v]·x[m,h]
 * x and dlogit are operands of products and rounded to the weight's compute type.
 */
#include "reference.h"

namespace reference {

static double largest(const std::vector<double> &values) {
  double most = values[0];
  for (const double value : values)
    if (value > most) most = value;
  return most;
}

static double log_sum_exp(const std::vector<double> &values) {
  const double most = largest(values);
  double sum = 0;
  for (const double value : values) sum += exp(value - most);
  return most + log(sum);
}

/* x[M,H] W[V,H] targets[M] weights[M] loss[M] dx[M,H] or NULL, dw[V,H] or NULL */
int32_t head_loss(sb_context *, const sb_weight *weight, const void *x, int32_t x_dtype, int64_t M,
                  const int32_t *targets, const void *weights, void *loss, void *dx, void *dw) {
  const int64_t V = weight->out, H = weight->in;
  const int32_t compute = weight->compute;
  if (check_indices("sb_head_loss", "targets", targets, M, V)) return 1;

  std::vector<double> row(H), logits(V);           /* of one label */
  std::vector<double> sums(dw ? V * H : 0);        /* dw's, until all labels are in */
  for (int64_t m = 0; m < M; m++) {
    for (int64_t h = 0; h < H; h++) row[h] = operand(load(x, x_dtype, m * H + h), compute);
    for (int64_t v = 0; v < V; v++) {
      logits[v] = 0;
      for (int64_t h = 0; h < H; h++) logits[v] += row[h] * load_weight(weight, v, h);
    }
    const double log_sum = log_sum_exp(logits);
    store(loss, SB_F32, m, log_sum - logits[targets[m]]);
    if (!dx && !dw) continue;

    std::vector<double> &dlogits = logits;
    for (int64_t v = 0; v < V; v++) {
      const double p = exp(logits[v] - log_sum);
      dlogits[v] = operand(reals(weights)[m] * (p - (v == targets[m] ? 1 : 0)), compute);
    }
    for (int64_t h = 0; dx && h < H; h++) {
      double sum = 0;
      for (int64_t v = 0; v < V; v++) sum += dlogits[v] * load_weight(weight, v, h);
      store(dx, SB_F32, m * H + h, sum);
    }
    for (int64_t v = 0; dw && v < V; v++)
      for (int64_t h = 0; h < H; h++) sums[v * H + h] += dlogits[v] * row[h];
  }
  for (int64_t i = 0; dw && i < V * H; i++) store(dw, SB_F32, i, reals(dw)[i] + sums[i]);
  return 0;
}

} // namespace reference
