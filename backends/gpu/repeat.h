/* Launches that repeat: the same kernel with the same parameter on the same stream, as an engine makes them step after
 * step. From the second on they are launches of a graph of that one kernel, which cost the host half as much. */
#ifndef DRAFTMETA_GPU_REPEAT_H
#define DRAFTMETA_GPU_REPEAT_H

#include "gpu.h"

/* One launch of a kernel. */
typedef struct gpu_call {
    void *kernel;
    unsigned grid, threads;
    void *param;  /* as much of it as the kernel takes, */
    size_t bytes; /* of which so many count */
} gpu_call;

typedef struct gpu_repeats gpu_repeats;

/* Makes all graphs there will ever be, of the kernel for now, in the context, which is current. NULL if that fails or
 * the driver has no graphs. */
gpu_repeats *gpu_repeats_open(const gpu_driver *driver, void *context, void *kernel);

/* entered: the context is current, so that the driver can be told. NULL is allowed. */
void gpu_repeats_close(gpu_repeats *repeats, bool entered);

/* Launches the call if it repeats one of this stream's; false: nothing was launched, and the caller does it. Whatever
 * stands in the way of a graph, an error of the driver's included, gives false. From any thread; never waits. */
bool gpu_repeat(gpu_repeats *repeats, const gpu_call *call, dm_stream stream);

#endif
