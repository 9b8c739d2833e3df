/*
 * The frozen linear with its low-rank tail, and its input gradient.
 *     forward   y[T,out] = beta·y + gain ⊙ (scale · z[T,r]·uᵀ + x[T,in]·Wᵀ)
 *     backward  dx[T,in] = beta·dx + dy[T,out]·W ,  dz[T,r] = scale · dy·u
 * The tail goes first: its sums are scaled once and W's are added to them, so that bf16 operands are x, z, u and W
 * themselves and not scale·u rounded.
 */

inline Format held_format(const CpuWeight &w) {
  if (w.dtype == SB_F32) return Format::f32;
  if (w.dtype == SB_F16) return Format::f16;
  if (w.dtype == SB_NF4) return form_of(w.compute) == Form::pairs ? Format::pairs : Format::f32; /* once expanded */
  return form_of(w.compute) == Form::pairs ? Format::pairs : Format::bf16;
}

#include "nf4_stream.h"

inline Block nf4_block(const CpuWeight &w, Format format, int64_t panel, int64_t k0, int64_t k1, float *scratch) {
#if SB_ISA_LEVEL >= 3
  if (format == Format::pairs) {
    nf4_expand_words<Format::pairs>(w, panel, k0, k1, scratch);
    return {scratch, format};
  }
#endif
  nf4_expand_words<Format::f32>(w, panel, k0, k1, scratch);
  return {scratch, Format::f32};
}

struct ForwardRight {
  const CpuWeight &w;
  Format held;
  Operand u; /* [out, r] */
  int64_t tail;
  float tail_scale;
  bool flips; /* what waits to be flipped is, just before it is read: each panel is read once */

  bool direct(int64_t tiles) const {
    return w.dtype != SB_NF4 && (held == Format::f32 || held == Format::pairs || tiles <= 2);
  }
  int64_t longest() const { return flips ? kFlipSteps * words_of_step() : INT64_MAX; }
  int64_t words_of_step() const { return held == Format::bf16 ? 2 : 1; }
  int64_t strip() const { return 1; }
  bool streams(int64_t rows) const { return nf4_streams(w, rows); }
  void stream(int64_t panel, const float *left, int64_t rows, int64_t k0, int64_t k1, float *sums, bool fresh) const {
    nf4_stream(w, held, panel, left, rows, k0 - tail, k1 - tail, sums, fresh);
  }
  Block block(int64_t panel, int64_t, int64_t k0, int64_t k1, int64_t tiles, float *scratch) const {
    if (k0 < tail) return pack_right(u, panel, 1, k0, k1, scratch);
    k0 -= tail;
    k1 -= tail;
    if (w.dtype == SB_NF4) return nf4_block(w, held, panel, k0, k1, scratch);
    if (flips) flip_stretch(w, {panel, k0 / words_of_step(), k1 / words_of_step(), false});
    const unsigned char *data = panel_of(w, panel);
    if (direct(tiles)) return {data + k0 * kPanel * (held == Format::f32 || held == Format::pairs ? 4 : 2), held};
    expand_panel(w, data, k0, k1, scratch);
    return {scratch, Format::f32};
  }
};

int32_t linear_forward(sb_context *context, const sb_weight *weight, const void *x, int32_t x_dtype, int64_t T,
                       const void *z, int32_t z_dtype, const void *u, int64_t r, double scale, const void *gain,
                       double beta, void *y, int32_t y_dtype) noexcept {
  sb_cpu_context &ctx = sb_cpu(context);
  const CpuWeight &w = cpu_weight(weight);
  const Form form = form_of(w.compute);
  const Operand main = {x, x_dtype, false, w.in, T, w.in, form}, tail = {z, z_dtype, false, r, T, r, form};
  ForwardRight right = {w, held_format(w), {u, SB_F32, false, r, w.out, r, form}, words_of(form, r),
                        static_cast<float>(scale), false};
  /* A panel of bf16 has an even depth; as f32 operands the left rows get a zero behind them too. */
  const int64_t words = right.held == Format::bf16 ? (w.in + 1) / 2 * 2 : words_of(form, w.in);
  const int64_t depth = right.tail + words, pass = left_rows(T, depth);
  Workspace workspace;
  if (take_workspace(ctx, "sb_linear_forward", product_bytes(ctx.threads, T, depth), T, product_max(w.in, r),
                     workspace))
    return 1;
  if (w.flipped && T > 0) {
    right.flips = pass == T && row_blocks(ctx, {nullptr, T, depth}, panels_of(w.out), 1) == 1;
    if (!right.flips) settle(ctx, w);
  }
  for (int64_t row = 0; row < T; row += pass) {
    const Left left = {reinterpret_cast<float *>(workspace.rest), product_min(pass, T - row), depth};
    pack_left(ctx, left, r > 0 ? &tail : nullptr, main, row);
    const int64_t at = row * w.out * (y_dtype == SB_F32 ? 4 : 2);
    const RowSink sink = {static_cast<unsigned char *>(y) + at, y_dtype, w.out, w.out, 1,
                          static_cast<const float *>(gain), static_cast<float>(beta)};
    multiply(ctx, left, panels_of(w.out), right, sink, workspace);
  }
  if (right.flips) w.flipped = nullptr;
  return 0;
}

/* ---- input gradient ----------------------------------------------------------------------------------------- */

/* Words (two outputs each) k0..k1-1 of 32 columns of W from pairs along in: a 2 x 2 exchange inside 64 bits turns the
 * pairs, then the 64-bit units (two outputs x two inputs) are transposed. */
#if SB_ISA_LEVEL >= 3
inline void transpose_pairs(const uint32_t *rows, int64_t row_count, float *to) {
  const __m512i exchange = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  for (int64_t output = 0; output < 2; output++)
    for (int64_t row = 0; row < 16; row += 8) {
      vf units[8]; /* rows of pairs along in; lane: outputs 2l, 2l+1 of this half */
#pragma GCC unroll 8
      for (int64_t j = 0; j < 8; j++)
        units[j] = row + j < row_count
                       ? (vf)_mm512_shuffle_epi8(
                             _mm512_loadu_si512(rows + (row + j) * kPanel + output * 16), exchange)
                       : vf_zero();
      transpose_double_words(units);
#pragma GCC unroll 8
      for (int64_t j = 0; j < 8; j++) vf_store(to + (output * 8 + j) * kPanel + row * 2, units[j]);
    }
}
#endif

/* 32 outputs of a panel of W, columns column..column+columns-1 (at most 32), as words of outputs. */
inline void nf4_transposed(const CpuWeight &w, Form form, int64_t panel, int64_t column, int64_t columns, float *to) {
  alignas(64) float values[kPanel * kPanel];
#if SB_ISA_LEVEL >= 3
  if (form == Form::pairs) {
    nf4_expand_words<Format::pairs>(w, panel, column / 2, (column + columns + 1) / 2, values);
    transpose_pairs(reinterpret_cast<const uint32_t *>(values), (columns + 1) / 2, to);
    return;
  }
#endif
  nf4_expand_words<Format::f32>(w, panel, column, column + columns, values);
  pack_transposed(columns, kPanel, to, kPanel,
                  [&](int64_t i, int64_t output) { return vf_load(values + i * kPanel + output); });
}

struct BackwardRight {
  const CpuWeight &w;
  Form form;
  int64_t first_panel;   /* of W, where word 0 of the left operand lies */
  int64_t weight_panels; /* the panels of dx; those of dz follow */
  Operand u;             /* seen as [r, out] */
  static constexpr int64_t tail = 0;
  static constexpr float tail_scale = 1;

  bool direct(int64_t) const { return false; }
  int64_t strip() const { return 1; }
  Block block(int64_t panel, int64_t, int64_t k0, int64_t k1, int64_t, float *scratch) const {
    if (panel >= weight_panels) return pack_right(u, panel - weight_panels, 1, k0, k1, scratch);
    const int64_t column = panel * kPanel, columns = product_min(kPanel, w.in - column);
    const int64_t piece = kPanel * kPanel * (w.dtype == SB_F32 ? 4 : 2); /* of a panel of W, these columns' */
    const int64_t outputs = form == Form::pairs ? kPanel / 2 : kPanel;   /* words of depth a panel holds */
    for (int64_t k = k0; k < k1; k += outputs) {
      const unsigned char *data = panel_of(w, first_panel + k / outputs);
      float *to = scratch + (k - k0) * kPanel;
      if (w.dtype == SB_NF4) {
        nf4_transposed(w, form, first_panel + k / outputs, column, columns, to);
        continue;
      }
      for (int64_t line = 0; line < piece; line += 64) prefetch(data, w.panel_bytes + column * piece / kPanel + line);
#if SB_ISA_LEVEL >= 3
      if (form == Form::pairs) {
        transpose_pairs(reinterpret_cast<const uint32_t *>(data) + column / 2 * kPanel, (columns + 1) / 2, to);
        continue;
      }
#endif
      if (w.dtype == SB_F32)
        pack_transposed(columns, kPanel, to, kPanel, [&](int64_t i, int64_t output) {
          return vf_load(reinterpret_cast<const float *>(data) + (column + i) * kPanel + output);
        });
      else if (w.dtype == SB_F16)
        pack_transposed(columns, kPanel, to, kPanel, [&](int64_t i, int64_t output) {
          return vf_load_f16(reinterpret_cast<const uint16_t *>(data) + (column + i) * kPanel + output);
        });
      else
        pack_transposed(columns, kPanel, to, kPanel, [&](int64_t i, int64_t output) {
          vf words;
          memcpy(&words, data + ((column + i) / 2 * kPanel + output) * 4, sizeof words);
          return i % 2 ? bf16_high(words) : bf16_low(words);
        });
    }
    return {scratch, form == Form::pairs ? Format::pairs : Format::f32};
  }
};

struct BackwardSink {
  int64_t weight_panels;
  RowSink dx, dz;

  bool begin(int64_t, int64_t, int64_t, float *) const { return false; }
  void end(int64_t panel, int64_t row, int64_t rows, const float *sums) const {
    if (panel < weight_panels) dx.end(panel, row, rows, sums);
    else dz.end(panel - weight_panels, row, rows, sums);
  }
};

int32_t linear_backward(sb_context *context, const sb_weight *weight, const void *dy, int32_t dy_dtype, int64_t T,
                        const void *u, int64_t r, double scale, void *dz, double beta, void *dx) noexcept {
  sb_cpu_context &ctx = sb_cpu(context);
  const CpuWeight &w = settled_weight(context, weight);
  const Form form = form_of(w.compute);
  const Operand main = {dy, dy_dtype, false, w.out, T, w.out, form};
  const int64_t depth = words_of(form, w.out), pass = left_rows(T, depth), panels = dx ? panels_of(w.in) : 0;
  const BackwardRight right = {w, form, 0, panels, {u, SB_F32, true, r, r, w.out, form}};
  Workspace workspace;
  if (take_workspace(ctx, "sb_linear_backward", product_bytes(ctx.threads, T, depth), T, w.out, workspace)) return 1;
  for (int64_t row = 0; row < T; row += pass) {
    const Left left = {reinterpret_cast<float *>(workspace.rest), product_min(pass, T - row), depth};
    pack_left(ctx, left, nullptr, main, row);
    const BackwardSink sink = {
        panels,
        {dx ? static_cast<float *>(dx) + row * w.in : nullptr, SB_F32, w.in, w.in, 1, nullptr,
         static_cast<float>(beta)},
        {dz ? static_cast<float *>(dz) + row * r : nullptr, SB_F32, r, r, static_cast<float>(scale), nullptr, 0}};
    multiply(ctx, left, panels + panels_of(r), right, sink, workspace);
  }
  return 0;
}
