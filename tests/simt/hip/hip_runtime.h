/* HIP's words as far as backends/hip/fill.hip uses them, by fibers on the host. */
#ifndef DRAFTMETA_SIMT_HIP_RUNTIME_H
#define DRAFTMETA_SIMT_HIP_RUNTIME_H

#include <algorithm>

#include "simt.hpp"

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("simt_shared"), aligned(8)))
#define warpSize static_cast<int>(simt::warp_size())

using simt::blockDim;
using simt::blockIdx;
using simt::threadIdx;

static inline void __syncthreads(unsigned line = __builtin_LINE())
{
    simt::barrier(line);
}

template <class T> static inline T __shfl(T v, int lane, unsigned line = __builtin_LINE())
{
    return static_cast<T>(simt::from_lane(static_cast<std::uint64_t>(v), lane, line));
}

template <class T> static inline T __shfl_up(T v, unsigned d, unsigned line = __builtin_LINE())
{
    return static_cast<T>(simt::shift_up(v, static_cast<int>(d), line));
}

template <class T> static inline T __shfl_xor(T v, int mask, unsigned line = __builtin_LINE())
{
    const int lane = static_cast<int>(threadIdx.x % simt::warp_size());
    return static_cast<T>(simt::from_lane(v, lane ^ mask, line));
}

static inline unsigned long long __ballot(int p, unsigned line = __builtin_LINE())
{
    return simt::ballot(p != 0, line);
}

/* Lanes and launches run one at a time, so that nothing comes between these reads and writes. */
template <class T> static inline T atomicOr(T *to, T v)
{
    const T before = *to;
    *to |= v;
    return before;
}

template <class T> static inline T atomicMax(T *to, T v)
{
    const T before = *to;
    *to = std::max(before, v);
    return before;
}

#endif
