/* Frozen weights W[out,in], held row by row as they came, or rounded to bf16 when products are to be computed so. */
#include "reference.h"

namespace reference {

/* f16: sign, 5 bits of exponent E, 10 of fraction F: (1024 + F) · 2^(E-25), or F · 2^-24 when E = 0. */
double f16_value(uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  double magnitude = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
  if (exponent == 31) magnitude = fraction == 0 ? INFINITY : NAN;
  return bits >> 15 ? -magnitude : magnitude;
}

uint16_t f16_bits(double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return sign | 0x7e00;
  int exponent; /* |value| in [2^(exponent-1), 2^exponent); below 2^-14 the spacing stays that of 2^-14 */
  frexp(value, &exponent);
  if (std::isinf(value) || exponent > 16) return sign | 0x7c00;
  if (value == 0 || exponent < -13) exponent = -13;
  /* 1024 + fraction (or the fraction alone); 2048 carries into the exponent, which is right. */
  const double steps = nearbyint(ldexp(fabs(value), 11 - exponent));
  return static_cast<uint16_t>(sign + ((exponent + 13) << 10) + static_cast<int>(steps));
}

double load_host(const void *data, int32_t dtype, int64_t i) {
  const char *bytes = static_cast<const char *>(data);
  if (dtype == SB_F32) {
    float value;
    memcpy(&value, bytes + 4 * i, sizeof value);
    return value;
  }
  uint16_t bits;
  memcpy(&bits, bytes + 2 * i, sizeof bits);
  return dtype == SB_F16 ? f16_value(bits) : bf16_value(bits);
}

int32_t check_finite(const void *data, int32_t dtype, int64_t out, int64_t in) {
  for (int64_t i = 0; i < out * in; i++)
    if (!std::isfinite(load_host(data, dtype, i)))
      return sb_fail("weight [%lld,%lld]: NaN or infinity in row %lld, column %lld", static_cast<long long>(out),
                     static_cast<long long>(in), static_cast<long long>(i / in), static_cast<long long>(i % in));
  return 0;
}

double load_weight(const sb_weight *weight, int64_t row, int64_t column) {
  const Weight &w = *static_cast<const Weight *>(weight);
  if (w.dtype == SB_NF4) return load_nf4(w, row, column);
  const size_t i = static_cast<size_t>(row * w.in + column);
  if (w.dtype == SB_F32) return w.wide[i];
  return w.dtype == SB_F16 ? f16_value(w.narrow[i]) : bf16_value(w.narrow[i]);
}

static void store_weight(sb_weight *weight, int64_t row, int64_t column, double value) {
  Weight &w = *static_cast<Weight *>(weight);
  const size_t i = static_cast<size_t>(row * w.in + column);
  if (w.dtype == SB_F32) w.wide[i] = static_cast<real>(value);
  else w.narrow[i] = w.dtype == SB_F16 ? f16_bits(value) : bf16_bits(value);
}

static int64_t bytes_of(const Weight &w) {
  if (w.dtype == SB_NF4) return nf4_bytes(w);
  return w.out * w.in * static_cast<int64_t>(w.dtype == SB_F32 ? sizeof(real) : sizeof(uint16_t));
}

/* data[out,in] on the host. */
int32_t weight_create(sb_context *ctx, const void *data, int32_t dtype, int64_t out, int64_t in, int32_t compute,
                      sb_weight **weight) {
  if (check_finite(data, dtype, out, in)) return 1;
  Weight made{};
  made.out = out;
  made.in = in;
  made.dtype = compute == SB_BF16 ? SB_BF16 : dtype;
  made.compute = compute;
  const size_t size = static_cast<size_t>(out * in);
  if (made.dtype == SB_F32) made.wide.resize(size);
  else made.narrow.resize(size);
  for (int64_t row = 0; row < out; row++)
    for (int64_t column = 0; column < in; column++)
      store_weight(&made, row, column, load_host(data, dtype, row * in + column));
  host_count(ctx, bytes_of(made));
  *weight = new Weight(std::move(made));
  return 0;
}

int32_t weight_free(sb_context *ctx, sb_weight *weight) {
  Weight *w = static_cast<Weight *>(weight);
  host_count(ctx, -bytes_of(*w));
  delete w;
  return 0;
}

/* values[n,in] = W[rows[n],:] */
int32_t weight_read_rows(sb_context *, const sb_weight *weight, const int32_t *rows, int64_t n, void *values) {
  if (check_indices("sb_weight_read_rows", "rows", rows, n, weight->out)) return 1;
  for (int64_t i = 0; i < n; i++)
    for (int64_t column = 0; column < weight->in; column++)
      store(values, SB_F32, i * weight->in + column, load_weight(weight, rows[i], column));
  return 0;
}

/* W[rows[n],:] = values[n,in] */
int32_t weight_write_rows(sb_context *ctx, sb_weight *weight, const int32_t *rows, int64_t n, const void *values) {
  if (check_indices("sb_weight_write_rows", "rows", rows, n, weight->out)) return 1;
  if (weight->dtype == SB_NF4) return nf4_write_rows(ctx, *static_cast<Weight *>(weight), rows, n, values);
  for (int64_t i = 0; i < n; i++)
    for (int64_t column = 0; column < weight->in; column++)
      store_weight(weight, rows[i], column, load(values, SB_F32, i * weight->in + column));
  return 0;
}

/* values[out,n] = W[:,columns[n]] */
int32_t weight_read_columns(sb_context *, const sb_weight *weight, const int32_t *columns, int64_t n, void *values) {
  if (check_indices("sb_weight_read_columns", "columns", columns, n, weight->in)) return 1;
  for (int64_t row = 0; row < weight->out; row++)
    for (int64_t i = 0; i < n; i++) store(values, SB_F32, row * n + i, load_weight(weight, row, columns[i]));
  return 0;
}

/* W[:,columns[n]] = values[out,n] */
int32_t weight_write_columns(sb_context *ctx, sb_weight *weight, const int32_t *columns, int64_t n,
                             const void *values) {
  if (check_indices("sb_weight_write_columns", "columns", columns, n, weight->in)) return 1;
  if (weight->dtype == SB_NF4) return nf4_write_columns(ctx, *static_cast<Weight *>(weight), columns, n, values);
  for (int64_t row = 0; row < weight->out; row++)
    for (int64_t i = 0; i < n; i++) store_weight(weight, row, columns[i], load(values, SB_F32, row * n + i));
  return 0;
}

/* squares[out] = Σ_i W[out,i]² */
int32_t weight_row_squares(sb_context *, const sb_weight *weight, void *squares) {
  for (int64_t row = 0; row < weight->out; row++) {
    double sum = 0;
    for (int64_t column = 0; column < weight->in; column++) {
      const double w = load_weight(weight, row, column);
      sum += w * w;
    }
    store(squares, SB_F32, row, sum);
  }
  return 0;
}

} // namespace reference
