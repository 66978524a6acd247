/* The kernels for NVIDIA GPUs. */
enum { GPU_LEAST_RESIDENT = 2 }; /* blocks of a multiprocessor */

#define DM_FN static __device__ __forceinline__
#define DM_COLD_FN static __device__ __noinline__

DM_FN int gpu_warp_size()
{
    return 32;
}

/* The shuffle itself says whether there is such a lane. */
DM_FN unsigned gpu_add_below(unsigned v, int d)
{
    unsigned sum;
    asm volatile(
        "{ .reg .pred is_there; shfl.sync.up.b32 %0|is_there, %1, %2, 0, 0xffffffff; @is_there add.u32 %0, %0, %1; }"
        : "=&r"(sum)
        : "r"(v), "r"(d));
    return sum;
}

DM_FN unsigned long gpu_add_below(unsigned long v, int d)
{
    const unsigned long below = __shfl_up_sync(0xffffffffu, v, d);
    return (int)threadIdx.x % gpu_warp_size() >= d ? v + below : v;
}

template <class Int> DM_FN Int gpu_from_lane(Int v, int lane)
{
    return __shfl_sync(0xffffffffu, v, lane);
}

DM_FN unsigned long long gpu_ballot(bool p)
{
    return __ballot_sync(0xffffffffu, p);
}

DM_FN unsigned gpu_warp_sum(unsigned v)
{
    return __reduce_add_sync(0xffffffffu, v);
}

/* By hardware in pieces of 24 bits, whose sums fit 32. */
DM_FN unsigned long gpu_warp_sum(unsigned long v)
{
    const unsigned low = __reduce_add_sync(0xffffffffu, (unsigned)v & 0xffffffu);
    const unsigned middle = __reduce_add_sync(0xffffffffu, (unsigned)(v >> 24) & 0xffffffu);
    const unsigned high = __reduce_add_sync(0xffffffffu, (unsigned)(v >> 48));
    return low + ((unsigned long)middle << 24) + ((unsigned long)high << 48);
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
    atomicMax((unsigned long long *)to, (unsigned long long)v);
}

#include "fill.h"
#include "kernels.h"

#define KERNEL(NAME, name, parameter)                                                                                  \
    extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS, GPU_LEAST_RESIDENT)                                  \
        draftmeta_##name(const __grid_constant__ parameter launch)                                                     \
    {                                                                                                                  \
        gpu_##name(launch);                                                                                            \
    }
GPU_KERNELS(KERNEL)
