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

/* The parameter, by a pointer of which the compiler knows nothing: it then loads fields where they are used, and not all
 * of them at the kernel's beginning, which takes more scalar registers than there are. */
template <class Launch> DM_FN const Launch &gpu_where_used(const Launch &launch)
{
    typedef const __attribute__((address_space(4))) Launch *constant;
    constant where = (constant)__builtin_amdgcn_kernarg_segment_ptr();
    asm("" : "+s"(where));
    return *(const Launch *)where;
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS) draftmeta_fill(const gpu_launch launch)
{
    const gpu_launch &in = gpu_where_used(launch);
    gpu_fill(in.job, in.job.schedules, in.blocks, (int)blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(GPU_MAX_LENGTHS_THREADS)
    draftmeta_fill_lengths(const gpu_lengths lengths)
{
    gpu_fill_lengths(lengths);
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
