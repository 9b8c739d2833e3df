/* The CPU backend's context: a thread pool, a workspace and the instruction set that was chosen at run time. */
#pragma once
#include "../backend.h"
#include "../host/memory.h"

struct sb_pool;     /* pool.cpp */
struct WeightBlock; /* weight_memory.cpp */

enum sb_isa { SB_ISA_PORTABLE = 0, SB_ISA_AVX2 = 1, SB_ISA_AVX512 = 2, SB_ISA_AVX512BF16 = 3 };

struct sb_cpu_context : sb_host_context {
  sb_pool *pool;
  int32_t threads;
  sb_isa isa;
  unsigned char *workspace; /* 64-byte aligned; made by sb_reserve, the same address until the next sb_reserve */
  int64_t workspace_bytes;
  WeightBlock *weight_block;  /* the last one, which may have room */
  const sb_weight *unsettled; /* weights with flips that wait (weight.cpp); some may have none any more */
};

inline sb_cpu_context &sb_cpu(sb_context *ctx) { return *static_cast<sb_cpu_context *>(ctx); }

/*
 * Runs body(argument, task, thread) for every task in [0,tasks), tasks handed out in order to whichever thread is free;
 * thread in [0,threads). Returns when all are done. Tasks write disjoint memory and each sums in its own fixed order,
 * so a result never depends on who ran it. Not reentrant.
 */
void sb_parallel(sb_cpu_context &ctx, int64_t tasks, void (*body)(void *argument, int64_t task, int32_t thread),
                 void *argument);

/* What each family of ops needs from the workspace for shapes up to the given ones (defined beside the ops, in plain
 * C++ files that are compiled once, not per instruction set). */
int64_t sb_product_workspace(int32_t threads, int64_t tokens, int64_t width, int64_t rank, int64_t vocabulary);
int64_t sb_block_workspace(int32_t threads, int64_t tokens, int64_t width);
