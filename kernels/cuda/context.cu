/* Opens the CUDA library on the first device, and looks for errors behind its ops. */
#include "cublaslt.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

const int32_t sb_real_bytes = 4;

namespace gpu {

bool environment_flag(const char *name) {
  const char *value = getenv(name);
  return value && *value && strcmp(value, "0") != 0;
}

/* ---- which device, which form of it ----------------------------------------------------------------------------- */

#if defined(__CUDACC__)
static constexpr char kBackend[] = "cuda";
static constexpr int kLeastMajor = 8; /* bf16, cp.async */

/* ctx.isa = "sm_90"; there is one a device. */
static int32_t choose_isa(Context &ctx, const char *isa) {
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0);
  snprintf(ctx.isa, sizeof ctx.isa, "sm_%d%d", major, minor);
  cudaDeviceGetAttribute(&ctx.shared_most, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
  if (major < kLeastMajor)
    return sb_fail("sb_open: the device is %s; expected sm_80 (Ampere) or newer", ctx.isa);
  if (isa && strcmp(isa, ctx.isa) != 0) return sb_fail("sb_open: isa is \"%s\"; this device is %s", isa, ctx.isa);
  return 0;
}

static void isa_list(const Context &ctx, char *text, size_t capacity) { snprintf(text, capacity, "\"%s\"", ctx.isa); }
#else
static constexpr char kBackend[] = "cuda-emulated";

/* The order in which threads take turns stands in the place of the instruction set: results must not depend on it.
 * Deferred: nothing runs before it is waited for. Reversed is a card of little shared memory, too. */
static int32_t choose_isa(Context &ctx, const char *isa) {
  const char *given = getenv("SBORA_CUDA_ORDER");
  if (!isa) isa = given && *given ? given : "forward";
  const bool reversed = strcmp(isa, "reversed") == 0, deferred = strcmp(isa, "deferred") == 0;
  if (!reversed && !deferred && strcmp(isa, "forward") != 0)
    return sb_fail("sb_open: isa is \"%s\"; the emulation has \"forward\", \"reversed\", \"deferred\"", isa);
  snprintf(ctx.isa, sizeof ctx.isa, "%s", isa);
  ctx.shared_most = reversed ? emulation::kSharedLeast : emulation::kSharedMost;
  const emulation::Order order = reversed ? emulation::Order::reversed : emulation::Order::forward;
  emulation::set_manner(ctx.stream, {order, deferred, ctx.shared_most});
  return 0;
}

static void isa_list(const Context &, char *text, size_t capacity) {
  snprintf(text, capacity, "\"forward\",\"reversed\"");
}
#endif

/* ---- errors ----------------------------------------------------------------------------------------------------- */

/* What a kernel has found wrong, if the device has come so far; it is told once. */
static int32_t tell_fault(Context &ctx) {
  FaultRecord &record = *ctx.fault.record;
  if (!*static_cast<volatile int32_t *>(&record.raised)) return 0;
  cudaStreamSynchronize(ctx.stream); /* the record is whole, and no kernel writes another meanwhile */
  const FaultRecord found = record;
  record.raised = 0;
  cudaMemsetAsync(ctx.fault.raised, 0, sizeof *ctx.fault.raised, ctx.stream);
  char range[96], row[32] = "";
  snprintf(range, sizeof range, "at least 0 and below %lld", static_cast<long long>(found.end));
  if (found.row >= 0) snprintf(row, sizeof row, "%lld,", static_cast<long long>(found.row));
  return sb_fail("%s: %s[%s%lld] is %lld; expected %s", found.function, found.argument, row,
                 static_cast<long long>(found.index), static_cast<long long>(found.value),
                 found.expected ? found.expected : range);
}

static int32_t outcome(Context &ctx, const char *function, cudaError_t error) {
  if (error == cudaSuccess) return tell_fault(ctx);
  return sb_fail("%s: CUDA says: %s", function, cudaGetErrorString(error));
}

int32_t wait(Context &ctx, const char *function) {
  const cudaError_t launched = cudaGetLastError();
  return outcome(ctx, function, launched == cudaSuccess ? cudaStreamSynchronize(ctx.stream) : launched);
}

int32_t finish(Context &ctx, const char *function) {
  return ctx.blocking ? wait(ctx, function) : outcome(ctx, function, cudaGetLastError());
}

void *workspace(Context &ctx, const char *function, int64_t bytes) {
  if (bytes <= ctx.workspace_bytes) return ctx.workspace;
  sb_fail("%s: needs %lld bytes of workspace, %lld are reserved; call sb_reserve with the plan's shapes", function,
          static_cast<long long>(bytes), static_cast<long long>(ctx.workspace_bytes));
  return nullptr;
}

/* ---- the context's functions ------------------------------------------------------------------------------------ */

int32_t close(sb_context *sb) {
  Context &ctx = context(sb);
  if (ctx.stream) cudaStreamSynchronize(ctx.stream);
  staging_close(ctx);
  cublaslt_close(ctx);
  cudaFree(ctx.workspace);
  cudaFree(ctx.fault.raised);
  cudaFree(ctx.partial_sums);
  if (ctx.fault.record) cudaFreeHost(ctx.fault.record);
  if (ctx.stream) cudaStreamDestroy(ctx.stream);
  delete &ctx;
  return 0;
}

int32_t describe(sb_context *sb, char *json, int64_t capacity) {
  const Context &ctx = context(sb);
  cudaDeviceProp properties;
  cudaGetDeviceProperties(&properties, 0);
  char isas[64], products[64] = "";
  isa_list(ctx, isas, sizeof isas);
  if (ctx.cublaslt) {
    strcpy(products, " with cuBLASLt ");
    cublaslt_version(ctx, products + strlen(products), sizeof products - strlen(products));
  }
  const int length = snprintf(json, static_cast<size_t>(capacity),
                              "{\"backend\":\"%s\",\"isa\":\"%s\",\"isas\":[%s],\"device\":\"%s%s\",\"threads\":1,"
                              "\"realBytes\":4,\"nativeBf16\":true}",
                              kBackend, ctx.isa, isas, properties.name, products);
  if (length < capacity) return 0;
  return sb_fail("sb_describe: capacity is %lld; expected %d", static_cast<long long>(capacity), length + 1);
}

int32_t sync(sb_context *sb) { return wait(context(sb), "sb_sync"); }

int32_t reserve(sb_context *sb, int64_t tokens, int64_t width, int64_t rank, int64_t vocabulary, int64_t *bytes) {
  Context &ctx = context(sb);
  const int64_t product = product_workspace(tokens, width, rank, vocabulary), block = block_workspace(tokens, width);
  const int64_t needed = (product > block ? product : block) + cublaslt_workspace(ctx);
  if (needed > ctx.workspace_bytes) {
    void *memory = device_memory(needed);
    if (!memory)
      return sb_fail("sb_reserve: %lld bytes of workspace could not be allocated", static_cast<long long>(needed));
    free_device_memory(ctx, ctx.workspace);
    ctx.allocated += needed - ctx.workspace_bytes;
    ctx.workspace = static_cast<unsigned char *>(memory);
    ctx.workspace_bytes = needed;
  }
  *bytes = ctx.workspace_bytes;
  return 0;
}

static const sb_backend table = {
#define SB_ENTRY(name) name,
    SB_BACKEND_FUNCTIONS(SB_ENTRY)
#undef SB_ENTRY
};

/* What every context holds; on failure the caller closes it. */
static int32_t equip(Context &ctx, const char *isa) {
  void *record = nullptr;
  if (cudaStreamCreateWithFlags(&ctx.stream, cudaStreamNonBlocking) != cudaSuccess ||
      cudaHostAlloc(&record, sizeof(FaultRecord), cudaHostAllocMapped) != cudaSuccess)
    return sb_fail("sb_open: the CUDA device cannot be used: %s", cudaGetErrorString(cudaGetLastError()));
  ctx.fault.record = static_cast<FaultRecord *>(record);
  memset(record, 0, sizeof(FaultRecord));
  ctx.fault.raised = static_cast<unsigned *>(device_memory(sizeof(unsigned)));
  ctx.partial_sums = static_cast<double *>(device_memory(kPartialSums * sizeof(double)));
  if (!ctx.fault.raised || !ctx.partial_sums) return sb_fail("sb_open: the CUDA device has no memory left");
  if (choose_isa(ctx, isa)) return 1;
  cudaMemsetAsync(ctx.fault.raised, 0, sizeof(unsigned), ctx.stream);
  return staging_open(ctx) || cublaslt_open(ctx);
}

} // namespace gpu

int32_t sb_backend_open(int32_t, const char *isa, sb_context **out) {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0)
    return sb_fail("sb_open: no CUDA device can be used (%s); expected an NVIDIA GPU and its driver (nvidia-smi lists "
                   "them). Without one choose the device cpu",
                   error == cudaSuccess ? "there is none" : cudaGetErrorString(error));
  cudaSetDevice(0); /* CUDA_VISIBLE_DEVICES says which that is */
  auto *ctx = new gpu::Context();
  ctx->backend = &gpu::table;
  ctx->blocking = gpu::environment_flag("SBORA_CUDA_BLOCKING");
  if (gpu::equip(*ctx, isa)) {
    gpu::close(ctx);
    return 1;
  }
  *out = ctx;
  return 0;
}
