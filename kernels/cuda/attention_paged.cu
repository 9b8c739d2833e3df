/*
 * Attention through a paged KV cache, decode rows and prefill chunks alike. How rows and keys are dealt out to blocks
 * depends on the batch; what is computed for a row, and in which order, on nothing but its position.
 */
#include "attention_paged.cuh"
#include "attention_plain.cuh"
#include "attention_tile.cuh"

namespace gpu {

namespace {

/* A warp a row, a lane a key (attention_plain.cuh). */
template <class T>
__global__ void __launch_bounds__(kPlainThreads, 2)
    attention_paged_plain_kernel(const T *q, const T *cache_k, const T *cache_v, int64_t D, Paged p, float scale,
                                 T *o) {
  SHARED(PlainScratch, scratch);
  const PagedTile tile = find_tile(p, kFew);
  if (tile.count == 0) return;
  const int position = position_of(p, tile, plain_warp());
  const auto query = [&](int r) -> const T * { return r < tile.count ? q + tile.line(r, p.N) * D : nullptr; };
  const auto row_of = [&](const T *cache, int j) -> const T * {
    const int64_t line = cache_line(p, tile, j);
    return line < 0 ? nullptr : cache + line * D;
  };
  const auto key = [&](int j) { return row_of(cache_k, j); };
  const auto value = [&](int j) { return row_of(cache_v, j); };
  const PlainRow row = attend_plain(scratch, D, scale, position, tile.last, query, key, value);
  if (position >= 0) store_plain(o + tile.line(plain_warp(), p.N) * D, D, row.values, 1 / row.sum);
}

} // namespace

void attention_paged_plain(Context &ctx, const Paged &p, const PagedTensors &tensors) {
  with_dtype(tensors.dtype, [&](auto zero) {
    using E = decltype(zero);
    launch(ctx, dim3(paged_blocks(p, kFew), plain_column_blocks(tensors.D)), kPlainThreads, 0,
           attention_paged_plain_kernel<E>, static_cast<const E *>(tensors.q), static_cast<const E *>(tensors.cache_k),
           static_cast<const E *>(tensors.cache_v), tensors.D, p, static_cast<float>(tensors.scale),
           static_cast<E *>(tensors.o));
  });
}

/* q[T,N,D] caches[pages][K][page][D] tables[S,max_pages] sequences[T] positions[T] o[T,N,D] */
int32_t attention_paged(sb_context *sb, const void *q, int32_t dtype, int64_t T, int64_t N, int64_t K, int64_t D,
                        const void *cache_k, const void *cache_v, int64_t pages, int64_t page, const int32_t *tables,
                        int64_t S, int64_t max_pages, const int32_t *sequences, const int32_t *positions, double scale,
                        void *o) {
  static constexpr char kName[] = "sb_attention_paged";
  Context &ctx = context(sb);
  const int64_t positions_end = max_pages > INT32_MAX / page ? int64_t{INT32_MAX} : max_pages * page;
  const Paged p = {T, page, max_pages, static_cast<int>(N), static_cast<int>(K),
                   static_cast<unsigned>(page < INT32_MAX ? page : INT32_MAX), tables, sequences, positions,
                   check_index(ctx, kName, "tables", pages), check_index(ctx, kName, "sequences", S),
                   check_index(ctx, kName, "positions", positions_end)};
  const PagedTensors tensors = {q, cache_k, cache_v, o, dtype, D, S, scale};
  if (fits_tiles(dtype, D, scale, {q, cache_k, cache_v, o})) attention_paged_tiles(ctx, p, tensors);
  else attention_paged_plain(ctx, p, tensors);
  return finish(ctx, kName);
}

} // namespace gpu
