/* The kernels of backends/hip/fill.hip itself, for the host: its <hip/hip_runtime.h> is the one in this folder. */
#include "fibers.hpp"

#include "fill.hip"

#undef KERNEL
#define KERNEL(NAME, name, parameter) make_kernel<parameter, draftmeta_##name>("draftmeta_" #name),
std::vector<engine::Kernel> fibers::kernels()
{
    return {GPU_KERNELS(KERNEL)};
}
