/* RMS norm: rows are tasks of y and dx, columns those of dw. */

int32_t rms_norm_forward(sb_context *context, const void *x, const void *w, int64_t T, int64_t H, double eps, void *y,
                         int32_t y_dtype, void *rstd) noexcept {
  with_dtype(y_dtype, [&](auto d) {
    parallel_rows(sb_cpu(context), T, H, [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; t++) {
        const int64_t row = t * H;
        const float squares = sum_row(H, [&](vf sum, int64_t i, int64_t valid) {
          const vf v = load_some<SB_F32>(x, row + i, valid);
          return vf_fma(v, v, sum);
        });
        const float scale = static_cast<float>(1 / sqrt(static_cast<double>(squares) / static_cast<double>(H) + eps));
        if (rstd) static_cast<float *>(rstd)[t] = scale;
        for (int64_t i = 0; i < H; i += kLanes) {
          const vf v = load_some<SB_F32>(x, row + i, H - i) * vf_set(scale) * load_some<SB_F32>(w, i, H - i);
          store_part<d()>(y, row + i, v, H - i);
        }
      }
    });
  });
  return 0;
}

/* dx += rstd·(dy ⊙ w) - x · rstd³/H · Σ dy ⊙ w ⊙ x ;  dw += Σ_t rstd·(dy ⊙ x). */
int32_t rms_norm_backward(sb_context *context, const void *dy, const void *x, const void *w, const void *rstd,
                          int64_t T, int64_t H, void *dx, void *dw) noexcept {
  sb_cpu_context &ctx = sb_cpu(context);
  const float *scales = static_cast<const float *>(rstd);
  parallel_rows(ctx, T, H, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; t++) {
      const int64_t row = t * H;
      const float dot = sum_row(H, [&](vf sum, int64_t i, int64_t valid) {
        const vf weighted = load_some<SB_F32>(dy, row + i, valid) * load_some<SB_F32>(w, i, valid);
        return vf_fma(weighted, load_some<SB_F32>(x, row + i, valid), sum);
      });
      const double r = scales[t];
      const vf scale = vf_set(scales[t]);
      const vf along = vf_set(static_cast<float>(-dot * r * r * r / static_cast<double>(H)));
      for (int64_t i = 0; i < H; i += kLanes) {
        const vf weighted = load_some<SB_F32>(dy, row + i, H - i) * load_some<SB_F32>(w, i, H - i);
        const vf inner = vf_fma(along, load_some<SB_F32>(x, row + i, H - i), scale * weighted);
        store_part<SB_F32>(dx, row + i, load_some<SB_F32>(dx, row + i, H - i) + inner, H - i);
      }
    }
  });
  if (dw)
    sum_columns(ctx, T, H, nullptr, static_cast<float *>(dw), [&](vf sum, int64_t t, int64_t i, int64_t valid) {
      const vf v = load_some<SB_F32>(x, t * H + i, valid) * vf_set(scales[t]);
      return vf_fma(load_some<SB_F32>(dy, t * H + i, valid), v, sum);
    });
  return 0;
}
