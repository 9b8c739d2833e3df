/*
 * Philox4x32-10 (Salmon et al. 2011) and the two fills made of it. Element i takes lane i%4 of
 * philox(counter = (i/4 low, i/4 high, 0, 0), key), as u = (word + 0.5) / 2³²:
 *     uniform  low + (high - low)·u
 *     normal   Box-Muller of lanes (0,1) and (2,3): √(-2 ln u0)·cos 2πu1, then √(-2 ln u0)·sin 2πu1
 */
#include "reference.h"

namespace reference {

/* A round: two 32 x 32 bit products, their halves crossed with the other words and the key; the key then moves on. */
Words philox(Words counter, uint64_t key) {
  uint32_t *c = counter.lane;
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; round++) {
    const uint64_t product0 = uint64_t{0xD2511F53} * c[0], product1 = uint64_t{0xCD9E8D57} * c[2];
    counter = {{static_cast<uint32_t>(product1 >> 32) ^ c[1] ^ key0, static_cast<uint32_t>(product1),
                static_cast<uint32_t>(product0 >> 32) ^ c[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return counter;
}

static Words block_of(int64_t i, uint64_t key) {
  const uint64_t block = static_cast<uint64_t>(i) / 4;
  return philox({{static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), 0, 0}}, key);
}

static double unit(uint32_t word) { return (word + 0.5) / 4294967296.0; }

/* x[n] */
int32_t random_uniform(sb_context *, uint64_t key, double low, double high, int64_t n, void *x) {
  for (int64_t i = 0; i < n; i++)
    store(x, SB_F32, i, low + (high - low) * unit(block_of(i, key).lane[i % 4]));
  return 0;
}

/* x[n] */
int32_t random_normal(sb_context *, uint64_t key, int64_t n, void *x) {
  for (int64_t i = 0; i < n; i++) {
    const Words words = block_of(i, key);
    const int64_t pair = i % 4 / 2 * 2; /* the lane where this element's pair begins */
    const double radius = sqrt(-2 * log(unit(words.lane[pair]))), angle = 2 * M_PI * unit(words.lane[pair + 1]);
    store(x, SB_F32, i, radius * (i % 2 == 0 ? cos(angle) : sin(angle)));
  }
  return 0;
}

} // namespace reference
