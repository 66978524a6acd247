/* The HIP backend: libamdhip64.so's names for the driver table; a thread's current device is an ordinal. */
#include <stdio.h>

#include "gpu.h"

#define AT(member) offsetof(gpu_driver, member)
static const gpu_symbol symbols[] = {
    {"hipInit", AT(init)},
    {"hipDriverGetVersion", AT(driver_version)},
    {"hipGetDeviceCount", AT(device_count)},
    {"hipDeviceGet", AT(device_get)},
    {"hipDeviceGetName", AT(device_name)},
    {"hipDeviceGetAttribute", AT(device_attribute)},
    {"hipGetErrorString", AT(error_text)},
    {"hipModuleLoadData", AT(module_load)},
    {"hipModuleUnload", AT(module_unload)},
    {"hipModuleGetFunction", AT(module_function)},
    {"hipModuleLaunchKernel", AT(launch)},
    {"hipMalloc", AT(mem_alloc)},
    {"hipFree", AT(mem_free)},
    {"hipMemcpyHtoDAsync", AT(copy_in)},
    {"hipMemcpyDtoHAsync", AT(copy_out)},
    {"hipMemGetAddressRange", AT(address_range)},
    {"hipStreamSynchronize", AT(stream_sync)},
    {"hipStreamIsCapturing", AT(stream_is_capturing)},
    {"hipGetDevice", AT(ordinal_get)},
    {"hipSetDevice", AT(ordinal_set)},
};
#undef AT

/* 60342133 is HIP 6.3.42133. */
static void format_version(int version, char *text, size_t size)
{
    snprintf(text, size, "HIP %d.%d.%d", version / 10000000, version / 100000 % 100, version % 100000);
}

static bool means_no_device(int error)
{
    return error == 100 || error == 101; /* hipErrorNoDevice; without the kernel's driver hipErrorInvalidDevice */
}

/* A place is the ordinal plus one, so that no place is NULL. */
static int retain(const gpu_driver *driver, int ordinal, int device, void **place)
{
    (void)driver, (void)device;
    *place = (void *)(uintptr_t)(ordinal + 1);
    return 0;
}

static int release(const gpu_driver *driver, int device)
{
    (void)driver, (void)device;
    return 0;
}

static int ordinal_of(const void *place)
{
    return (int)(uintptr_t)place - 1;
}

static int enter(const gpu_driver *driver, void *place, void **before)
{
    int ordinal;
    const int error = driver->ordinal_get(&ordinal);
    if (error)
        return error;
    *before = (void *)(uintptr_t)(ordinal + 1);
    return *before == place ? 0 : driver->ordinal_set(ordinal_of(place));
}

static int leave(const gpu_driver *driver, void *place, void *before)
{
    return before == place ? 0 : driver->ordinal_set(ordinal_of(before));
}

extern const unsigned char dm_hip_image[], dm_hip_image_end[];

static const gpu_vendor vendor = {
    .library = "libamdhip64.so",
    .symbols = symbols,
    .num_symbols = sizeof symbols / sizeof *symbols,
    .image = dm_hip_image,
    .image_end = dm_hip_image_end,
    .without_code = "build it where ROCm is, or clang-19 with AMD's device libraries",
    .oldest_driver = 60000000, /* takes code objects of version 5 */
    .format_version = format_version,
    .means_no_device = means_no_device,
    .out_of_memory_error = 2,
    .multiprocessors_attribute = 63,
    .retain = retain,
    .release = release,
    .enter = enter,
    .leave = leave,
};

static void probe(const char *library, dm_backend_info *info)
{
    gpu_probe(&vendor, library, info);
}

static dm_status open_hip(const dm_open_args *args, void **state)
{
    return gpu_open(&vendor, args, state);
}

const dm_backend dm_backend_hip = {
    .name = "hip",
    .library_variable = "DRAFTMETA_HIP_LIBRARY",
    .probe = probe,
    .open = open_hip,
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
