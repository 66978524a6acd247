/* Comes before HIP's own headers for NVIDIA (HIP 5.2), which were written for CUDA 11: restores what CUDA 12 and 13
 * took away, so that they compile. Of what is restored here nothing is called. */
#ifndef DRAFTMETA_CUDA13_H
#define DRAFTMETA_CUDA13_H

#include <cuda.h>
#include <cuda_runtime.h>

#if CUDART_VERSION >= 12000

/* Texture references. */
template <class T, int dimensions = 1, cudaTextureReadMode mode = cudaReadModeElementType> struct texture {
};

template <class... Args> static cudaError_t gone(Args...)
{
    return cudaErrorNotSupported;
}
#define cudaBindTexture gone
#define cudaBindTexture2D gone
#define cudaBindTextureToArray gone
#define cudaUnbindTexture gone
#define cudaGetTextureAlignmentOffset gone

#endif
#if CUDART_VERSION >= 13000

#define cudaLaunchCooperativeKernelMultiDevice gone
#define cudaStreamGetCaptureInfo_v2 gone
#define cudaDevAttrCooperativeMultiDeviceLaunch cudaDevAttrReserved96

struct old_device_prop : cudaDeviceProp {
    int clockRate, memoryClockRate, computeMode, cooperativeMultiDeviceLaunch, kernelExecTimeoutEnabled;
};
#define cudaDeviceProp old_device_prop

/* Calls whose parameters changed. */
#define OLD_CALL(name, ...)                                                                                            \
    static inline cudaError_t name(__VA_ARGS__)                                                                        \
    {                                                                                                                  \
        return cudaErrorNotSupported;                                                                                  \
    }
OLD_CALL(cudaMemPrefetchAsync, const void *, size_t, int, cudaStream_t)
OLD_CALL(cudaMemAdvise, const void *, size_t, cudaMemoryAdvise, int)
OLD_CALL(cudaGraphAddDependencies, cudaGraph_t, const cudaGraphNode_t *, const cudaGraphNode_t *, size_t)
OLD_CALL(cudaGraphRemoveDependencies, cudaGraph_t, const cudaGraphNode_t *, const cudaGraphNode_t *, size_t)
OLD_CALL(cudaGraphGetEdges, cudaGraph_t, cudaGraphNode_t *, cudaGraphNode_t *, size_t *)
OLD_CALL(cudaGraphNodeGetDependencies, cudaGraphNode_t, cudaGraphNode_t *, size_t *)
OLD_CALL(cudaGraphNodeGetDependentNodes, cudaGraphNode_t, cudaGraphNode_t *, size_t *)
OLD_CALL(cudaStreamUpdateCaptureDependencies, cudaStream_t, cudaGraphNode_t *, size_t, unsigned)
#undef OLD_CALL

/* A macro for a newer entry point now. */
static inline CUresult cuCtxCreate(CUcontext *, unsigned, CUdevice)
{
    return CUDA_ERROR_NOT_SUPPORTED;
}

#endif
#endif
