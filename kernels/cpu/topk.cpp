/* The k largest log-softmax values of a row, for beam search: one task a row. */

constexpr int64_t kTopMost = 256; /* as sb_topk_log_softmax allows */

/* The best so far, descending, ties in order of id. */
struct Top {
  int64_t held, wanted;
  float values[kTopMost];
  int32_t ids[kTopMost];

  float least() const { return values[wanted - 1]; }
  /* Ids come in ascending order, so an equal value goes behind those that are there. NaN counts as -infinity. */
  void offer(float value, int32_t id) {
    if (value != value) value = -INFINITY;
    if (held == wanted && !(value > least())) return;
    int64_t at = 0;
    for (int64_t end = held; at < end;) {
      const int64_t middle = (at + end) / 2;
      if (values[middle] >= value) at = middle + 1;
      else end = middle;
    }
    const int64_t moved = (held < wanted ? held : wanted - 1) - at;
    memmove(values + at + 1, values + at, moved * sizeof *values);
    memmove(ids + at + 1, ids + at, moved * sizeof *ids);
    values[at] = value;
    ids[at] = id;
    if (held < wanted) held++;
  }
};

inline void find_top(const float *logits, int64_t V, Top &top) {
  int64_t i = 0;
  for (; i < top.wanted; i++) top.offer(logits[i], static_cast<int32_t>(i));
  for (; i + 4 * kLanes <= V; i += 4 * kLanes) {
    const vf a = vf_max(vf_load(logits + i), vf_load(logits + i + kLanes));
    const vf b = vf_max(vf_load(logits + i + 2 * kLanes), vf_load(logits + i + 3 * kLanes));
    if (!vf_any_greater(vf_max(a, b), vf_set(top.least()))) continue;
    for (int64_t j = i; j < i + 4 * kLanes; j++) top.offer(logits[j], static_cast<int32_t>(j));
  }
  for (; i < V; i++) top.offer(logits[i], static_cast<int32_t>(i));
}

/* log Σ exp(logits), most: the largest; f32 over 1024 elements, those sums in double. */
inline double log_sum_exp(const float *logits, int64_t V, float most) {
  double total = 0;
  for (int64_t i = 0; i < V;) {
    const int64_t end = product_min(i + 1024, V);
    vf sum = vf_zero();
    for (; i < end; i += kLanes) {
      float some[kLanes];
      const float *from = logits + i;
      if (end - i < kLanes) {
        for (int64_t lane = 0; lane < kLanes; lane++) some[lane] = i + lane < end ? from[lane] : -INFINITY;
        from = some;
      }
      sum = sum + vf_exp(vf_load(from) - vf_set(most));
    }
    total += vf_sum(sum);
  }
  return most + log(total);
}

int32_t topk_log_softmax(sb_context *context, const void *logits, int64_t R, int64_t V, int64_t k, void *values,
                         int32_t *ids) noexcept {
  parallel(sb_cpu(context), R, [&](int64_t row, int32_t) {
    const float *from = static_cast<const float *>(logits) + row * V;
    Top top;
    top.held = 0;
    top.wanted = k;
    find_top(from, V, top);
    const double sum = log_sum_exp(from, V, top.values[0]);
    for (int64_t i = 0; i < k; i++) {
      static_cast<float *>(values)[row * k + i] = static_cast<float>(top.values[i] - sum);
      ids[row * k + i] = top.ids[i];
    }
  });
  return 0;
}
