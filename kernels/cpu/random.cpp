/* Random numbers from Philox words, the last step in double, so that every library gives the same bits. */

/* make(words, i, count): count elements from i on out of words[kPhiloxBlock]; i is a multiple of kPhiloxBlock. */
template <class Make>
void each_philox_block(sb_cpu_context &ctx, uint64_t key, int64_t n, const Make &make) {
  parallel_rows(ctx, (n + kPhiloxBlock - 1) / kPhiloxBlock, 16 * kPhiloxBlock, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; block++) {
      const uint64_t counter = static_cast<uint64_t>(block * kLanes);
      vu out[4];
      philox_block(static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0, key, out);
      uint32_t words[kPhiloxBlock];
      memcpy(words, out, sizeof words);
      make(words, block * kPhiloxBlock, product_min(kPhiloxBlock, n - block * kPhiloxBlock));
    }
  });
}

int32_t random_uniform(sb_context *context, uint64_t key, double low, double high, int64_t n, void *x) noexcept {
  float *to = static_cast<float *>(x);
  each_philox_block(sb_cpu(context), key, n, [&](const uint32_t *words, int64_t i, int64_t count) {
    for (int64_t j = 0; j < count; j++)
      to[i + j] = static_cast<float>(low + (high - low) * (words[j] + 0.5) / 4294967296.0);
  });
  return 0;
}

int32_t random_normal(sb_context *context, uint64_t key, int64_t n, void *x) noexcept {
  constexpr double kTurn = 6.283185307179586476925286766559;
  float *to = static_cast<float *>(x);
  each_philox_block(sb_cpu(context), key, n, [&](const uint32_t *words, int64_t i, int64_t count) {
    for (int64_t j = 0; j < count; j += 2) {
      const double radius = sqrt(-2 * log((words[j] + 0.5) / 4294967296.0));
      const double angle = kTurn * ((words[j + 1] + 0.5) / 4294967296.0);
      to[i + j] = static_cast<float>(radius * cos(angle));
      if (j + 1 < count) to[i + j + 1] = static_cast<float>(radius * sin(angle));
    }
  });
  return 0;
}
