/*
 * The CUDA backend's context: one stream that every op is put on in call order, memory, a workspace, and what ops share on
 * the host's side: launching kernels, looking for errors behind them.
 *
 * An op checks nothing that lies on the device before it returns: its kernels check indices where they use them
 * (indices.cuh), and the error is told by the op itself where the device has come so far, else by a later call, at the
 * latest by the next sb_sync or sb_read. SBORA_CUDA_BLOCKING=1 waits behind every op, so that each tells its own.
 */
#pragma once
#include "../backend.h"
#include "device.h"

#include <tuple>
#include <unordered_map>

namespace gpu {

/* What was wrong, written by a kernel into host memory that the device sees. The texts are host addresses that a kernel
 * hands through. */
struct FaultRecord {
  const char *function, *argument, *expected;
  int64_t row, index, value, end; /* row: of a table, else -1 */
  int32_t raised;
};

struct Fault {
  unsigned *raised; /* device: the first to set it writes the record */
  FaultRecord *record;
};

/* Pinned memory that uploads go through: two halves, each with an event behind its last copy. */
struct Staging {
  unsigned char *memory;
  cudaEvent_t copied[2];
  int half;
  int64_t used; /* of the present half */
};

struct CublasLt; /* cublaslt.cu */

struct Context : sb_context {
  cudaStream_t stream;
  char isa[16];
  bool blocking;
  int shared_most; /* bytes of dynamic shared memory that a block may ask for */
  int64_t allocated; /* bytes alive: sb_alloc + weights + workspace */
  std::unordered_map<const void *, int64_t> blocks; /* of sb_alloc, and their bytes */
  unsigned char *workspace;
  int64_t workspace_bytes;
  Fault fault;
  Staging staging;
  double *partial_sums; /* [kPartialSums], of the op that runs */
  CublasLt *cublaslt;   /* NULL: products are our own tiles */
};
constexpr int kPartialSums = 256;
/* What every card from sm_80 on has of it. */
constexpr size_t kSharedAnywhere = 99 << 10;

inline Context &context(sb_context *ctx) { return *static_cast<Context *>(ctx); }

/* ---- every op, with the signature it has in sbora.h ------------------------------------------------------------- */

#define SB_ENTRY(name) sb_entry<decltype(::sb_##name)>::type name;
SB_BACKEND_FUNCTIONS(SB_ENTRY)
#undef SB_ENTRY

/* Bytes of workspace that the products, and all other ops, need at most for such shapes. */
int64_t product_workspace(int64_t tokens, int64_t width, int64_t rank, int64_t vocabulary);
int64_t block_workspace(int64_t tokens, int64_t width);

/* ---- memory (memory.cu) ----------------------------------------------------------------------------------------- */

/* Device memory that is not counted and not zeroed; NULL where there is none. */
void *device_memory(int64_t bytes);
/* Waits for the ops that use it. */
void free_device_memory(Context &ctx, void *memory);
/* Host memory to the device, in stream order; the host's may change as soon as this returns. */
void upload(Context &ctx, void *device, const void *host, int64_t bytes);
int32_t staging_open(Context &ctx);
void staging_close(Context &ctx);

/* Set, and neither empty nor "0". */
bool environment_flag(const char *name);

/* ---- around an op (context.cu) ---------------------------------------------------------------------------------- */

/* The workspace, when it holds so many bytes; else NULL, and sb_fail has been called. */
void *workspace(Context &ctx, const char *function, int64_t bytes);
/* The last line of an op: 0, or sb_fail for what its launches, or any kernel before, ran into. */
int32_t finish(Context &ctx, const char *function);
/* finish, behind everything the stream was given. */
int32_t wait(Context &ctx, const char *function);

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline unsigned blocks_for(int64_t n, int64_t each) { return static_cast<unsigned>(ceil_div(n, each)); }

/* kernel<<<grid, block, shared>>>(arguments…) on the context's stream. A grid without blocks is not launched. */
template <class... Parameters, class... Arguments>
void launch(Context &ctx, dim3 grid, dim3 block, size_t shared, void (*kernel)(Parameters...), Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  constexpr size_t kWithoutAsking = 48 << 10;
  const void *function = reinterpret_cast<const void *>(kernel);
  if (shared > kWithoutAsking)
    cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
#if defined(__CUDACC__)
  std::tuple<Parameters...> values(arguments...);
  std::apply(
      [&](Parameters &...value) {
        void *addresses[] = {&value...};
        cudaLaunchKernel(function, grid, block, addresses, shared, ctx.stream);
      },
      values);
#else
  emulation::launch(ctx.stream, grid, block, shared, kernel, arguments...);
#endif
}

} // namespace gpu
