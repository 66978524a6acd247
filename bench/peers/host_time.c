/* What a call of dm_fill costs its caller: many calls in a C loop, none waiting for the device.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <draftmeta.h>
#include <time.h>

typedef dm_status (*fill_function)(dm_context *, const dm_fill_desc *, dm_stream);

double host_time_ns(fill_function fill, dm_context *ctx, const dm_fill_desc *const *descs, int count, dm_stream stream,
                    int calls);

/* Nanoseconds per call, the descriptors taking turns; minus the status of a call that failed. */
double host_time_ns(fill_function fill, dm_context *ctx, const dm_fill_desc *const *descs, int count, dm_stream stream,
                    int calls)
{
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int i = 0; i < calls; i++) {
        const dm_status status = fill(ctx, descs[i % count], stream);
        if (status != DM_OK)
            return -(double)status;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    return ((double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec)) / calls;
}
