/* Opens a CPU context: chooses the instruction set, starts the threads, sizes the workspace. */
#include "context.h"
#include "pool.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sched.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

const int32_t sb_real_bytes = 4;

/* isa.cpp, compiled once a level. */
void sb_cpu_ops_0(sb_backend &table);
#if defined(__x86_64__)
void sb_cpu_ops_1(sb_backend &table);
void sb_cpu_ops_2(sb_backend &table);
void sb_cpu_ops_3(sb_backend &table);
#endif

namespace {

struct Level {
  const char *name;
  void (*fill)(sb_backend &table);
};

constexpr Level kLevels[] = {
    {"portable", sb_cpu_ops_0},
#if defined(__x86_64__)
    {"avx2", sb_cpu_ops_1},
    {"avx512", sb_cpu_ops_2},
    {"avx512bf16", sb_cpu_ops_3},
#endif
};

#if defined(__x86_64__)
/* __builtin_cpu_supports does not know "f16c" in clang 16 and older. */
bool has_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}
#endif

/* The highest level this processor and its operating system support; every lower one is there too. */
int32_t best_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c()) return 0;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
    return 1;
  return __builtin_cpu_supports("avx512bf16") ? 3 : 2;
#else
  return 0;
#endif
}

int32_t usable_threads() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return 1;
}

int32_t cpu_close(sb_context *context) noexcept {
  sb_cpu_context &ctx = sb_cpu(context);
  sb_pool_free(ctx.pool);
  free(ctx.workspace);
  delete &ctx;
  return 0;
}

int32_t cpu_describe(sb_context *context, char *json, int64_t capacity) noexcept {
  const sb_cpu_context &ctx = sb_cpu(context);
  char processor[128], isas[64] = "";
  host_processor(processor, sizeof processor);
  for (int32_t level = 0; level <= best_level(); level++) {
    const size_t used = strlen(isas);
    snprintf(isas + used, sizeof isas - used, "%s\"%s\"", level ? "," : "", kLevels[level].name);
  }
  const int written =
      snprintf(json, static_cast<size_t>(capacity),
               "{\"backend\":\"cpu\",\"isa\":\"%s\",\"isas\":[%s],\"device\":\"%s\",\"threads\":%d,\"realBytes\":4,"
               "\"nativeBf16\":%s}",
               kLevels[ctx.isa].name, isas, processor, ctx.threads, ctx.isa == SB_ISA_AVX512BF16 ? "true" : "false");
  return written < capacity ? 0 : sb_fail("sb_describe: capacity is %lld, %d bytes are needed",
                                          static_cast<long long>(capacity), written + 1);
}

int32_t cpu_reserve(sb_context *context, int64_t tokens, int64_t width, int64_t rank, int64_t vocabulary,
                    int64_t *bytes) noexcept {
  sb_cpu_context &ctx = sb_cpu(context);
  const int64_t product = sb_product_workspace(ctx.threads, tokens, width, rank, vocabulary);
  const int64_t block = sb_block_workspace(ctx.threads, tokens, width);
  const int64_t needed = product > block ? product : block;
  if (needed > ctx.workspace_bytes) {
    void *memory = nullptr;
    if (posix_memalign(&memory, kHugePage, static_cast<size_t>(needed)))
      return sb_fail("sb_reserve: %lld bytes of workspace could not be allocated", static_cast<long long>(needed));
    host_prefer_huge_pages(memory, needed);
    free(ctx.workspace);
    host_count(context, needed - ctx.workspace_bytes);
    ctx.workspace = static_cast<unsigned char *>(memory);
    ctx.workspace_bytes = needed;
  }
  *bytes = ctx.workspace_bytes;
  return 0;
}

} // namespace

int32_t sb_backend_open(int32_t threads, const char *isa, sb_context **out) {
  static sb_backend tables[sizeof kLevels / sizeof *kLevels];
  const int32_t best = best_level();
  int32_t level = best;
  if (isa) {
    level = 0;
    while (level <= best && strcmp(isa, kLevels[level].name) != 0) level++;
    if (level > best)
      return sb_fail("the instruction set \"%s\" is unknown or this processor lacks it; its best is \"%s\"", isa,
                     kLevels[best].name);
  }
  /* Filled again for every context, always with the same values. */
  sb_backend &table = tables[level];
  table.close = cpu_close;
  table.describe = cpu_describe;
  table.reserve = cpu_reserve;
  table.alloc = host_alloc;
  table.free = host_free;
  table.allocated = host_allocated;
  table.read = host_read;
  table.write = host_write;
  table.copy = host_copy;
  table.zero = host_zero;
  kLevels[level].fill(table);

  sb_cpu_context *ctx = new (std::nothrow) sb_cpu_context{};
  if (!ctx) return sb_fail("no memory for a context");
  ctx->backend = &table;
  ctx->threads = threads > 0 ? threads : usable_threads();
  ctx->isa = static_cast<sb_isa>(level);
  ctx->pool = sb_pool_create(ctx->threads);
  if (!ctx->pool) {
    const int32_t wanted = ctx->threads;
    delete ctx;
    return sb_fail("%d threads could not be started", wanted);
  }
  *out = ctx;
  return 0;
}
