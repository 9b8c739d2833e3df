/*
 * The k largest log-softmax values of a row, a block a row. Value and id make one 64-bit key, so that no two are equal and
 * ties are in order of id; the least of the k keys is found digit by digit, and those from it on are sorted.
 */
#include "grid.cuh"
#include "reduce.cuh"

namespace gpu {

namespace {

constexpr int kTopThreads = 1024;
constexpr int kTopMost = 256; /* as sb_topk_log_softmax allows */
constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;

using Key = unsigned long long;

/* The larger key stands before the other. NaN counts as -infinity. */
__device__ __forceinline__ Key key_of(float value, int64_t id) {
  const float plain = value == value ? value + 0.0f : -INFINITY; /* -0 becomes 0 */
  const unsigned bits = __float_as_uint(plain);
  const unsigned ordered = bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
  return Key{ordered} << 32 | (0xffffffffu - static_cast<unsigned>(id));
}
__device__ __forceinline__ float value_of(Key key) {
  const unsigned ordered = static_cast<unsigned>(key >> 32);
  return __uint_as_float(ordered ^ (ordered >> 31 ? 0x80000000u : 0xffffffffu));
}
__device__ __forceinline__ int32_t id_of(Key key) {
  return static_cast<int32_t>(0xffffffffu - static_cast<unsigned>(key));
}

/* What the search has settled: the leading digits of the least wanted key, and how many keys that begin so are wanted. */
struct Search {
  Key prefix;
  int wanted, shift; /* bits below the prefix */
  bool whole;        /* all keys that begin so are wanted */
};

/* One digit more, from the number of keys that go on with each. */
__device__ void settle_digit(Search &search, const int *counts) {
  int digit = kDigits - 1;
  while (counts[digit] < search.wanted) search.wanted -= counts[digit--];
  search.prefix = search.prefix << kDigitBits | static_cast<Key>(digit);
  search.whole = counts[digit] == search.wanted;
}

/* The least of the k largest keys of row[V]; every thread gets it. */
__device__ Key least_wanted(const float *row, int64_t V, int k) {
  SHARED(int[kDigits], counts);
  SHARED(Search, search);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) search = {0, k, 64, false};
  do {
    if (thread < kDigits) counts[thread] = 0;
    __syncthreads();
    const Key prefix = search.prefix;
    const int above = search.shift, shift = above - kDigitBits;
    for (int64_t v = thread; v < V; v += kTopThreads) {
      const Key key = key_of(row[v], v);
      if (above == 64 || key >> above == prefix) atomicAdd(&counts[key >> shift & (kDigits - 1)], 1);
    }
    __syncthreads();
    if (thread == 0) {
      settle_digit(search, counts);
      search.shift = shift;
    }
    __syncthreads();
  } while (!search.whole && search.shift > 0);
  return search.prefix << search.shift;
}

/* keys[kTopMost] descending, by a bitonic network. */
__device__ void sort_keys(Key *keys) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int size = 2; size <= kTopMost; size *= 2)
    for (int distance = size / 2; distance > 0; distance /= 2) {
      const int low = thread / distance * 2 * distance + thread % distance, high = low + distance;
      if (high < kTopMost && thread < kTopMost / 2) {
        const bool descending = (low & size) == 0;
        const Key a = keys[low], b = keys[high];
        if ((a < b) == descending) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      __syncthreads();
    }
}

__global__ void __launch_bounds__(kTopThreads)
    topk_kernel(const float *logits, int64_t V, int k, float *values, int32_t *ids) {
  SHARED(Key[kTopMost], top);
  SHARED(int, found);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t row = blockIdx.x;
  const float *from = logits + row * V;
  if (thread < kTopMost) top[thread] = 0;
  if (thread == 0) found = 0;
  const Key least = least_wanted(from, V, k);
  for (int64_t v = thread; v < V; v += kTopThreads) {
    const Key key = key_of(from[v], v);
    if (key >= least) top[atomicAdd(&found, 1)] = key;
  }
  __syncthreads();
  sort_keys(top);
  const float most = value_of(top[0]);
  double sum = 0;
  for (int64_t v = thread; v < V; v += kTopThreads) sum += expf(from[v] - most);
  const double log_sum = most + log(block_sum<kTopThreads>(sum));
  if (thread >= k) return;
  values[row * k + thread] = static_cast<float>(value_of(top[thread]) - log_sum);
  ids[row * k + thread] = id_of(top[thread]);
}

} // namespace

/* logits[R,V] values[R,k] ids[R,k] */
int32_t topk_log_softmax(sb_context *sb, const void *logits, int64_t R, int64_t V, int64_t k, void *values,
                         int32_t *ids) {
  Context &ctx = context(sb);
  launch(ctx, dim3(static_cast<unsigned>(R)), kTopThreads, 0, topk_kernel, static_cast<const float *>(logits), V,
         static_cast<int>(k), static_cast<float *>(values), ids);
  return finish(ctx, "sb_topk_log_softmax");
}

} // namespace gpu
