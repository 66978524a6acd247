/* The CUDA backend: libcuda.so.1's names for the driver table, and its primary context. */
#include <stdio.h>

#include "gpu.h"

#define AT(member) offsetof(gpu_driver, member)
static const gpu_symbol symbols[] = {
    {"cuInit", AT(init)},
    {"cuDriverGetVersion", AT(driver_version)},
    {"cuDeviceGetCount", AT(device_count)},
    {"cuDeviceGet", AT(device_get)},
    {"cuDeviceGetName", AT(device_name)},
    {"cuDeviceGetAttribute", AT(device_attribute)},
    {"cuGetErrorString", AT(error_string)},
    {"cuModuleLoadData", AT(module_load)},
    {"cuModuleUnload", AT(module_unload)},
    {"cuModuleGetFunction", AT(module_function)},
    {"cuLaunchKernel", AT(launch)},
    {"cuMemAlloc_v2", AT(mem_alloc)},
    {"cuMemFree_v2", AT(mem_free)},
    {"cuMemcpyHtoDAsync_v2", AT(copy_in)},
    {"cuMemcpyDtoHAsync_v2", AT(copy_out)},
    {"cuMemGetAddressRange_v2", AT(address_range)},
    {"cuStreamSynchronize", AT(stream_sync)},
    {"cuStreamIsCapturing", AT(stream_is_capturing)},
    {"cuDevicePrimaryCtxRetain", AT(context_retain)},
    {"cuDevicePrimaryCtxRelease_v2", AT(context_release)},
    {"cuCtxGetCurrent", AT(context_get)},
    {"cuCtxSetCurrent", AT(context_set)},
};

static const gpu_symbol graph_symbols[] = {
    {"cuStreamGetId", AT(graphs.stream_id)},
    {"cuStreamGetPriority", AT(graphs.stream_priority)},
    {"cuStreamGetCtx", AT(graphs.stream_context)},
    {"cuStreamCreate", AT(graphs.stream_create)},
    {"cuStreamDestroy_v2", AT(graphs.stream_destroy)},
    {"cuGraphCreate", AT(graphs.create)},
    {"cuGraphAddKernelNode_v2", AT(graphs.add_kernel)},
    {"cuGraphDestroy", AT(graphs.destroy)},
    {"cuGraphInstantiateWithFlags", AT(graphs.instantiate)},
    {"cuGraphUpload", AT(graphs.upload)},
    {"cuGraphExecKernelNodeSetParams_v2", AT(graphs.set_kernel)},
    {"cuGraphLaunch", AT(graphs.launch)},
    {"cuGraphExecDestroy", AT(graphs.exec_destroy)},
};
#undef AT

_Static_assert(sizeof(void *) != 8 || (sizeof(gpu_kernel_node) == 72 && offsetof(gpu_kernel_node, params) == 40),
               "gpu_kernel_node is not laid out as CUDA_KERNEL_NODE_PARAMS_v2");

/* 13000 is CUDA 13.0. */
static void format_version(int version, char *text, size_t size)
{
    snprintf(text, size, "CUDA %d.%d", version / 1000, version % 1000 / 10);
}

static bool means_no_device(int error)
{
    return error == 100; /* CUDA_ERROR_NO_DEVICE */
}

/* The primary context, which the CUDA runtime and PyTorch use too. */
static int retain(const gpu_driver *driver, int ordinal, int device, void **place)
{
    (void)ordinal;
    return driver->context_retain(place, device);
}

static int release(const gpu_driver *driver, int device)
{
    return driver->context_release(device);
}

static int enter(const gpu_driver *driver, void *place, void **before)
{
    const int error = driver->context_get(before);
    return error || *before == place ? error : driver->context_set(place);
}

static int leave(const gpu_driver *driver, void *place, void *before)
{
    return before == place ? 0 : driver->context_set(before);
}

extern const unsigned char dm_cuda_image[], dm_cuda_image_end[];

static const gpu_vendor vendor = {
    .library = "libcuda.so.1",
    .symbols = symbols,
    .num_symbols = sizeof symbols / sizeof *symbols,
    .graph_symbols = graph_symbols,
    .num_graph_symbols = sizeof graph_symbols / sizeof *graph_symbols,
    .image = dm_cuda_image,
    .image_end = dm_cuda_image_end,
    .without_code = "build it where nvcc is found",
    .oldest_driver = CUDA_OLDEST_DRIVER, /* of the device code's compiler */
    .format_version = format_version,
    .means_no_device = means_no_device,
    .out_of_memory_error = 2,
    .multiprocessors_attribute = 16,
    .retain = retain,
    .release = release,
    .enter = enter,
    .leave = leave,
};

static void probe(const char *library, dm_backend_info *info)
{
    gpu_probe(&vendor, library, info);
}

static dm_status open_cuda(const dm_open_args *args, void **state)
{
    return gpu_open(&vendor, args, state);
}

const dm_backend dm_backend_cuda = {
    .name = "cuda",
    .library_variable = "DRAFTMETA_CUDA_LIBRARY",
    .probe = probe,
    .open = open_cuda,
    .close = gpu_close,
    .device_name = gpu_device_name,
    .alloc = gpu_alloc,
    .free = gpu_free,
    .upload = gpu_upload,
    .download = gpu_download,
    .sync = gpu_sync,
    .is_capturing = gpu_is_capturing,
    .check_range = gpu_check_range,
    .fill = gpu_fill,
};
