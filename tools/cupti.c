/* CUPTI's activity records. All that is known of its interface is here, so that no header of it is needed.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "cupti.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tools.h"

/* From cupti_activity.h and cupti_result.h of CUDA 13.0; all versions have the same numbers. */
enum {
    ACTIVITY_KIND_CONCURRENT_KERNEL = 10, /* CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL */
    ACTIVITY_FLAG_FLUSH_FORCED = 1,       /* CUPTI_ACTIVITY_FLAG_FLUSH_FORCED */
    RECORD_ALIGNMENT = 8,                 /* ACTIVITY_RECORD_ALIGNMENT */
    BUFFER_BYTES = 1 << 20
};

/* The begin of CUpti_ActivityKernel4 (CUDA 9) to CUpti_ActivityKernel10 (CUDA 13), which is the same in all of them.
 * The times of a record that could not be timed are 0. */
typedef struct kernel_record {
    uint32_t kind;
    uint8_t cache_config, shared_memory_config;
    uint16_t registers_per_thread;
    uint32_t partitioned_requested, partitioned_executed;
    uint64_t start, end, completed;
    uint32_t device, context, stream;
    int32_t grid[3], block[3];
    int32_t static_shared_memory, dynamic_shared_memory;
    uint32_t local_memory_per_thread, local_memory_total, correlation;
    int64_t grid_id;
    const char *name;
} kernel_record;

_Static_assert(offsetof(kernel_record, start) == 16 && offsetof(kernel_record, end) == 24 &&
                   offsetof(kernel_record, grid) == 52 && offsetof(kernel_record, correlation) == 92 &&
                   offsetof(kernel_record, name) == 104,
               "the places in CUpti_ActivityKernel4");

typedef void request_callback(uint8_t **buffer, size_t *size, size_t *max_records);
typedef void complete_callback(void *context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid);

struct cupti {
    void *library;
    int (*register_callbacks)(request_callback *request, complete_callback *complete);
    int (*enable)(int kind);
    int (*disable)(int kind);
    int (*flush_all)(uint32_t flags);
    int (*next_record)(uint8_t *buffer, size_t valid, void **record);
    bool (*wanted)(const char *kernel);
    pthread_mutex_t lock; /* of what follows: buffers come in a thread of CUPTI's too */
    cupti_kernel *kernels;
    size_t count, room;
};

/* CUPTI hands nothing of ours to its callbacks. */
static cupti *recorder;

/* ---- Records -------------------------------------------------------------------------------------------------- */

static void request_buffer(uint8_t **buffer, size_t *size, size_t *max_records)
{
    *buffer = aligned_alloc(RECORD_ALIGNMENT, BUFFER_BYTES);
    *size = *buffer ? BUFFER_BYTES : 0;
    *max_records = 0; /* as many as fit */
}

static void add_kernel(cupti *c, uint64_t start, uint64_t end)
{
    if (c->count == c->room) {
        c->room = c->room ? 2 * c->room : 4096;
        cupti_kernel *more = tool_calloc(c->room, sizeof *more);
        if (c->count)
            memcpy(more, c->kernels, c->count * sizeof *more);
        free(c->kernels);
        c->kernels = more;
    }
    c->kernels[c->count++] = (cupti_kernel){start, end};
}

static void read_buffer(void *context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid)
{
    (void)context, (void)stream, (void)size;
    cupti *c = recorder;
    void *record = NULL;
    while (c && valid && c->next_record(buffer, valid, &record) == 0) {
        const kernel_record *k = record;
        if (k->kind != ACTIVITY_KIND_CONCURRENT_KERNEL || !k->end || !k->name || !c->wanted(k->name))
            continue;
        pthread_mutex_lock(&c->lock);
        add_kernel(c, k->start, k->end);
        pthread_mutex_unlock(&c->lock);
    }
    free(buffer);
}

/* ---- Opening -------------------------------------------------------------------------------------------------- */

static void *open_library(const char *path)
{
    static const char *const usual[] = {"libcupti.so.13",
                                        "libcupti.so.12",
                                        "libcupti.so",
                                        "/usr/local/cuda/extras/CUPTI/lib64/libcupti.so",
                                        "/usr/local/cuda/lib64/libcupti.so",
                                        "/usr/local/cuda/lib64/libcupti.so.13",
                                        "/usr/local/cuda/lib64/libcupti.so.12"};
    if (path)
        return dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *library = NULL;
    for (size_t i = 0; i < sizeof usual / sizeof *usual && !library; i++)
        library = dlopen(usual[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}

static bool resolve(cupti *c)
{
    *(void **)&c->register_callbacks = dlsym(c->library, "cuptiActivityRegisterCallbacks");
    *(void **)&c->enable = dlsym(c->library, "cuptiActivityEnable");
    *(void **)&c->disable = dlsym(c->library, "cuptiActivityDisable");
    *(void **)&c->flush_all = dlsym(c->library, "cuptiActivityFlushAll");
    *(void **)&c->next_record = dlsym(c->library, "cuptiActivityGetNextRecord");
    return c->register_callbacks && c->enable && c->disable && c->flush_all && c->next_record;
}

/* The library stays: CUPTI does not let itself be unloaded. */
static void release(cupti *c)
{
    pthread_mutex_destroy(&c->lock);
    free(c->kernels);
    free(c);
}

cupti *cupti_load(const char *path, const char **why)
{
    void *library = open_library(path);
    *why = library ? NULL : "the library cannot be opened";
    if (!library)
        return NULL;
    cupti *c = tool_calloc(1, sizeof *c);
    c->library = library;
    pthread_mutex_init(&c->lock, NULL);
    if (resolve(c))
        return c;
    release(c);
    *why = "the library lacks entry points of CUPTI's";
    return NULL;
}

const char *cupti_start(cupti *c, bool (*wanted)(const char *kernel))
{
    c->wanted = wanted;
    recorder = c;
    if (c->register_callbacks(request_buffer, read_buffer))
        return "cuptiActivityRegisterCallbacks fails";
    if (c->enable(ACTIVITY_KIND_CONCURRENT_KERNEL))
        return "cuptiActivityEnable fails";
    return NULL;
}

void cupti_close(cupti *c)
{
    if (!c)
        return;
    if (recorder == c) {
        c->disable(ACTIVITY_KIND_CONCURRENT_KERNEL);
        c->flush_all(ACTIVITY_FLAG_FLUSH_FORCED);
        recorder = NULL;
    }
    release(c);
}

/* ---- Reading -------------------------------------------------------------------------------------------------- */

static int by_start(const void *a, const void *b)
{
    const cupti_kernel *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

static size_t count_kernels(cupti *c)
{
    pthread_mutex_lock(&c->lock);
    const size_t count = c->count;
    pthread_mutex_unlock(&c->lock);
    return count;
}

size_t cupti_take(cupti *c, cupti_kernel *kernels, size_t most)
{
    c->flush_all(0);
    if (count_kernels(c) < most)
        c->flush_all(ACTIVITY_FLAG_FLUSH_FORCED);
    pthread_mutex_lock(&c->lock);
    const size_t count = c->count;
    if (count)
        qsort(c->kernels, count, sizeof *c->kernels, by_start);
    for (size_t i = 0; i < count && i < most; i++)
        kernels[i] = c->kernels[i];
    c->count = 0;
    pthread_mutex_unlock(&c->lock);
    return count;
}
