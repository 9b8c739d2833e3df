/* Philox4x32-10 (Salmon et al. 2011) and the dropout mask made from it. */
#pragma once
#include "device.h"
#include "../sbora.h"

namespace gpu {

/* Four words of a counter of four words under a 64-bit key. */
__device__ __forceinline__ uint4 philox(uint4 counter, uint64_t key) {
  constexpr unsigned kFactor0 = 0xD2511F53u, kFactor1 = 0xCD9E8D57u;
  unsigned key0 = static_cast<unsigned>(key), key1 = static_cast<unsigned>(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    counter = make_uint4(__umulhi(counter.z, kFactor1) ^ counter.y ^ key0, counter.z * kFactor1,
                         __umulhi(counter.x, kFactor0) ^ counter.w ^ key1, counter.x * kFactor0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

__device__ __forceinline__ unsigned word_of(const uint4 &words, int64_t lane) {
  const unsigned low = lane & 1 ? words.y : words.x, high = lane & 1 ? words.w : words.z;
  return lane & 2 ? high : low;
}

/* What features are multiplied by (sb_dropout in sbora.h). */
struct DropoutMask {
  bool active;        /* false: every factor is 1 */
  unsigned threshold; /* words below it drop their feature */
  float kept;         /* factor of the others */
  unsigned module;
  uint64_t key;
  const int32_t *record, *position;

  __device__ __forceinline__ uint4 words(int64_t t, int64_t four) const {
    return philox(make_uint4(static_cast<unsigned>(four), static_cast<unsigned>(position[t]),
                             static_cast<unsigned>(record[t]), module),
                  key);
  }
  __device__ __forceinline__ float factor_of(unsigned word) const { return word < threshold ? 0.0f : kept; }
  __device__ __forceinline__ float factor(int64_t t, int64_t feature) const {
    return active ? factor_of(word_of(words(t, feature / 4), feature % 4)) : 1.0f;
  }
};

/* drop NULL: no dropout. */
inline DropoutMask dropout_mask(const sb_dropout *drop) {
  if (!drop || drop->p <= 0) return {};
  return {true,
          static_cast<unsigned>(drop->p * 4294967296.0),
          static_cast<float>(1 / (1 - drop->p)),
          static_cast<unsigned>(drop->module),
          drop->key,
          drop->record,
          drop->position};
}

} // namespace gpu
