/* Tensor cores, the loads that feed them, and copies that run beside the arithmetic: PTX of sm_80 and newer. */
#pragma once
#include "device.h"

/* d[16,8] += a[16,16] · b[16,8]; bf16 operands, f32 sums. Which lane holds what: emulation/warp.h, Mma. */
__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if defined(__CUDACC__)
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  emulation::mma_bf16_16x8x16(d, a, b);
#endif
}

/* Four 8 x 8 matrices of 16-bit values from shared memory: lane 8·i + j gives row j of matrix i, aligned to 16 bytes. */
__device__ __forceinline__ void load_matrices(unsigned (&registers)[4], const void *row) {
#if defined(__CUDACC__)
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
#else
  emulation::load_matrices<4, false>(registers, row);
#endif
}

/* The same, each matrix transposed on the way. */
__device__ __forceinline__ void load_transposed(unsigned (&registers)[4], const void *row) {
#if defined(__CUDACC__)
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
#else
  emulation::load_matrices<4, true>(registers, row);
#endif
}

/* 16 bytes from global to shared memory, both aligned to 16: the first `bytes` (0 to 16) of them, zeros behind. They are
 * there for this thread behind wait_copies, for the block behind __syncthreads after that. */
__device__ __forceinline__ void copy_async(void *shared, const void *global, int bytes = 16) {
#if defined(__CUDACC__)
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(shared))),
               "l"(global), "r"(bytes)
               : "memory");
#else
  emulation::copy_later(shared, global, bytes, 16 - bytes);
#endif
}

/* Ends a group of copies. */
__device__ __forceinline__ void commit_copies() {
#if defined(__CUDACC__)
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  emulation::close_copies();
#endif
}

/* Waits for all of this thread's groups but the `open` newest. */
template <int open> __device__ __forceinline__ void wait_copies() {
#if defined(__CUDACC__)
  asm volatile("cp.async.wait_group %0;" ::"n"(open) : "memory");
#else
  emulation::wait_for_copies(open);
#endif
}
