#include "memory.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

namespace {

constexpr int64_t kAlignment = 64;

/* Stands in the kAlignment bytes before every block. */
struct Header {
  sb_context *owner;
  void *base; /* what calloc returned */
  int64_t bytes;
};
static_assert(sizeof(Header) <= kAlignment);

Header *header_of(void *memory) { return reinterpret_cast<Header *>(static_cast<char *>(memory) - kAlignment); }

} // namespace

void host_prefer_huge_pages(void *memory, int64_t bytes) noexcept {
#if defined(MADV_HUGEPAGE)
  const int64_t address = static_cast<int64_t>(reinterpret_cast<uintptr_t>(memory));
  const int64_t first = (address + kHugePage - 1) / kHugePage * kHugePage;
  const int64_t last = (address + bytes) / kHugePage * kHugePage;
  if (last > first) madvise(reinterpret_cast<void *>(first), last - first, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

int32_t host_sync(sb_context *) noexcept { return 0; }

/* calloc and not aligned_alloc + memset: pages of a large block are zero already and stay untouched until used. */
int32_t host_alloc(sb_context *ctx, int64_t bytes, void **out) noexcept {
  char *base = nullptr;
  if (bytes <= INT64_MAX - 2 * kAlignment) base = static_cast<char *>(calloc(1, bytes + 2 * kAlignment));
  if (!base) return sb_fail("sb_alloc: %lld bytes could not be allocated", static_cast<long long>(bytes));
  const int64_t past = reinterpret_cast<uintptr_t>(base) % kAlignment;
  void *memory = base + 2 * kAlignment - past;
  host_prefer_huge_pages(memory, bytes);
  *header_of(memory) = {ctx, base, bytes};
  host_count(ctx, bytes);
  *out = memory;
  return 0;
}

int32_t host_free(sb_context *ctx, void *memory) noexcept {
  if (reinterpret_cast<uintptr_t>(memory) % kAlignment != 0 || header_of(memory)->owner != ctx)
    return sb_fail("sb_free: %p was not allocated by this context", memory);
  Header *header = header_of(memory);
  host_count(ctx, -header->bytes);
  header->owner = nullptr;
  free(header->base);
  return 0;
}

int32_t host_allocated(sb_context *ctx, int64_t *bytes) noexcept {
  *bytes = __atomic_load_n(&static_cast<sb_host_context *>(ctx)->allocated, __ATOMIC_RELAXED);
  return 0;
}

/* memmove: the lengths may be 0 with no memory behind the pointers, and two parts of one block may overlap. */
int32_t host_copy(sb_context *, void *to, const void *from, int64_t bytes) noexcept {
  if (bytes > 0) memmove(to, from, bytes);
  return 0;
}

int32_t host_read(sb_context *ctx, const void *device, void *host, int64_t bytes) noexcept {
  return host_copy(ctx, host, device, bytes);
}

int32_t host_write(sb_context *ctx, void *device, const void *host, int64_t bytes) noexcept {
  return host_copy(ctx, device, host, bytes);
}

int32_t host_zero(sb_context *, void *device, int64_t bytes) noexcept {
  if (bytes > 0) memset(device, 0, bytes);
  return 0;
}

void host_processor(char *name, int64_t capacity) noexcept {
  snprintf(name, capacity, "unknown processor");
  FILE *file = fopen("/proc/cpuinfo", "r");
  if (!file) return;
  char line[512];
  while (fgets(line, sizeof line, file)) {
    const char *colon = strchr(line, ':');
    if (strncmp(line, "model name", 10) != 0 || !colon) continue;
    const char *from = colon + 1 + strspn(colon + 1, " \t");
    int64_t length = 0;
    for (; *from && *from != '\n' && length + 1 < capacity; from++)
      if (*from >= ' ' && *from != '"' && *from != '\\' && *from < 127) name[length++] = *from;
    name[length] = 0;
    break;
  }
  fclose(file);
}
