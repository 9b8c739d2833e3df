/* Whole rows: taken out, added back (add_rows, embedding_backward.cpp), scaled, multiplied pairwise. */

int32_t gather_rows(sb_context *context, const void *x, int32_t dtype, int64_t n, const int32_t *rows, int64_t M,
                    void *y) noexcept {
  if (check_not_negative("sb_gather_rows", "rows", rows, M)) return 1;
  const int64_t bytes = n * (dtype == SB_F32 ? 4 : 2);
  parallel_rows(sb_cpu(context), M, n, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; i++)
      memcpy(static_cast<unsigned char *>(y) + i * bytes, static_cast<const unsigned char *>(x) + rows[i] * bytes,
             bytes);
  });
  return 0;
}

int32_t scatter_add_rows(sb_context *context, const void *y, int64_t n, const int32_t *rows, int64_t M,
                         void *x) noexcept {
  if (check_not_negative("sb_scatter_add_rows", "rows", rows, M)) return 1;
  add_rows(sb_cpu(context), static_cast<const float *>(y), n, rows, M, static_cast<float *>(x));
  return 0;
}

int32_t scale_rows(sb_context *context, const void *x, const void *g, int64_t T, int64_t n, void *y) noexcept {
  parallel_rows(sb_cpu(context), T, n, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; t++) {
      const vf gain = vf_set(static_cast<const float *>(g)[t]);
      for (int64_t i = 0; i < n; i += kLanes)
        store_part<SB_F32>(y, t * n + i, load_some<SB_F32>(x, t * n + i, n - i) * gain, n - i);
    }
  });
  return 0;
}

int32_t row_dot(sb_context *context, const void *a, const void *b, int64_t n, int64_t r, double alpha, double beta,
                void *out) noexcept {
  parallel_rows(sb_cpu(context), n, r, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; row++) {
      const float sum = sum_row(r, [&](vf before, int64_t i, int64_t valid) {
        return vf_fma(load_some<SB_F32>(a, row * r + i, valid), load_some<SB_F32>(b, row * r + i, valid), before);
      });
      float &to = static_cast<float *>(out)[row];
      to = static_cast<float>(beta != 0 ? beta * to + alpha * sum : alpha * sum);
    }
  });
  return 0;
}
