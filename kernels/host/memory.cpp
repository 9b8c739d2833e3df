#include "memory.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#if SB_EXACT_MEMORY
#include <sanitizer/asan_interface.h>
#endif

namespace {

constexpr int64_t kAlignment = 64;

/* Stands in the kAlignment bytes before every block. */
struct Header {
  sb_context *owner;
  void *base; /* what the allocator returned */
  int64_t bytes;
};
static_assert(sizeof(Header) <= kAlignment);

Header *header_of(void *memory) { return reinterpret_cast<Header *>(static_cast<char *>(memory) - kAlignment); }

#if SB_EXACT_MEMORY
/* The header is out of bounds too, but for sb_free. */
void close_header(void *memory) { ASAN_POISON_MEMORY_REGION(header_of(memory), kAlignment); }
void open_header(void *memory) { ASAN_UNPOISON_MEMORY_REGION(header_of(memory), kAlignment); }

void *allocate_zeroed(int64_t bytes, void *&base) {
  if (posix_memalign(&base, kAlignment, static_cast<size_t>(bytes + kAlignment))) return nullptr;
  return memset(static_cast<char *>(base) + kAlignment, 0, static_cast<size_t>(bytes));
}
#else
void close_header(void *) {}
void open_header(void *) {}

/* calloc and not aligned_alloc + memset: pages of a large block are zero already and stay untouched until used. */
void *allocate_zeroed(int64_t bytes, void *&base) {
  base = calloc(1, static_cast<size_t>(bytes + 2 * kAlignment));
  const int64_t past = reinterpret_cast<uintptr_t>(base) % kAlignment;
  return base ? static_cast<char *>(base) + 2 * kAlignment - past : nullptr;
}
#endif

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

int32_t host_alloc(sb_context *ctx, int64_t bytes, void **out) noexcept {
  void *base = nullptr;
  void *memory = bytes <= INT64_MAX - 2 * kAlignment ? allocate_zeroed(bytes, base) : nullptr;
  if (!memory) return sb_fail("sb_alloc: %lld bytes could not be allocated", static_cast<long long>(bytes));
  host_prefer_huge_pages(memory, bytes);
  *header_of(memory) = {ctx, base, bytes};
  close_header(memory);
  host_count(ctx, bytes);
  *out = memory;
  return 0;
}

int32_t host_free(sb_context *ctx, void *memory) noexcept {
  const bool aligned = reinterpret_cast<uintptr_t>(memory) % kAlignment == 0;
  if (aligned) open_header(memory);
  if (!aligned || header_of(memory)->owner != ctx)
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
