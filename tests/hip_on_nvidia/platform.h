/* Comes before backends/hip/fill.hip where nvcc compiles it: HIP's headers for NVIDIA, and what they lack. */
#ifndef DRAFTMETA_PLATFORM_H
#define DRAFTMETA_PLATFORM_H

#include "cuda13.h"

#include <hip/hip_runtime.h>

/* nvcc has it as a variable, which no loop can be unrolled by. */
#define warpSize 32

/* CUDA's own ended with sm_60; HIP's headers replace the shuffles, and not this. */
#define __ballot(predicate) __ballot_sync(0xffffffffu, predicate)

/* By hardware, for which HIP 5.2 has no word. The compiler prefers these to fill.hip's template. */
static __device__ __forceinline__ unsigned gpu_warp_sum(unsigned v)
{
    return __reduce_add_sync(0xffffffffu, v);
}

/* In pieces of 24 bits, whose sums fit 32. */
static __device__ __forceinline__ unsigned long gpu_warp_sum(unsigned long v)
{
    const unsigned low = gpu_warp_sum((unsigned)v & 0xffffffu);
    const unsigned middle = gpu_warp_sum((unsigned)(v >> 24) & 0xffffffu);
    const unsigned high = gpu_warp_sum((unsigned)(v >> 48));
    return low + ((unsigned long)middle << 24) + ((unsigned long)high << 48);
}

#endif
