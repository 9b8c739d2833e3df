/*
 * What a library puts behind the ABI. kernels/abi.cpp exports every sb_* function once: it checks pointers, sizes,
 * dtypes and ranges, catches whatever is thrown, and calls the same-named entry of the context's table. A backend
 * function therefore has exactly the signature of its sb_* function (the table is derived from the header), may trust
 * its scalar arguments, and returns 0 or sb_fail(...).
 */
#pragma once
#include "sbora.h"

/* Context and memory: one form a library. */
#define SB_BACKEND_CONTEXT(X)                                                                                         \
  X(close) X(describe) X(sync) X(reserve) X(alloc) X(free) X(allocated) X(read) X(write) X(copy) X(zero)
/* Weights and ops: one form an instruction set. */
#define SB_BACKEND_OPS(X)                                                                                             \
  X(weight_create) X(weight_free) X(weight_read_rows) X(weight_write_rows) X(weight_read_columns)                     \
  X(weight_write_columns) X(weight_row_squares)                                                                       \
  X(nf4_quantize) X(weight_create_nf4) X(weight_drop_replaced)                                                        \
  X(patch_create) X(patch_free) X(patch_flip)                                                                         \
  X(linear_forward) X(linear_backward) X(matmul)                                                                      \
  X(embedding_forward) X(embedding_backward) X(head_loss) X(topk_log_softmax)                                         \
  X(rms_norm_forward) X(rms_norm_backward) X(rope_table) X(rope)                                                      \
  X(attention_forward) X(attention_backward) X(kv_write) X(attention_paged)                                           \
  X(swiglu_forward) X(swiglu_backward)                                                                                \
  X(dropout_apply) X(gather_columns) X(scatter_add_columns) X(gather_rows) X(scatter_add_rows)                        \
  X(scale_columns) X(scale_rows) X(column_dot) X(row_dot) X(dora_gain)                                                \
  X(axpby) X(sum_squares) X(adamw) X(random_uniform) X(random_normal)
#define SB_BACKEND_FUNCTIONS(X) SB_BACKEND_CONTEXT(X) SB_BACKEND_OPS(X)

/* The function's type without noexcept: an entry may throw (abi.cpp catches it). */
template <class Function> struct sb_entry;
template <class... Arguments> struct sb_entry<int32_t(Arguments...) noexcept> {
  using type = int32_t(Arguments...);
};

struct sb_backend {
#define SB_ENTRY(name) sb_entry<decltype(::sb_##name)>::type *name;
  SB_BACKEND_FUNCTIONS(SB_ENTRY)
#undef SB_ENTRY
};

/* First member of every backend's own context. */
struct sb_context {
  const sb_backend *backend;
};

/* First members of every backend's own weight, so that abi.cpp can check shapes. */
struct sb_weight {
  int64_t out, in;
  int32_t dtype;   /* type the values are held in */
  int32_t compute; /* SB_F32 or SB_BF16 */
  int64_t turn;    /* its place in the list that sb_patch_flip last checked */
};

/* First member of every backend's own patch. */
struct sb_patch {
  sb_weight *weight;
};

/* Each library defines these two; abi.cpp calls them. */
int32_t sb_backend_open(int32_t threads, const char *isa, sb_context **out);
/* Bytes of one "real" (4, or 8 in the double build of the reference). */
extern const int32_t sb_real_bytes;

/* Stores the printf-style text for sb_last_error and returns 1. Defined in abi.cpp. */
__attribute__((format(printf, 1, 2))) int32_t sb_fail(const char *format, ...);
