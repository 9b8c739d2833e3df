/* NF4 weights made, and their lines replaced and dropped; the products and readers use nf4.h. */

/* ---- quantizing --------------------------------------------------------------------------------------------- */

constexpr int64_t kNf4Task = 64 * kNf4Block; /* values a thread takes at a time */

/* The code of each value of [-1,1]: the borders it lies above. */
SB_INLINE vi nf4_nearest(vf scaled) {
  vi above = {};
#pragma GCC unroll 16
  for (int32_t code = 0; code < 15; code++) above -= (vi)(scaled > vf_set(nf4_border(code)));
  return above;
}

/* One block of n <= 64 values to codes, one a byte; gives the scale. */
template <int32_t dtype>
float nf4_quantize_block(const unsigned char *data, int64_t n, uint8_t *codes) {
  alignas(64) float values[kNf4Block];
  for (int64_t i = 0; i < kNf4Block; i += kLanes) vf_store(values + i, load_some<dtype>(data, i, n - i));
  float most = 0;
  for (int64_t i = 0; i < kNf4Block; i++) most = fabsf(values[i]) > most ? fabsf(values[i]) : most;
  const float divisor = most > kNf4Smallest ? most : kNf4Smallest, inverse = 1.0f / divisor;
  /* In a block that the matrix does not fill, bitsandbytes divides, and its scale is never 0. */
  const bool whole = n == kNf4Block;
  for (int64_t i = 0; i < kNf4Block; i += kLanes) {
    const vf v = vf_load(values + i), scaled = whole ? v * vf_set(inverse) : v / vf_set(divisor);
    const vi nearest = nf4_nearest(vf_min(vf_max(scaled, vf_set(-1.0f)), vf_set(1.0f)));
    for (int64_t lane = 0; lane < kLanes; lane++) codes[i + lane] = static_cast<uint8_t>(nearest[lane]);
  }
  return whole ? most : divisor;
}

int32_t nf4_quantize(sb_context *context, const void *data, int32_t dtype, int64_t out, int64_t in, uint8_t *codes,
                     float *absmax) noexcept {
  const int64_t n = out * in, size = dtype == SB_F32 ? 4 : 2;
  const unsigned char *from = static_cast<const unsigned char *>(data);
  int32_t broken = 0;
  parallel(sb_cpu(context), (n + kNf4Task - 1) / kNf4Task, [&](int64_t task, int32_t) {
    const int64_t first = task * kNf4Task, last = product_min(n, first + kNf4Task);
    if (first_not_finite(from + first * size, dtype, last - first) < last - first)
      __atomic_store_n(&broken, 1, __ATOMIC_RELAXED);
    for (int64_t i = first; i < last; i += kNf4Block) {
      uint8_t single[kNf4Block];
      const int64_t count = product_min(kNf4Block, last - i);
      const auto quantize = dtype == SB_F32   ? nf4_quantize_block<SB_F32>
                            : dtype == SB_F16 ? nf4_quantize_block<SB_F16>
                                              : nf4_quantize_block<SB_BF16>;
      const float scale = quantize(from + i * size, count, single);
      memcpy(reinterpret_cast<unsigned char *>(absmax) + i / kNf4Block * 4, &scale, sizeof scale);
      if (count % 2) single[count] = kNf4Zero; /* the half without a value */
      for (int64_t j = 0; j < count; j += 2)
        codes[(i + j) / 2] = static_cast<uint8_t>(single[j] << 4 | single[j + 1]);
    }
  });
  return broken ? not_finite(from, dtype, out, in) : 0;
}

/* ---- creation ----------------------------------------------------------------------------------------------- */

void nf4_pack_panel(const CpuWeight &w, int64_t panel, const uint8_t *codes, const unsigned char *absmax) {
  const int64_t first = panel * kPanel, rows = product_min(kPanel, w.out - first), blocks = nf4_row_blocks(w.in);
  float *scales = nf4_scales(w, panel);
  memset(scales, 0, blocks * kPanel * sizeof(float));
  for (int64_t lane = 0; lane < rows; lane++) {
    const int64_t start = (first + lane) * w.in / kNf4Block, end = ((first + lane + 1) * w.in - 1) / kNf4Block;
    for (int64_t block = start; block <= end; block++)
      memcpy(scales + (block - start) * kPanel + lane, absmax + block * 4, sizeof(float));
  }
  const int64_t step = nf4_step(w.compute), groups = nf4_groups(w.in, step);
  uint32_t *to = nf4_codes(w, panel);
  for (int64_t group = 0; group < groups; group++)
    for (int64_t i = 0; i < kPanel * step; i++) {
      const int64_t lane = i / step, column = group * kNf4Group * step + i % step;
      uint32_t eight = 0;
      for (int64_t j = 0; j < kNf4Group; j++) {
        const bool there = lane < rows && column + j * step < w.in;
        const int32_t code = there ? nf4_code(codes, (first + lane) * w.in + column + j * step) : kNf4Zero;
        eight |= static_cast<uint32_t>(code) << 4 * j;
      }
      to[group * kPanel * step + i] = eight;
    }
}

int32_t weight_create_nf4(sb_context *context, const uint8_t *codes, const float *absmax, int64_t out, int64_t in,
                          int32_t dtype, int32_t compute, sb_weight **weight) noexcept {
  if (check_nf4_scales(absmax, out, in)) return 1;
  CpuWeight *w = allocate_weight(context, out, in, SB_NF4, compute, nf4_panel_bytes(in, nf4_step(compute)));
  if (!w) return 1;
  w->rounding = dtype;
  w->columns.length = panels_of(out) * kPanel;
  w->rows.length = in;
  parallel(sb_cpu(context), panels_of(out), [&](int64_t panel, int32_t) {
    nf4_pack_panel(*w, panel, codes, reinterpret_cast<const unsigned char *>(absmax));
  });
  *weight = w;
  return 0;
}

/* ---- replaced lines ----------------------------------------------------------------------------------------- */

inline int64_t nf4_line_bytes(const Nf4Lines &lines) { return lines.count * (lines.length * 2 + 4); }

void nf4_drop(sb_context *context, CpuWeight &w, Nf4Lines &lines) {
  host_count(context, -nf4_line_bytes(lines));
  w.bytes -= nf4_line_bytes(lines);
  free(lines.indices);
  free(lines.values);
  lines = {0, lines.length, nullptr, nullptr};
}

/* Puts lines `indices` [n], of `limit` there are, among those already replaced; fill(j, to) writes line j. */
template <class Fill>
int32_t nf4_replace(sb_context *context, CpuWeight &w, Nf4Lines &lines, const int32_t *indices, int64_t n,
                    int64_t limit, const Fill &fill) {
  if (n == 0) return 0;
  int64_t *source = static_cast<int64_t *>(malloc(limit * sizeof(int64_t))); /* j + 1 of a new line, -slot - 1 of an old */
  if (!source) return sb_fail("%lld replaced lines: out of memory", static_cast<long long>(n));
  memset(source, 0, limit * sizeof(int64_t));
  for (int64_t slot = 0; slot < lines.count; slot++) source[lines.indices[slot]] = -slot - 1;
  for (int64_t j = 0; j < n; j++) source[indices[j]] = j + 1;
  Nf4Lines made = {0, lines.length, nullptr, nullptr};
  for (int64_t i = 0; i < limit; i++) made.count += source[i] != 0;
  made.indices = static_cast<int32_t *>(malloc(made.count * sizeof(int32_t)));
  made.values = static_cast<uint16_t *>(calloc(made.count * made.length, sizeof(uint16_t)));
  if (!made.indices || !made.values) {
    free(source);
    free(made.indices);
    free(made.values);
    return sb_fail("%lld replaced lines: out of memory", static_cast<long long>(made.count));
  }
  for (int64_t i = 0, slot = 0; i < limit; i++)
    if (source[i] != 0) made.indices[slot++] = static_cast<int32_t>(i);
  parallel(sb_cpu(context), made.count, [&](int64_t slot, int32_t) {
    uint16_t *to = made.values + slot * made.length;
    const int64_t from = source[made.indices[slot]];
    if (from > 0) fill(from - 1, to);
    else memcpy(to, lines.values + (-from - 1) * lines.length, lines.length * sizeof(uint16_t));
  });
  free(source);
  nf4_drop(context, w, lines);
  lines = made;
  w.bytes += nf4_line_bytes(lines);
  host_count(context, nf4_line_bytes(lines));
  return 0;
}

/* values[n,in] */
int32_t nf4_write_rows(sb_context *context, CpuWeight &w, const int32_t *rows, int64_t n, const void *values) {
  if (n > 0 && w.columns.count > 0) return replaced_already("sb_weight_write_rows", w.columns.count, "columns");
  return nf4_replace(context, w, w.rows, rows, n, w.out, [&](int64_t i, uint16_t *to) {
    const float *from = static_cast<const float *>(values) + i * w.in;
    for (int64_t column = 0; column < w.in; column++) to[column] = f32_to_bf16(from[column]);
  });
}

/* values[out,n] */
int32_t nf4_write_columns(sb_context *context, CpuWeight &w, const int32_t *columns, int64_t n, const void *values) {
  if (n > 0 && w.rows.count > 0) return replaced_already("sb_weight_write_columns", w.rows.count, "rows");
  return nf4_replace(context, w, w.columns, columns, n, w.in, [&](int64_t j, uint16_t *to) {
    for (int64_t row = 0; row < w.out; row++) to[row] = f32_to_bf16(static_cast<const float *>(values)[row * n + j]);
  });
}

int32_t weight_drop_replaced(sb_context *context, sb_weight *weight) noexcept {
  CpuWeight &w = *static_cast<CpuWeight *>(weight);
  nf4_drop(context, w, w.columns);
  nf4_drop(context, w, w.rows);
  return 0;
}
