/*
 * A block of CUDA threads on one thread of the host: each is a fiber that runs until it has to wait for others. What
 * they wait for is a barrier of the block or a collective of a warp (a shuffle, a vote, an mma). A wait that can never
 * end, or a collective whose lanes disagree, ends the launch with a text.
 */
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#if defined(__CUDACC__)
#error "nvcc does not take the emulation's place: device.h chooses"
#endif

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace emulation {

constexpr int kWarp = 32;

/* In which order the threads of a block, and the blocks of a grid, take their turns. */
enum class Order { forward, reversed };

/* What no GPU launches, or "": grids and blocks beyond the limits of every card. */
std::string check_shape(dim3 grid, dim3 block);

/* Runs every block of the grid, one behind the other. shared: bytes of dynamic shared memory. Returns what went wrong,
 * "" when nothing did. */
std::string run_grid(dim3 grid, dim3 block, size_t shared, Order order, const std::function<void()> &thread);

/* ---- from here on: for the thread that runs --------------------------------------------------------------------- */

const uint3 &thread_index();
const uint3 &block_index();
const dim3 &block_size();
const dim3 &grid_size();
int lane();

void synchronize_block();

/* What the lanes of a warp do together: run once, by whichever comes last, on what each of them brought
 * (records[lane]; NULL for lanes outside mask). The lanes go on behind it. */
using WarpBody = void (*)(unsigned mask, void *const *records);
void synchronize_warp(unsigned mask, WarpBody body, void *record);

/* Shared memory of the block: the same place for every thread that names the same key, filled with NaN (every bit set)
 * when the block begins. Aligned to `alignment` and to no more: on a GPU other variables stand before it. */
void *shared_memory(const void *key, size_t bytes, size_t alignment);
void *dynamic_shared_memory();

/* cp.async: the bytes arrive when the thread waits for the group they are in, and not before. 16 divides both addresses. */
void copy_later(void *to, const void *from, size_t bytes, size_t zeros);
void close_copies();
/* All groups but the `open` newest. */
void wait_for_copies(int open);

/* Ends the launch with this text and does not return. The compiler is not told: before such a call AddressSanitizer clears
 * the stack for signals too, and Bun's is not aligned as it wants. */
void fail(const std::string &text);

/* Fails where `bytes`, a power of two, do not divide the address. */
inline void check_aligned(const void *address, size_t bytes, const char *what) {
  uintptr_t number = reinterpret_cast<uintptr_t>(address);
  /* Else the compiler, who knows what the pointer's type promises, takes the answer for granted. */
  asm("" : "+r"(number));
  if ((number & (bytes - 1)) != 0) fail(std::string(what) + ": an address that is no multiple of " + std::to_string(bytes));
}

} // namespace emulation
