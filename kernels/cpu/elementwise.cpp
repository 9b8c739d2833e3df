/* axpby (also the cast) and the sum of squares behind a gradient's norm. */

int32_t axpby(sb_context *context, double alpha, const void *x, int32_t x_dtype, double beta, void *y,
              int32_t y_dtype, int64_t n) noexcept {
  const vf a = vf_set(static_cast<float>(alpha)), b = vf_set(static_cast<float>(beta));
  with_dtype(x_dtype, [&](auto from) {
    with_dtype(y_dtype, [&](auto to) {
      parallel_rows(sb_cpu(context), n, 1, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; i += kLanes) {
          vf v = a * load_some<from()>(x, i, last - i);
          if (beta != 0) v = vf_fma(b, load_some<to()>(y, i, last - i), v);
          store_part<to()>(y, i, v, last - i);
        }
      });
    });
  });
  return 0;
}

/* x[0..n) in float64: 16 chains, then their sum from the first to the last, whatever the instruction set. */
double squares_of(const float *x, int64_t n) {
  constexpr int64_t kChains = 16;
  double sums[kChains] = {};
  int64_t i = 0;
  for (; i + kChains <= n; i += kChains)
    for (int64_t j = 0; j < kChains; j++) sums[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  for (int64_t j = 0; i < n; i++, j++) sums[j] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double sum = 0;
  for (int64_t j = 0; j < kChains; j++) sum += sums[j];
  return sum;
}

/* At most 256 slices whose length depends on n alone; their sums are added in order. */
int32_t sum_squares(sb_context *context, const void *x, int64_t n, double *sum) noexcept {
  constexpr int64_t kSlices = 256;
  double sums[kSlices];
  const int64_t slice = product_max((n + kSlices - 1) / kSlices, kTaskElements), slices = (n + slice - 1) / slice;
  parallel(sb_cpu(context), slices, [&](int64_t task, int32_t) {
    sums[task] = squares_of(static_cast<const float *>(x) + task * slice, product_min(slice, n - task * slice));
  });
  double total = 0;
  for (int64_t i = 0; i < slices; i++) total += sums[i];
  memcpy(sum, &total, sizeof total);
  return 0;
}
