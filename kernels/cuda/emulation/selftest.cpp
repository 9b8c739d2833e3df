/*
 * Whether the emulation shows what it is there to show: kernels that are right, and kernels with one mistake planted. Run
 * by src/native/cuda-emulation.test.ts, and under the sanitizers by scripts/sanitize.ts.
 */
#include "../mma.cuh"

#include <cstring>
#include <string>
#include <vector>

namespace {

using emulation::Order;

/* What a test finds: "" when all is as it should be. */
using Finding = std::string;

std::string run(Order order, dim3 block, const std::function<void()> &thread, size_t shared = 0) {
  return emulation::run_grid(dim3(1), block, shared, order, thread);
}

Finding equal(const std::vector<float> &values, const std::function<float(int)> &expected) {
  for (size_t i = 0; i < values.size(); i++)
    if (values[i] != expected(static_cast<int>(i)))
      return "[" + std::to_string(i) + "] is " + std::to_string(values[i]) + ", expected " +
             std::to_string(expected(static_cast<int>(i)));
  return "";
}

/* ---- right ones ------------------------------------------------------------------------------------------------- */

Finding shuffles(Order order) {
  std::vector<float> values(128);
  const std::string error = run(order, 32, [&] {
    const int lane = static_cast<int>(threadIdx.x);
    values[lane] = static_cast<float>(__shfl_xor_sync(kAllLanes, lane, 5));
    values[32 + lane] = static_cast<float>(__shfl_down_sync(kAllLanes, lane, 3, 8));
    values[64 + lane] = static_cast<float>(__shfl_up_sync(kAllLanes, lane, 1));
    values[96 + lane] = static_cast<float>(__popc(__ballot_sync(kAllLanes, lane % 3 == 0)));
  });
  if (!error.empty()) return error;
  return equal(values, [](int i) {
    const int lane = i % 32;
    switch (i / 32) {
    case 0: return static_cast<float>(lane ^ 5);
    case 1: return static_cast<float>(lane % 8 + 3 < 8 ? lane + 3 : lane);
    case 2: return static_cast<float>(lane > 0 ? lane - 1 : 0);
    default: return 11.0f;
    }
  });
}

/* Each thread reads what its neighbour has written; `barrier` false plants the mistake. */
std::vector<float> neighbours(Order order, bool barrier) {
  std::vector<float> values(64);
  run(order, 64, [&] {
    SHARED(float[64], shared);
    const int i = static_cast<int>(threadIdx.x);
    shared[i] = static_cast<float>(i);
    if (barrier) __syncthreads();
    values[i] = shared[(i + 1) % 64];
  });
  return values;
}

Finding barrier(Order order) {
  return equal(neighbours(order, true), [](int i) { return static_cast<float>((i + 1) % 64); });
}

/* Threads that have left are not waited for. */
Finding early_exit(Order order) {
  std::vector<float> values(1);
  const std::string error = run(order, 64, [&] {
    if (threadIdx.x >= 40) return;
    __syncthreads();
    if (threadIdx.x == 0) values[0] = 1;
  });
  return error.empty() ? equal(values, [](int) { return 1.0f; }) : error;
}

struct alignas(16) Matrices {
  uint16_t at[16 * 16];
};

/* d = a·b + 1 through ldmatrix and mma.sync, against loops. a[16,16], b[8,16] (k last) or, transposed, b[16,8]. */
Finding tensor_cores(Order order, bool transposed) {
  const auto a = [](int i, int k) { return static_cast<float>((i * 7 + k * 3) % 11 - 5); };
  const auto b = [](int k, int j) { return static_cast<float>((k * 5 + j * 2) % 13 - 6); };
  const auto bits = [](float value) { return __bfloat16_as_ushort(__float2bfloat16_rn(value)); };
  std::vector<float> values(16 * 8);
  const std::string error = run(order, 32, [&] {
    SHARED(Matrices, left);
    SHARED(Matrices, right); /* two b side by side: ldmatrix takes four matrices */
    const int lane = static_cast<int>(threadIdx.x);
    for (int i = lane; i < 256; i += 32) {
      const int row = i / 16, column = i % 16;
      left.at[i] = bits(a(row, column));
      right.at[i] = bits(transposed ? b(row, column % 8) : b(column, row % 8));
    }
    __syncthreads();
    unsigned l[4], r[4];
    load_matrices(l, left.at + (lane % 16) * 16 + lane / 16 * 8);
    if (transposed) load_transposed(r, right.at + (lane % 16) * 16 + lane / 16 * 8);
    else load_matrices(r, right.at + (lane % 8 + lane / 16 * 8) * 16 + lane / 8 % 2 * 8);
    float d[4] = {1, 1, 1, 1};
    const unsigned first[2] = {r[0], r[1]};
    mma_bf16(d, l, first);
    for (int i = 0; i < 4; i++) values[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
  });
  if (!error.empty()) return error;
  return equal(values, [&](int i) {
    float sum = 1;
    for (int k = 0; k < 16; k++) sum += a(i / 8, k) * b(k, i % 8);
    return sum;
  });
}

/* ---- mistakes: a test that finds nothing has failed ------------------------------------------------------------- */

Finding missing_barrier() {
  const auto right = [](int i) { return static_cast<float>((i + 1) % 64); };
  const Finding forward = equal(neighbours(Order::forward, false), right);
  return equal(neighbours(Order::reversed, false), right).empty() ? "" : forward;
}

Finding deadlock(Order order) {
  return run(order, 64, [] {
    if (threadIdx.x < 32) __syncthreads();
    else if (threadIdx.x < 48) __syncwarp();
  });
}

Finding disagreement(Order order) {
  return run(order, 32, [] {
    if (threadIdx.x < 16) __ballot_sync(kAllLanes, 1);
    else __shfl_sync(kAllLanes, 1, 0);
  });
}

Finding shuffle_outside(Order order) {
  return run(order, 32, [] {
    if (threadIdx.x < 16) __shfl_sync(0xffffu, 1, 20);
  });
}

Finding unaligned_matrix(Order order) {
  return run(order, 32, [] {
    SHARED(uint16_t[512], memory);
    unsigned registers[4];
    load_matrices(registers, memory + threadIdx.x * 8 + 1);
  });
}

/* Read as a vector where nothing says that 16 divides its address. */
Finding unaligned_vector(Order order) {
  return run(order, 32, [] {
    SHARED(float[128], memory);
    const float4 v = reinterpret_cast<const float4 *>(memory)[threadIdx.x];
    memory[threadIdx.x] = v.x;
  });
}
Finding unaligned_store(Order order) {
  std::vector<float> memory(64);
  return run(order, 1, [&] { reinterpret_cast<float2 *>(memory.data() + 1)[threadIdx.x] = make_float2(1, 2); });
}
Finding unaligned_copy(Order order) {
  alignas(16) const float source[8] = {};
  return run(order, 1, [&] {
    SHARED(float4, memory);
    copy_async(&memory, source + 1);
  });
}

Finding much_declared(Order order) {
  return run(order, 1, [] {
    SHARED(float[8000], first);
    SHARED(float[8000], second);
    first[0] = second[0] = 1;
  });
}

/* What a launch is refused with, on a stream whose blocks may ask for so much shared memory. */
Finding launched(Order order, dim3 grid, dim3 block, size_t shared, int shared_most, bool ask) {
  void (*const kernel)() = [] {};
  cudaStream_t stream;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  emulation::set_manner(stream, {order, false, shared_most});
  const int most = ask ? static_cast<int>(shared) : 48 << 10;
  cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, most);
  emulation::launch(stream, grid, block, shared, kernel);
  const cudaError_t error = cudaGetLastError();
  cudaStreamDestroy(stream);
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

/* "NaN" when what nobody has written is NaN, in the second block of a grid too. */
Finding poison(Order order) {
  bool all = true;
  emulation::run_grid(dim3(2), dim3(1), 16, order, [&] {
    SHARED(float, one);
    DYNAMIC_SHARED(float, more);
    all = all && one != one && more[3] != more[3];
    one = more[3] = 1;
  });
  return all ? "NaN" : "";
}

/* "NaN" when bytes of cp.async are not there before the wait, and are behind it. */
Finding early_copy(Order order) {
  alignas(16) const float source[4] = {1, 2, 3, 4};
  bool right = true;
  run(order, 1, [&] {
    SHARED(float4, first);
    SHARED(float4, second);
    copy_async(&first, source);
    commit_copies();
    copy_async(&second, source, 8);
    commit_copies();
    right = right && first.x != first.x;
    wait_copies<1>();
    right = right && first.w == 4 && second.x != second.x;
    wait_copies<0>();
    right = right && second.y == 2 && second.z == 0;
  });
  return right ? "NaN" : "";
}

/* The old value when a deferred stream has not copied before it is waited for. */
Finding early_read() {
  cudaStream_t stream;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  emulation::set_manner(stream, {Order::forward, true});
  int from = 1, to = 0;
  cudaMemcpyAsync(&to, &from, sizeof to, cudaMemcpyDefault, stream);
  from = 2;
  const int early = to;
  cudaStreamSynchronize(stream);
  const int late = to; /* of a source that was changed too early */
  cudaStreamDestroy(stream);
  return early == 0 && late == 2 ? "old value, then the changed source" : "";
}

/* Memory that a copy reads is used again once `event` has passed: the right one stands behind the copy. Returns what
 * the copy has brought of 1, changed to 2. */
int reused(bool behind) {
  cudaStream_t stream;
  cudaEvent_t before, after;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  emulation::set_manner(stream, {Order::forward, true});
  for (cudaEvent_t *event : {&before, &after}) cudaEventCreateWithFlags(event, cudaEventDisableTiming);
  int from = 1, to = 0;
  cudaEventRecord(before, stream);
  cudaMemcpyAsync(&to, &from, sizeof to, cudaMemcpyDefault, stream);
  cudaEventRecord(after, stream);
  cudaEventSynchronize(behind ? after : before);
  from = 2;
  cudaStreamSynchronize(stream);
  for (const cudaEvent_t event : {before, after}) cudaEventDestroy(event);
  cudaStreamDestroy(stream);
  return to;
}
Finding early_reuse() { return reused(true) == 1 && reused(false) == 2 ? "2" : ""; }

Finding pageable_upload() {
  cudaStream_t stream;
  void *pinned, *device;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cudaHostAlloc(&pinned, 16, 0);
  cudaMalloc(&device, 16);
  const int pageable[4] = {};
  const cudaError_t right = cudaMemcpyAsync(device, pinned, 16, cudaMemcpyHostToDevice, stream);
  const cudaError_t wrong = cudaMemcpyAsync(device, pageable, 16, cudaMemcpyHostToDevice, stream);
  cudaGetLastError();
  cudaStreamDestroy(stream);
  cudaFree(device);
  cudaFreeHost(pinned);
  return right == cudaSuccess ? cudaGetErrorString(wrong) : "";
}

/* For AddressSanitizer and ThreadSanitizer, which end or report it themselves. */
Finding overrun() {
  return run(Order::forward, 1, [] {
    SHARED(float[10], memory);
    volatile int end = 10;
    memory[end] = 1;
  });
}
Finding race() {
  neighbours(Order::forward, false);
  return "";
}

constexpr int kLeast = emulation::kSharedLeast, kMost = emulation::kSharedMost;

struct Test {
  const char *name;
  Finding (*run)(Order order);
};
constexpr Test kTests[] = {
    {"shuffles", shuffles},
    {"barrier", barrier},
    {"early exit", early_exit},
    {"tensor cores", [](Order order) { return tensor_cores(order, false); }},
    {"tensor cores, transposed", [](Order order) { return tensor_cores(order, true); }},
    {"missing barrier", [](Order) { return missing_barrier(); }},
    {"deadlock", deadlock},
    {"disagreement", disagreement},
    {"shuffle outside", shuffle_outside},
    {"unaligned matrix", unaligned_matrix},
    {"poison", poison},
    {"early copy", early_copy},
    {"early read", [](Order) { return early_read(); }},
    {"early reuse", [](Order) { return early_reuse(); }},
    {"pageable upload", [](Order) { return pageable_upload(); }},
    {"unaligned vector", unaligned_vector},
    {"unaligned store", unaligned_store},
    {"unaligned copy", unaligned_copy},
    {"much declared", much_declared},
    {"asked for", [](Order order) { return launched(order, 1, 32, 64 << 10, kLeast, true); }},
    {"not asked for", [](Order order) { return launched(order, 1, 32, 64 << 10, kMost, false); }},
    {"more than there is", [](Order order) { return launched(order, 1, 32, 104448, kLeast, true); }},
    {"tall grid", [](Order order) { return launched(order, dim3(1, 65536), 32, 0, kMost, false); }},
    {"long grid", [](Order order) { return launched(order, dim3(1u << 31), 32, 0, kMost, false); }},
    {"large block", [](Order order) { return launched(order, 1, dim3(32, 33), 0, kMost, false); }},
    {"overrun", [](Order) { return overrun(); }},
    {"race", [](Order) { return race(); }},
};

} // namespace

/* The finding of a test, threads in order or reversed; good until the next call. */
extern "C" __attribute__((visibility("default"))) const char *sb_emulation_test(const char *name, int reversed) {
  static thread_local std::string finding;
  finding = std::string("no such test: ") + name;
  for (const Test &test : kTests)
    if (strcmp(test.name, name) == 0) finding = test.run(reversed ? Order::reversed : Order::forward);
  return finding.c_str();
}
