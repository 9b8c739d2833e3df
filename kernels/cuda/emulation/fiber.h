/*
 * A fiber: a stack of its own, which runs from where it is switched to until it switches away. Sanitizers are told of
 * every switch, else they take one fiber's stack for another's.
 */
#pragma once
#include <cstddef>

namespace emulation {

struct Fiber {
  void *state = nullptr; /* where it stopped */
  void (*entry)() = nullptr;
  char *stack = nullptr;
  size_t bytes = 0;
  void *sanitizer = nullptr; /* what a sanitizer knows it by */
};

/* A fiber for stack[bytes], which fiber_start makes ready. */
void fiber_create(Fiber &fiber, char *stack, size_t bytes);
/* Not the one that runs. */
void fiber_destroy(Fiber &fiber);
/* When it is switched to next, it runs `entry`, which must never return, from the top of its stack. */
void fiber_start(Fiber &fiber, void (*entry)());
/* The code that runs now, as a fiber to come back to. */
void fiber_adopt(Fiber &fiber);
/* Stops `from`, which is the one that runs, and goes on with `to`. */
void fiber_switch(Fiber &from, Fiber &to);

/* For ThreadSanitizer: what happened before `happened_before(object)` is seen behind `happens_after(object)`. */
void happened_before(void *object);
void happens_after(void *object);

} // namespace emulation
