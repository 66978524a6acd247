/* What a call of dm_fill costs its caller, and a launch of a kernel that does nothing: many calls in a C loop, none
 * waiting for the device.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <draftmeta.h>
#include <time.h>

typedef dm_status (*fill_function)(dm_context *, const dm_fill_desc *, dm_stream);

typedef int (*launch_function)(void *kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                               unsigned block_y, unsigned block_z, unsigned shared_bytes, void *stream, void **params,
                               void **extra); /* cuLaunchKernel */

double host_time_ns(fill_function fill, dm_context *ctx, const dm_fill_desc *const *descs, int count, dm_stream stream,
                    int calls);
double launch_time_ns(launch_function launch, void *kernel, unsigned blocks, unsigned threads, void **params,
                      dm_stream stream, int calls);

static double ns_since(const struct timespec *start)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (double)(end.tv_sec - start->tv_sec) * 1e9 + (double)(end.tv_nsec - start->tv_nsec);
}

/* Nanoseconds per call, the descriptors taking turns; minus the status of a call that failed. */
double host_time_ns(fill_function fill, dm_context *ctx, const dm_fill_desc *const *descs, int count, dm_stream stream,
                    int calls)
{
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < calls; i++) {
        const dm_status status = fill(ctx, descs[i % count], stream);
        if (status != DM_OK)
            return -(double)status;
    }
    return ns_since(&start) / calls;
}

/* Nanoseconds per launch, or minus the driver's error. */
double launch_time_ns(launch_function launch, void *kernel, unsigned blocks, unsigned threads, void **params,
                      dm_stream stream, int calls)
{
    struct timespec start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < calls; i++) {
        const int error = launch(kernel, blocks, 1, 1, threads, 1, 1, 0, stream, params, NULL);
        if (error)
            return -(double)error;
    }
    return ns_since(&start) / calls;
}
