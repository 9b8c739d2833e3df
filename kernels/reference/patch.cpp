/* Patches: lines of a weight in two states, told by where the bits they are held in differ. */
#include "reference.h"

namespace reference {

struct Patch : sb_patch {
  bool by_columns;
  std::vector<int32_t> index;
  std::vector<uint64_t> bits; /* in the order of the values it was made from */
};

static uint64_t bits_of(real value) {
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}

static uint64_t rounded_bits(int32_t dtype, double value) {
  if (dtype == SB_F32) return bits_of(static_cast<real>(value));
  return dtype == SB_F16 ? f16_bits(value) : bf16_bits(value);
}

static uint64_t held_bits(const Weight &w, size_t i) { return w.dtype == SB_F32 ? bits_of(w.wide[i]) : w.narrow[i]; }

static void flip_bits(Weight &w, size_t i, uint64_t bits) {
  if (w.dtype != SB_F32) {
    w.narrow[i] = static_cast<uint16_t>(w.narrow[i] ^ bits);
    return;
  }
  const uint64_t flipped = bits_of(w.wide[i]) ^ bits;
  memcpy(&w.wide[i], &flipped, sizeof(real));
}

/* visit(where in the weight, where in the values [n,in] or [out,n]) of every element of a patch's lines. */
template <class Visit>
static void each_element(const Patch &patch, const Visit &visit) {
  const int64_t out = patch.weight->out, in = patch.weight->in, n = static_cast<int64_t>(patch.index.size());
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < (patch.by_columns ? out : in); j++) {
      const int64_t row = patch.by_columns ? j : patch.index[i], column = patch.by_columns ? patch.index[i] : j;
      visit(static_cast<size_t>(row * in + column), static_cast<size_t>(patch.by_columns ? j * n + i : i * in + j));
    }
}

static int64_t bytes_of(const Patch &patch) {
  return static_cast<int64_t>(patch.bits.size() * sizeof(uint64_t) + patch.index.size() * sizeof(int32_t));
}

int32_t patch_create(sb_context *ctx, sb_weight *weight, int32_t by_columns, const int32_t *index, int64_t n,
                     const void *values, sb_patch **patch) {
  if (check_distinct("sb_patch_create", "index", index, n, by_columns ? weight->in : weight->out)) return 1;
  const Weight &w = *static_cast<const Weight *>(weight);
  Patch made{};
  made.weight = weight;
  made.by_columns = by_columns != 0;
  made.index.assign(index, index + n);
  made.bits.resize(static_cast<size_t>(n * (by_columns ? w.out : w.in)));
  each_element(made, [&](size_t at, size_t value) {
    made.bits[value] = held_bits(w, at) ^ rounded_bits(w.dtype, load(values, SB_F32, static_cast<int64_t>(value)));
  });
  host_count(ctx, bytes_of(made));
  *patch = new Patch(std::move(made));
  return 0;
}

int32_t patch_free(sb_context *ctx, sb_patch *patch) {
  Patch *p = static_cast<Patch *>(patch);
  host_count(ctx, -bytes_of(*p));
  delete p;
  return 0;
}

/* W ^= bits, patch by patch. */
int32_t patch_flip(sb_context *, sb_patch *const *patches, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    const Patch &patch = *static_cast<const Patch *>(patches[i]);
    Weight &w = *static_cast<Weight *>(patch.weight);
    each_element(patch, [&](size_t at, size_t value) { flip_bits(w, at, patch.bits[value]); });
  }
  return 0;
}

} // namespace reference
