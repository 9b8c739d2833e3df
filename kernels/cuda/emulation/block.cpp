#include "block.h"
#include "fiber.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sys/mman.h>
#include <vector>

namespace emulation {

namespace {

/* Room for the frames of a sanitized build; a page that is never touched costs nothing. */
constexpr size_t kStackBytes = 128 << 10, kGuardBytes = 4096;
constexpr size_t kDynamicAlignment = 16; /* as DYNAMIC_SHARED declares it */
constexpr size_t kDeclaredMost = 48 << 10;

enum class State { ready, at_barrier, in_warp, done };

struct Copy {
  void *to;
  const void *from;
  size_t bytes, zeros; /* behind them */
  int group;
};

struct Thread {
  Fiber *fiber;
  uint3 index;
  int number; /* in the block */
  State state;
  std::vector<Copy> copies;
  int groups;
};

struct Warp {
  unsigned arrived; /* lanes that wait */
  unsigned mask;    /* those the collective is for */
  WarpBody body;
  void *records[kWarp];
};

struct Free {
  void operator()(void *memory) const { free(memory); }
};

struct SharedMemory {
  const void *key; /* nullptr: dynamic */
  size_t bytes;
  std::unique_ptr<void, Free> memory;
  unsigned char *begin; /* in memory */
};

struct Block {
  dim3 grid, size;
  uint3 index;
  Order order;
  const std::function<void()> *body;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  int alive, at_barrier;
  std::vector<SharedMemory> shared;
  Thread *running;
  Fiber scheduler;
  std::string error;
  char begin, end; /* what ThreadSanitizer knows the block's start and end by: threads are ordered by neither */
};

thread_local Block *block;

/* ---- stacks ----------------------------------------------------------------------------------------------------- */

/* Fibers for every thread a block may have, kept from launch to launch: to make one takes longer than most threads run. */
struct Fibers {
  char *memory = nullptr;
  std::vector<Fiber> each;
  ~Fibers() { clear(); }
  void clear() {
    for (Fiber &fiber : each) fiber_destroy(fiber);
    if (memory) munmap(memory, each.size() * (kStackBytes + kGuardBytes));
    memory = nullptr;
    each.clear();
  }
};
thread_local Fibers fibers;

/* Below each stack a page is closed, so that an overflow is a crash at the right place. Their tops are staggered: at equal
 * offsets all of them would share a few lines of the cache. */
bool make_fibers(int count) {
  const size_t stride = kStackBytes + kGuardBytes, wanted = static_cast<size_t>(count);
  if (fibers.each.size() >= wanted) return true;
  fibers.clear();
  constexpr int kKind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void *memory = mmap(nullptr, wanted * stride, PROT_READ | PROT_WRITE, kKind, -1, 0);
  if (memory == MAP_FAILED) return false;
  fibers.memory = static_cast<char *>(memory);
  fibers.each.resize(wanted);
  for (size_t i = 0; i < wanted; i++) {
    char *stack = fibers.memory + i * stride + kGuardBytes;
    mprotect(stack - kGuardBytes, kGuardBytes, PROT_NONE);
    fiber_create(fibers.each[i], stack, kStackBytes - i % 32 * 192);
  }
  return true;
}

/* ---- turns ------------------------------------------------------------------------------------------------------ */

void to_scheduler() {
  Thread &thread = *block->running;
  fiber_switch(*thread.fiber, block->scheduler);
}

void release_barrier() {
  block->at_barrier = 0;
  for (Thread &thread : block->threads)
    if (thread.state == State::at_barrier) thread.state = State::ready;
}

/* It is never left: ThreadSanitizer, which the fiber outlives, must not count it as entered. */
__attribute__((no_sanitize("thread"))) void run_thread() {
  happens_after(&block->begin);
  (*block->body)();
  happened_before(&block->end);
  block->running->state = State::done;
  block->alive--;
  /* Who has left is not waited for, as on hardware. */
  if (block->alive > 0 && block->at_barrier == block->alive) release_barrier();
  to_scheduler();
  abort(); /* nobody switches to a thread that is done */
}

std::string where(const Thread &thread) {
  const auto text = [](const uint3 &at) {
    return "(" + std::to_string(at.x) + "," + std::to_string(at.y) + "," + std::to_string(at.z) + ")";
  };
  return "block " + text(block->index) + ", thread " + text(thread.index);
}

/* All threads wait: says for what the first of them does. */
std::string deadlock() {
  int in_warp = 0;
  const Thread *first = nullptr;
  for (const Thread &thread : block->threads) {
    if (thread.state == State::done) continue;
    if (!first) first = &thread;
    in_warp += thread.state == State::in_warp;
  }
  return where(*first) + " waits for ever: of " + std::to_string(block->alive) + " threads " +
         std::to_string(block->at_barrier) + " wait at __syncthreads and " + std::to_string(in_warp) +
         " in a warp's collective";
}

void run_block() {
  Block &b = *block;
  const int count = static_cast<int>(b.threads.size());
  for (const SharedMemory &each : b.shared) memset(each.begin, 0xff, each.bytes);
  for (Warp &warp : b.warps) warp.arrived = 0;
  b.alive = count;
  b.at_barrier = 0;
  happened_before(&b.begin);
  for (Thread &thread : b.threads) {
    thread.state = State::ready;
    thread.copies.clear();
    thread.groups = 0;
    fiber_start(*thread.fiber, run_thread);
  }
  bool moved = true;
  while (b.alive > 0 && b.error.empty()) {
    if (!moved) b.error = deadlock();
    moved = false;
    for (int i = 0; i < count && b.error.empty(); i++) {
      Thread &thread = b.threads[b.order == Order::forward ? i : count - 1 - i];
      if (thread.state != State::ready) continue;
      moved = true;
      b.running = &thread;
      fiber_switch(b.scheduler, *thread.fiber);
    }
  }
  happens_after(&b.end);
}

} // namespace

std::string check_shape(dim3 grid, dim3 block) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads < 1 || threads > 1024) return "a block of " + std::to_string(threads) + " threads; expected 1 to 1024";
  if (block.z > 64) return "a block of " + std::to_string(block.z) + " threads in z; expected at most 64";
  if (grid.x < 1 || grid.y < 1 || grid.z < 1) return "a grid without blocks";
  if (grid.x > INT32_MAX) return "a grid of " + std::to_string(grid.x) + " blocks in x; expected fewer than 2^31";
  for (const unsigned blocks : {grid.y, grid.z})
    if (blocks > 65535) return "a grid of " + std::to_string(blocks) + " blocks in y or z; expected at most 65535";
  return "";
}

std::string run_grid(dim3 grid, dim3 size, size_t shared, Order order, const std::function<void()> &body) {
  const std::string refused = check_shape(grid, size);
  if (!refused.empty()) return refused;
  const int count = static_cast<int>(size.x * size.y * size.z);
  if (!make_fibers(count)) return "no memory for the stacks of a block";

  Block made{grid, size, {}, order, &body, {}, {}, 0, 0, {}, nullptr, {}, "", 0, 0};
  made.threads.resize(count);
  made.warps.resize((count + kWarp - 1) / kWarp);
  for (int i = 0; i < count; i++) {
    const unsigned n = static_cast<unsigned>(i);
    made.threads[i].fiber = &fibers.each[i];
    made.threads[i].number = i;
    made.threads[i].index = {n % size.x, n / size.x % size.y, n / (size.x * size.y)};
  }
  Block *const before = block;
  block = &made;
  fiber_adopt(made.scheduler);
  if (shared > 0) shared_memory(nullptr, shared, kDynamicAlignment);
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  for (uint64_t i = 0; i < blocks && made.error.empty(); i++) {
    const uint64_t at = order == Order::forward ? i : blocks - 1 - i;
    made.index = {static_cast<unsigned>(at % grid.x), static_cast<unsigned>(at / grid.x % grid.y),
                  static_cast<unsigned>(at / grid.x / grid.y)};
    run_block();
  }
  block = before;
  if (!made.error.empty()) fibers.clear(); /* some of them stopped in the middle */
  return made.error;
}

/* ---- for the thread that runs ----------------------------------------------------------------------------------- */

const uint3 &thread_index() { return block->running->index; }
const uint3 &block_index() { return block->index; }
const dim3 &block_size() { return block->size; }
const dim3 &grid_size() { return block->grid; }
int lane() { return block->running->number % kWarp; }

void synchronize_block() {
  Block &b = *block;
  happened_before(&b.at_barrier);
  if (++b.at_barrier == b.alive) {
    release_barrier();
  } else {
    b.running->state = State::at_barrier;
    to_scheduler();
  }
  happens_after(&b.at_barrier);
}

void synchronize_warp(unsigned mask, WarpBody body, void *record) {
  Block &b = *block;
  Thread &mine = *b.running;
  Warp &warp = b.warps[mine.number / kWarp];
  const unsigned bit = 1u << lane();
  if (!(mask & bit)) fail("the lane is not in the mask of its own collective");
  if (warp.arrived == 0) {
    warp.mask = mask;
    warp.body = body;
  } else if (warp.mask != mask || warp.body != body) {
    fail("the lanes of its warp are at different collectives, or name different masks");
  }
  warp.records[lane()] = record;
  warp.arrived |= bit;
  happened_before(&warp);
  if (warp.arrived != mask) {
    mine.state = State::in_warp;
    to_scheduler();
    happens_after(&warp);
    return;
  }
  happens_after(&warp);
  for (int i = 0; i < kWarp; i++)
    if (!(mask >> i & 1)) warp.records[i] = nullptr;
  warp.arrived = 0;
  body(mask, warp.records);
  const int first = mine.number - lane();
  for (int i = 0; i < kWarp; i++)
    if (mask >> i & 1) b.threads[first + i].state = State::ready;
  happened_before(&warp);
}

void *shared_memory(const void *key, size_t bytes, size_t alignment) {
  size_t declared = key ? bytes : 0;
  for (const SharedMemory &each : block->shared) {
    if (each.key == key) return each.begin;
    declared += each.key ? each.bytes : 0;
  }
  if (declared > kDeclaredMost) fail("shared memory of more than 48 KiB is declared");
  void *memory = nullptr;
  if (posix_memalign(&memory, std::max(2 * alignment, sizeof(void *)), bytes + alignment)) fail("no memory for shared memory");
  unsigned char *const begin = static_cast<unsigned char *>(memory) + alignment;
  memset(begin, 0xff, bytes);
  block->shared.push_back({key, bytes, std::unique_ptr<void, Free>(memory), begin});
  return begin;
}

void *dynamic_shared_memory() { return shared_memory(nullptr, 1, kDynamicAlignment); }

void copy_later(void *to, const void *from, size_t bytes, size_t zeros) {
  check_aligned(to, bytes + zeros, "cp.async");
  check_aligned(from, bytes + zeros, "cp.async");
  Thread &mine = *block->running;
  mine.copies.push_back({to, from, bytes, zeros, mine.groups});
}

void close_copies() { block->running->groups++; }

void wait_for_copies(int open) {
  Thread &mine = *block->running;
  std::vector<Copy> later;
  for (const Copy &copy : mine.copies) {
    if (copy.group >= mine.groups - open) {
      later.push_back(copy);
      continue;
    }
    memcpy(copy.to, copy.from, copy.bytes);
    memset(static_cast<char *>(copy.to) + copy.bytes, 0, copy.zeros);
  }
  mine.copies.swap(later);
}

void fail(const std::string &text) {
  block->error = where(*block->running) + ": " + text;
  to_scheduler(); /* which asks for no more turns */
}

} // namespace emulation
