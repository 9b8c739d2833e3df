/*
 * Patches: chosen lines of a weight in two states. What is kept is where their bits differ, in the type and the order in
 * which the panels (weight.cpp) hold them, lines ascending:
 *     columns   [panel][n][32]
 *     rows      panel after panel, [steps][rows in it]; a step is 32 lanes of a panel, each a float, a half, or the bf16 of
 *               two columns
 *
 * A flip reads and writes nearly every cache line of the weights, and memory takes its time for that. So sb_patch_flip
 * only notes it, and the bits change with the weight's next use: a product of few rows flips each stretch of a panel just
 * before it reads it (linear.cpp), which leaves the writing alone as its price; every other op has all of it done first.
 */

struct CpuPatch : sb_patch {
  int32_t by_columns;
  int64_t n;
  int32_t *lines; /* [n], ascending */
  int32_t *first; /* [parts + 1], the place in lines of each part's first: a panel of rows, kFlipSteps of columns */
  unsigned char *bits;
  WeightBlock *block;
  int64_t bytes;  /* as counted in the context's total */
  CpuPatch *next; /* in its weight's list of those to be flipped */
};

/* Steps of a panel that are flipped together: as many as a product of few rows has on their way to it (product_tile.h). */
constexpr int64_t kFlipSteps = 32;

inline const CpuPatch &cpu_patch(const sb_patch *patch) { return *static_cast<const CpuPatch *>(patch); }

/* A step of a panel: 32 lanes of f32, of f16, or of bf16 pairs. */
inline int64_t step_bytes(const CpuWeight &w) { return kPanel * (w.dtype == SB_F16 ? 2 : 4); }
inline int64_t steps_of(const CpuWeight &w) { return w.panel_bytes / step_bytes(w); }
inline int64_t columns_of_step(const CpuWeight &w) { return w.dtype == SB_BF16 ? 2 : 1; }

/* ---- creation ----------------------------------------------------------------------------------------------- */

inline uint32_t held_bits(int32_t dtype, float value) {
  if (dtype != SB_F32) return dtype == SB_F16 ? f32_to_f16(value) : f32_to_bf16(value);
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}
inline uint32_t element_bits(const CpuWeight &w, int64_t row, int64_t column) {
  const unsigned char *panel = panel_of(w, row / kPanel);
  const int64_t i = element_index(w.dtype, row % kPanel, column);
  if (w.dtype == SB_F32) return reinterpret_cast<const uint32_t *>(panel)[i];
  return reinterpret_cast<const uint16_t *>(panel)[i];
}
inline void store_bits(const CpuWeight &w, unsigned char *bits, int64_t i, uint32_t value) {
  if (w.dtype == SB_F32) reinterpret_cast<uint32_t *>(bits)[i] = value;
  else reinterpret_cast<uint16_t *>(bits)[i] = static_cast<uint16_t>(value);
}

/* values[out,n]; place[line] - 1: which of the n it is. */
void fill_columns(sb_cpu_context &ctx, const CpuWeight &w, const CpuPatch &p, const int32_t *place,
                  const float *values) {
  parallel(ctx, panels_of(w.out), [&](int64_t panel, int32_t) {
    for (int64_t k = 0; k < p.n; k++)
      for (int64_t lane = 0; lane < kPanel; lane++) {
        const int64_t row = panel * kPanel + lane, column = p.lines[k];
        uint32_t difference = 0;
        if (row < w.out)
          difference = held_bits(w.dtype, values[row * p.n + place[column] - 1]) ^ element_bits(w, row, column);
        store_bits(w, p.bits, (panel * p.n + k) * kPanel + lane, difference);
      }
  });
}

/* values[n,in]. */
void fill_rows(sb_cpu_context &ctx, const CpuWeight &w, const CpuPatch &p, const int32_t *place, const float *values) {
  const int64_t steps = steps_of(w), width = columns_of_step(w);
  parallel(ctx, p.n, [&](int64_t k, int32_t) {
    const int64_t row = p.lines[k], first = p.first[row / kPanel], count = p.first[row / kPanel + 1] - first;
    const float *from = values + (place[row] - 1) * w.in;
    for (int64_t column = 0; column < steps * width; column++) {
      const int64_t at = first * steps + column / width * count + k - first;
      const uint32_t difference =
          column < w.in ? held_bits(w.dtype, from[column]) ^ element_bits(w, row, column) : 0;
      store_bits(w, p.bits, at * width + column % width, difference);
    }
  });
}

int32_t patch_create(sb_context *context, sb_weight *weight, int32_t by_columns, const int32_t *index, int64_t n,
                     const void *values, sb_patch **patch) noexcept {
  sb_cpu_context &ctx = sb_cpu(context);
  const CpuWeight &w = settled_weight(context, weight);
  const int64_t lines = by_columns ? w.in : w.out, panels = panels_of(w.out);
  const int64_t part = by_columns ? kFlipSteps * columns_of_step(w) : kPanel, parts = (lines + part - 1) / part;
  if (check_distinct("sb_patch_create", "index", index, n, lines)) return 1;
  /* A vector may be loaded behind the last row's bits. */
  const int64_t bits = (by_columns ? panels * kPanel * n * (w.dtype == SB_F32 ? 4 : 2)
                                   : steps_of(w) * n * (step_bytes(w) / kPanel)) + kLanes * 4;
  const int64_t bytes = static_cast<int64_t>(sizeof(CpuPatch)) + (n + parts + 1) * 4;
  WeightBlock *block = nullptr;
  unsigned char *memory = nullptr;
  CpuPatch *p = static_cast<CpuPatch *>(malloc(bytes));
  int32_t *place = static_cast<int32_t *>(calloc(lines, sizeof *place));
  if (p && place) memory = weight_memory(ctx.weight_block, bits, &block);
  if (!memory) {
    free(place);
    free(p);
    return sb_fail("sb_patch_create: %lld bytes could not be allocated", static_cast<long long>(bytes + bits));
  }
  int32_t *all = reinterpret_cast<int32_t *>(p + 1);
  *p = {{weight}, by_columns, n, all, all + n, memory, block, bytes + bits, nullptr};
  for (int64_t i = 0; i < n; i++) place[index[i]] = static_cast<int32_t>(i + 1);
  int32_t k = 0;
  for (int64_t line = 0; line < lines; line++) {
    if (line % part == 0) p->first[line / part] = k;
    if (place[line]) p->lines[k++] = static_cast<int32_t>(line);
  }
  p->first[parts] = k;
  if (by_columns) fill_columns(ctx, w, *p, place, static_cast<const float *>(values));
  else fill_rows(ctx, w, *p, place, static_cast<const float *>(values));
  free(place);
  host_count(context, p->bytes);
  *patch = p;
  return 0;
}

int32_t patch_free(sb_context *context, sb_patch *patch) noexcept {
  CpuPatch *p = static_cast<CpuPatch *>(patch);
  settled_weight(context, p->weight);
  host_count(context, -p->bytes);
  weight_memory_free(sb_cpu(context).weight_block, p->block);
  free(p);
  return 0;
}

/* ---- flipping ----------------------------------------------------------------------------------------------- */

/* Into the second cache: more lines can be on their way there at once than into the first. The address may lie behind the
 * weight. */
SB_INLINE void prefetch_touched(const void *data, int64_t bytes) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes);
  __builtin_prefetch(reinterpret_cast<const void *>(address), 0, 2);
}

/* Steps [from, to) of a panel, from a multiple of kFlipSteps, to such a one or the end. */
struct Stretch {
  int64_t panel, from, to;
  bool alone; /* no product is fetching the panels: the next panel's lines are fetched on the way */
};

#if SB_ISA_LEVEL >= 2
/* By whole cache lines, as a product reads them: narrower stores could not be forwarded to it. */
SB_INLINE void flip_half_lanes(uint32_t *lanes, const uint16_t *bits, int shift) {
  const __m128i count = _mm_cvtsi32_si128(shift);
#pragma GCC unroll 2
  for (int64_t i = 0; i < kPanel; i += 16) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(bits + i)));
    const __m512i flipped = _mm512_xor_si512(_mm512_load_si512(lanes + i), _mm512_sll_epi32(wide, count));
    _mm512_store_si512(lanes + i, flipped);
  }
}
#endif

/* Unit: a lane of a step, with `width` columns in it; Bits: an element. */
template <class Unit, class Bits, int64_t width>
void flip_columns(const CpuPatch &p, const CpuWeight &w, const Stretch &part) {
  unsigned char *steps = panel_of(w, part.panel);
  const int64_t last = p.first[(part.to + kFlipSteps - 1) / kFlipSteps];
  int64_t k = p.first[part.from / kFlipSteps];
  const Bits *bits = reinterpret_cast<const Bits *>(p.bits) + (part.panel * p.n + k) * kPanel;
  constexpr int64_t step = kPanel * sizeof(Unit);
  if (!part.alone) { /* behind what the product itself fetches: it reads all lines, touched or not */
    const int64_t ahead = 2 * kFlipSteps * step;
    for (int64_t line = part.from * step; line < part.to * step; line += 64) prefetch_touched(steps + line, ahead);
  }
  for (; k < last; k++, bits += kPanel) {
    const int64_t at = p.lines[k] / width * step;
    if (part.alone)
      for (int64_t line = 0; line < step; line += 64) prefetch_touched(steps + at, w.panel_bytes + line);
    Unit *__restrict lanes = reinterpret_cast<Unit *>(steps + at);
    const int shift = p.lines[k] % width * 16;
#if SB_ISA_LEVEL >= 2
    if constexpr (width == 2) {
      flip_half_lanes(lanes, bits, shift);
      continue;
    }
#endif
    for (int64_t i = 0; i < kPanel; i++) lanes[i] ^= static_cast<Unit>(bits[i]) << shift;
  }
}

/* A patch's rows in one panel, their bits from one step on. */
struct PanelRows {
  const unsigned char *bits;
  const int32_t *rows;
  int64_t count;
};
inline PanelRows panel_rows(const CpuPatch &p, const CpuWeight &w, int64_t panel, int64_t step) {
  const int64_t first = p.first[panel], count = p.first[panel + 1] - first, unit = step_bytes(w) / kPanel;
  return {p.bits + (first * steps_of(w) + step * count) * unit, p.lines + first, count};
}

template <class Unit>
void flip_rows_by_lane(Unit *lanes, int64_t steps, const PanelRows &part) {
  const Unit *bits = reinterpret_cast<const Unit *>(part.bits);
  for (int64_t step = 0; step < steps; step++, lanes += kPanel)
    for (int64_t i = 0; i < part.count; i++) lanes[part.rows[i] % kPanel] ^= *bits++;
}

#if SB_ISA_LEVEL >= 2
struct LaneMasks {
  __mmask16 low, high;
  int64_t low_count;
};
inline LaneMasks lane_masks(const PanelRows &part) {
  uint32_t lanes = 0;
  for (int64_t i = 0; i < part.count; i++) lanes |= 1u << part.rows[i] % kPanel;
  return {static_cast<__mmask16>(lanes), static_cast<__mmask16>(lanes >> 16), __builtin_popcount(lanes & 0xffff)};
}
SB_INLINE __m512i spread(__mmask16 lanes, const uint32_t *bits) {
  return _mm512_maskz_expand_epi32(lanes, _mm512_loadu_si512(bits));
}
/* Both patches' rows at once: most cache lines of a panel hold rows of either. */
void flip_rows_together(uint32_t *lanes, int64_t steps, const PanelRows &one, const PanelRows &other) {
  constexpr int64_t ahead = 2048; /* bytes */
  const LaneMasks a = lane_masks(one), b = lane_masks(other);
  const bool low = a.low | b.low, high = a.high | b.high;
  const uint32_t *a_bits = reinterpret_cast<const uint32_t *>(one.bits);
  const uint32_t *b_bits = reinterpret_cast<const uint32_t *>(other.bits);
  for (int64_t step = 0; step < steps; step++, lanes += kPanel, a_bits += one.count, b_bits += other.count) {
    if (low) {
      prefetch_touched(lanes, ahead);
      const __m512i bits = _mm512_xor_si512(spread(a.low, a_bits), spread(b.low, b_bits));
      _mm512_store_si512(lanes, _mm512_xor_si512(_mm512_load_si512(lanes), bits));
    }
    if (high) {
      prefetch_touched(lanes + 16, ahead);
      const __m512i bits =
          _mm512_xor_si512(spread(a.high, a_bits + a.low_count), spread(b.high, b_bits + b.low_count));
      _mm512_store_si512(lanes + 16, _mm512_xor_si512(_mm512_load_si512(lanes + 16), bits));
    }
  }
}
#endif

/* other may be without rows. */
void flip_rows(const CpuWeight &w, const Stretch &part, const PanelRows &one, const PanelRows &other) {
  const int64_t steps = part.to - part.from;
  unsigned char *from = panel_of(w, part.panel) + part.from * step_bytes(w);
  if (w.dtype == SB_F16) {
    flip_rows_by_lane(reinterpret_cast<uint16_t *>(from), steps, one);
    flip_rows_by_lane(reinterpret_cast<uint16_t *>(from), steps, other);
    return;
  }
  uint32_t *lanes = reinterpret_cast<uint32_t *>(from);
#if SB_ISA_LEVEL >= 2
  flip_rows_together(lanes, steps, one, other);
#else
  flip_rows_by_lane(lanes, steps, one);
  flip_rows_by_lane(lanes, steps, other);
#endif
}

/* Every patch that waits, on one stretch: an XOR each, so that their order does not matter. */
void flip_stretch(const CpuWeight &w, const Stretch &part) {
  for (const CpuPatch *p = w.flipped; p; p = p->next) {
    if (!p->by_columns) {
      const PanelRows one = panel_rows(*p, w, part.panel, part.from);
      const bool two = p->next && !p->next->by_columns;
      if (two) p = p->next;
      flip_rows(w, part, one, two ? panel_rows(*p, w, part.panel, part.from) : PanelRows{one.bits, nullptr, 0});
    } else if (w.dtype == SB_F32) flip_columns<uint32_t, uint32_t, 1>(*p, w, part);
    else if (w.dtype == SB_F16) flip_columns<uint16_t, uint16_t, 1>(*p, w, part);
    else flip_columns<uint32_t, uint16_t, 2>(*p, w, part);
  }
}

void settle(sb_cpu_context &ctx, const CpuWeight &w) {
  const int64_t panels = panels_of(w.out), pieces = product_min(4 * ctx.threads, panels);
  parallel(ctx, pieces, [&](int64_t piece, int32_t) {
    const int64_t last = panels * (piece + 1) / pieces;
    for (int64_t panel = panels * piece / pieces; panel < last; panel++)
      flip_stretch(w, {panel, 0, steps_of(w), panel + 1 < last});
  });
  w.flipped = nullptr;
}

/* Notes the flip, or that it has been taken back before anybody saw it. */
inline void note_flip(sb_cpu_context &ctx, CpuPatch &p) {
  const CpuWeight &w = cpu_weight(p.weight);
  CpuPatch **at = &w.flipped;
  while (*at && *at != &p) at = &(*at)->next;
  if (*at) *at = p.next;
  else p.next = nullptr, *at = &p;
  list_unsettled(ctx, w);
}

int32_t patch_flip(sb_context *context, sb_patch *const *patches, int64_t count) noexcept {
  for (int64_t i = 0; i < count; i++) note_flip(sb_cpu(context), *static_cast<CpuPatch *>(patches[i]));
  return 0;
}
