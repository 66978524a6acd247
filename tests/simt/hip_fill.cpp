/* The kernels of backends/hip/fill.hip itself, for the host: its <hip/hip_runtime.h> is the one in this folder. */
#include "host_fill.hpp"

#include "fill.hip"

using host_fill::make_kernel;

const std::vector<host_fill::Kernel> host_fill::kernels = {
    make_kernel<gpu_launch, draftmeta_fill>("draftmeta_fill", GPU_MAX_THREADS),
    make_kernel<gpu_lengths, draftmeta_fill_lengths>("draftmeta_fill_lengths", GPU_MAX_LENGTHS_THREADS),
    make_kernel<gpu_launch, draftmeta_fill_set>("draftmeta_fill_set", GPU_MAX_THREADS),
    make_kernel<gpu_launch_many, draftmeta_fill_many>("draftmeta_fill_many", GPU_MAX_THREADS),
    make_kernel<gpu_launch_many, draftmeta_fill_many_sets>("draftmeta_fill_many_sets", GPU_MAX_THREADS),
};
