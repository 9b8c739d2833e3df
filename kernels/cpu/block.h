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
