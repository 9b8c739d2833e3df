/*
 * What every .cu file includes first: CUDA's own headers under nvcc, the emulation under a C++ compiler. The two differ in
 * nothing that a .cu file sees; shared memory is declared by the macros below, kernels are launched by `launch`
 * (context.h), tensor cores stand in mma.cuh.
 */
#pragma once
#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

template <class T> using Shared = T;
/* SHARED(float[32], sums); a comma in the type needs an alias. Holds garbage at first; NaN under emulation. */
#define SHARED(type, name) __shared__ Shared<type> name
/* What the launch asked for, aligned to 16 bytes. One a kernel. */
#define DYNAMIC_SHARED(type, name)                                                                                    \
  extern __shared__ __align__(16) unsigned char dynamic_shared_bytes[];                                               \
  type *const name = reinterpret_cast<type *>(dynamic_shared_bytes)
#else
#include "emulation/cuda.h"
#endif

#include <cstdint>

/* Lanes of a warp, and all of them as a mask. */
constexpr int kWarpLanes = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
