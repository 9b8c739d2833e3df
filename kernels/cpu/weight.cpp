/*
 * The frozen weight, held once, for forward, backward, decode and reading alike: panels of 32 outputs,
 *     f32  float[in][32]     f16  half[in][32]     bf16  bf16[(in+1)/2][32][2], neighbours along in side by side.
 * Outputs are padded to a multiple of 32 and in to an even number with zeros. Every instruction set lays it out alike.
 * NF4: nf4.h.
 */

/* Replaced columns or rows of an NF4 weight, ascending: values[count][length] bf16, zeros behind the matrix. */
struct Nf4Lines {
  int64_t count, length;
  int32_t *indices;
  uint16_t *values;
};

struct CpuPatch;

struct CpuWeight : sb_weight {
  unsigned char *panels;
  int64_t panel_bytes;
  WeightBlock *block; /* whose memory the panels are */
  int64_t bytes;      /* as counted in the context's total */
  int32_t rounding;   /* NF4: the type values are rounded to before the compute type */
  Nf4Lines columns, rows;
  /* Flips that the panels have yet to take in (patch.cpp); with or without any, the values are the same. */
  mutable CpuPatch *flipped;
  mutable bool listed; /* among the context's unsettled weights, together with */
  mutable const CpuWeight *next_unsettled;
};

inline const CpuWeight &cpu_weight(const sb_weight *weight) { return *static_cast<const CpuWeight *>(weight); }
inline unsigned char *panel_of(const CpuWeight &w, int64_t panel) { return w.panels + panel * w.panel_bytes; }

/* patch.cpp: the flips that wait are made. */
void settle(sb_cpu_context &ctx, const CpuWeight &w);
/* A weight whose panels may be read: what every op but linear_forward starts with. */
inline const CpuWeight &settled_weight(sb_context *context, const sb_weight *weight) {
  const CpuWeight &w = cpu_weight(weight);
  if (w.flipped) settle(sb_cpu(context), w);
  return w;
}

inline void list_unsettled(sb_cpu_context &ctx, const CpuWeight &w) {
  if (w.listed) return;
  w.listed = true;
  w.next_unsettled = static_cast<const CpuWeight *>(ctx.unsettled);
  ctx.unsettled = &w;
}
inline void unlist_unsettled(sb_cpu_context &ctx, const CpuWeight &w) {
  const CpuWeight *before = static_cast<const CpuWeight *>(ctx.unsettled);
  if (!w.listed) return;
  w.listed = false;
  if (before == &w) {
    ctx.unsettled = w.next_unsettled;
    return;
  }
  while (before->next_unsettled != &w) before = before->next_unsettled;
  before->next_unsettled = w.next_unsettled;
}

/* What was called is done. */
int32_t sync(sb_context *context) noexcept {
  sb_cpu_context &ctx = sb_cpu(context);
  while (ctx.unsettled) {
    const CpuWeight &w = settled_weight(context, ctx.unsettled);
    unlist_unsettled(ctx, w);
  }
  return 0;
}

#include "nf4.h"

/* Where element (lane of a panel, column) lies, in elements from the panel's start. */
inline int64_t element_index(int32_t dtype, int64_t lane, int64_t column) {
  return dtype == SB_BF16 ? (column / 2 * kPanel + lane) * 2 + column % 2 : column * kPanel + lane;
}
inline float read_element(const CpuWeight &w, int64_t row, int64_t column) {
  if (w.dtype == SB_NF4) return nf4_element(w, row, column);
  const unsigned char *panel = panel_of(w, row / kPanel);
  const int64_t i = element_index(w.dtype, row % kPanel, column);
  if (w.dtype == SB_F32) return reinterpret_cast<const float *>(panel)[i];
  const uint16_t bits = reinterpret_cast<const uint16_t *>(panel)[i];
  return w.dtype == SB_F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}
inline void write_element(const CpuWeight &w, int64_t row, int64_t column, float value) {
  unsigned char *panel = panel_of(w, row / kPanel);
  const int64_t i = element_index(w.dtype, row % kPanel, column);
  if (w.dtype == SB_F32) reinterpret_cast<float *>(panel)[i] = value;
  else reinterpret_cast<uint16_t *>(panel)[i] = w.dtype == SB_F16 ? f32_to_f16(value) : f32_to_bf16(value);
}

/* [words][32] of a 16-bit panel, columns k0..k1-1, to f32. */
inline void expand_panel(const CpuWeight &w, const unsigned char *panel, int64_t k0, int64_t k1, float *to) {
  const uint16_t *from = reinterpret_cast<const uint16_t *>(panel) + k0 * kPanel;
  if (w.dtype == SB_F16) {
    for (int64_t i = 0; i < (k1 - k0) * kPanel; i += kLanes) vf_store(to + i, vf_load_f16(from + i));
    return;
  }
  for (int64_t k = k0; k < k1; k += 2, from += 2 * kPanel, to += 2 * kPanel)
    for (int64_t i = 0; i < kPanel; i += kLanes) {
      vf words;
      memcpy(&words, from + 2 * i, sizeof words);
      vf_store(to + i, bf16_low(words));
      vf_store(to + kPanel + i, bf16_high(words));
    }
}

/* ---- creation ----------------------------------------------------------------------------------------------- */

/* The first of n elements that is NaN or infinite, else n. The data may lie at any address. */
template <class Bits, Bits exponent>
int64_t first_not_finite(const unsigned char *data, int64_t n) {
  constexpr int64_t step = 512;
  for (int64_t i = 0; i < n; i += step) {
    Bits values[step];
    const int64_t count = product_min(step, n - i);
    memcpy(values, data + i * static_cast<int64_t>(sizeof(Bits)), count * sizeof(Bits));
    Bits found = 0;
    for (int64_t j = 0; j < count; j++) found |= (values[j] & exponent) == exponent;
    if (!found) continue;
    for (int64_t j = 0; j < count; j++)
      if ((values[j] & exponent) == exponent) return i + j;
  }
  return n;
}
inline int64_t first_not_finite(const unsigned char *data, int32_t dtype, int64_t n) {
  if (dtype == SB_F32) return first_not_finite<uint32_t, 0x7f800000u>(data, n);
  return dtype == SB_F16 ? first_not_finite<uint16_t, 0x7c00>(data, n) : first_not_finite<uint16_t, 0x7f80>(data, n);
}

/* Rows of data[out,in] to one panel, by strips of columns that are first brought to the held type. */
void pack_panel(const CpuWeight &w, int64_t panel, const unsigned char *data, int32_t dtype) {
  constexpr int64_t kStrip = 128;
  alignas(64) unsigned char strip[kPanel * kStrip * 4];
  const int64_t rows = product_min(kPanel, w.out - panel * kPanel), size = dtype == SB_F32 ? 4 : 2;
  for (int64_t column = 0; column < w.in; column += kStrip) {
    const int64_t columns = product_min(kStrip, w.in - column);
    for (int64_t i = 0; i < rows; i++) {
      const unsigned char *from = data + ((panel * kPanel + i) * w.in + column) * size;
      unsigned char *to = strip + i * kStrip * (w.dtype == SB_F32 ? 4 : 2);
      if (dtype == w.dtype) {
        memcpy(to, from, columns * size);
        continue;
      }
      for (int64_t j = 0; j < columns; j++) { /* f32 or f16 to bf16 */
        float value;
        uint16_t half = 0;
        if (dtype == SB_F32) memcpy(&value, from + j * 4, 4);
        else memcpy(&half, from + j * 2, 2), value = f16_to_f32(half);
        half = f32_to_bf16(value);
        memcpy(to + j * 2, &half, 2);
      }
    }
    unsigned char *to = panel_of(w, panel);
    if (w.dtype == SB_F16) {
      uint16_t *halves = reinterpret_cast<uint16_t *>(to) + column * kPanel;
      for (int64_t j = 0; j < columns; j++)
        for (int64_t i = 0; i < rows; i++) memcpy(halves + j * kPanel + i, strip + (i * kStrip + j) * 2, 2);
    } else {
      const Form form = w.dtype == SB_F32 ? Form::real : Form::pairs;
      float *words = reinterpret_cast<float *>(to) + words_of(form, column) * kPanel;
      if (form == Form::real)
        pack_row_major<Form::real, SB_F32>({strip, SB_F32, false, kStrip, rows, columns, form}, 0, rows, 0, columns,
                                           words, kPanel);
      else
        pack_row_major<Form::pairs, SB_BF16>({strip, SB_BF16, false, kStrip, rows, columns, form}, 0, rows, 0,
                                             words_of(form, columns), words, kPanel);
    }
  }
}

/* Counted, its panels not filled; NULL when there is no memory. */
CpuWeight *allocate_weight(sb_context *context, int64_t out, int64_t in, int32_t held, int32_t compute,
                           int64_t panel_bytes) {
  sb_cpu_context &ctx = sb_cpu(context);
  const int64_t panels = panels_of(out) * panel_bytes, bytes = panels + static_cast<int64_t>(sizeof(CpuWeight));
  CpuWeight *w = static_cast<CpuWeight *>(malloc(sizeof(CpuWeight)));
  WeightBlock *block = nullptr;
  unsigned char *memory = w ? weight_memory(ctx.weight_block, panels, &block) : nullptr;
  if (!memory) {
    free(w);
    sb_fail("weight [%lld,%lld]: %lld bytes could not be allocated", static_cast<long long>(out),
            static_cast<long long>(in), static_cast<long long>(bytes));
    return nullptr;
  }
  *w = {{out, in, held, compute, 0}, memory, panel_bytes, block, bytes, held, {}, {}, nullptr, false, nullptr};
  host_count(context, bytes);
  return w;
}

int32_t weight_free(sb_context *context, sb_weight *weight) noexcept {
  CpuWeight *w = static_cast<CpuWeight *>(weight);
  unlist_unsettled(sb_cpu(context), *w);
  host_count(context, -w->bytes);
  free(w->columns.indices);
  free(w->columns.values);
  free(w->rows.indices);
  free(w->rows.values);
  weight_memory_free(sb_cpu(context).weight_block, w->block);
  free(w);
  return 0;
}

int32_t not_finite(const unsigned char *data, int32_t dtype, int64_t out, int64_t in) {
  const int64_t at = first_not_finite(data, dtype, out * in);
  return sb_fail("weight [%lld,%lld]: NaN or infinity in row %lld, column %lld", static_cast<long long>(out),
                 static_cast<long long>(in), static_cast<long long>(at / in), static_cast<long long>(at % in));
}

int32_t weight_create(sb_context *context, const void *data, int32_t dtype, int64_t out, int64_t in, int32_t compute,
                      sb_weight **weight) noexcept {
  const int32_t held = compute == SB_BF16 ? SB_BF16 : dtype;
  const int64_t panel_bytes = (held == SB_F32 ? in * 4 : held == SB_F16 ? in * 2 : (in + 1) / 2 * 4) * kPanel;
  CpuWeight *w = allocate_weight(context, out, in, held, compute, panel_bytes);
  if (!w) return 1;
  const unsigned char *from = static_cast<const unsigned char *>(data);
  const int64_t size = dtype == SB_F32 ? 4 : 2;
  int32_t broken = 0;
  parallel(sb_cpu(context), panels_of(out), [&](int64_t panel, int32_t) {
    const int64_t rows = product_min(kPanel, out - panel * kPanel);
    if (first_not_finite(from + panel * kPanel * in * size, dtype, rows * in) < rows * in)
      __atomic_store_n(&broken, 1, __ATOMIC_RELAXED);
    if (rows < kPanel) memset(panel_of(*w, panel), 0, panel_bytes);
    pack_panel(*w, panel, from, dtype);
  });
  if (broken) {
    weight_free(context, w);
    return not_finite(from, dtype, out, in);
  }
  *weight = w;
  return 0;
}

#include "nf4.cpp"

/* ---- reading and writing ------------------------------------------------------------------------------------ */

int32_t weight_read_rows(sb_context *context, const sb_weight *weight, const int32_t *rows, int64_t n,
                         void *values) noexcept {
  const CpuWeight &w = settled_weight(context, weight);
  if (check_indices("sb_weight_read_rows", "rows", rows, n, w.out)) return 1;
  parallel(sb_cpu(context), n, [&](int64_t i, int32_t) {
    float *to = static_cast<float *>(values) + i * w.in;
    for (int64_t column = 0; column < w.in; column++) to[column] = read_element(w, rows[i], column);
  });
  return 0;
}

int32_t weight_write_rows(sb_context *context, sb_weight *weight, const int32_t *rows, int64_t n,
                          const void *values) noexcept {
  const CpuWeight &w = settled_weight(context, weight);
  if (check_indices("sb_weight_write_rows", "rows", rows, n, w.out)) return 1;
  if (w.dtype == SB_NF4) return nf4_write_rows(context, *static_cast<CpuWeight *>(weight), rows, n, values);
  parallel(sb_cpu(context), n, [&](int64_t i, int32_t) {
    const float *from = static_cast<const float *>(values) + i * w.in;
    for (int64_t column = 0; column < w.in; column++) write_element(w, rows[i], column, from[column]);
  });
  return 0;
}

int32_t weight_read_columns(sb_context *context, const sb_weight *weight, const int32_t *columns, int64_t n,
                            void *values) noexcept {
  const CpuWeight &w = settled_weight(context, weight);
  if (check_indices("sb_weight_read_columns", "columns", columns, n, w.in)) return 1;
  parallel(sb_cpu(context), panels_of(w.out), [&](int64_t panel, int32_t) {
    const int64_t last = product_min(w.out, (panel + 1) * kPanel);
    for (int64_t row = panel * kPanel; row < last; row++)
      for (int64_t j = 0; j < n; j++) static_cast<float *>(values)[row * n + j] = read_element(w, row, columns[j]);
  });
  return 0;
}

int32_t weight_write_columns(sb_context *context, sb_weight *weight, const int32_t *columns, int64_t n,
                             const void *values) noexcept {
  const CpuWeight &w = settled_weight(context, weight);
  if (check_indices("sb_weight_write_columns", "columns", columns, n, w.in)) return 1;
  if (w.dtype == SB_NF4) return nf4_write_columns(context, *static_cast<CpuWeight *>(weight), columns, n, values);
  parallel(sb_cpu(context), panels_of(w.out), [&](int64_t panel, int32_t) {
    const int64_t last = product_min(w.out, (panel + 1) * kPanel);
    for (int64_t row = panel * kPanel; row < last; row++)
      for (int64_t j = 0; j < n; j++)
        write_element(w, row, columns[j], static_cast<const float *>(values)[row * n + j]);
  });
  return 0;
}

/* In double, over in from the first column to the last. */
int32_t weight_row_squares(sb_context *context, const sb_weight *weight, void *squares) noexcept {
  const CpuWeight &w = settled_weight(context, weight);
  parallel(sb_cpu(context), panels_of(w.out), [&](int64_t panel, int32_t) {
    constexpr int64_t kStrip = 128;
    alignas(64) float strip[kStrip * kPanel];
    double sums[kPanel] = {};
    for (int64_t first = 0; first < w.in; first += kStrip) {
      const int64_t last = product_min(first + kStrip, w.in);
      const float *values = strip;
      if (w.dtype == SB_F32) values = reinterpret_cast<const float *>(panel_of(w, panel)) + first * kPanel;
      else if (w.dtype == SB_NF4) nf4_expand(w, panel, first, last, strip);
      else expand_panel(w, panel_of(w, panel), first, last, strip);
      for (int64_t column = 0; column < last - first; column++)
        for (int64_t i = 0; i < kPanel; i++) {
          const double value = values[column * kPanel + i];
          sums[i] += value * value;
        }
    }
    for (int64_t i = panel * kPanel; i < product_min(w.out, (panel + 1) * kPanel); i++)
      static_cast<float *>(squares)[i] = static_cast<float>(sums[i - panel * kPanel]);
  });
  return 0;
}
