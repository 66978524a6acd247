/* The kernel for AMD GPUs, and for NVIDIA's through HIP. */
#include <hip/hip_runtime.h>

#define DM_FN static __device__ __forceinline__

DM_FN int gpu_warp_size()
{
    return warpSize;
}

template <class Int> DM_FN Int gpu_shift_up(Int v, int d)
{
    return __shfl_up(v, d);
}

template <class Int> DM_FN Int gpu_from_lane(Int v, int lane)
{
    return __shfl(v, lane);
}

DM_FN unsigned long long gpu_ballot(bool p)
{
    return __ballot(p);
}

DM_FN unsigned long gpu_warp_sum(unsigned long v)
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

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS) draftmeta_fill(const gpu_launch launch)
{
    gpu_fill(launch.job, launch.job.schedules, launch.blocks, (int)blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS) draftmeta_fill_lengths(const gpu_launch launch)
{
    gpu_fill_lengths(launch);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS) draftmeta_fill_set(const gpu_launch launch)
{
    gpu_fill_set(launch);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS) draftmeta_fill_many(const gpu_launch_many launch)
{
    gpu_fill_many(launch);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS) draftmeta_fill_many_sets(const gpu_launch_many launch)
{
    gpu_fill_many_sets(launch);
}
