/*
 * Device memory of the libraries whose device is the host (cpu, reference): the table entries both of them use as they
 * are. Memory is 64-byte aligned and zeroed; its size stands in a header before it, so that sb_free knows what to take
 * off the count.
 */
#pragma once
#include "../backend.h"

/* In a build with AddressSanitizer every block ends where its memory ends, so that one byte read past it is seen. */
#if defined(__SANITIZE_ADDRESS__)
#define SB_EXACT_MEMORY 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SB_EXACT_MEMORY 1
#endif
#endif
#if !defined(SB_EXACT_MEMORY)
#define SB_EXACT_MEMORY 0
#endif

/* First member of both libraries' contexts. */
struct sb_host_context : sb_context {
  int64_t allocated; /* bytes alive: sb_alloc + weights + workspace; changed through host_count only */
};

/* Adds to (or takes off) the bytes alive. static: the CPU library compiles it once an instruction set. */
static inline void host_count(sb_context *ctx, int64_t bytes) {
  __atomic_add_fetch(&static_cast<sb_host_context *>(ctx)->allocated, bytes, __ATOMIC_RELAXED);
}

constexpr int64_t kHugePage = 2 << 20;
/* Lets the system back the whole huge pages within [memory, memory + bytes) by such: a third of the page walks. */
void host_prefer_huge_pages(void *memory, int64_t bytes) noexcept;

int32_t host_sync(sb_context *ctx) noexcept; /* nothing to wait for */
int32_t host_alloc(sb_context *ctx, int64_t bytes, void **out) noexcept;
int32_t host_free(sb_context *ctx, void *memory) noexcept;
int32_t host_allocated(sb_context *ctx, int64_t *bytes) noexcept;
int32_t host_read(sb_context *ctx, const void *device, void *host, int64_t bytes) noexcept;
int32_t host_write(sb_context *ctx, void *device, const void *host, int64_t bytes) noexcept;
int32_t host_copy(sb_context *ctx, void *to, const void *from, int64_t bytes) noexcept;
int32_t host_zero(sb_context *ctx, void *device, int64_t bytes) noexcept;

/* The processor's name for sb_describe ("unknown processor" where the system does not tell), fit to stand in JSON. */
void host_processor(char *name, int64_t capacity) noexcept;
