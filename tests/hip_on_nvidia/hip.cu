/* libamdhip64's entry points on an NVIDIA GPU, by HIP's own headers for that platform, where they are inline functions.
 * Compiled with optimisation only: it leaves none of those functions, whose names these have, in the object. */
#include <hip/hip_runtime.h>

#pragma GCC visibility push(default)
namespace exported
{
extern "C" {

hipError_t hipInit(unsigned flags)
{
    return ::hipInit(flags);
}

/* HIP's, as libamdhip64 would say; the platform says CUDA's. */
hipError_t hipDriverGetVersion(int *version)
{
    *version = 60000000; /* whatever these headers' version: the first whose entry points the backend relies on */
    return hipSuccess;
}

hipError_t hipGetDeviceCount(int *count)
{
    return ::hipGetDeviceCount(count);
}

hipError_t hipDeviceGet(hipDevice_t *device, int ordinal)
{
    return ::hipDeviceGet(device, ordinal);
}

hipError_t hipDeviceGetName(char *name, int size, hipDevice_t device)
{
    return ::hipDeviceGetName(name, size, device);
}

hipError_t hipDeviceGetAttribute(int *value, hipDeviceAttribute_t attribute, int device)
{
    return ::hipDeviceGetAttribute(value, attribute, device);
}

const char *hipGetErrorString(hipError_t error)
{
    return ::hipGetErrorString(error);
}

hipError_t hipSetDevice(int ordinal)
{
    return ::hipSetDevice(ordinal);
}

/* On AMD a thread's current device can be used at once. Here half of the calls are the CUDA driver's, for which a
 * thread has none until the runtime has made its context current. */
hipError_t hipGetDevice(int *ordinal)
{
    CUcontext context = nullptr;
    const hipError_t error = ::hipGetDevice(ordinal);
    if (error == hipSuccess && cuCtxGetCurrent(&context) == CUDA_SUCCESS && !context)
        return ::hipSetDevice(*ordinal);
    return error;
}

hipError_t hipModuleLoadData(hipModule_t *module, const void *image)
{
    return ::hipModuleLoadData(module, image);
}

hipError_t hipModuleUnload(hipModule_t module)
{
    return ::hipModuleUnload(module);
}

hipError_t hipModuleGetFunction(hipFunction_t *function, hipModule_t module, const char *name)
{
    return ::hipModuleGetFunction(function, module, name);
}

hipError_t hipModuleLaunchKernel(hipFunction_t function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                 unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                                 hipStream_t stream, void **params, void **extra)
{
    return ::hipModuleLaunchKernel(function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream,
                                   params, extra);
}

hipError_t hipMalloc(void **ptr, size_t bytes)
{
    return ::hipMalloc(ptr, bytes);
}

hipError_t hipFree(void *ptr)
{
    return ::hipFree(ptr);
}

hipError_t hipMemcpyHtoDAsync(hipDeviceptr_t dst, void *src, size_t bytes, hipStream_t stream)
{
    return ::hipMemcpyHtoDAsync(dst, src, bytes, stream);
}

hipError_t hipMemcpyDtoHAsync(void *dst, hipDeviceptr_t src, size_t bytes, hipStream_t stream)
{
    return ::hipMemcpyDtoHAsync(dst, src, bytes, stream);
}

hipError_t hipMemcpyDtoDAsync(hipDeviceptr_t dst, hipDeviceptr_t src, size_t bytes, hipStream_t stream)
{
    return ::hipMemcpyDtoDAsync(dst, src, bytes, stream);
}

hipError_t hipMemsetD32Async(hipDeviceptr_t dst, int value, size_t count, hipStream_t stream)
{
    return ::hipMemsetD32Async(dst, value, count, stream);
}

hipError_t hipMemGetAddressRange(hipDeviceptr_t *base, size_t *size, hipDeviceptr_t ptr)
{
    return ::hipMemGetAddressRange(base, size, ptr);
}

hipError_t hipStreamCreateWithFlags(hipStream_t *stream, unsigned flags)
{
    return ::hipStreamCreateWithFlags(stream, flags);
}

hipError_t hipStreamDestroy(hipStream_t stream)
{
    return ::hipStreamDestroy(stream);
}

hipError_t hipStreamSynchronize(hipStream_t stream)
{
    return ::hipStreamSynchronize(stream);
}

hipError_t hipStreamIsCapturing(hipStream_t stream, hipStreamCaptureStatus *status)
{
    return ::hipStreamIsCapturing(stream, status);
}

hipError_t hipStreamBeginCapture(hipStream_t stream, hipStreamCaptureMode mode)
{
    return ::hipStreamBeginCapture(stream, mode);
}

hipError_t hipStreamEndCapture(hipStream_t stream, hipGraph_t *graph)
{
    return ::hipStreamEndCapture(stream, graph);
}

hipError_t hipGraphInstantiateWithFlags(hipGraphExec_t *exec, hipGraph_t graph, unsigned long long flags)
{
    return ::hipGraphInstantiateWithFlags(exec, graph, flags);
}

hipError_t hipGraphLaunch(hipGraphExec_t exec, hipStream_t stream)
{
    return ::hipGraphLaunch(exec, stream);
}

hipError_t hipGraphExecDestroy(hipGraphExec_t exec)
{
    return ::hipGraphExecDestroy(exec);
}

hipError_t hipGraphDestroy(hipGraph_t graph)
{
    return ::hipGraphDestroy(graph);
}

hipError_t hipEventCreateWithFlags(hipEvent_t *event, unsigned flags)
{
    return ::hipEventCreateWithFlags(event, flags);
}

hipError_t hipEventDestroy(hipEvent_t event)
{
    return ::hipEventDestroy(event);
}

hipError_t hipEventRecord(hipEvent_t event, hipStream_t stream)
{
    return ::hipEventRecord(event, stream);
}

hipError_t hipEventSynchronize(hipEvent_t event)
{
    return ::hipEventSynchronize(event);
}

hipError_t hipEventElapsedTime(float *milliseconds, hipEvent_t start, hipEvent_t end)
{
    return ::hipEventElapsedTime(milliseconds, start, end);
}

} // extern "C"
} // namespace exported
#pragma GCC visibility pop
