/*
 * The thread pool: workers that spin for a moment between ops, then sleep on a futex. Tasks are claimed one by one from
 * a ticket that names the job, so that a worker which wakes late finds either work of the present job or none, and
 * nobody waits for it.
 */
#include "pool.h"
#include "context.h"
#include <atomic>
#include <new>
#include <system_error>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

/* About 50 µs: longer than the gap between two ops, shorter than anybody minds. */
constexpr int kSpins = 1500;

inline void spin_once() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

} // namespace

struct sb_pool {
  /* High half: number of the job; low half: tasks of it that nobody has claimed. */
  std::atomic<uint64_t> ticket{0};
  /* The job's number, for sleepers. */
  std::atomic<uint32_t> signal{0};
  /* Tasks of the job that are not finished. */
  std::atomic<int64_t> open{0};
  std::atomic<bool> stop{false};
  /* The job; written before its ticket is issued, read after a task of it was claimed. */
  int64_t tasks = 0;
  void (*body)(void *, int64_t, int32_t) = nullptr;
  void *argument = nullptr;
  std::vector<std::thread> workers;
};

namespace {

/* Claims and runs tasks until the present job has none left. */
void work(sb_pool &pool, int32_t thread) {
  uint64_t ticket = pool.ticket.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(ticket) != 0) {
    if (!pool.ticket.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel)) continue;
    pool.body(pool.argument, pool.tasks - static_cast<uint32_t>(ticket), thread);
    if (pool.open.fetch_sub(1, std::memory_order_acq_rel) == 1) pool.open.notify_one();
    ticket = pool.ticket.load(std::memory_order_acquire);
  }
}

void run_worker(sb_pool &pool, int32_t thread) {
  uint32_t seen = 0;
  for (;;) {
    for (int spin = 0; spin < kSpins && pool.signal.load(std::memory_order_acquire) == seen; spin++) spin_once();
    pool.signal.wait(seen, std::memory_order_acquire);
    seen = pool.signal.load(std::memory_order_acquire);
    if (pool.stop.load(std::memory_order_acquire)) return;
    work(pool, thread);
  }
}

} // namespace

sb_pool *sb_pool_create(int32_t threads) noexcept {
  sb_pool *pool = nullptr;
  try {
    pool = new sb_pool;
    for (int32_t thread = 1; thread < threads; thread++) pool->workers.emplace_back(run_worker, std::ref(*pool), thread);
    return pool;
  } catch (const std::exception &) { /* no memory, or no more threads */
    if (pool) sb_pool_free(pool);
    return nullptr;
  }
}

void sb_pool_free(sb_pool *pool) noexcept {
  pool->stop.store(true, std::memory_order_release);
  pool->signal.fetch_add(1, std::memory_order_acq_rel);
  pool->signal.notify_all();
  for (std::thread &worker : pool->workers) worker.join();
  delete pool;
}

void sb_parallel(sb_cpu_context &ctx, int64_t tasks, void (*body)(void *argument, int64_t task, int32_t thread),
                 void *argument) {
  sb_pool &pool = *ctx.pool;
  if (tasks <= 1 || pool.workers.empty()) {
    for (int64_t task = 0; task < tasks; task++) body(argument, task, 0);
    return;
  }
  pool.tasks = tasks;
  pool.body = body;
  pool.argument = argument;
  pool.open.store(tasks, std::memory_order_relaxed);
  const uint32_t job = pool.signal.load(std::memory_order_relaxed) + 1;
  pool.ticket.store(static_cast<uint64_t>(job) << 32 | static_cast<uint32_t>(tasks), std::memory_order_release);
  pool.signal.store(job, std::memory_order_seq_cst); /* notify_all looks for sleepers: not before the store */
  pool.signal.notify_all();
  work(pool, 0);
  int64_t open;
  for (int spin = 0; (open = pool.open.load(std::memory_order_acquire)) != 0; spin++) {
    if (spin < kSpins) spin_once();
    else pool.open.wait(open, std::memory_order_acquire);
  }
}
