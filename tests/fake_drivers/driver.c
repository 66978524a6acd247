/* A GPU driver with one fault, compiled once per vendor and fault: libcuda's names, or with DRIVER_HIP libamdhip64's.
 * It answers the questions of a probe; what opens a device is only there to be found. */
#include <stdio.h>

#ifdef DRIVER_HIP
#define NAME(cuda, hip) hip
#define RECENT_VERSION 60342133
#else
#define NAME(cuda, hip) cuda
#define RECENT_VERSION 13000
#endif

/* The faults; each number that is not set is a good driver's. */
#ifndef INIT_ERROR
#define INIT_ERROR 0
#endif
#ifndef VERSION_ERROR
#define VERSION_ERROR 0
#endif
#ifndef VERSION
#define VERSION RECENT_VERSION
#endif
#ifndef COUNT_ERROR
#define COUNT_ERROR 0
#endif
#ifndef DEVICES
#define DEVICES 2
#endif

#define EXPORTED(type, name, ...)                                                                                      \
    __attribute__((visibility("default"))) type name(__VA_ARGS__);                                                     \
    type name(__VA_ARGS__)
#define ENTRY(cuda, hip, ...) EXPORTED(int, NAME(cuda, hip), __VA_ARGS__)
#define NEVER_CALLED(cuda, hip)                                                                                        \
    ENTRY(cuda, hip, void)                                                                                             \
    {                                                                                                                  \
        return 801; /* not supported */                                                                                \
    }

ENTRY(cuInit, hipInit, unsigned flags)
{
    return flags ? 1 : INIT_ERROR;
}

ENTRY(cuDriverGetVersion, hipDriverGetVersion, int *version)
{
    *version = VERSION;
    return VERSION_ERROR;
}

ENTRY(cuDeviceGetCount, hipGetDeviceCount, int *count)
{
    *count = DEVICES;
    return COUNT_ERROR;
}

ENTRY(cuDeviceGet, hipDeviceGet, int *device, int ordinal)
{
    *device = ordinal;
    return 0;
}

ENTRY(cuDeviceGetName, hipDeviceGetName, char *name, int size, int device)
{
    snprintf(name, (size_t)size, "Pretender %d", device);
    return 0;
}

#ifdef DRIVER_HIP
EXPORTED(const char *, hipGetErrorString, int error)
{
    return error == 999 ? "these are its words" : NULL;
}

NEVER_CALLED(, hipGetDevice)
NEVER_CALLED(, hipSetDevice)
#else
ENTRY(cuGetErrorString, , int error, const char **text)
{
    *text = error == 999 ? "these are its words" : NULL;
    return 0;
}

NEVER_CALLED(cuDevicePrimaryCtxRetain, )
NEVER_CALLED(cuDevicePrimaryCtxRelease_v2, )
NEVER_CALLED(cuCtxGetCurrent, )
NEVER_CALLED(cuCtxSetCurrent, )
#endif

NEVER_CALLED(cuDeviceGetAttribute, hipDeviceGetAttribute)
NEVER_CALLED(cuModuleLoadData, hipModuleLoadData)
NEVER_CALLED(cuModuleUnload, hipModuleUnload)
NEVER_CALLED(cuModuleGetFunction, hipModuleGetFunction)
NEVER_CALLED(cuMemAlloc_v2, hipMalloc)
NEVER_CALLED(cuMemFree_v2, hipFree)
NEVER_CALLED(cuMemcpyHtoDAsync_v2, hipMemcpyHtoDAsync)
NEVER_CALLED(cuMemcpyDtoHAsync_v2, hipMemcpyDtoHAsync)
NEVER_CALLED(cuMemGetAddressRange_v2, hipMemGetAddressRange)
NEVER_CALLED(cuStreamSynchronize, hipStreamSynchronize)
NEVER_CALLED(cuStreamIsCapturing, hipStreamIsCapturing)
#ifndef INCOMPLETE
NEVER_CALLED(cuLaunchKernel, hipModuleLaunchKernel)
#endif
