/*
 * Attention over a paged KV cache [pages][K][page][D]. A task is some consecutive rows of the batch and one KV head;
 * neighbours of one sequence (a prefill chunk) share what is brought to scratch, each otherwise computed as if alone.
 */

int32_t kv_write(sb_context *context, const void *k, const void *v, int32_t dtype, int64_t T, int64_t K, int64_t D,
                 const int32_t *slots, int64_t pages, int64_t page, void *cache_k, void *cache_v) noexcept {
  if (check_indices("sb_kv_write", "slots", slots, T, pages * page)) return 1;
  const int64_t bytes = D * (dtype == SB_F32 ? 4 : 2);
  const unsigned char *from_k = static_cast<const unsigned char *>(k), *from_v = static_cast<const unsigned char *>(v);
  unsigned char *to_k = static_cast<unsigned char *>(cache_k), *to_v = static_cast<unsigned char *>(cache_v);
  parallel_rows(sb_cpu(context), T, 2 * K * D, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; t++)
      for (int64_t head = 0; head < K; head++) {
        const int64_t from = (t * K + head) * bytes;
        const int64_t to = ((slots[t] / page * K + head) * page + slots[t] % page) * bytes;
        memcpy(to_k + to, from_k + from, bytes);
        memcpy(to_v + to, from_v + from, bytes);
      }
  });
  return 0;
}

/* Tasks a thread, so that rows of unlike length even out. */
constexpr int64_t kPagedTasks = 8;

int32_t attention_paged(sb_context *context, const void *q, int32_t dtype, int64_t T, int64_t N, int64_t K, int64_t D,
                        const void *cache_k, const void *cache_v, int64_t pages, int64_t page, const int32_t *tables,
                        int64_t S, int64_t max_pages, const int32_t *sequences, const int32_t *positions, double scale,
                        void *o) noexcept {
  if (check_pages("sb_attention_paged", tables, S, max_pages, pages, page, sequences, positions, T)) return 1;
  sb_cpu_context &ctx = sb_cpu(context);
  const int64_t G = N / K;
  /* Tokens a task: what fills a block of rows, fewer where the threads would wait. */
  const int64_t step =
      product_max(product_min(kAttentionRows / G, T * K / (kPagedTasks * ctx.threads)), 1);
  const int64_t tasks = (T + step - 1) / step * K;
  return attention_tasks(ctx, "sb_attention_paged", D, tasks, [&](int64_t task, float *memory) {
    /* From the last rows to the first: of a prompt, those read most. */
    const int64_t piece = (tasks - 1 - task) / K, head = (tasks - 1 - task) % K;
    const int64_t end = product_min((piece + 1) * step, T);
    for (int64_t token = piece * step, h = 0; token < end;) {
      const int64_t sequence = sequences[token];
      const int32_t *table = tables + sequence * max_pages;
      AttentionRows rows;
      rows.count = 0;
      while (rows.count < kAttentionRows && token < end && sequences[token] == sequence) {
        rows.line[rows.count] = token * N + head * G + h;
        rows.position[rows.count++] = positions[token];
        if (++h < G) continue;
        h = 0;
        token++;
      }
      const auto lines = [&](int64_t key0, int64_t n, int64_t *line) {
        int64_t in_page = key0 % page, entry = key0 / page;
        for (int64_t j = 0; j < n; j++) {
          line[j] = (table[entry] * K + head) * page + in_page;
          if (++in_page < page) continue;
          in_page = 0;
          entry++;
        }
      };
      attend(rows, q, cache_k, cache_v, dtype, D, static_cast<float>(scale), lines, memory, o, nullptr);
    }
  });
}
