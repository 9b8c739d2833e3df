/* What the ops of a transformer block share: typed loads and stores, and rows or elements cut into tasks. */
#pragma once

template <int32_t dtype>
SB_INLINE void store_elements(void *data, int64_t offset, vf v) {
  if constexpr (dtype == SB_F32) vf_store(static_cast<float *>(data) + offset, v);
  else vf_store_bf16(static_cast<uint16_t *>(data) + offset, v);
}
/* The first n lanes (0 < n <= kLanes); load_some (product_pack.h) is its twin. */
template <int32_t dtype>
SB_INLINE void store_part(void *data, int64_t offset, vf v, int64_t n) {
  if (n >= kLanes) return store_elements<dtype>(data, offset, v);
  if constexpr (dtype == SB_F32) {
    vf_store_some(static_cast<float *>(data) + offset, v, n);
  } else {
    uint16_t some[kLanes];
    vf_store_bf16(some, v);
    memcpy(static_cast<uint16_t *>(data) + offset, some, n * sizeof *some);
  }
}

template <int32_t dtype>
SB_INLINE float load_one(const void *data, int64_t i) {
  if constexpr (dtype == SB_F32) return static_cast<const float *>(data)[i];
  else return bf16_to_f32(static_cast<const uint16_t *>(data)[i]);
}
template <int32_t dtype>
SB_INLINE void store_one(void *data, int64_t i, float value) {
  if constexpr (dtype == SB_F32) static_cast<float *>(data)[i] = value;
  else static_cast<uint16_t *>(data)[i] = f32_to_bf16(value);
}

SB_INLINE vf vf_sqrt(vf v) {
#if SB_ISA_LEVEL >= 2
  return _mm512_sqrt_ps(v);
#elif SB_ISA_LEVEL == 1
  return _mm256_sqrt_ps(v);
#else
  for (int64_t i = 0; i < kLanes; i++) v[i] = sqrtf(v[i]);
  return v;
#endif
}
/* Whether a > b in any lane. */
SB_INLINE bool vf_any_greater(vf a, vf b) {
#if SB_ISA_LEVEL >= 2
  return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
#elif SB_ISA_LEVEL == 1
  return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0;
#else
  const vi greater = a > b;
  int32_t any = 0;
  for (int64_t i = 0; i < kLanes; i++) any |= greater[i];
  return any != 0;
#endif
}

/* A dtype known only at run time as a template argument: with_dtype(dtype, [&](auto d) { load_one<d()>(..); }). */
template <int32_t dtype>
struct Dtype {
  constexpr int32_t operator()() const { return dtype; }
};
template <class Body>
SB_INLINE void with_dtype(int32_t dtype, const Body &body) {
  if (dtype == SB_F32) body(Dtype<SB_F32>{});
  else body(Dtype<SB_BF16>{});
}

constexpr int64_t kTaskElements = 1 << 14; /* about 10 µs of a light op: below it a second thread does not pay */

/* body(first, last) over [0, rows) in ranges of about kTaskElements elements; width: elements of a row. */
template <class Body>
void parallel_rows(sb_cpu_context &ctx, int64_t rows, int64_t width, const Body &body) {
  const int64_t step = product_max(kTaskElements / product_max(width, 1), 1), tasks = (rows + step - 1) / step;
  parallel(ctx, tasks, [&](int64_t task, int32_t) { body(task * step, product_min((task + 1) * step, rows)); });
}
/*
 * body(first, last) over slices of [0, columns), multiples of kColumnGroup but for the end, for sums that run over all
 * rows: a column belongs to one task, which takes the rows in order, and its sum does not depend on the slice.
 */
constexpr int64_t kColumnGroup = 64;
template <class Body>
void parallel_columns(sb_cpu_context &ctx, int64_t rows, int64_t columns, const Body &body) {
  const int64_t light = rows * columns <= kTaskElements ? columns : columns / (4 * ctx.threads);
  const int64_t slice = (product_max(light, 1) + kColumnGroup - 1) / kColumnGroup * kColumnGroup;
  parallel(ctx, (columns + slice - 1) / slice, [&](int64_t task, int32_t) {
    body(task * slice, product_min((task + 1) * slice, columns));
  });
}

/* Σ over [0, n) in f32, four chains in a fixed order: add(sum, i, valid) adds elements i..i+valid-1. */
template <class Add>
SB_INLINE float sum_row(int64_t n, const Add &add) {
  vf sums[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int64_t chain = 0; chain < 4; chain++)
      sums[chain] = add(sums[chain], i + chain * kLanes, kLanes);
  for (int64_t chain = 0; i < n; i += kLanes, chain++)
    sums[chain] = add(sums[chain], i, product_min(n - i, kLanes));
  return vf_sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

/*
 * out[columns] += Σ over rows / divisor (NULL: 1), in row order, runs of 64 rows summed apart: thousands of rows lose
 * little in f32. add(sum, row, column, valid): valid may exceed kLanes, or be 0 or less (no lane).
 */
template <class Add>
void sum_columns(sb_cpu_context &ctx, int64_t rows, int64_t columns, const float *divisor, float *out,
                 const Add &add) {
  constexpr int64_t kVectors = kColumnGroup / kLanes, kRun = 64;
  parallel_columns(ctx, rows, columns, [&](int64_t first, int64_t last) {
    for (int64_t column = first; column < last; column += kColumnGroup) {
      vf totals[kVectors] = {};
      for (int64_t row = 0; row < rows; row += kRun) {
        vf sums[kVectors] = {};
        for (int64_t i = row; i < product_min(row + kRun, rows); i++)
          for (int64_t v = 0; v < kVectors; v++)
            sums[v] = add(sums[v], i, column + v * kLanes, last - column - v * kLanes);
        for (int64_t v = 0; v < kVectors; v++) totals[v] = totals[v] + sums[v];
      }
      for (int64_t v = 0, at = column; v < kVectors && at < last; v++, at += kLanes) {
        const vf sum = divisor ? totals[v] / load_some<SB_F32>(divisor, at, last - at) : totals[v];
        store_part<SB_F32>(out, at, load_some<SB_F32>(out, at, last - at) + sum, last - at);
      }
    }
  });
}
