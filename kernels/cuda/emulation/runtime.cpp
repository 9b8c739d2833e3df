#include "runtime.h"
#include "../../host/memory.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <iterator>
#include <map>
#include <mutex>
#include <string>

struct EmulatedStream {
  emulation::Manner manner;
  std::deque<std::function<void()>> queue;
  uint64_t done = 0; /* of what it was given; behind it comes the queue */
};
struct EmulatedEvent {
  cudaStream_t stream = nullptr;
  uint64_t behind = 0; /* how much the stream had been given when it was recorded */
};

namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string launch_error;

cudaError_t fail(cudaError_t error) { return last_error = error; }

uint64_t given(const EmulatedStream &stream) { return stream.done + stream.queue.size(); }

/* Does all of the first `count` things that the stream was given. */
void drain(EmulatedStream &stream, uint64_t count) {
  for (; stream.done < count; stream.done++) {
    const std::function<void()> work = std::move(stream.queue.front());
    stream.queue.pop_front();
    work();
  }
}
void drain(EmulatedStream &stream) { drain(stream, given(stream)); }

void submit(EmulatedStream &stream, std::function<void()> work) {
  stream.queue.push_back(std::move(work));
  if (!stream.manner.deferred) drain(stream);
}

cudaError_t allocate(void **memory, size_t bytes, int fill) {
  if (posix_memalign(memory, 256, bytes)) return fail(cudaErrorMemoryAllocation);
  memset(*memory, fill, bytes);
  return cudaSuccess;
}

/* What kernels may ask for, and memory that copies may be asked for behind the host's back. */
std::mutex mutex;
std::map<const void *, int> allowed_shared;
std::map<const char *, size_t> pinned;

bool is_pinned(const void *memory, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex);
  const char *const begin = static_cast<const char *>(memory);
  const auto next = pinned.upper_bound(begin);
  if (next == pinned.begin()) return false;
  const auto &[first, size] = *std::prev(next);
  return begin + bytes <= first + size;
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
  switch (attribute) {
  case cudaDevAttrMultiProcessorCount: *value = 2; break;
  case cudaDevAttrComputeCapabilityMajor: *value = 8; break;
  case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = emulation::kSharedMost; break;
  }
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute, int value) {
  if (value > emulation::kSharedMost) return fail(cudaErrorInvalidValue);
  const std::lock_guard<std::mutex> lock(mutex);
  allowed_shared[function] = value;
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
  *event = {stream, given(*stream)};
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->stream) drain(*event->stream, event->behind);
  return cudaSuccess;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

cudaError_t cudaMalloc(void **memory, size_t bytes) { return allocate(memory, bytes, 0xff); }

cudaError_t cudaFree(void *memory) {
  free(memory);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned) {
  const cudaError_t error = allocate(memory, bytes, 0);
  const std::lock_guard<std::mutex> lock(mutex);
  if (error == cudaSuccess) pinned[static_cast<const char *>(*memory)] = bytes;
  return error;
}

cudaError_t cudaFreeHost(void *memory) {
  const std::lock_guard<std::mutex> lock(mutex);
  pinned.erase(static_cast<const char *>(memory));
  return cudaFree(memory);
}

/* A GPU would take pageable memory, too, and wait for it: an upload that only looks as if it ran beside the host. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (kind == cudaMemcpyHostToDevice && !is_pinned(from, bytes)) return fail(cudaErrorInvalidValue);
  submit(*stream, [=] { memmove(to, from, bytes); });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream) {
  submit(*stream, [=] { memset(memory, value, bytes); });
  return cudaSuccess;
}

/* ---- launches --------------------------------------------------------------------------------------------------- */

namespace emulation {

void set_manner(cudaStream_t stream, const Manner &manner) {
  drain(*stream);
  stream->manner = manner;
}

/* Why the launch is refused, or "". */
static std::string check_launch(const EmulatedStream &stream, dim3 grid, dim3 block, size_t shared, const void *kernel) {
  constexpr size_t kWithoutAsking = 48 << 10;
  const size_t most = static_cast<size_t>(stream.manner.shared_most);
  const std::lock_guard<std::mutex> lock(mutex);
  const auto asked = allowed_shared.find(kernel);
  const size_t allowed = asked == allowed_shared.end() ? kWithoutAsking : static_cast<size_t>(asked->second);
  if (shared > most || shared > allowed)
    return std::to_string(shared) + " bytes of dynamic shared memory; expected at most " +
           (shared > most ? std::to_string(most) + ", the device's most" : std::to_string(allowed) + ", as was asked for");
  return check_shape(grid, block);
}

void run_kernel(cudaStream_t stream, dim3 grid, dim3 block, size_t shared, const void *kernel,
                std::function<void()> thread) {
  const auto failed = [](const std::string &error) {
    if (error.empty()) return false;
    launch_error = error;
    last_error = cudaErrorLaunchFailure;
    return true;
  };
  if (failed(check_launch(*stream, grid, block, shared, kernel))) return;
  const Order order = stream->manner.order;
  submit(*stream, [=, thread = std::move(thread)] { failed(run_grid(grid, block, shared, order, thread)); });
}

} // namespace emulation
