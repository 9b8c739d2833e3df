/*
 * NF4 weights: a matrix as the codes and scales bitsandbytes makes of it, with columns (or rows) of a merge beside them.
 *     W[o,c] = code book[code(i)] · absmax[i / 64],  i = o·in + c,
 * the product in float32, then rounded to the type bitsandbytes dequantizes to, then to the compute type.
 */
#include "../host/nf4.h"
#include "reference.h"

namespace reference {

double load_nf4(const Weight &w, int64_t row, int64_t column) {
  const auto in_columns = w.columns.find(column);
  if (in_columns != w.columns.end()) return bf16_value(in_columns->second[static_cast<size_t>(row)]);
  const auto in_rows = w.rows.find(row);
  if (in_rows != w.rows.end()) return bf16_value(in_rows->second[static_cast<size_t>(column)]);
  const int64_t i = row * w.in + column;
  const float product = kNf4Codes[nf4_code(w.codes.data(), i)] * w.absmax[static_cast<size_t>(i / kNf4Block)];
  double value = product;
  if (w.rounding == SB_F16) value = f16_value(f16_bits(value));
  if (w.rounding == SB_BF16 || w.compute == SB_BF16) value = bf16_value(bf16_bits(value));
  return value;
}

static int64_t line_bytes(const Weight &w) {
  return 2 * (w.out * static_cast<int64_t>(w.columns.size()) + w.in * static_cast<int64_t>(w.rows.size()));
}

int64_t nf4_bytes(const Weight &w) {
  return static_cast<int64_t>(w.codes.size() + w.absmax.size() * sizeof(float)) + line_bytes(w);
}

/* data[out,in], codes[⌈out·in/2⌉], absmax[⌈out·in/64⌉] on the host. */
int32_t nf4_quantize(sb_context *, const void *data, int32_t dtype, int64_t out, int64_t in, uint8_t *codes,
                     float *absmax) {
  const int64_t n = out * in;
  if (check_finite(data, dtype, out, in)) return 1;
  if (n % 2) codes[n / 2] = kNf4Zero; /* the half without a value */
  for (int64_t from = 0; from < n; from += kNf4Block) {
    const int64_t to = from + kNf4Block < n ? from + kNf4Block : n;
    float most = 0;
    for (int64_t i = from; i < to; i++) most = fmaxf(most, fabsf(static_cast<float>(load_host(data, dtype, i))));
    const float divisor = fmaxf(most, kNf4Smallest), inverse = 1.0f / divisor;
    /* In a block that the matrix does not fill, bitsandbytes divides, and its scale is never 0. */
    const bool whole = to - from == kNf4Block;
    absmax[from / kNf4Block] = whole ? most : divisor;
    for (int64_t i = from; i < to; i++) {
      const float value = static_cast<float>(load_host(data, dtype, i));
      const float scaled = fminf(fmaxf(whole ? value * inverse : value / divisor, -1.0f), 1.0f);
      int code = 0;
      while (code < 15 && scaled > nf4_border(code)) code++;
      codes[i / 2] = static_cast<uint8_t>(i % 2 ? (codes[i / 2] & 0xf0) | code : (codes[i / 2] & 15) | code << 4);
    }
  }
  return 0;
}

/* codes, absmax as above. */
int32_t weight_create_nf4(sb_context *ctx, const uint8_t *codes, const float *absmax, int64_t out, int64_t in,
                          int32_t dtype, int32_t compute, sb_weight **weight) {
  if (check_nf4_scales(absmax, out, in)) return 1;
  const int64_t n = out * in;
  Weight made{};
  made.out = out;
  made.in = in;
  made.dtype = SB_NF4;
  made.compute = compute;
  made.rounding = dtype;
  made.codes.assign(codes, codes + (n + 1) / 2);
  made.absmax.resize(static_cast<size_t>(nf4_blocks(n)));
  memcpy(made.absmax.data(), absmax, made.absmax.size() * sizeof(float));
  host_count(ctx, nf4_bytes(made));
  *weight = new Weight(std::move(made));
  return 0;
}

/* values[n,in] beside the codes. */
int32_t nf4_write_rows(sb_context *ctx, Weight &w, const int32_t *rows, int64_t n, const void *values) {
  const int64_t other = static_cast<int64_t>(w.columns.size());
  if (n > 0 && other > 0) return replaced_already("sb_weight_write_rows", other, "columns");
  host_count(ctx, -line_bytes(w));
  for (int64_t i = 0; i < n; i++) {
    std::vector<uint16_t> &line = w.rows[rows[i]];
    line.resize(static_cast<size_t>(w.in));
    for (int64_t c = 0; c < w.in; c++) line[static_cast<size_t>(c)] = bf16_bits(reals(values)[i * w.in + c]);
  }
  host_count(ctx, line_bytes(w));
  return 0;
}

/* values[out,n] beside the codes. */
int32_t nf4_write_columns(sb_context *ctx, Weight &w, const int32_t *columns, int64_t n, const void *values) {
  const int64_t other = static_cast<int64_t>(w.rows.size());
  if (n > 0 && other > 0) return replaced_already("sb_weight_write_columns", other, "rows");
  host_count(ctx, -line_bytes(w));
  for (int64_t i = 0; i < n; i++) {
    std::vector<uint16_t> &line = w.columns[columns[i]];
    line.resize(static_cast<size_t>(w.out));
    for (int64_t o = 0; o < w.out; o++) line[static_cast<size_t>(o)] = bf16_bits(reals(values)[o * n + i]);
  }
  host_count(ctx, line_bytes(w));
  return 0;
}

int32_t weight_drop_replaced(sb_context *ctx, sb_weight *weight) {
  Weight &w = *static_cast<Weight *>(weight);
  host_count(ctx, -line_bytes(w));
  w.columns.clear();
  w.rows.clear();
  return 0;
}

} // namespace reference
