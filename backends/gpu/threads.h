/* What device code is written in, for every GPU. A vendor's source file includes fill.h after it has defined
 *     DM_FN                        how a device function is declared
 *     DM_COLD_FN                   the same for one that is rarely called: out of line where the vendor's GPUs can
 *     gpu_warp_size()              lanes of a warp: 32 or 64
 *     gpu_from_lane(v, lane)       a 32- or 64-bit value from one lane of a full warp
 *     gpu_ballot(p)                the lanes of a full warp where p holds
 *     gpu_warp_sum(v)              the sum of a 32- or 64-bit value over a full warp, in every lane
 *     gpu_add_below(v, d)          v and, where there is one, that of the lane d below: 32- or 64-bit, of a full warp
 *     gpu_or32, gpu_max32, gpu_max64(ptr, v)   atomics on global memory
 * and includes it where threadIdx, blockIdx, blockDim, __shared__ and __syncthreads mean what they do in CUDA and HIP.
 */
#ifndef DRAFTMETA_GPU_THREADS_H
#define DRAFTMETA_GPU_THREADS_H

#include "formula.h"
#include "launch.h"

enum { GPU_MIN_WARP = 32, GPU_MAX_WARPS = GPU_MAX_THREADS / GPU_MIN_WARP };

/* Sums and counts are templates of their integer type. In 64 bits (unsigned) they are exact. In 32 bits, for the jobs
 * that engines have (gpu_kind_of in plan.c), tokens count up to one more than the capacity, and other sums are the low
 * bits, which is all that a fill stores. */
template <class Int> struct gpu_index {
    typedef int64_t type; /* of a token's number */
};
template <> struct gpu_index<uint32_t> {
    typedef int32_t type;
};

template <class Int> DM_FN constexpr bool gpu_is_exact()
{
    return sizeof(Int) > sizeof(uint32_t);
}

DM_FN int gpu_lane()
{
    return (int)(threadIdx.x % (unsigned)gpu_warp_size());
}

DM_FN int gpu_warp()
{
    return (int)(threadIdx.x / (unsigned)gpu_warp_size());
}

/* The warps of a block. */
DM_FN int gpu_warps()
{
    return (int)(blockDim.x / (unsigned)gpu_warp_size());
}

template <class Int> DM_FN Int gpu_min(Int a, Int b)
{
    return a < b ? a : b;
}

DM_FN int32_t gpu_or_zero(int32_t v)
{
    return v < 0 ? 0 : v;
}

/* a / b, out of line: what a division takes in instructions is needed once. */
DM_COLD_FN uint64_t gpu_divide(uint64_t a, uint32_t b)
{
    return dm_divide(a, b);
}

DM_COLD_FN uint32_t gpu_divide32(uint32_t a, uint32_t b)
{
    return a / b;
}

/* An int32 or int64 of an array, as its words: extending a sign would wait for it, before what is wanted besides is on
 * its way. bytes: 4 or 8. */
typedef struct gpu_words {
    int32_t low, high;
} gpu_words;

DM_FN gpu_words gpu_load_words(const void *array, int32_t bytes, uint32_t i)
{
    const int32_t *at = (const int32_t *)((const char *)array + (uint64_t)i * (uint32_t)bytes);
    return gpu_words{at[0], bytes > 4 ? at[1] : 0};
}

DM_FN int64_t gpu_value(const gpu_words &words, int32_t bytes)
{
    return (int64_t)((uint64_t)(uint32_t)(bytes > 4 ? words.high : words.low >> 31) << 32 | (uint32_t)words.low);
}

/* The value, or the int32 that is closest to it. */
DM_FN int32_t gpu_saturated(const gpu_words &words, int32_t bytes)
{
    return bytes > 4 && words.high != words.low >> 31 ? words.high >> 31 ^ INT32_MAX : words.low;
}

#endif
