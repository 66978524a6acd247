/* The kernel for AMD GPUs, and for NVIDIA's through HIP. */
#include <hip/hip_runtime.h>

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

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS) draftmeta_fill(const gpu_launch launch)
{
    gpu_fill_any(launch);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS)
    draftmeta_fill_lengths(const gpu_lengths lengths)
{
    gpu_fill_lengths(lengths);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS) draftmeta_fill_set(const gpu_launch launch)
{
    gpu_fill_set<false>(launch);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS) draftmeta_fill_pools(const gpu_launch launch)
{
    gpu_fill_set<true>(launch);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS) draftmeta_fill_many(const gpu_launch_many launch)
{
    gpu_fill_many(launch);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS) draftmeta_fill_many_sets(const gpu_launch_many launch)
{
    gpu_fill_many_sets(launch);
}
