/* Device memory by plain allocations, and copies to and from it. */
#include "context.h"

#include <cstring>

namespace gpu {

/* ---- uploads ---------------------------------------------------------------------------------------------------- */

/* Large enough for the bus's full rate, small enough that nobody minds pinning two of them. */
constexpr int64_t kHalf = 4 << 20;

int32_t staging_open(Context &ctx) {
  void *memory = nullptr;
  cudaError_t error = cudaHostAlloc(&memory, 2 * kHalf, 0);
  ctx.staging.memory = static_cast<unsigned char *>(memory);
  for (cudaEvent_t &event : ctx.staging.copied)
    if (error == cudaSuccess) error = cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  return error == cudaSuccess ? 0 : sb_fail("sb_open: no pinned memory for uploads: %s", cudaGetErrorString(error));
}

void staging_close(Context &ctx) {
  for (cudaEvent_t event : ctx.staging.copied)
    if (event) cudaEventDestroy(event);
  if (ctx.staging.memory) cudaFreeHost(ctx.staging.memory);
}

/* The other half, once the device has copied what was in it. */
static void turn_over(Context &ctx) {
  Staging &staging = ctx.staging;
  cudaEventRecord(staging.copied[staging.half], ctx.stream);
  staging.half ^= 1;
  staging.used = 0;
  cudaEventSynchronize(staging.copied[staging.half]);
}

void upload(Context &ctx, void *device, const void *host, int64_t bytes) {
  Staging &staging = ctx.staging;
  for (int64_t done = 0; done < bytes;) {
    if (staging.used == kHalf) turn_over(ctx);
    const int64_t room = kHalf - staging.used, some = bytes - done < room ? bytes - done : room;
    unsigned char *through = staging.memory + staging.half * kHalf + staging.used;
    memcpy(through, static_cast<const unsigned char *>(host) + done, static_cast<size_t>(some));
    cudaMemcpyAsync(static_cast<unsigned char *>(device) + done, through, static_cast<size_t>(some),
                    cudaMemcpyHostToDevice, ctx.stream);
    staging.used += some;
    done += some;
  }
}

/* ---- allocations ------------------------------------------------------------------------------------------------ */

void *device_memory(int64_t bytes) {
  void *memory = nullptr;
  if (cudaMalloc(&memory, static_cast<size_t>(bytes > 0 ? bytes : 1)) == cudaSuccess) return memory;
  cudaGetLastError(); /* told by the caller, and not again behind the next op */
  return nullptr;
}

void free_device_memory(Context &ctx, void *memory) {
  if (!memory) return;
  cudaStreamSynchronize(ctx.stream);
  cudaFree(memory);
}

int32_t alloc(sb_context *sb, int64_t bytes, void **out) {
  Context &ctx = context(sb);
  void *memory = device_memory(bytes);
  if (!memory) return sb_fail("sb_alloc: %lld bytes could not be allocated", static_cast<long long>(bytes));
  ctx.blocks[memory] = bytes;
  ctx.allocated += bytes;
  cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes), ctx.stream);
  *out = memory;
  return finish(ctx, "sb_alloc");
}

int32_t free(sb_context *sb, void *memory) {
  Context &ctx = context(sb);
  const auto block = ctx.blocks.find(memory);
  if (block == ctx.blocks.end()) return sb_fail("sb_free: %p was not allocated by this context", memory);
  ctx.allocated -= block->second;
  ctx.blocks.erase(block);
  free_device_memory(ctx, memory);
  return 0;
}

int32_t allocated(sb_context *sb, int64_t *bytes) {
  *bytes = context(sb).allocated;
  return 0;
}

/* ---- copies ----------------------------------------------------------------------------------------------------- */

int32_t read(sb_context *sb, const void *device, void *host, int64_t bytes) {
  Context &ctx = context(sb);
  if (bytes > 0) cudaMemcpyAsync(host, device, static_cast<size_t>(bytes), cudaMemcpyDefault, ctx.stream);
  return wait(ctx, "sb_read");
}

int32_t write(sb_context *sb, void *device, const void *host, int64_t bytes) {
  Context &ctx = context(sb);
  upload(ctx, device, host, bytes);
  return finish(ctx, "sb_write");
}

int32_t copy(sb_context *sb, void *to, const void *from, int64_t bytes) {
  Context &ctx = context(sb);
  if (bytes > 0) cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, ctx.stream);
  return finish(ctx, "sb_copy");
}

int32_t zero(sb_context *sb, void *device, int64_t bytes) {
  Context &ctx = context(sb);
  if (bytes > 0) cudaMemsetAsync(device, 0, static_cast<size_t>(bytes), ctx.stream);
  return finish(ctx, "sb_zero");
}

} // namespace gpu
