/* Rows of k and v into their slots of the paged cache: a block a row. */
#include "grid.cuh"
#include "indices.cuh"

namespace gpu {

namespace {

/* words: of a head. */
template <class Word>
__global__ void kv_write_kernel(const Word *k, const Word *v, int64_t K, int64_t words, const int32_t *slots,
                                int64_t page, Word *cache_k, Word *cache_v, IndexCheck check) {
  const int64_t t = blockIdx.x, slot = slots[t];
  if (!check.good(t, slot)) return;
  const int64_t from = t * K * words, to = slot / page * K * page + slot % page; /* the line of head 0 */
  for (int64_t i = threadIdx.x; i < K * words; i += kThreads) {
    const int64_t at = (to + i / words * page) * words + i % words;
    cache_k[at] = k[from + i];
    cache_v[at] = v[from + i];
  }
}

} // namespace

/* k[T,K,D] v[T,K,D] slots[T] cache_k, cache_v[pages][K][page][D] */
int32_t kv_write(sb_context *sb, const void *k, const void *v, int32_t dtype, int64_t T, int64_t K, int64_t D,
                 const int32_t *slots, int64_t pages, int64_t page, void *cache_k, void *cache_v) {
  Context &ctx = context(sb);
  const int64_t bytes = D * (dtype == SB_F32 ? 4 : 2);
  const IndexCheck check = check_index(ctx, "sb_kv_write", "slots", pages * page);
  const auto start = [&](auto zero) {
    using Word = decltype(zero);
    launch(ctx, dim3(static_cast<unsigned>(T)), kThreads, 0, kv_write_kernel<Word>, static_cast<const Word *>(k),
           static_cast<const Word *>(v), K, bytes / static_cast<int64_t>(sizeof(Word)), slots, page,
           static_cast<Word *>(cache_k), static_cast<Word *>(cache_v), check);
  };
  uintptr_t all = static_cast<uintptr_t>(bytes);
  for (const void *tensor : {k, v, static_cast<const void *>(cache_k), static_cast<const void *>(cache_v)})
    all |= reinterpret_cast<uintptr_t>(tensor);
  if (all % sizeof(uint4) == 0) start(uint4{});
  else start(uint16_t{});
  return finish(ctx, "sb_kv_write");
}

} // namespace gpu
