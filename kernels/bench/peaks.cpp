/*
 * What the machine can do, for scripts/bench.ts to measure itself by: multiply-adds between registers, and reading
 * memory. No part of the ABI and of no library that ships; one instruction set a function by target attribute, so that
 * the file needs no -m flag.
 */
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <sys/mman.h>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define SB_BENCH extern "C" __attribute__((visibility("default")))

namespace {

enum Status { kDone = 0, kUnsupported = 1, kNoMemory = 2 };
/* As kernels/cpu numbers them. */
enum Level { kPortable = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Bf16 = 3 };

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

/*
 * Runs body(thread) on `threads` threads, the caller one of them, from one common start.
 * Returns the seconds from that start to the last end, or a negative number where threads cannot be started.
 */
template <class Body>
double run_together(int32_t threads, const Body &body) {
  std::atomic<int32_t> ready{0};
  std::atomic<int32_t> go{0}; /* 1: start, 2: give up */
  std::vector<Clock::time_point> ends(static_cast<size_t>(threads));
  const auto work = [&](int32_t thread) {
    ready.fetch_add(1);
    while (go.load() == 0) {
    }
    if (go.load() == 1) body(thread);
    ends[static_cast<size_t>(thread)] = Clock::now();
  };
  std::vector<std::thread> others;
  try {
    for (int32_t thread = 1; thread < threads; thread++) others.emplace_back(work, thread);
  } catch (const std::exception &) {
    go.store(2);
    for (std::thread &other : others) other.join();
    return -1;
  }
  while (ready.load() < threads - 1) {
  }
  const Clock::time_point start = Clock::now();
  go.store(1);
  work(0);
  for (std::thread &other : others) other.join();
  Clock::time_point last = start;
  for (const Clock::time_point end : ends) last = end > last ? end : last;
  return seconds_between(start, last);
}

/* ---- multiply-adds ------------------------------------------------------------------------------------------ */

/* Hides where a register's value came from: equal sums would be computed once. */
#if defined(__x86_64__)
#define SB_OPAQUE(value) asm volatile("" : "+v"(value))
#elif defined(__aarch64__)
#define SB_OPAQUE(value) asm volatile("" : "+w"(value))
#endif

/* Every loop keeps more sums than latency × throughput of any processor we know, in registers, and adds small normal
 * numbers to them. Returns something that depends on all of them. Floating-point operations a turn stand beside it. */
struct Loop {
  float (*run)(int64_t turns);
  int64_t flops; /* a turn */
};

#if defined(__aarch64__)
constexpr int kPortableSums = 16;
float run_portable(int64_t turns) {
  float32x4_t sums[kPortableSums];
#pragma GCC unroll 16
  for (int i = 0; i < kPortableSums; i++) {
    sums[i] = vdupq_n_f32(0);
    SB_OPAQUE(sums[i]);
  }
  const float32x4_t a = vdupq_n_f32(0.5f), b = vdupq_n_f32(1e-3f);
  for (int64_t turn = 0; turn < turns; turn++)
#pragma GCC unroll 16
    for (int i = 0; i < kPortableSums; i++) sums[i] = vfmaq_f32(sums[i], a, b);
  float total = 0;
  for (const float32x4_t sum : sums) total += vaddvq_f32(sum);
  return total;
}
#elif defined(__x86_64__)
typedef float vf4 __attribute__((vector_size(16)));
constexpr int kPortableSums = 10;
float run_portable(int64_t turns) {
  vf4 sums[kPortableSums] = {};
#pragma GCC unroll 16
  for (int i = 0; i < kPortableSums; i++) asm volatile("" : "+x"(sums[i])); /* no AVX-512 registers here */
  const vf4 a = {0.5f, 0.5f, 0.5f, 0.5f}, b = {1e-3f, 1e-3f, 1e-3f, 1e-3f};
  for (int64_t turn = 0; turn < turns; turn++)
#pragma GCC unroll 16
    for (int i = 0; i < kPortableSums; i++) sums[i] = sums[i] * b + a;
  float total = 0;
  for (const vf4 sum : sums)
    for (int lane = 0; lane < 4; lane++) total += sum[lane];
  return total;
}
#else
#error "scripts/bench.ts knows x86-64 and ARM64"
#endif

#if defined(__x86_64__)
constexpr int kAvx2Sums = 12;
__attribute__((target("avx2,fma"))) float run_avx2(int64_t turns) {
  __m256 sums[kAvx2Sums];
#pragma GCC unroll 16
  for (int i = 0; i < kAvx2Sums; i++) {
    sums[i] = _mm256_setzero_ps();
    SB_OPAQUE(sums[i]);
  }
  const __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1e-3f);
  for (int64_t turn = 0; turn < turns; turn++)
#pragma GCC unroll 16
    for (int i = 0; i < kAvx2Sums; i++) sums[i] = _mm256_fmadd_ps(a, b, sums[i]);
  float lanes[8], total = 0;
#pragma GCC unroll 16
  for (int i = 0; i < kAvx2Sums; i++) {
    _mm256_storeu_ps(lanes, sums[i]);
    for (const float lane : lanes) total += lane;
  }
  return total;
}

constexpr int kAvx512Sums = 24;
__attribute__((target("avx512f"))) float total_of(const __m512 *sums, int count) {
  float lanes[16], total = 0;
  for (int i = 0; i < count; i++) {
    _mm512_storeu_ps(lanes, sums[i]);
    for (const float lane : lanes) total += lane;
  }
  return total;
}
__attribute__((target("avx512f"))) float run_avx512(int64_t turns) {
  __m512 sums[kAvx512Sums];
#pragma GCC unroll 32
  for (int i = 0; i < kAvx512Sums; i++) {
    sums[i] = _mm512_setzero_ps();
    SB_OPAQUE(sums[i]);
  }
  const __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1e-3f);
  for (int64_t turn = 0; turn < turns; turn++)
#pragma GCC unroll 32
    for (int i = 0; i < kAvx512Sums; i++) sums[i] = _mm512_fmadd_ps(a, b, sums[i]);
  return total_of(sums, kAvx512Sums);
}
__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) float run_bf16(int64_t turns) {
  __m512 sums[kAvx512Sums];
#pragma GCC unroll 32
  for (int i = 0; i < kAvx512Sums; i++) {
    sums[i] = _mm512_setzero_ps();
    SB_OPAQUE(sums[i]);
  }
  const __m512bh a = (__m512bh)_mm512_set1_epi16(0x3f00), b = (__m512bh)_mm512_set1_epi16(0x3a83);
  for (int64_t turn = 0; turn < turns; turn++)
#pragma GCC unroll 32
    for (int i = 0; i < kAvx512Sums; i++) sums[i] = _mm512_dpbf16_ps(sums[i], a, b);
  return total_of(sums, kAvx512Sums);
}
#endif

bool supported(int32_t level) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (level == kAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (level == kAvx512) return __builtin_cpu_supports("avx512f");
  if (level == kAvx512Bf16) return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16");
#endif
  return level == kPortable;
}

/* The fastest multiply-adds of a level; bf16 operands where it has them, else it computes in f32. */
Loop loop_of(int32_t level, bool bf16) {
#if defined(__x86_64__)
  if (level == kAvx512Bf16 && bf16) return {run_bf16, kAvx512Sums * 64};
  if (level >= kAvx512) return {run_avx512, kAvx512Sums * 32};
  if (level == kAvx2) return {run_avx2, kAvx2Sums * 16};
#endif
  (void)level;
  (void)bf16;
  return {run_portable, kPortableSums * 8};
}

/* ---- reading memory ----------------------------------------------------------------------------------------- */

struct Buffer {
  unsigned char *memory;
  int64_t bytes;
  int32_t threads;

  /* Of one thread, a multiple of 512. */
  int64_t part() const { return bytes / threads / 512 * 512; }
};

uint64_t read_portable(const unsigned char *from, int64_t bytes) {
  uint64_t sums[8] = {};
  for (int64_t at = 0; at < bytes; at += 64) {
    uint64_t words[8];
    memcpy(words, from + at, sizeof words);
    for (int i = 0; i < 8; i++) sums[i] |= words[i];
  }
  uint64_t all = 0;
  for (const uint64_t sum : sums) all |= sum;
  return all;
}
#if defined(__x86_64__)
__attribute__((target("avx512f"))) uint64_t read_avx512(const unsigned char *from, int64_t bytes) {
  __m512i sums[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) sums[i] = _mm512_setzero_si512();
  for (int64_t at = 0; at < bytes; at += 512)
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) sums[i] = _mm512_or_si512(sums[i], _mm512_loadu_si512(from + at + 64 * i));
  __m512i all = _mm512_setzero_si512();
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) all = _mm512_or_si512(all, sums[i]);
  uint64_t words[8], any = 0;
  memcpy(words, &all, sizeof words);
  for (const uint64_t word : words) any |= word;
  return any;
}
#endif

uint64_t read_bytes(const unsigned char *from, int64_t bytes) {
#if defined(__x86_64__)
  if (supported(kAvx512)) return read_avx512(from, bytes);
#endif
  return read_portable(from, bytes);
}

} // namespace

/* Floating-point operations a second of `threads` threads together over about `seconds`, a multiply-add counted as two.
 * level: 0 portable, 1 avx2, 2 avx512, 3 avx512bf16; bf16 != 0: the rate of bf16 operands where the level has them. */
SB_BENCH int32_t sb_bench_flops(int32_t level, int32_t bf16, int32_t threads, double seconds, double *rate) noexcept {
  if (!supported(level)) return kUnsupported;
  const Loop loop = loop_of(level, bf16 != 0);
  constexpr int64_t kTurns = 20000; /* some 100 µs between two looks at the clock */
  try {
    std::vector<int64_t> turns(static_cast<size_t>(threads), 0);
    std::atomic<float> sink{0};
    const double taken = run_together(threads, [&](int32_t thread) {
      const Clock::time_point start = Clock::now();
      int64_t done = 0;
      float sum = 0;
      do {
        sum += loop.run(kTurns);
        done += kTurns;
      } while (seconds_between(start, Clock::now()) < seconds);
      turns[static_cast<size_t>(thread)] = done;
      sink.store(sum);
    });
    if (taken <= 0) return kNoMemory;
    int64_t all = 0;
    for (const int64_t done : turns) all += done;
    *rate = static_cast<double>(all) * static_cast<double>(loop.flops) / taken;
    return kDone;
  } catch (const std::bad_alloc &) {
    return kNoMemory;
  }
}

/* A buffer to read, touched by the threads that will read it. */
SB_BENCH int32_t sb_bench_open_buffer(int64_t bytes, int32_t threads, void **out) noexcept {
  Buffer *buffer = new (std::nothrow) Buffer{nullptr, bytes, threads};
  void *memory = nullptr;
  if (!buffer || posix_memalign(&memory, 2 << 20, static_cast<size_t>(bytes))) {
    delete buffer;
    return kNoMemory;
  }
#if defined(MADV_HUGEPAGE)
  madvise(memory, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
  buffer->memory = static_cast<unsigned char *>(memory);
  const double taken = run_together(threads, [&](int32_t thread) {
    memset(buffer->memory + thread * buffer->part(), thread + 1, static_cast<size_t>(buffer->part()));
  });
  if (taken < 0) {
    free(memory);
    delete buffer;
    return kNoMemory;
  }
  *out = buffer;
  return kDone;
}

/* Bytes a second of reading the buffer once. */
SB_BENCH int32_t sb_bench_read_buffer(void *handle, double *rate) noexcept {
  const Buffer &buffer = *static_cast<const Buffer *>(handle);
  std::atomic<uint64_t> sink{0};
  const double taken = run_together(buffer.threads, [&](int32_t thread) {
    sink.fetch_or(read_bytes(buffer.memory + thread * buffer.part(), buffer.part()));
  });
  if (taken <= 0 || sink.load() == 0) return kNoMemory;
  *rate = static_cast<double>(buffer.part() * buffer.threads) / taken;
  return kDone;
}

SB_BENCH void sb_bench_close_buffer(void *handle) noexcept {
  Buffer *buffer = static_cast<Buffer *>(handle);
  free(buffer->memory);
  delete buffer;
}
