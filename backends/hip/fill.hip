/* The kernels for AMD GPUs, and for NVIDIA's through HIP. */
#include <hip/hip_runtime.h>

/* nvcc works on a copy of a parameter that is not so marked; AMD's compilers have no such word. */
#ifndef __grid_constant__
#define __grid_constant__
#endif

/* For AMD waves of a SIMD, for NVIDIA blocks of a multiprocessor, which comes to the same. */
enum { GPU_LEAST_RESIDENT = 2 };

#define DM_FN static __device__ __forceinline__
#define DM_COLD_FN DM_FN

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
#include "kernels.h"

/* The parameter. To AMD's compilers by a pointer of which they know nothing: they then load fields where they are used,
 * and not all of them at the kernel's beginning, which takes more scalar registers than there are. */
template <class Launch> DM_FN const Launch &gpu_where_used(const Launch &launch)
{
#ifdef __AMDGCN__
    typedef const __attribute__((address_space(4))) Launch *constant;
    constant where = (constant)__builtin_amdgcn_kernarg_segment_ptr();
    asm("" : "+s"(where));
    return *(const Launch *)where;
#else
    return launch;
#endif
}

#define KERNEL(NAME, name, parameter)                                                                                  \
    extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS, GPU_LEAST_RESIDENT)                                  \
        draftmeta_##name(const __grid_constant__ parameter launch)                                                     \
    {                                                                                                                  \
        gpu_##name(gpu_where_used(launch));                                                                            \
    }
GPU_KERNELS(KERNEL)
