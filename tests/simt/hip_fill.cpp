/* The kernels of backends/hip/fill.hip itself, for the host: its <hip/hip_runtime.h> is the one in this folder. */
#include "fibers.hpp"

#include "fill.hip"

std::vector<engine::Kernel> fibers::kernels()
{
    return {
        make_kernel<gpu_launch, draftmeta_fill>("draftmeta_fill"),
        make_kernel<gpu_lengths, draftmeta_fill_lengths>("draftmeta_fill_lengths"),
        make_kernel<gpu_launch, draftmeta_fill_set>("draftmeta_fill_set"),
        make_kernel<gpu_launch, draftmeta_fill_pools>("draftmeta_fill_pools"),
        make_kernel<gpu_launch, draftmeta_fill_few>("draftmeta_fill_few"),
        make_kernel<gpu_launch_many, draftmeta_fill_many>("draftmeta_fill_many"),
        make_kernel<gpu_launch_many, draftmeta_fill_many_sets>("draftmeta_fill_many_sets"),
    };
}
