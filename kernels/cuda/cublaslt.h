/*
 * NVIDIA's own products for large bf16 operands: cuBLASLt, opened when a context is, where the machine has it, and never
 * linked. Without it the tiles of product_tile.cu are the product; they are also what it is tested against.
 *
 * Environment: SBORA_CUBLASLT (path of libcublasLt.so.13 or .12; "off": not used), SBORA_CUBLASLT_ROWS (products of
 * fewer rows keep to the tiles; default 512), SBORA_CUDA_DETERMINISTIC=1 (never used).
 *
 * Which of its kernels computes a row depends on how many there are. A step of the server has fewer than 512 by default
 * (scripts/serve.ts: 256 of prompts), so that an answer does not depend on its neighbours; beyond that, and in training,
 * equality is from run to run (settled 18), for which the depth is summed in one sequence.
 */
#pragma once
#include "product.h"

namespace gpu {

/* ctx.cublaslt: NULL where there is none. Non-zero: one was asked for and cannot be used; sb_fail has been called. */
int32_t cublaslt_open(Context &ctx);
void cublaslt_close(Context &ctx);
/* "13.0.2" */
void cublaslt_version(const Context &ctx, char *text, size_t capacity);
/* Bytes of workspace that its products take beside those of the operands. */
int64_t cublaslt_workspace(const Context &ctx);

enum class Taken { no, yes, failed /* sb_fail has been called */ };
/*
 * to = beta·to + alpha · sums, the tail first, `beside` left out. Not taken, and nothing done: products of few rows, of
 * NF4 weights, with a gain, with a cut depth, with a tail whose result is not f32 (the tail is a product of its own,
 * which would round a bf16 result twice), and what cuBLASLt has no kernel for that sums in one sequence. Operands are
 * bf16, their rows begin at multiples of 16 bytes.
 */
Taken multiply_cublaslt(Room &room, const Product &product);

} // namespace gpu
