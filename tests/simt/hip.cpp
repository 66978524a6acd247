/* The test driver under libamdhip64's names. */
#include "driver.hpp"

using driver::enter;
using driver::Handle;

const driver::Vendor driver::vendor = {64, false, false, 63};

#pragma GCC visibility push(default)
extern "C" {

int hipInit(unsigned flags)
{
    return enter(__func__, [=] { return driver::init(flags); });
}

int hipDriverGetVersion(int *version)
{
    return enter(__func__, [=] { return *version = 60342133, driver::success; });
}

int hipGetDeviceCount(int *count)
{
    return enter(__func__, [=] { return driver::device_count(count); });
}

int hipDeviceGet(int *device, int ordinal)
{
    return enter(__func__, [=] { return driver::device_get(device, ordinal); });
}

int hipDeviceGetName(char *name, int size, int device)
{
    return enter(__func__, [=] { return driver::device_name(name, size, device); });
}

int hipDeviceGetAttribute(int *value, int attribute, int device)
{
    return enter(__func__, [=] { return driver::device_attribute(value, attribute, device); });
}

const char *hipGetErrorString(int error)
{
    const char *words = driver::error_words(error);
    return words ? words : "unknown error";
}

int hipGetDevice(int *ordinal)
{
    return enter(__func__, [=] { return driver::ordinal_get(ordinal); });
}

int hipSetDevice(int ordinal)
{
    return enter(__func__, [=] { return driver::ordinal_set(ordinal); });
}

int hipModuleLoadData(Handle *module, const void *image)
{
    return enter(__func__, [=] { return driver::module_load(module, image); });
}

int hipModuleUnload(Handle module)
{
    return enter(__func__, [=] { return driver::module_unload(module); });
}

int hipModuleGetFunction(Handle *function, Handle module, const char *name)
{
    return enter(__func__, [=] { return driver::module_function(function, module, name); });
}

int hipModuleLaunchKernel(Handle function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned, Handle stream, void **params, void **extra)
{
    return enter(__func__, [=] {
        return driver::launch({function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, 0, params, extra},
                              stream);
    });
}

int hipMalloc(void **ptr, std::size_t bytes)
{
    return enter(__func__, [=] { return driver::mem_alloc(ptr, bytes); });
}

int hipFree(void *ptr)
{
    return enter(__func__, [=] { return driver::mem_free(ptr); });
}

int hipMemcpyHtoDAsync(void *dst, const void *src, std::size_t bytes, Handle stream)
{
    return enter(__func__, [=] { return driver::copy_in(dst, src, bytes, stream); });
}

int hipMemcpyDtoHAsync(void *dst, const void *src, std::size_t bytes, Handle stream)
{
    return enter(__func__, [=] { return driver::copy_out(dst, src, bytes, stream); });
}

int hipMemGetAddressRange(void **base, std::size_t *size, const void *ptr)
{
    return enter(__func__, [=] { return driver::address_range(base, size, ptr); });
}

int hipStreamCreate(Handle *stream)
{
    return enter(__func__, [=] { return driver::stream_create(stream, 0); });
}

int hipStreamCreateWithFlags(Handle *stream, unsigned flags)
{
    return enter(__func__, [=] { return driver::stream_create(stream, flags); });
}

int hipStreamDestroy(Handle stream)
{
    return enter(__func__, [=] { return driver::stream_destroy(stream); });
}

int hipStreamSynchronize(Handle stream)
{
    return enter(__func__, [=] { return driver::stream_synchronize(stream); });
}

int hipStreamIsCapturing(Handle stream, int *status)
{
    return enter(__func__, [=] { return driver::stream_is_capturing(stream, status); });
}

int hipStreamBeginCapture(Handle stream, int mode)
{
    return enter(__func__, [=] { return driver::begin_capture(stream, mode); });
}

int hipStreamEndCapture(Handle stream, Handle *graph)
{
    return enter(__func__, [=] { return driver::end_capture(stream, graph); });
}

int hipGraphInstantiate(Handle *exec, Handle graph, Handle *, char *, std::size_t)
{
    return enter(__func__, [=] { return driver::graph_instantiate(exec, graph); });
}

int hipGraphInstantiateWithFlags(Handle *exec, Handle graph, unsigned long long)
{
    return enter(__func__, [=] { return driver::graph_instantiate(exec, graph); });
}

int hipGraphLaunch(Handle exec, Handle stream)
{
    return enter(__func__, [=] { return driver::graph_launch(exec, stream); });
}

int hipGraphExecDestroy(Handle exec)
{
    return enter(__func__, [=] { return driver::exec_destroy(exec); });
}

int hipGraphDestroy(Handle graph)
{
    return enter(__func__, [=] { return driver::graph_destroy(graph); });
}

int hipEventCreate(Handle *event)
{
    return enter(__func__, [=] { return driver::event_create(event); });
}

int hipEventCreateWithFlags(Handle *event, unsigned)
{
    return enter(__func__, [=] { return driver::event_create(event); });
}

int hipEventDestroy(Handle event)
{
    return enter(__func__, [=] { return driver::event_destroy(event); });
}

int hipEventRecord(Handle event, Handle stream)
{
    return enter(__func__, [=] { return driver::event_record(event, stream); });
}

int hipEventSynchronize(Handle event)
{
    return enter(__func__, [=] { return driver::event_synchronize(event); });
}

int hipEventElapsedTime(float *milliseconds, Handle start, Handle end)
{
    return enter(__func__, [=] { return driver::event_elapsed(milliseconds, start, end); });
}

} // extern "C"
#pragma GCC visibility pop
