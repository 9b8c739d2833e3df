#include "runtime.h"
#include "../../host/memory.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

struct EmulatedStream {
  emulation::Order order = emulation::Order::forward;
  bool deferred = false;
  std::vector<std::function<void()>> queue;
};
struct EmulatedEvent {
  cudaStream_t stream = nullptr;
};

namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string launch_error;

cudaError_t fail(cudaError_t error) { return last_error = error; }

void drain(EmulatedStream &stream) {
  std::vector<std::function<void()>> work;
  work.swap(stream.queue);
  for (const std::function<void()> &each : work) each();
}

void submit(EmulatedStream &stream, std::function<void()> work) {
  if (stream.deferred) stream.queue.push_back(std::move(work));
  else work();
}

cudaError_t allocate(void **memory, size_t bytes, int fill) {
  if (posix_memalign(memory, 256, bytes)) return fail(cudaErrorMemoryAllocation);
  memset(*memory, fill, bytes);
  return cudaSuccess;
}

} // namespace

cudaError_t cudaGetDeviceCount(int *count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int) { return cudaSuccess; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int) {
  char processor[128];
  host_processor(processor, sizeof processor);
  snprintf(properties->name, sizeof properties->name, "CUDA emulated on %s", processor);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 2 : attribute == cudaDevAttrComputeCapabilityMajor ? 8 : 0;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

const char *cudaGetErrorString(cudaError_t error) {
  switch (error) {
  case cudaSuccess: return "no error";
  case cudaErrorMemoryAllocation: return "out of memory";
  case cudaErrorLaunchFailure: return launch_error.c_str();
  default: return "an invalid value";
  }
}

/* ---- streams ---------------------------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned) {
  *stream = new EmulatedStream();
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  drain(*stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  drain(*stream);
  return cudaGetLastError();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned) {
  *event = new EmulatedEvent();
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = stream;
  return cudaSuccess;
}

/* Waits for more than it has to: everything that the stream was given. */
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->stream) drain(*event->stream);
  return cudaSuccess;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

cudaError_t cudaMalloc(void **memory, size_t bytes) { return allocate(memory, bytes, 0xff); }

cudaError_t cudaFree(void *memory) {
  free(memory);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned) { return allocate(memory, bytes, 0); }
cudaError_t cudaFreeHost(void *memory) { return cudaFree(memory); }

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  submit(*stream, [=] { memmove(to, from, bytes); });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream) {
  submit(*stream, [=] { memset(memory, value, bytes); });
  return cudaSuccess;
}

/* ---- launches --------------------------------------------------------------------------------------------------- */

namespace emulation {

void set_manner(cudaStream_t stream, Order order, bool deferred) {
  drain(*stream);
  stream->order = order;
  stream->deferred = deferred;
}

void run_kernel(cudaStream_t stream, dim3 grid, dim3 block, size_t shared, std::function<void()> thread) {
  submit(*stream, [=, thread = std::move(thread)] {
    const std::string error = run_grid(grid, block, shared, stream->order, thread);
    if (error.empty()) return;
    launch_error = error;
    last_error = cudaErrorLaunchFailure;
  });
}

} // namespace emulation
