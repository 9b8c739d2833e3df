/* NF4 weights: quantizing, creating them from codes, other values for some of their lines. */
#include "grid.cuh"
#include "reduce.cuh"
#include "weight.cuh"

#include "../host/indices.h"

#include <algorithm>

namespace gpu {

namespace {

__constant__ float nf4_borders[15] = {nf4_border(0),  nf4_border(1),  nf4_border(2),  nf4_border(3),  nf4_border(4),
                                      nf4_border(5),  nf4_border(6),  nf4_border(7),  nf4_border(8),  nf4_border(9),
                                      nf4_border(10), nf4_border(11), nf4_border(12), nf4_border(13), nf4_border(14)};

/* Of a value in [-1,1]: how many borders it lies above. */
__device__ __forceinline__ unsigned nf4_nearest(float value) {
  unsigned code = 0;
#pragma unroll
  for (int border = 0; border < 15; border++) code += value > nf4_borders[border] ? 1 : 0;
  return code;
}

/* A warp takes a block of 64 values, a lane two of them, which share a byte. `whole`: the matrix fills the block. Where it
 * does not, bitsandbytes divides, and its scale is never 0. */
template <class T>
__global__ void nf4_quantize_kernel(const T *data, int64_t n, int64_t first, uint8_t *codes, float *absmax,
                                    unsigned long long *broken) {
  const int64_t block = row_of_warp(), i = block * kNf4Block + threadIdx.x * 2;
  if (block * kNf4Block >= n) return;
  float values[2];
#pragma unroll
  for (int j = 0; j < 2; j++) {
    values[j] = i + j < n ? to_float(data[i + j]) : 0.0f;
    if ((__float_as_uint(values[j]) & 0x7f800000u) == 0x7f800000u)
      atomicMin(broken, static_cast<unsigned long long>(first + i + j));
  }
  const bool whole = (block + 1) * kNf4Block <= n;
  const float most = warp_max(fmaxf(fabsf(values[0]), fabsf(values[1])));
  const float divisor = fmaxf(most, kNf4Smallest), inverse = 1.0f / divisor;
  unsigned code[2];
#pragma unroll
  for (int j = 0; j < 2; j++) {
    const float scaled = whole ? values[j] * inverse : values[j] / divisor;
    code[j] = i + j < n ? nf4_nearest(fminf(fmaxf(scaled, -1.0f), 1.0f)) : kNf4Zero;
  }
  if (threadIdx.x == 0) absmax[block] = whole ? most : divisor;
  if (i < n) codes[i / 2] = static_cast<uint8_t>(code[0] << 4 | code[1]);
}

/* Codes as in files to rows that begin at a byte of their own. */
__global__ void nf4_pack_kernel(const uint8_t *flat, int64_t in, int64_t code_stride, uint8_t *codes) {
  const int64_t row = row_of_block(), first = column_of_thread();
  for (int64_t byte = first; byte < first + kFour && byte < code_stride; byte++) {
    unsigned both = 0;
    for (int64_t column = 2 * byte; column < 2 * byte + 2; column++) {
      const int64_t i = row * in + column;
      const unsigned code = column >= in ? kNf4Zero : i % 2 ? flat[i / 2] & 15u : flat[i / 2] >> 4;
      both = both << 4 | code;
    }
    codes[row * code_stride + byte] = static_cast<uint8_t>(both);
  }
}

/* lines[slot of indices[j]] = values[j,·] */
__global__ void nf4_write_rows_kernel(const int32_t *indices, const int32_t *slots, const float *values, int64_t in,
                                      bf16 *lines) {
  const int64_t j = row_of_block(), i = column_of_thread();
  if (i >= in) return;
  store_four(lines + slots[indices[j]] * in, i, in, load_four(values + j * in, i, in));
}

/* lines[slot of indices[j]] = values[·,j] */
__global__ void nf4_write_columns_kernel(const int32_t *indices, const int32_t *slots, const float *values, int64_t out,
                                         int64_t n, bf16 *lines) {
  const int64_t row = row_of_warp();
  if (row >= out) return;
  for (int64_t j = threadIdx.x; j < n; j += kWarpLanes)
    lines[slots[indices[j]] * out + row] = to_element<bf16>(values[row * n + j]);
}

} // namespace

/* data[out,in], codes[⌈out·in/2⌉], absmax[⌈out·in/64⌉] on the host; a piece after the other through the device. */
int32_t nf4_quantize(sb_context *sb, const void *data, int32_t dtype, int64_t out, int64_t in, uint8_t *codes,
                     float *absmax) {
  constexpr int64_t kPiece = 4 << 20, kFlagBytes = 256; /* values */
  Context &ctx = context(sb);
  const int64_t n = out * in, size = dtype == SB_F32 ? 4 : 2, piece = n < kPiece ? ceil_div(n, kNf4Block) * kNf4Block : kPiece;
  const int64_t bytes = kFlagBytes + piece * size + piece / 2 + piece / kNf4Block * 4;
  auto *scratch = static_cast<unsigned char *>(device_memory(bytes));
  if (!scratch) return sb_fail("sb_nf4_quantize: %lld bytes could not be allocated", static_cast<long long>(bytes));
  auto *broken = reinterpret_cast<unsigned long long *>(scratch);
  unsigned char *values = scratch + kFlagBytes;
  auto *scales = reinterpret_cast<float *>(values + piece * size);
  auto *made = reinterpret_cast<uint8_t *>(scales + piece / kNf4Block);
  cudaMemsetAsync(broken, 0xff, sizeof *broken, ctx.stream);
  for (int64_t first = 0; first < n; first += piece) {
    const int64_t count = n - first < piece ? n - first : piece;
    upload(ctx, values, static_cast<const unsigned char *>(data) + first * size, count * size);
    with_weight_dtype(dtype, [&](auto zero) {
      using T = decltype(zero);
      launch(ctx, warp_grid(nf4_blocks(count)), warp_block(), 0, nf4_quantize_kernel<T>,
             reinterpret_cast<const T *>(values), count, first, made, scales, broken);
    });
    cudaMemcpyAsync(codes + first / 2, made, static_cast<size_t>((count + 1) / 2), cudaMemcpyDefault, ctx.stream);
    cudaMemcpyAsync(absmax + first / kNf4Block, scales, static_cast<size_t>(nf4_blocks(count) * 4), cudaMemcpyDefault,
                    ctx.stream);
  }
  unsigned long long at = 0;
  cudaMemcpyAsync(&at, broken, sizeof at, cudaMemcpyDefault, ctx.stream);
  const int32_t failed = wait(ctx, "sb_nf4_quantize");
  free_device_memory(ctx, scratch);
  return failed || at == ~0ull ? failed : weight_not_finite(out, in, static_cast<int64_t>(at));
}

/* ---- creation ----------------------------------------------------------------------------------------------------- */

/* codes, absmax as above. */
int32_t weight_create_nf4(sb_context *sb, const uint8_t *codes, const float *absmax, int64_t out, int64_t in,
                          int32_t dtype, int32_t compute, sb_weight **weight) {
  if (check_nf4_scales(absmax, out, in)) return 1;
  Context &ctx = context(sb);
  const int64_t stride = nf4_code_stride(in), flat_bytes = (out * in + 1) / 2, scale_bytes = nf4_blocks(out * in) * 4;
  Weight *w = new_weight(ctx, out, in, SB_NF4, compute, out * stride + scale_bytes);
  w->rounding = dtype;
  w->codes = static_cast<uint8_t *>(device_memory(out * stride));
  w->absmax = static_cast<float *>(device_memory(scale_bytes));
  const bool direct = in % 32 == 0;
  auto *flat = direct ? w->codes : static_cast<uint8_t *>(device_memory(flat_bytes));
  if (!w->codes || !w->absmax || !flat) {
    if (!direct) free_device_memory(ctx, flat);
    const int64_t bytes = w->bytes;
    weight_free(sb, w);
    return weight_out_of_memory(out, in, bytes);
  }
  upload(ctx, flat, codes, flat_bytes);
  upload(ctx, w->absmax, absmax, scale_bytes);
  if (!direct) {
    launch(ctx, row_grid(out, stride), kThreads, 0, nf4_pack_kernel, flat, in, stride, w->codes);
    free_device_memory(ctx, flat);
  }
  *weight = w;
  return finish(ctx, "sb_weight_create_nf4");
}

/* ---- replaced lines ------------------------------------------------------------------------------------------------- */

static int64_t line_bytes(const ReplacedLines &lines, int64_t limit) {
  const int64_t count = static_cast<int64_t>(lines.indices.size());
  return count > 0 ? count * lines.length * 2 + limit * 4 : 0;
}

static void count_lines(Context &ctx, Weight &w, int64_t bytes) {
  w.bytes += bytes;
  ctx.allocated += bytes;
}

static void drop(Context &ctx, Weight &w, ReplacedLines &lines, int64_t limit) {
  count_lines(ctx, w, -line_bytes(lines, limit));
  free_device_memory(ctx, lines.slots);
  free_device_memory(ctx, lines.values);
  lines = {{}, lines.length, nullptr, nullptr};
}

/* Makes room for lines chosen[n] beside those that are replaced already, which keep their slots and values. */
static int32_t make_room(Context &ctx, const char *function, Weight &w, ReplacedLines &lines, const int32_t *chosen,
                         int64_t n, int64_t limit) {
  std::vector<int32_t> slots(static_cast<size_t>(limit), -1), indices = lines.indices;
  for (size_t slot = 0; slot < indices.size(); slot++) slots[indices[slot]] = static_cast<int32_t>(slot);
  for (int64_t j = 0; j < n; j++) {
    if (slots[chosen[j]] >= 0) continue;
    slots[chosen[j]] = static_cast<int32_t>(indices.size());
    indices.push_back(chosen[j]);
  }
  if (indices.size() == lines.indices.size()) return 0;
  const int64_t line = lines.length * 2, bytes = static_cast<int64_t>(indices.size()) * line;
  void *on_device = lines.slots ? lines.slots : device_memory(limit * 4), *values = device_memory(bytes);
  if (!on_device || !values) {
    if (!lines.slots) free_device_memory(ctx, on_device);
    free_device_memory(ctx, values);
    return sb_fail("%s: %lld bytes for replaced lines could not be allocated", function, static_cast<long long>(bytes));
  }
  upload(ctx, on_device, slots.data(), limit * 4);
  const int64_t kept = static_cast<int64_t>(lines.indices.size()) * line;
  if (kept > 0) cudaMemcpyAsync(values, lines.values, static_cast<size_t>(kept), cudaMemcpyDefault, ctx.stream);
  free_device_memory(ctx, lines.values);
  count_lines(ctx, w, -line_bytes(lines, limit));
  lines = {std::move(indices), lines.length, static_cast<int32_t *>(on_device), values};
  count_lines(ctx, w, line_bytes(lines, limit));
  return 0;
}

/* The host has to know which lines: it allocates for them. */
static int32_t read_indices(Context &ctx, const char *function, const char *name, const int32_t *indices, int64_t n,
                            int64_t limit, std::vector<int32_t> &chosen) {
  chosen.resize(static_cast<size_t>(n));
  cudaMemcpyAsync(chosen.data(), indices, static_cast<size_t>(n * 4), cudaMemcpyDefault, ctx.stream);
  return wait(ctx, function) || check_indices(function, name, chosen.data(), n, limit);
}

/* values[n,in] */
int32_t nf4_write_rows(Context &ctx, Weight &w, const int32_t *rows, int64_t n, const float *values) {
  static constexpr char kFunction[] = "sb_weight_write_rows";
  if (n == 0) return 0;
  std::vector<int32_t> chosen;
  const int64_t other = static_cast<int64_t>(w.columns.indices.size());
  if (other > 0) return replaced_already(kFunction, other, "columns");
  if (read_indices(ctx, kFunction, "rows", rows, n, w.out, chosen)) return 1;
  if (make_room(ctx, kFunction, w, w.rows, chosen.data(), n, w.out)) return 1;
  launch(ctx, row_grid(n, w.in), kThreads, 0, nf4_write_rows_kernel, rows, w.rows.slots, values, w.in,
         static_cast<bf16 *>(w.rows.values));
  return finish(ctx, kFunction);
}

/* values[out,n] */
int32_t nf4_write_columns(Context &ctx, Weight &w, const int32_t *columns, int64_t n, const float *values) {
  static constexpr char kFunction[] = "sb_weight_write_columns";
  if (n == 0) return 0;
  std::vector<int32_t> chosen;
  const int64_t other = static_cast<int64_t>(w.rows.indices.size());
  if (other > 0) return replaced_already(kFunction, other, "rows");
  if (read_indices(ctx, kFunction, "columns", columns, n, w.in, chosen)) return 1;
  if (make_room(ctx, kFunction, w, w.columns, chosen.data(), n, w.in)) return 1;
  launch(ctx, warp_grid(w.out), warp_block(), 0, nf4_write_columns_kernel, columns, w.columns.slots, values, w.out, n,
         static_cast<bf16 *>(w.columns.values));
  return finish(ctx, kFunction);
}

int32_t weight_drop_replaced(sb_context *sb, sb_weight *weight) {
  Context &ctx = context(sb);
  Weight &w = held(weight);
  drop(ctx, w, w.columns, w.in);
  drop(ctx, w, w.rows, w.out);
  return finish(ctx, "sb_weight_drop_replaced");
}

void nf4_free(Context &ctx, Weight &w) {
  free_device_memory(ctx, w.codes);
  free_device_memory(ctx, w.absmax);
  for (ReplacedLines *lines : {&w.columns, &w.rows}) {
    free_device_memory(ctx, lines->slots);
    free_device_memory(ctx, lines->values);
  }
}

} // namespace gpu
