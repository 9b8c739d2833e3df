/*
 * The part of the CUDA runtime that kernels/cuda calls. Device memory is host memory that begins with every bit set. A
 * stream does at once what it is given, or, when it is deferred, not before somebody waits for it, and then no more than
 * was waited for: what is read or overwritten too early shows.
 */
#pragma once
#include "block.h"

#include <cstddef>
#include <functional>
#include <tuple>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorNoDevice = 100,
  cudaErrorLaunchFailure = 719,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDefault = 4 };
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
struct cudaDeviceProp {
  char name[256];
};
constexpr unsigned cudaStreamNonBlocking = 1, cudaHostAllocMapped = 2, cudaEventDisableTiming = 2;

using cudaStream_t = struct EmulatedStream *;
using cudaEvent_t = struct EmulatedEvent *;

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value);
cudaError_t cudaGetLastError();
const char *cudaGetErrorString(cudaError_t error);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);

cudaError_t cudaMalloc(void **memory, size_t bytes);
cudaError_t cudaFree(void *memory);
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream);

namespace emulation {

/* Dynamic shared memory that a block may ask for: on the largest cards, and on those of sm_86, 89 and 120. */
constexpr int kSharedMost = 227 << 10, kSharedLeast = 99 << 10;

/* How the kernels and copies of a stream are run from here on. */
struct Manner {
  Order order = Order::forward;
  bool deferred = false;
  int shared_most = kSharedMost;
};
void set_manner(cudaStream_t stream, const Manner &manner);
void run_kernel(cudaStream_t stream, dim3 grid, dim3 block, size_t shared, const void *kernel,
                std::function<void()> thread);

template <class... Parameters, class... Arguments>
void launch(cudaStream_t stream, dim3 grid, dim3 block, size_t shared, void (*kernel)(Parameters...),
            Arguments... arguments) {
  std::tuple<Parameters...> values(arguments...);
  run_kernel(stream, grid, block, shared, reinterpret_cast<const void *>(kernel),
             [kernel, values] { std::apply(kernel, values); });
}

} // namespace emulation
