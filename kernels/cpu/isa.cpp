/*
 * Every op of the CPU library for one instruction set, -DSB_ISA_LEVEL=0..3 with the compiler flags to match. All of it
 * lies in an unnamed namespace: a function of one level must never be merged by the linker with another level's. For
 * the same reason nothing below calls a template of the standard library.
 */
#include "../host/indices.h"
#include "../host/nf4.h"
#include "context.h"
#include "weight_memory.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#if defined(__GNUC__) && !defined(__clang__)
/* GCC 12 about its own intrinsics' undefined operands. */
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#endif

namespace {
#include "vector.h"

template <class Body>
SB_INLINE void parallel(sb_cpu_context &ctx, int64_t tasks, const Body &body) {
  sb_parallel(
      ctx, tasks,
      [](void *argument, int64_t task, int32_t thread) { (*static_cast<const Body *>(argument))(task, thread); },
      const_cast<Body *>(&body));
}

#include "product.h"
#include "weight.cpp"
#include "patch.cpp"
#include "linear.cpp"
#include "matmul.cpp"
#include "embedding_forward.cpp"
#include "head_loss.cpp"

#include "block.h"
#include "embedding_backward.cpp"
#include "rms_norm.cpp"
#include "rope.cpp"
#include "attention.cpp"
#include "attention_paged.cpp"
#include "swiglu.cpp"
#include "dropout.cpp"
#include "columns.cpp"
#include "rows.cpp"
#include "dora.cpp"
#include "elementwise.cpp"
#include "adamw.cpp"
#include "random.cpp"
#include "topk.cpp"
} // namespace

#define SB_JOIN(a, b) a##b
#define SB_OPS(level) SB_JOIN(sb_cpu_ops_, level)

void SB_OPS(SB_ISA_LEVEL)(sb_backend &table) {
#define SB_FILL(name) table.name = name;
  SB_BACKEND_OPS(SB_FILL)
#undef SB_FILL
  table.sync = sync;
}
