#include "fiber.h"

#include <cstdint>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#elif defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

/* Not watched by ThreadSanitizer: such a function is entered on one stack and left on another. */
#define UNWATCHED __attribute__((no_sanitize("thread"), noinline))

/* ---- the switch ------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__) && defined(__linux__)
/* Leaves on the one stack what a called function has to keep, and takes it from the other. ucontext, below, asks the
 * kernel for the signal mask at every switch and takes 20 times as long. */
extern "C" void sb_emulation_switch(void **from, void *to);
asm(R"(
.text
.hidden sb_emulation_switch
.globl sb_emulation_switch
.type sb_emulation_switch, @function
sb_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size sb_emulation_switch, . - sb_emulation_switch
)");

namespace {

/* The stack as sb_emulation_switch leaves one: six registers below the address that `ret` goes to. */
void *first_state(char *stack, size_t bytes, void (*start)()) {
  void **top = reinterpret_cast<void **>(reinterpret_cast<uintptr_t>(stack + bytes) & ~uintptr_t{15});
  *--top = nullptr; /* where start would return to */
  *--top = reinterpret_cast<void *>(start);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  return top;
}

UNWATCHED void switch_stacks(void **from, void *to) { sb_emulation_switch(from, to); }

} // namespace
#else
#include <ucontext.h>

namespace {

/* The context lies at the end of the stack that is used last. */
void *first_state(char *stack, size_t bytes, void (*start)()) {
  ucontext_t *context = reinterpret_cast<ucontext_t *>(stack);
  getcontext(context);
  context->uc_stack.ss_sp = stack + sizeof *context;
  context->uc_stack.ss_size = bytes - sizeof *context;
  context->uc_link = nullptr;
  makecontext(context, start, 0);
  return context;
}

UNWATCHED void switch_stacks(void **from, void *to) {
  ucontext_t here;
  *from = &here;
  swapcontext(&here, static_cast<ucontext_t *>(to));
}

} // namespace
#endif

/* ---- fibers ----------------------------------------------------------------------------------------------------- */

namespace emulation {

static thread_local Fiber *running, *left; /* and the one before it */

static void arrive([[maybe_unused]] void *fake_stack) {
#if defined(__SANITIZE_ADDRESS__)
  /* Tells where the stack of an adopted fiber lies, which has to be known to switch back to it. */
  const void *stack;
  __sanitizer_finish_switch_fiber(fake_stack, &stack, &left->bytes);
  left->stack = static_cast<char *>(const_cast<void *>(stack));
#endif
}

UNWATCHED static void start() {
  arrive(nullptr);
  running->entry();
}

void fiber_create(Fiber &fiber, char *stack, size_t bytes) {
  fiber = {nullptr, nullptr, stack, bytes, nullptr};
#if defined(__SANITIZE_THREAD__)
  fiber.sanitizer = __tsan_create_fiber(0);
#endif
}

void fiber_destroy(Fiber &fiber) {
#if defined(__SANITIZE_THREAD__)
  __tsan_destroy_fiber(fiber.sanitizer);
#endif
  fiber = {};
}

void fiber_start(Fiber &fiber, void (*entry)()) {
  fiber.state = first_state(fiber.stack, fiber.bytes, start);
  fiber.entry = entry;
}

void fiber_adopt(Fiber &fiber) {
  fiber = {};
#if defined(__SANITIZE_THREAD__)
  fiber.sanitizer = __tsan_get_current_fiber();
#endif
}

UNWATCHED void fiber_switch(Fiber &from, Fiber &to) {
  left = &from;
  running = &to;
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(to.sanitizer, __tsan_switch_to_fiber_no_sync);
#elif defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.sanitizer, to.stack, to.bytes);
#endif
  switch_stacks(&from.state, to.state);
  arrive(from.sanitizer);
}

void happened_before([[maybe_unused]] void *object) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(object);
#endif
}

void happens_after([[maybe_unused]] void *object) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(object);
#endif
}

} // namespace emulation
