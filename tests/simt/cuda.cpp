/* The test driver under libcuda's names. A CUdeviceptr is written as the pointer that it is on a 64-bit host. */
#include "driver.hpp"

using driver::enter;
using driver::Handle;

const driver::Vendor driver::vendor = {32, true, true, 16};

#pragma GCC visibility push(default)
extern "C" {

int cuInit(unsigned flags)
{
    return enter(__func__, [=] { return driver::init(flags); });
}

int cuDriverGetVersion(int *version)
{
    return enter(__func__, [=] { return *version = 13000, driver::success; });
}

int cuDeviceGetCount(int *count)
{
    return enter(__func__, [=] { return driver::device_count(count); });
}

int cuDeviceGet(int *device, int ordinal)
{
    return enter(__func__, [=] { return driver::device_get(device, ordinal); });
}

int cuDeviceGetName(char *name, int size, int device)
{
    return enter(__func__, [=] { return driver::device_name(name, size, device); });
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    return enter(__func__, [=] { return driver::device_attribute(value, attribute, device); });
}

int cuGetErrorString(int error, const char **text)
{
    return enter(__func__, [=] {
        *text = driver::error_words(error);
        return *text ? driver::success : driver::invalid_value;
    });
}

int cuDevicePrimaryCtxRetain(Handle *context, int device)
{
    return enter(__func__, [=] { return driver::context_retain(context, device); });
}

int cuDevicePrimaryCtxRelease_v2(int device)
{
    return enter(__func__, [=] { return driver::context_release(device); });
}

int cuCtxGetCurrent(Handle *context)
{
    return enter(__func__, [=] { return driver::context_get(context); });
}

int cuCtxSetCurrent(Handle context)
{
    return enter(__func__, [=] { return driver::context_set(context); });
}

int cuModuleLoadData(Handle *module, const void *image)
{
    return enter(__func__, [=] { return driver::module_load(module, image); });
}

int cuModuleUnload(Handle module)
{
    return enter(__func__, [=] { return driver::module_unload(module); });
}

int cuModuleGetFunction(Handle *function, Handle module, const char *name)
{
    return enter(__func__, [=] { return driver::module_function(function, module, name); });
}

int cuLaunchKernel(Handle function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned, Handle stream, void **params, void **extra)
{
    return enter(__func__, [=] {
        return driver::launch({function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, 0, params, extra},
                              stream);
    });
}

int cuMemAlloc_v2(void **ptr, std::size_t bytes)
{
    return enter(__func__, [=] { return driver::mem_alloc(ptr, bytes); });
}

int cuMemFree_v2(void *ptr)
{
    return enter(__func__, [=] { return driver::mem_free(ptr); });
}

int cuMemcpyHtoDAsync_v2(void *dst, const void *src, std::size_t bytes, Handle stream)
{
    return enter(__func__, [=] { return driver::copy_in(dst, src, bytes, stream); });
}

int cuMemcpyDtoHAsync_v2(void *dst, const void *src, std::size_t bytes, Handle stream)
{
    return enter(__func__, [=] { return driver::copy_out(dst, src, bytes, stream); });
}

int cuMemGetAddressRange_v2(void **base, std::size_t *size, const void *ptr)
{
    return enter(__func__, [=] { return driver::address_range(base, size, ptr); });
}

int cuStreamCreate(Handle *stream, unsigned flags)
{
    return enter(__func__, [=] { return driver::stream_create(stream, flags); });
}

int cuStreamCreateWithPriority(Handle *stream, unsigned flags, int priority)
{
    return enter(__func__, [=] { return driver::stream_create(stream, flags, priority); });
}

int cuStreamGetId(Handle stream, unsigned long long *id)
{
    return enter(__func__, [=] { return driver::stream_id(stream, id); });
}

int cuStreamGetCtx(Handle stream, Handle *context)
{
    return enter(__func__, [=] { return driver::stream_context(stream, context); });
}

int cuStreamGetPriority(Handle stream, int *priority)
{
    return enter(__func__, [=] { return driver::stream_priority(stream, priority); });
}

int cuStreamDestroy_v2(Handle stream)
{
    return enter(__func__, [=] { return driver::stream_destroy(stream); });
}

int cuStreamSynchronize(Handle stream)
{
    return enter(__func__, [=] { return driver::stream_synchronize(stream); });
}

int cuStreamIsCapturing(Handle stream, int *status)
{
    return enter(__func__, [=] { return driver::stream_is_capturing(stream, status); });
}

int cuStreamBeginCapture_v2(Handle stream, int mode)
{
    return enter(__func__, [=] { return driver::begin_capture(stream, mode); });
}

int cuStreamEndCapture(Handle stream, Handle *graph)
{
    return enter(__func__, [=] { return driver::end_capture(stream, graph); });
}

int cuGraphCreate(Handle *graph, unsigned)
{
    return enter(__func__, [=] { return driver::graph_create(graph); });
}

int cuGraphAddKernelNode_v2(Handle *node, Handle graph, const Handle *, std::size_t dependencies,
                            const driver::KernelCall *call)
{
    return enter(__func__, [=] { return driver::graph_add_kernel(node, graph, dependencies, call); });
}

int cuGraphExecKernelNodeSetParams_v2(Handle exec, Handle node, const driver::KernelCall *call)
{
    return enter(__func__, [=] { return driver::graph_set_kernel(exec, node, call); });
}

int cuGraphUpload(Handle exec, Handle stream)
{
    return enter(__func__, [=] { return driver::graph_upload(exec, stream); });
}

int cuGraphInstantiateWithFlags(Handle *exec, Handle graph, unsigned long long)
{
    return enter(__func__, [=] { return driver::graph_instantiate(exec, graph); });
}

int cuGraphLaunch(Handle exec, Handle stream)
{
    return enter(__func__, [=] { return driver::graph_launch(exec, stream); });
}

int cuGraphExecDestroy(Handle exec)
{
    return enter(__func__, [=] { return driver::exec_destroy(exec); });
}

int cuGraphDestroy(Handle graph)
{
    return enter(__func__, [=] { return driver::graph_destroy(graph); });
}

int cuEventCreate(Handle *event, unsigned)
{
    return enter(__func__, [=] { return driver::event_create(event); });
}

int cuEventDestroy_v2(Handle event)
{
    return enter(__func__, [=] { return driver::event_destroy(event); });
}

int cuEventRecord(Handle event, Handle stream)
{
    return enter(__func__, [=] { return driver::event_record(event, stream); });
}

int cuEventSynchronize(Handle event)
{
    return enter(__func__, [=] { return driver::event_synchronize(event); });
}

int cuEventElapsedTime(float *milliseconds, Handle start, Handle end)
{
    return enter(__func__, [=] { return driver::event_elapsed(milliseconds, start, end); });
}

} // extern "C"
#pragma GCC visibility pop
