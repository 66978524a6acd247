/* The kernels for the driver with libcuda's names: what fill.h asks for, by fibers. */
#include <algorithm>

#include "fibers.hpp"

#define DM_FN static inline
#define DM_COLD_FN static
#define __shared__ static __attribute__((section("simt_shared"), aligned(8)))

using simt::blockDim;
using simt::blockIdx;
using simt::threadIdx;

DM_FN void __syncthreads(unsigned line = __builtin_LINE())
{
    simt::barrier(line);
}

DM_FN int gpu_warp_size()
{
    return static_cast<int>(simt::warp_size());
}

template <class Int> DM_FN Int gpu_add_below(Int v, int d, unsigned line = __builtin_LINE())
{
    const auto below = static_cast<Int>(simt::shift_up(v, d, line));
    return static_cast<int>(threadIdx.x) % gpu_warp_size() >= d ? v + below : v;
}

template <class Int> DM_FN Int gpu_from_lane(Int v, int lane, unsigned line = __builtin_LINE())
{
    return static_cast<Int>(simt::from_lane(static_cast<uint64_t>(v), lane, line));
}

DM_FN uint64_t gpu_ballot(bool p, unsigned line = __builtin_LINE())
{
    return simt::ballot(p, line);
}

template <class Int> DM_FN Int gpu_warp_sum(Int v, unsigned line = __builtin_LINE())
{
    return static_cast<Int>(simt::warp_sum(v, line));
}

/* Lanes and launches run one at a time, so that nothing comes between these reads and writes. */
DM_FN void gpu_or32(uint32_t *to, uint32_t v)
{
    *to |= v;
}

DM_FN void gpu_max32(uint32_t *to, uint32_t v)
{
    *to = std::max(*to, v);
}

DM_FN void gpu_max64(uint64_t *to, uint64_t v)
{
    *to = std::max(*to, v);
}

#include "fill.h"
#include "kernels.h"

#define KERNEL(NAME, name, parameter) make_kernel<parameter, gpu_##name>("draftmeta_" #name),
std::vector<engine::Kernel> fibers::kernels()
{
    return {GPU_KERNELS(KERNEL)};
}
