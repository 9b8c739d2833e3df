#include "weight_memory.h"
#include "../host/memory.h"
#include <cstdlib>

struct WeightBlock {
  unsigned char *memory;
  int64_t bytes, used;
  int64_t matrices; /* alive */
};

namespace {

constexpr int64_t kBlockBytes = 32 << 20;

void give_back(WeightBlock *block) {
  free(block->memory);
  free(block);
}

WeightBlock *create_block(int64_t bytes) {
  void *memory = nullptr;
  WeightBlock *block = static_cast<WeightBlock *>(malloc(sizeof(WeightBlock)));
  if (!block || posix_memalign(&memory, kHugePage, bytes)) {
    free(block);
    return nullptr;
  }
  host_prefer_huge_pages(memory, bytes);
  *block = {static_cast<unsigned char *>(memory), bytes, 0, 0};
  return block;
}

} // namespace

unsigned char *weight_memory(WeightBlock *&current, int64_t bytes, WeightBlock **block) noexcept {
  const int64_t rounded = (bytes + 63) / 64 * 64;
  if (SB_EXACT_MEMORY || !current || current->used + rounded > current->bytes) {
    const int64_t pages = (rounded + kHugePage - 1) / kHugePage;
    const int64_t shared = pages * kHugePage > kBlockBytes ? pages * kHugePage : kBlockBytes;
    WeightBlock *fresh = create_block(SB_EXACT_MEMORY ? bytes : shared);
    if (!fresh) return nullptr;
    current = fresh;
  }
  unsigned char *memory = current->memory + current->used;
  current->used += rounded;
  current->matrices++;
  *block = current;
  return memory;
}

void weight_memory_free(WeightBlock *&current, WeightBlock *block) noexcept {
  if (--block->matrices > 0) return;
  if (block == current) current = nullptr;
  give_back(block);
}
