/*
 * Causal attention over packed sequences. For row t of a sequence that begins at row `first`, query head n, KV head
 * g = n·K/N and keys j = first..t:
 *     s[j] = scale · Σ_d q[t,n,d]·k[j,g,d] ,  lse[t,n] = log Σ_j exp(s[j]) ,  p[j] = exp(s[j] - lse)
 *     o[t,n,d] = Σ_j p[j]·v[j,g,d]
 * Backward, with dp[j] = Σ_d dO[t,n,d]·v[j,g,d] and ds[j] = p[j] · (dp[j] - Σ_d dO[t,n,d]·o[t,n,d]):
 *     dq[t,n,d] = scale · Σ_j ds[j]·k[j,g,d]
 *     dk[j,g,d] = scale · Σ_t,n ds[j]·q[t,n,d] ,  dv[j,g,d] = Σ_t,n p[j]·dO[t,n,d]
 */
#include "reference.h"

namespace reference {

/* Σ_d a[row_a,d]·b[row_b,d] */
static double dot(const void *a, int32_t a_dtype, int64_t row_a, const void *b, int32_t b_dtype, int64_t row_b,
                  int64_t D) {
  double sum = 0;
  for (int64_t d = 0; d < D; d++) sum += load(a, a_dtype, row_a * D + d) * load(b, b_dtype, row_b * D + d);
  return sum;
}

/* q[T,N,D] k[T,K,D] v[T,K,D] offsets[B+1] o[T,N,D] lse[T,N] or NULL */
int32_t attention_forward(sb_context *, const void *q, const void *k, const void *v, int32_t dtype, int64_t T,
                          int64_t N, int64_t K, int64_t D, const int32_t *offsets, int64_t B, int64_t longest,
                          double scale, void *o, void *lse) {
  if (check_offsets("sb_attention_forward", offsets, B, T, longest)) return 1;
  std::vector<double> p(static_cast<size_t>(longest));
  for (int64_t b = 0; b < B; b++)
    for (int64_t t = offsets[b]; t < offsets[b + 1]; t++)
      for (int64_t n = 0; n < N; n++) {
        const int64_t g = n * K / N, first = offsets[b], count = t - first + 1;
        double most = -INFINITY, sum = 0;
        for (int64_t j = 0; j < count; j++) {
          p[j] = scale * dot(q, dtype, t * N + n, k, dtype, (first + j) * K + g, D);
          most = fmax(most, p[j]);
        }
        for (int64_t j = 0; j < count; j++) {
          p[j] = exp(p[j] - most);
          sum += p[j];
        }
        for (int64_t d = 0; d < D; d++) {
          double value = 0;
          for (int64_t j = 0; j < count; j++) value += p[j] * load(v, dtype, ((first + j) * K + g) * D + d);
          store(o, dtype, (t * N + n) * D + d, value / sum);
        }
        if (lse) store(lse, SB_F32, t * N + n, most + log(sum));
      }
  return 0;
}

/* q, o, d_o, dq[T,N,D] k, v, dk, dv[T,K,D] lse[T,N] offsets[B+1] */
int32_t attention_backward(sb_context *, const void *q, const void *k, const void *v, const void *o, int32_t dtype,
                           const void *d_o, const void *lse, int64_t T, int64_t N, int64_t K, int64_t D,
                           const int32_t *offsets, int64_t B, int64_t longest, double scale, void *dq, void *dk,
                           void *dv) {
  if (check_offsets("sb_attention_backward", offsets, B, T, longest)) return 1;
  std::vector<double> row(D), keys(T * K * D), values(T * K * D); /* float64 sums of dq's row, dk, dv */
  for (int64_t b = 0; b < B; b++)
    for (int64_t t = offsets[b]; t < offsets[b + 1]; t++)
      for (int64_t n = 0; n < N; n++) {
        const int64_t g = n * K / N, query = t * N + n;
        const double mean = dot(d_o, SB_F32, query, o, dtype, query, D); /* Σ_j p·dp */
        for (double &sum : row) sum = 0;
        for (int64_t j = offsets[b]; j <= t; j++) {
          const int64_t key = j * K + g;
          const double p = exp(scale * dot(q, dtype, query, k, dtype, key, D) - reals(lse)[query]);
          const double ds = scale * p * (dot(d_o, SB_F32, query, v, dtype, key, D) - mean);
          for (int64_t d = 0; d < D; d++) {
            row[d] += ds * load(k, dtype, key * D + d);
            keys[key * D + d] += ds * load(q, dtype, query * D + d);
            values[key * D + d] += p * reals(d_o)[query * D + d];
          }
        }
        for (int64_t d = 0; d < D; d++) store(dq, SB_F32, query * D + d, row[d]);
      }
  for (int64_t i = 0; i < T * K * D; i++) {
    store(dk, SB_F32, i, keys[i]);
    store(dv, SB_F32, i, values[i]);
  }
  return 0;
}

} // namespace reference
