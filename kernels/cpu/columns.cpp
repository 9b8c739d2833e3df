/* Chosen columns (SBoRA's one-hot factors) and products along columns (DoRA). */

/* kLanes of columns[r] from j on, zeros behind the last. */
SB_INLINE vu load_columns(const int32_t *columns, int64_t j, int64_t r) {
  vu chosen = {};
  if (r - j >= kLanes) memcpy(&chosen, columns + j, sizeof chosen);
  else memcpy(&chosen, columns + j, (r - j) * sizeof *columns);
  return chosen;
}

int32_t gather_columns(sb_context *context, const void *x, int32_t x_dtype, int64_t T, int64_t n,
                       const int32_t *columns, int64_t r, const sb_dropout *drop, void *z, int32_t z_dtype) noexcept {
  if (check_indices("sb_gather_columns", "columns", columns, r, n)) return 1;
  const DropoutMask mask = dropout_mask(drop);
  with_dtype(x_dtype, [&](auto from) {
    with_dtype(z_dtype, [&](auto to) {
      parallel_rows(sb_cpu(context), T, 8 * r, [&](int64_t first, int64_t last) {
        for (int64_t t = first; t < last; t++) {
          for (int64_t j = 0; j < r; j += kLanes) {
            const int64_t count = product_min(r - j, kLanes);
            float values[kLanes] = {};
            for (int64_t i = 0; i < count; i++) values[i] = load_one<from()>(x, t * n + columns[j + i]);
            vf v = vf_load(values);
            if (mask.active) v = v * mask.chosen(t, load_columns(columns, j, r));
            store_part<to()>(z, t * r + j, v, count);
          }
        }
      });
    });
  });
  return 0;
}

int32_t scatter_add_columns(sb_context *context, const void *z, int64_t T, int64_t r, const int32_t *columns,
                            const sb_dropout *drop, double scale, void *y, int32_t y_dtype, int64_t n) noexcept {
  if (check_indices("sb_scatter_add_columns", "columns", columns, r, n)) return 1;
  const DropoutMask mask = dropout_mask(drop);
  const vf factor = vf_set(static_cast<float>(scale));
  with_dtype(y_dtype, [&](auto to) {
    parallel_rows(sb_cpu(context), T, 8 * r, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; t++) {
        for (int64_t j = 0; j < r; j += kLanes) {
          const int64_t count = product_min(r - j, kLanes);
          vf v = load_some<SB_F32>(z, t * r + j, count) * factor;
          if (mask.active) v = v * mask.chosen(t, load_columns(columns, j, r));
          float values[kLanes];
          vf_store(values, v);
          for (int64_t i = 0; i < count; i++) {
            const int64_t at = t * n + columns[j + i];
            store_one<to()>(y, at, load_one<to()>(y, at) + values[i]);
          }
        }
      }
    });
  });
  return 0;
}

int32_t scale_columns(sb_context *context, const void *x, const void *g, int64_t T, int64_t n, void *y) noexcept {
  parallel_rows(sb_cpu(context), T, n, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; t++)
      for (int64_t i = 0; i < n; i += kLanes)
        store_part<SB_F32>(y, t * n + i, load_some<SB_F32>(x, t * n + i, n - i) * load_some<SB_F32>(g, i, n - i),
                           n - i);
  });
  return 0;
}

int32_t column_dot(sb_context *context, const void *a, const void *b, int32_t b_dtype, int64_t T, int64_t n,
                   const void *divisor, void *out) noexcept {
  with_dtype(b_dtype, [&](auto d) {
    sum_columns(sb_cpu(context), T, n, static_cast<const float *>(divisor), static_cast<float *>(out),
                [&](vf sum, int64_t t, int64_t i, int64_t valid) {
                  return vf_fma(load_some<SB_F32>(a, t * n + i, valid), load_some<d()>(b, t * n + i, valid), sum);
                });
  });
  return 0;
}
