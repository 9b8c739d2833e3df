/* Frozen weights: row-major as in files, rows padded to 16 bytes, rounded to bf16 where products are computed so. */
#include "weight.cuh"

#include "grid.cuh"
#include "indices.cuh"
#include "reduce.cuh"

#include <new>

namespace gpu {

namespace {

/* Rows as they were uploaded, to rows of the weight with zeros behind them; broken: the lowest place (of the whole
 * matrix) that is not finite. from may be to. */
template <class From, class To>
__global__ void weight_take_kernel(const From *from, int64_t in, int64_t first_row, To *to, int64_t stride,
                                   unsigned long long *broken) {
  const int64_t row = row_of_block(), i = column_of_thread();
  if (i >= stride) return;
  const Four v = load_four(from + row * in, i, in);
  for (int j = 0; j < kFour; j++)
    if ((__float_as_uint(v.at[j]) & 0x7f800000u) == 0x7f800000u)
      atomicMin(broken, static_cast<unsigned long long>((first_row + row) * in + i + j));
  if (static_cast<const void *>(from) != static_cast<const void *>(to)) store_four(to + row * stride, i, stride, v);
}

template <class View>
__global__ void weight_read_rows_kernel(View weight, const int32_t *rows, IndexCheck check, float *values) {
  const int64_t n = row_of_block(), i = column_of_thread();
  if (i >= weight.in || !check.good(n, rows[n])) return;
  store_four(values + n * weight.in, i, weight.in, weight.four(rows[n], i));
}

template <class T>
__global__ void weight_write_rows_kernel(T *data, int64_t stride, int64_t in, const int32_t *rows, IndexCheck check,
                                         const float *values) {
  const int64_t n = row_of_block(), i = column_of_thread();
  if (i >= in || !check.good(n, rows[n])) return;
  store_four(data + rows[n] * stride, i, in, load_four(values + n * in, i, in));
}

/* A warp takes a row: its columns lie in the same few lines of memory, and values are read and written side by side. */
template <class View>
__global__ void weight_read_columns_kernel(View weight, int64_t out, const int32_t *columns, int64_t n,
                                           IndexCheck check, float *values) {
  const int64_t row = row_of_warp();
  if (row >= out) return;
  for (int64_t j = threadIdx.x; j < n; j += kWarpLanes)
    if (check.good(j, columns[j])) values[row * n + j] = weight.one(row, columns[j]);
}

template <class T>
__global__ void weight_write_columns_kernel(T *data, int64_t stride, int64_t out, const int32_t *columns, int64_t n,
                                            IndexCheck check, const float *values) {
  const int64_t row = row_of_warp();
  if (row >= out) return;
  for (int64_t j = threadIdx.x; j < n; j += kWarpLanes)
    if (check.good(j, columns[j])) data[row * stride + columns[j]] = to_element<T>(values[row * n + j]);
}

template <class View> __global__ void weight_row_squares_kernel(View weight, int64_t out, float *squares) {
  const int64_t row = row_of_warp();
  if (row >= out) return;
  float sum = 0;
  for (int64_t i = threadIdx.x * kFour; i < weight.in; i += kWarpLanes * kFour) {
    const Four v = weight.four(row, i);
#pragma unroll
    for (int j = 0; j < kFour; j++) sum = fmaf(v.at[j], v.at[j], sum);
  }
  sum = warp_sum(sum);
  if (threadIdx.x == 0) squares[row] = sum;
}

int64_t element_bytes(int32_t dtype) { return dtype == SB_F32 ? 4 : 2; }

} // namespace

/* ---- creation ----------------------------------------------------------------------------------------------------- */

Weight *new_weight(Context &ctx, int64_t out, int64_t in, int32_t dtype, int32_t compute, int64_t bytes) {
  auto *w = new Weight();
  w->out = out;
  w->in = in;
  w->dtype = dtype;
  w->compute = compute;
  w->columns.length = out;
  w->rows.length = in;
  w->bytes = bytes;
  ctx.allocated += bytes;
  return w;
}

int32_t weight_out_of_memory(int64_t out, int64_t in, int64_t bytes) {
  return sb_fail("weight [%lld,%lld]: %lld bytes could not be allocated", static_cast<long long>(out),
                 static_cast<long long>(in), static_cast<long long>(bytes));
}

int32_t weight_not_finite(int64_t out, int64_t in, int64_t index) {
  return sb_fail("weight [%lld,%lld]: NaN or infinity in row %lld, column %lld", static_cast<long long>(out),
                 static_cast<long long>(in), static_cast<long long>(index / in), static_cast<long long>(index % in));
}

/* Uploads rows to `through`, a strip at a time, or straight to where they stay (through NULL), and takes them from
 * there. */
static void take_rows(Context &ctx, Weight &w, const void *data, int32_t dtype, void *through, int64_t strip,
                      unsigned long long *broken) {
  const int64_t row_bytes = w.in * element_bytes(dtype), held_bytes = w.stride * element_bytes(w.dtype);
  for (int64_t row = 0; row < w.out; row += strip) {
    const int64_t rows = w.out - row < strip ? w.out - row : strip;
    unsigned char *to = static_cast<unsigned char *>(w.data) + row * held_bytes;
    void *at = through ? through : to;
    upload(ctx, at, static_cast<const unsigned char *>(data) + row * row_bytes, rows * row_bytes);
    with_weight_dtype(dtype, [&](auto from) {
      with_weight_dtype(w.dtype, [&](auto held) {
        using From = decltype(from);
        using To = decltype(held);
        launch(ctx, row_grid(rows, w.stride), kThreads, 0, weight_take_kernel<From, To>,
               static_cast<const From *>(at), w.in, row, reinterpret_cast<To *>(to), w.stride, broken);
      });
    });
  }
}

int32_t weight_create(sb_context *sb, const void *data, int32_t dtype, int64_t out, int64_t in, int32_t compute,
                      sb_weight **weight) {
  constexpr int64_t kStripBytes = 32 << 20, kFlagBytes = 256;
  Context &ctx = context(sb);
  const int32_t held_as = compute == SB_BF16 ? SB_BF16 : dtype;
  const int64_t size = element_bytes(held_as), stride = ceil_div(in * size, 16) * 16 / size, bytes = out * stride * size;
  const bool direct = held_as == dtype && stride == in;
  const int64_t row_bytes = in * element_bytes(dtype), most = kStripBytes / row_bytes;
  const int64_t strip = most < 1 ? 1 : most < out ? most : out;
  Weight *w = new_weight(ctx, out, in, held_as, compute, bytes);
  w->stride = stride;
  w->data = device_memory(bytes);
  auto *scratch = static_cast<unsigned char *>(device_memory(kFlagBytes + (direct ? 0 : strip * row_bytes)));
  if (!w->data || !scratch) {
    free_device_memory(ctx, scratch);
    weight_free(sb, w);
    return weight_out_of_memory(out, in, bytes);
  }
  auto *broken = reinterpret_cast<unsigned long long *>(scratch);
  cudaMemsetAsync(broken, 0xff, sizeof *broken, ctx.stream);
  take_rows(ctx, *w, data, dtype, direct ? nullptr : scratch + kFlagBytes, strip, broken);
  unsigned long long at = 0;
  cudaMemcpyAsync(&at, broken, sizeof at, cudaMemcpyDefault, ctx.stream);
  int32_t failed = wait(ctx, "sb_weight_create");
  free_device_memory(ctx, scratch);
  if (!failed && at != ~0ull) failed = weight_not_finite(out, in, static_cast<int64_t>(at));
  if (failed) weight_free(sb, w);
  else *weight = w;
  return failed;
}

int32_t weight_free(sb_context *sb, sb_weight *weight) {
  Context &ctx = context(sb);
  Weight &w = held(weight);
  ctx.allocated -= w.bytes;
  free_device_memory(ctx, w.data);
  nf4_free(ctx, w);
  delete &w;
  return 0;
}

/* ---- reading and writing -------------------------------------------------------------------------------------------- */

/* rows[n] values[n,in] */
int32_t weight_read_rows(sb_context *sb, const sb_weight *weight, const int32_t *rows, int64_t n, void *values) {
  Context &ctx = context(sb);
  const IndexCheck check = check_index(ctx, "sb_weight_read_rows", "rows", weight->out);
  with_view(held(weight), [&](auto view) {
    launch(ctx, row_grid(n, weight->in), kThreads, 0, weight_read_rows_kernel<decltype(view)>, view, rows, check,
           static_cast<float *>(values));
  });
  return finish(ctx, "sb_weight_read_rows");
}

int32_t weight_write_rows(sb_context *sb, sb_weight *weight, const int32_t *rows, int64_t n, const void *values) {
  Context &ctx = context(sb);
  Weight &w = held(weight);
  if (w.dtype == SB_NF4) return nf4_write_rows(ctx, w, rows, n, static_cast<const float *>(values));
  const IndexCheck check = check_index(ctx, "sb_weight_write_rows", "rows", w.out);
  with_weight_dtype(w.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(ctx, row_grid(n, w.in), kThreads, 0, weight_write_rows_kernel<T>, static_cast<T *>(w.data), w.stride, w.in,
           rows, check, static_cast<const float *>(values));
  });
  return finish(ctx, "sb_weight_write_rows");
}

/* columns[n] values[out,n] */
int32_t weight_read_columns(sb_context *sb, const sb_weight *weight, const int32_t *columns, int64_t n, void *values) {
  Context &ctx = context(sb);
  const IndexCheck check = check_index(ctx, "sb_weight_read_columns", "columns", weight->in);
  with_view(held(weight), [&](auto view) {
    if (n > 0)
      launch(ctx, warp_grid(weight->out), warp_block(), 0, weight_read_columns_kernel<decltype(view)>, view,
             weight->out, columns, n, check, static_cast<float *>(values));
  });
  return finish(ctx, "sb_weight_read_columns");
}

int32_t weight_write_columns(sb_context *sb, sb_weight *weight, const int32_t *columns, int64_t n,
                             const void *values) {
  Context &ctx = context(sb);
  Weight &w = held(weight);
  if (w.dtype == SB_NF4) return nf4_write_columns(ctx, w, columns, n, static_cast<const float *>(values));
  const IndexCheck check = check_index(ctx, "sb_weight_write_columns", "columns", w.in);
  with_weight_dtype(w.dtype, [&](auto zero) {
    using T = decltype(zero);
    if (n > 0)
      launch(ctx, warp_grid(w.out), warp_block(), 0, weight_write_columns_kernel<T>, static_cast<T *>(w.data),
             w.stride, w.out, columns, n, check, static_cast<const float *>(values));
  });
  return finish(ctx, "sb_weight_write_columns");
}

/* squares[out] */
int32_t weight_row_squares(sb_context *sb, const sb_weight *weight, void *squares) {
  Context &ctx = context(sb);
  with_view(held(weight), [&](auto view) {
    launch(ctx, warp_grid(weight->out), warp_block(), 0, weight_row_squares_kernel<decltype(view)>, view, weight->out,
           static_cast<float *>(squares));
  });
  return finish(ctx, "sb_weight_row_squares");
}

} // namespace gpu
