/*
 * The reference library: every op as naive scalar code, written to be read. Values are loaded to float64, summed in
 * float64 in the order the formula is written, and rounded once when they are stored. The fast libraries are tested
 * against it; nothing here is tuned, and ops may allocate temporaries.
 *
 * Shapes stand at each pointer of a definition. T, H, N … and what "+=" and "=" mean: sbora.h.
 */
#pragma once
#include "../backend.h"
#include "../host/indices.h"
#include "../host/memory.h"

#include <cmath>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

namespace reference {

/* A "real" element of sbora.h: float, or double in the double build, where finite differences are taken. */
#ifdef SB_REAL_DOUBLE
using real = double;
#else
using real = float;
#endif

inline const real *reals(const void *tensor) { return static_cast<const real *>(tensor); }
inline real *reals(void *tensor) { return static_cast<real *>(tensor); }

/* ---- 16-bit types ------------------------------------------------------------------------------------------- */

/* bf16 is the upper half of a float. */
inline double bf16_value(uint16_t bits) {
  const uint32_t word = uint32_t{bits} << 16;
  float value;
  memcpy(&value, &word, sizeof value);
  return value;
}

/* To nearest, ties to even; a NaN stays one. */
inline uint16_t bf16_bits(double value) {
  const float single = static_cast<float>(value);
  uint32_t word;
  memcpy(&word, &single, sizeof word);
  if (std::isnan(single)) return static_cast<uint16_t>(word >> 16 | 0x40);
  return static_cast<uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

double f16_value(uint16_t bits);
uint16_t f16_bits(double value); /* to nearest, ties to even */

/* ---- elements of a tensor of SB_F32 (= real) or SB_BF16 ----------------------------------------------------- */

inline double load(const void *tensor, int32_t dtype, int64_t i) {
  return dtype == SB_BF16 ? bf16_value(static_cast<const uint16_t *>(tensor)[i]) : reals(tensor)[i];
}

inline void store(void *tensor, int32_t dtype, int64_t i, double value) {
  if (dtype == SB_BF16) static_cast<uint16_t *>(tensor)[i] = bf16_bits(value);
  else reals(tensor)[i] = static_cast<real>(value);
}

/* As an operand of a product: rounded to the compute type. */
inline double operand(double value, int32_t compute) {
  return compute == SB_BF16 ? bf16_value(bf16_bits(value)) : value;
}

/* value, plus beta · what lies there; nothing is read when beta is 0. */
inline double plus_kept(double value, double beta, const void *tensor, int32_t dtype, int64_t i) {
  return beta == 0 ? value : beta * load(tensor, dtype, i) + value;
}

/* ---- weights (weight.cpp) ----------------------------------------------------------------------------------- */

struct Weight : sb_weight {
  std::vector<real> wide;       /* [out,in] when held as SB_F32 */
  std::vector<uint16_t> narrow; /* [out,in] when held as SB_F16 or SB_BF16 */

  /* When held as SB_NF4 (nf4.cpp): codes and scales as in files, the type the products of both are rounded to, and the
   * columns or rows of a merge, in bf16. */
  std::vector<uint8_t> codes;
  std::vector<float> absmax;
  int32_t rounding;
  std::map<int64_t, std::vector<uint16_t>> columns, rows;
};

double load_weight(const sb_weight *weight, int64_t row, int64_t column);

/* Element i of host data that may lie at any address; SB_F32 is float here, also in the double build. */
double load_host(const void *data, int32_t dtype, int64_t i);
/* Fails at the first NaN or infinity of host data[out,in]. */
int32_t check_finite(const void *data, int32_t dtype, int64_t out, int64_t in);

double load_nf4(const Weight &w, int64_t row, int64_t column);
int64_t nf4_bytes(const Weight &w);
int32_t nf4_write_rows(sb_context *ctx, Weight &w, const int32_t *rows, int64_t n, const void *values);
int32_t nf4_write_columns(sb_context *ctx, Weight &w, const int32_t *columns, int64_t n, const void *values);

/* ---- random bits (random.cpp) ------------------------------------------------------------------------------- */

struct Words {
  uint32_t lane[4];
};

/* Philox4x32-10 (Salmon et al. 2011): four words from a counter of four words under a 64-bit key. */
Words philox(Words counter, uint64_t key);

/* What dropout multiplies `feature` of row t by: 0 or 1/(1-p); 1 when drop is NULL (dropout.cpp). */
double mask(const sb_dropout *drop, int64_t t, int64_t feature);

/* ---- every op, with the signature it has in sbora.h --------------------------------------------------------- */

#define SB_ENTRY(name) sb_entry<decltype(::sb_##name)>::type name;
SB_BACKEND_OPS(SB_ENTRY)
#undef SB_ENTRY

} // namespace reference
