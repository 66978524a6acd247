/* The kernel for AMD GPUs, and for NVIDIA's through HIP. */
#include <hip/hip_runtime.h>

/* nvcc works on a copy of a parameter that is not so marked; AMD's compilers have no such word. */
#ifndef __grid_constant__
#define __grid_constant__
#endif

/* Of a fill: for AMD waves of a SIMD, for NVIDIA blocks of a multiprocessor, which comes to the same. */
enum { GPU_LEAST_RESIDENT = 4 };

#define DM_FN static __device__ __forceinline__

DM_FN int gpu_warp_size()
{
    return warpSize;
}

template <class Int> DM_FN Int gpu_add_below(Int v, int d)
{
    const Int below = __shfl_up(v, d);
    return (int)threadIdx.x % gpu_warp_size() >= d ? v + below : v;
}

template <class Int> DM_FN Int gpu_from_lane(Int v, int lane)
{
    return __shfl(v, lane);
}

DM_FN unsigned long long gpu_ballot(bool p)
{
    return __ballot(p);
}

template <class Int> DM_FN Int gpu_warp_sum(Int v)
{
#pragma unroll 1
    for (int d = gpu_warp_size() / 2; d; d /= 2)
        v += __shfl_xor(v, d);
    return v;
}

DM_FN void gpu_or32(unsigned *to, unsigned v)
{
    atomicOr(to, v);
}

DM_FN void gpu_max32(unsigned *to, unsigned v)
{
    atomicMax(to, v);
}

DM_FN void gpu_max64(unsigned long *to, unsigned long v)
{
    atomicMax(reinterpret_cast<unsigned long long *>(to), static_cast<unsigned long long>(v));
}

#include "fill.h"

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS, GPU_LEAST_RESIDENT)
    draftmeta_fill(const __grid_constant__ gpu_launch launch)
{
    gpu_fill(launch.job, launch.job.schedules, launch.blocks, (int)blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_LENGTHS_THREADS)
    draftmeta_fill_lengths(const __grid_constant__ gpu_lengths lengths)
{
    gpu_fill_lengths(lengths);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS, GPU_LEAST_RESIDENT)
    draftmeta_fill_set(const __grid_constant__ gpu_launch launch)
{
    gpu_fill_set(launch);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS, GPU_LEAST_RESIDENT)
    draftmeta_fill_many(const __grid_constant__ gpu_launch_many launch)
{
    gpu_fill_many(launch);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS, GPU_LEAST_RESIDENT)
    draftmeta_fill_many_sets(const __grid_constant__ gpu_launch_many launch)
{
    gpu_fill_many_sets(launch);
}
