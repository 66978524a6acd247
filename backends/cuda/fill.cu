/* The kernel for NVIDIA GPUs. */
#define DM_FN static __device__ __forceinline__

DM_FN int gpu_warp_size()
{
    return 32;
}

DM_FN unsigned long long gpu_shift_up(unsigned long long v, int d)
{
    return __shfl_up_sync(0xffffffffu, v, d);
}

DM_FN unsigned long long gpu_from_lane(unsigned long long v, int lane)
{
    return __shfl_sync(0xffffffffu, v, lane);
}

DM_FN unsigned long long gpu_ballot(bool p)
{
    return __ballot_sync(0xffffffffu, p);
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

extern "C" __global__ void __launch_bounds__(GPU_MAX_THREADS) draftmeta_fill(const __grid_constant__ gpu_launch launch)
{
    gpu_fill(launch);
}
