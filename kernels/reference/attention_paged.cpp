/*
 * Attention through a paged KV cache. Position j of a sequence lies in page tables[sequence, j / page], at offset
 * j % page. Row t, query head n, KV head g = n·K/N, keys j = 0..positions[t]:
 *     o[t,n,d] = Σ_j p[j]·cache_v[j,g,d] ,  p = softmax_j( scale · Σ_d q[t,n,d]·cache_k[j,g,d] )
 */
#include "reference.h"

namespace reference {

/* Where D values begin in cache[pages][K][page][D]. */
static int64_t cache_index(int64_t page_index, int64_t offset, int64_t g, int64_t K, int64_t page, int64_t D) {
  return ((page_index * K + g) * page + offset) * D;
}

/* k[T,K,D] v[T,K,D] slots[T] cache_k, cache_v[pages][K][page][D] */
int32_t kv_write(sb_context *, const void *k, const void *v, int32_t dtype, int64_t T, int64_t K, int64_t D,
                 const int32_t *slots, int64_t pages, int64_t page, void *cache_k, void *cache_v) {
  if (check_indices("sb_kv_write", "slots", slots, T, pages * page)) return 1;
  for (int64_t t = 0; t < T; t++)
    for (int64_t g = 0; g < K; g++)
      for (int64_t d = 0; d < D; d++) {
        const int64_t from = (t * K + g) * D + d;
        const int64_t to = cache_index(slots[t] / page, slots[t] % page, g, K, page, D) + d;
        store(cache_k, dtype, to, load(k, dtype, from));
        store(cache_v, dtype, to, load(v, dtype, from));
      }
  return 0;
}

/* q[T,N,D] caches[pages][K][page][D] tables[S,max_pages] sequences[T] positions[T] o[T,N,D] */
int32_t attention_paged(sb_context *, const void *q, int32_t dtype, int64_t T, int64_t N, int64_t K, int64_t D,
                        const void *cache_k, const void *cache_v, int64_t pages, int64_t page, const int32_t *tables,
                        int64_t S, int64_t max_pages, const int32_t *sequences, const int32_t *positions, double scale,
                        void *o) {
  if (check_pages("sb_attention_paged", tables, S, max_pages, pages, page, sequences, positions, T)) return 1;
  std::vector<double> p;
  for (int64_t t = 0; t < T; t++)
    for (int64_t n = 0; n < N; n++) {
      const int64_t g = n * K / N, count = int64_t{positions[t]} + 1;
      const int32_t *table = tables + sequences[t] * max_pages;
      p.resize(static_cast<size_t>(count));
      double most = -INFINITY, sum = 0;
      for (int64_t j = 0; j < count; j++) {
        const int64_t key = cache_index(table[j / page], j % page, g, K, page, D);
        p[j] = 0;
        for (int64_t d = 0; d < D; d++) p[j] += load(q, dtype, (t * N + n) * D + d) * load(cache_k, dtype, key + d);
        p[j] *= scale;
        most = fmax(most, p[j]);
      }
      for (double &weight : p) {
        weight = exp(weight - most);
        sum += weight;
      }
      for (int64_t d = 0; d < D; d++) {
        double value = 0;
        for (int64_t j = 0; j < count; j++)
          value += p[j] * load(cache_v, dtype, cache_index(table[j / page], j % page, g, K, page, D) + d);
        store(o, dtype, (t * N + n) * D + d, value / sum);
      }
    }
  return 0;
}

} // namespace reference
