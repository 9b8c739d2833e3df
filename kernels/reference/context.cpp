/* Opens the reference library. It has one form, one thread and no workspace. */
#include "reference.h"

#include <cstdio>

const int32_t sb_real_bytes = sizeof(reference::real);

namespace reference {

static int32_t close(sb_context *ctx) {
  delete static_cast<sb_host_context *>(ctx);
  return 0;
}

static int32_t describe(sb_context *, char *json, int64_t capacity) {
  char processor[128];
  host_processor(processor, sizeof processor);
  const int length = snprintf(json, static_cast<size_t>(capacity),
                              "{\"backend\":\"reference\",\"isa\":\"portable\",\"isas\":[\"portable\"],"
                              "\"device\":\"%s\",\"threads\":1,\"realBytes\":%d,\"nativeBf16\":false}",
                              processor, sb_real_bytes);
  if (length < capacity) return 0;
  return sb_fail("sb_describe: capacity is %lld; expected %d", static_cast<long long>(capacity), length + 1);
}

static int32_t reserve(sb_context *, int64_t, int64_t, int64_t, int64_t, int64_t *bytes) {
  *bytes = 0;
  return 0;
}

static const sb_backend table = {
    close,
    describe,
    host_sync,
    reserve,
    host_alloc,
    host_free,
    host_allocated,
    host_read,
    host_write,
    host_copy,
    host_zero,
#define SB_ENTRY(name) name,
    SB_BACKEND_OPS(SB_ENTRY)
#undef SB_ENTRY
};

} // namespace reference

int32_t sb_backend_open(int32_t, const char *isa, sb_context **out) {
  if (isa && strcmp(isa, "portable") != 0)
    return sb_fail("sb_open: isa is \"%s\"; the reference has \"portable\" only", isa);
  auto *ctx = new sb_host_context();
  ctx->backend = &reference::table;
  *out = ctx;
  return 0;
}
