/*
 * What abi.cpp, the only file that includes this, checks arguments with: each macro leaves the function it stands in
 * with a text "function: argument is value; expected …", or does nothing.
 */
#pragma once
#include "backend.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <initializer_list>
#include <new>

namespace {

constexpr int64_t kMost = int64_t{1} << 56; /* elements: their bytes, padded by a library, still fit 63 bits */
constexpr int64_t kMostPlanned = int64_t{1} << 28; /* a width of sb_reserve: its square in floats still does */

/* a·b·…, or -1 beyond kMost. Every factor is at least 0. */
template <class... Sizes>
int64_t elements(Sizes... sizes) {
  int64_t product = 1;
  const bool overflow = (__builtin_mul_overflow(product, sizes, &product) || ...);
  return overflow || product > kMost ? -1 : product;
}

using Text = char[32];
void show(Text &text, int64_t value) { snprintf(text, sizeof text, "%lld", static_cast<long long>(value)); }
void show(Text &text, int32_t value) { snprintf(text, sizeof text, "%d", value); }
void show(Text &text, double value) { snprintf(text, sizeof text, "%g", value); }
void show(Text &text, const void *) { snprintf(text, sizeof text, "NULL"); }

/* The first value that is not good makes the text "function: name is value; expected …"; names is "a, b, c". */
template <class Value>
int32_t check_each(const char *function, const char *names, std::initializer_list<Value> values, bool (*good)(Value),
                   const char *expected) {
  for (const Value &value : values) {
    const size_t length = strcspn(names, ",");
    if (!good(value)) {
      Text text;
      show(text, value);
      return sb_fail("%s: %.*s is %s; expected %s", function, static_cast<int>(length), names, text, expected);
    }
    names += length;
    names += strspn(names, ", ");
  }
  return 0;
}

/* Tensors of one shape: a size that can be addressed, no NULL where there are elements. */
int32_t check_tensors(const char *function, const char *shape, int64_t size, const char *names,
                      std::initializer_list<const void *> tensors) {
  if (size < 0) return sb_fail("%s: the shape %s of %s has more than 2^56 elements", function, shape, names);
  if (size == 0) return 0;
  const auto good = [](const void *tensor) { return tensor != nullptr; };
  return check_each<const void *>(function, names, tensors, good, "memory");
}

int32_t check_dropout(const char *function, const sb_dropout *drop, int64_t T) {
  if (!drop) return 0;
  if (!(drop->p >= 0 && drop->p < 1)) return sb_fail("%s: drop.p is %g; expected 0 <= p < 1", function, drop->p);
  if (drop->module >> 32) return sb_fail("%s: drop.module does not fit 32 bits", function);
  return check_tensors(function, "[T]", T, "drop.record, drop.position", {drop->record, drop->position});
}

/* None missing, those of one weight side by side. A turn may be of an older list: what stands there now decides. */
int32_t check_patches(const char *function, sb_patch *const *patches, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    if (!patches[i]) return sb_fail("%s: patches[%lld] is NULL; expected a patch", function, static_cast<long long>(i));
    sb_weight *weight = patches[i]->weight;
    if (i > 0 && patches[i - 1]->weight == weight) continue;
    if (weight->turn < i && patches[weight->turn]->weight == weight)
      return sb_fail("%s: patches[%lld] is of the weight of patches[%lld]; expected a weight's patches side by side",
                     function, static_cast<long long>(i), static_cast<long long>(weight->turn));
    weight->turn = i;
  }
  return 0;
}

int32_t check_attention(const char *function, int64_t N, int64_t K) {
  if (N % K == 0) return 0;
  return sb_fail("%s: N is %lld; expected a multiple of K = %lld", function, static_cast<long long>(N),
                 static_cast<long long>(K));
}

/* Nothing thrown leaves the library. */
template <class Body>
int32_t guarded(const char *function, Body body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc &) {
    return sb_fail("%s: out of memory", function);
  } catch (const std::exception &error) {
    return sb_fail("%s: %s", function, error.what());
  } catch (...) {
    return sb_fail("%s: unknown error", function);
  }
}

} // namespace

#define REQUIRE(condition, format, ...)                                                                               \
  if (!(condition)) return sb_fail("%s: " format, __func__ __VA_OPT__(, ) __VA_ARGS__)
#define EACH(type, good, expected, ...)                                                                               \
  if (check_each<type>(__func__, #__VA_ARGS__, {__VA_ARGS__}, [](type value) { return good; }, expected)) return 1
#define POINTERS(...) EACH(const void *, value != nullptr, "an address", __VA_ARGS__)
#define SIZES(...) EACH(int64_t, value >= 0 && value <= kMost, "0 to 2^56", __VA_ARGS__)
#define COUNTS(...) EACH(int64_t, value >= 1 && value <= kMost, "1 to 2^56", __VA_ARGS__)
#define PLANNED(...) EACH(int64_t, value >= 0 && value <= kMostPlanned, "0 to 2^28", __VA_ARGS__)
#define EVEN(...) EACH(int64_t, value >= 2 && value <= kMost && value % 2 == 0, "an even number from 2", __VA_ARGS__)
#define DTYPES(...) EACH(int32_t, value == SB_F32 || value == SB_BF16, "0 (f32) or 2 (bf16)", __VA_ARGS__)
#define FLOATS(...)                                                                                                   \
  EACH(int32_t, value == SB_F32 || value == SB_F16 || value == SB_BF16, "0 (f32), 1 (f16) or 2 (bf16)", __VA_ARGS__)
#define NOT_NF4() REQUIRE(weight->dtype != SB_NF4, "the weight is NF4; expected one held in f32, f16 or bf16")
#define FINITE(...) EACH(double, std::isfinite(value), "a finite number", __VA_ARGS__)
#define POSITIVE(...) EACH(double, std::isfinite(value) && value > 0, "a finite number above 0", __VA_ARGS__)
#define FRACTIONS(...) EACH(double, value >= 0 && value < 1, "at least 0 and below 1", __VA_ARGS__)
#define UP_TO(size, limit)                                                                                            \
  REQUIRE(size >= 0 && size <= (limit), #size " is %lld; expected 0 to %lld", static_cast<long long>(size),           \
          static_cast<long long>(limit))
#define TENSORS(shape, ...)                                                                                           \
  if (check_tensors(__func__, #shape, elements shape, #__VA_ARGS__, {__VA_ARGS__})) return 1
/* A matrix as stored, its rows ld elements apart. */
#define MATRIX(matrix, rows, columns, ld)                                                                             \
  REQUIRE(ld >= (columns), #ld " is %lld; expected at least %lld, the columns of " #matrix,                           \
          static_cast<long long>(ld), static_cast<long long>(columns));                                               \
  TENSORS((rows, ld), matrix)
#define DROPOUT()                                                                                                     \
  if (check_dropout(__func__, drop, T)) return 1
#define ATTENTION()                                                                                                   \
  SIZES(T);                                                                                                           \
  COUNTS(N, K, D);                                                                                                    \
  DTYPES(dtype);                                                                                                      \
  FINITE(scale);                                                                                                      \
  if (check_attention(__func__, N, K)) return 1
/* Packed sequences of an attention op. */
#define PACKED()                                                                                                      \
  SIZES(B);                                                                                                           \
  UP_TO(longest, T);                                                                                                  \
  POINTERS(offsets)
/* Nothing would be written: done, without workspace. */
#define DONE_IF(empty)                                                                                                \
  POINTERS(ctx);                                                                                                      \
  if (empty) return 0
#define CALL(name, ...)                                                                                               \
  POINTERS(ctx);                                                                                                      \
  return guarded(__func__, [&] { return ctx->backend->name(ctx __VA_OPT__(, ) __VA_ARGS__); })
