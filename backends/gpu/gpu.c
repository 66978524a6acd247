/* The GPU backends' host side: opens a driver, loads the device code, launches it. No vendor's name in here. */
#include "gpu.h"

#include "launch.h"
#include "repeat.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The kernels of the device code. */
typedef enum kernel {
    FILL,
    FILL_LENGTHS,
    FILL_SET,
    FILL_POOLS,
    FILL_FEW,
    FILL_MANY,
    FILL_MANY_SETS,
    NUM_KERNELS
} kernel;

static const char *const kernel_names[NUM_KERNELS] = {
    "draftmeta_fill",     "draftmeta_fill_lengths", "draftmeta_fill_set",      "draftmeta_fill_pools",
    "draftmeta_fill_few", "draftmeta_fill_many",    "draftmeta_fill_many_sets"};

struct gpu_state {
    const gpu_vendor *vendor;
    void *library;
    gpu_driver driver;
    int device;
    void *place; /* what vendor->enter makes current */
    void *module;
    void *kernels[NUM_KERNELS];
    int multiprocessors;
    gpu_repeats *repeats; /* NULL: goes without */
};

static const char *words_for(const gpu_driver *driver, int error)
{
    const char *words = NULL;
    if (driver->error_text)
        words = driver->error_text(error);
    else
        driver->error_string(error, &words);
    return words ? words : "unknown to the driver";
}

static dm_status driver_failed(const gpu_state *gpu, const char *doing, int error)
{
    const dm_status status = error == gpu->vendor->out_of_memory_error ? DM_ERR_OUT_OF_MEMORY : DM_ERR_DRIVER;
    return dm_fail(status, "%s: driver error %d: %s", doing, error, words_for(&gpu->driver, error));
}

/* ---- The driver library ---- */

/* Whether dlopen's message says that the library itself is not there, in the words of the current locale. */
static bool is_absent(const char *message, const char *library)
{
    const char *reason = strerror(ENOENT);
    const size_t prefix = strlen(library), length = strlen(message), tail = strlen(reason);
    return strncmp(message, library, prefix) == 0 && message[prefix] == ':' && length > tail &&
           strcmp(message + length - tail, reason) == 0;
}

__attribute__((format(printf, 3, 4))) static void set_reason(dm_backend_info *info, dm_backend_state state,
                                                             const char *format, ...)
{
    va_list args;
    va_start(args, format);
    info->state = state;
    vsnprintf(info->reason, sizeof info->reason, format, args);
    va_end(args);
}

/* Finds the entry points; returns the first that is missing, or NULL. */
static const char *resolve(void *library, const gpu_symbol *symbols, size_t count, gpu_driver *driver)
{
    for (size_t i = 0; i < count; i++) {
        void *entry = dlsym(library, symbols[i].name);
        if (!entry)
            return symbols[i].name;
        memcpy((char *)driver + symbols[i].offset, &entry, sizeof entry);
    }
    return NULL;
}

/* Opens the library and finds what must be there; NULL, with state and reason in info, if that fails. */
static void *load_driver(const gpu_vendor *vendor, const char *path, gpu_driver *driver, dm_backend_info *info)
{
    void *library = dlopen(path ? path : vendor->library, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *message = dlerror();
        if (!path && is_absent(message, vendor->library))
            set_reason(info, DM_BACKEND_NO_DRIVER, "no driver: %s is not installed", vendor->library);
        else
            set_reason(info, DM_BACKEND_DRIVER_FAILED, "driver cannot be opened: %s", message);
        return NULL;
    }
    const char *missing = resolve(library, vendor->symbols, vendor->num_symbols, driver);
    if (missing) {
        set_reason(info, DM_BACKEND_DRIVER_FAILED, "driver %s has no entry point %s", path ? path : vendor->library,
                   missing);
        dlclose(library);
        return NULL;
    }
    if (resolve(library, vendor->graph_symbols, vendor->num_graph_symbols, driver))
        driver->graphs = (gpu_graph_calls){0};
    return library;
}

static void set_driver_reason(const gpu_driver *driver, dm_backend_info *info, const char *doing, int error)
{
    set_reason(info, DM_BACKEND_DRIVER_FAILED, "driver's %s fails with error %d: %s", doing, error,
               words_for(driver, error));
}

/* Asks the driver what there is. */
static void ask_driver(const gpu_vendor *vendor, const gpu_driver *driver, dm_backend_info *info)
{
    int error = driver->init(0), version = 0, count = 0, device = 0;
    if (vendor->means_no_device(error)) {
        set_reason(info, DM_BACKEND_NO_DEVICE, "a driver, but no device");
        return;
    }
    if (error) {
        set_driver_reason(driver, info, "initialisation", error);
        return;
    }
    error = driver->driver_version(&version);
    if (error) {
        set_driver_reason(driver, info, "version query", error);
        return;
    }
    vendor->format_version(version, info->driver_version, sizeof info->driver_version);
    error = driver->device_count(&count);
    if (error && !vendor->means_no_device(error)) {
        set_driver_reason(driver, info, "device count", error);
        return;
    }
    if (error || count == 0) {
        set_reason(info, DM_BACKEND_NO_DEVICE, "a driver, but no device");
        return;
    }
    info->device_count = count;
    if (driver->device_get(&device, 0) == 0)
        driver->device_name(info->device_name, sizeof info->device_name, device);
    if (version < vendor->oldest_driver)
        set_reason(info, DM_BACKEND_DRIVER_TOO_OLD, "driver %s is too old: %s or later is needed", info->driver_version,
                   info->oldest_driver);
    else if (vendor->image == vendor->image_end)
        set_reason(info, DM_BACKEND_NO_DEVICE_CODE, "this libdraftmeta was built without device code: %s",
                   vendor->without_code);
}

void gpu_probe(const gpu_vendor *vendor, const char *path, dm_backend_info *info)
{
    gpu_driver driver = {0};
    info->state = DM_BACKEND_READY;
    vendor->format_version(vendor->oldest_driver, info->oldest_driver, sizeof info->oldest_driver);
    void *library = load_driver(vendor, path, &driver, info);
    if (!library)
        return;
    ask_driver(vendor, &driver, info);
    dlclose(library);
}

/* ---- Every call enters the device and leaves it ---- */

static dm_status enter(const gpu_state *gpu, void **before)
{
    const int error = gpu->vendor->enter(&gpu->driver, gpu->place, before);
    return error ? driver_failed(gpu, "making the device current", error) : DM_OK;
}

static dm_status leave(const gpu_state *gpu, void *before, const char *doing, int error)
{
    const dm_status status = error ? driver_failed(gpu, doing, error) : DM_OK;
    const int left = gpu->vendor->leave(&gpu->driver, gpu->place, before);
    return status == DM_OK && left ? driver_failed(gpu, "restoring the current device", left) : status;
}

/* ---- Opening ---- */

static int load_code(gpu_state *gpu, const char **doing)
{
    *doing = "loading the device code";
    int error = gpu->driver.module_load(&gpu->module, gpu->vendor->image);
    if (error)
        return error;
    *doing = "finding the kernels in the device code";
    for (int i = 0; i < NUM_KERNELS && !error; i++)
        error = gpu->driver.module_function(&gpu->kernels[i], gpu->module, kernel_names[i]);
    return error;
}

static dm_status open_device(gpu_state *gpu, const dm_open_args *args)
{
    const gpu_driver *driver = &gpu->driver;
    int error = driver->init(0);
    if (!error)
        error = driver->device_get(&gpu->device, args->device);
    if (!error)
        error = driver->device_attribute(&gpu->multiprocessors, gpu->vendor->multiprocessors_attribute, gpu->device);
    if (!error)
        error = gpu->vendor->retain(driver, args->device, gpu->device, &gpu->place);
    if (error)
        return driver_failed(gpu, "opening the device", error);
    void *before;
    dm_status status = enter(gpu, &before);
    if (status == DM_OK) {
        const char *doing;
        error = load_code(gpu, &doing);
        if (!error && args->graphs)
            gpu->repeats = gpu_repeats_open(&gpu->driver, gpu->place, gpu->kernels[FILL]);
        status = leave(gpu, before, doing, error);
    }
    return status;
}

dm_status gpu_open(const gpu_vendor *vendor, const dm_open_args *args, void **state)
{
    dm_backend_info info = {0};
    gpu_state *gpu = calloc(1, sizeof *gpu);
    if (!gpu)
        return dm_fail(DM_ERR_OUT_OF_MEMORY, "no memory for a GPU backend");
    gpu->vendor = vendor;
    gpu->library = load_driver(vendor, args->library, &gpu->driver, &info);
    if (!gpu->library) {
        free(gpu);
        return dm_fail(DM_ERR_NO_BACKEND, "%s", info.reason);
    }
    const dm_status status = open_device(gpu, args);
    if (status == DM_OK)
        *state = gpu;
    else
        gpu_close(gpu);
    return status;
}

void gpu_close(void *state)
{
    gpu_state *gpu = state;
    void *before;
    const bool entered = gpu->place && gpu->vendor->enter(&gpu->driver, gpu->place, &before) == 0;
    gpu_repeats_close(gpu->repeats, entered);
    if (entered) {
        if (gpu->module)
            gpu->driver.module_unload(gpu->module);
        gpu->vendor->leave(&gpu->driver, gpu->place, before);
    }
    if (gpu->place)
        gpu->vendor->release(&gpu->driver, gpu->device);
    dlclose(gpu->library);
    free(gpu);
}

dm_status gpu_device_name(void *state, char *name, size_t size)
{
    const gpu_state *gpu = state;
    const int error = gpu->driver.device_name(name, (int)size, gpu->device);
    return error ? driver_failed(gpu, "asking for the device's name", error) : DM_OK;
}

/* ---- Memory and streams ---- */

dm_status gpu_alloc(void *state, size_t bytes, void **ptr)
{
    const gpu_state *gpu = state;
    void *before, *memory = NULL;
    dm_status status = enter(gpu, &before);
    if (status != DM_OK)
        return status;
    const int error = gpu->driver.mem_alloc(&memory, bytes);
    status = leave(gpu, before, "allocating memory", error);
    if (status == DM_OK)
        *ptr = memory;
    else if (!error)
        gpu->driver.mem_free(memory);
    return status;
}

dm_status gpu_free(void *state, void *ptr)
{
    const gpu_state *gpu = state;
    void *before;
    const dm_status status = enter(gpu, &before);
    return status == DM_OK ? leave(gpu, before, "freeing memory", gpu->driver.mem_free(ptr)) : status;
}

typedef int (*copy_call)(void *dst, const void *src, size_t bytes, void *stream);

static dm_status copy_and_wait(const gpu_state *gpu, copy_call copy, void *dst, const void *src, size_t bytes,
                               dm_stream stream)
{
    void *before;
    const dm_status status = enter(gpu, &before);
    if (status != DM_OK)
        return status;
    int error = bytes ? copy(dst, src, bytes, stream) : 0;
    if (!error)
        error = gpu->driver.stream_sync(stream);
    return leave(gpu, before, "copying memory", error);
}

dm_status gpu_upload(void *state, void *dst, const void *src, size_t bytes, dm_stream stream)
{
    const gpu_state *gpu = state;
    return copy_and_wait(gpu, gpu->driver.copy_in, dst, src, bytes, stream);
}

dm_status gpu_download(void *state, void *dst, const void *src, size_t bytes, dm_stream stream)
{
    const gpu_state *gpu = state;
    return copy_and_wait(gpu, gpu->driver.copy_out, dst, src, bytes, stream);
}

dm_status gpu_sync(void *state, dm_stream stream)
{
    const gpu_state *gpu = state;
    void *before;
    const dm_status status = enter(gpu, &before);
    return status == DM_OK ? leave(gpu, before, "waiting for the stream", gpu->driver.stream_sync(stream)) : status;
}

dm_status gpu_is_capturing(void *state, dm_stream stream, bool *capturing)
{
    const gpu_state *gpu = state;
    void *before;
    int answer = 0;
    const dm_status status = enter(gpu, &before);
    if (status != DM_OK)
        return status;
    const int error = gpu->driver.stream_is_capturing(stream, &answer);
    *capturing = answer != 0;
    return leave(gpu, before, "asking whether the stream is captured", error);
}

dm_status gpu_check_range(void *state, const char *field, const void *ptr, size_t bytes)
{
    const gpu_state *gpu = state;
    void *before, *base = NULL;
    size_t size = 0;
    dm_status status = enter(gpu, &before);
    if (status != DM_OK)
        return status;
    const int unknown = gpu->driver.address_range(&base, &size, (void *)(uintptr_t)ptr);
    status = leave(gpu, before, "", 0);
    if (status != DM_OK)
        return status;
    if (unknown)
        return dm_fail(DM_ERR_POINTER, "%s: %p is not memory of this device", field, ptr);
    const size_t rest = size - (size_t)((const char *)ptr - (const char *)base);
    if (bytes > rest)
        return dm_fail(DM_ERR_POINTER, "%s: %zu bytes from %p, but its allocation ends after %zu", field, bytes, ptr,
                       rest);
    return DM_OK;
}

/* ---- The fill ---- */

enum {
    MEDIUM_REQUESTS = 256,     /* up to so many requests, blocks have GPU_FEW_THREADS; GPU_MAX_THREADS above */
    TABLE_THREADS = 512,       /* for each multiprocessor, at most */
    WIDE_TABLE_THREADS = 2048, /* the same for page_table_1 */
    TOKENS_OF_SLICE = 2,       /* of a request, that another row block is worth */
    ROWS_OF_PART = 8,          /* the fewest rows for which another team is worth its start */
    MAX_ROW_BLOCKS = 128,
    FEW_PADDED_TOKENS = 512, /* the most that one warp writes behind few requests */
    LENGTHS_BY_WARP_THREADS = 64,
    LENGTHS_BY_WARP = 1024 /* the most requests for that */
};

_Static_assert(sizeof(gpu_launch_many) <= 4096, "more than drivers take as parameters");

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t clamp(int64_t v, int64_t low, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

/* The largest power of two that is at most v >= 1, as a shift. */
static int32_t floor_log2(int64_t v)
{
    int32_t shift = 0;
    while (v >> (shift + 1))
        shift++;
    return shift;
}

/* The smallest power of two that is at least v >= 1, as a shift. */
static int32_t ceil_log2(int64_t v)
{
    return v == 1 ? 0 : floor_log2(v - 1) + 1;
}

static unsigned threads_for(int64_t requests)
{
    return requests <= MEDIUM_REQUESTS ? GPU_FEW_THREADS : GPU_MAX_THREADS;
}

/* One block for every threads requests, times those that share the tokens of the same ones. */
static int64_t plan_rows(const dm_job *job, unsigned threads, gpu_blocks *b)
{
    const int64_t requests = clamp(job->padded_requests, 1, INT32_MAX);
    const int64_t tokens = job->flags & DM_JOB_TOKENS ? job->capacity : 0;
    b->chunk = (int32_t)(ceil_div(ceil_div(requests, MAX_ROW_BLOCKS), threads) * threads);
    b->row_chunks = (int32_t)ceil_div(requests, b->chunk);
    const int64_t wanted = clamp(tokens / requests / TOKENS_OF_SLICE, 1, MAX_ROW_BLOCKS / b->row_chunks);
    b->slice_shift = ceil_log2(clamp(wanted, 1, MAX_ROW_BLOCKS / b->row_chunks));
    return (int64_t)b->row_chunks << b->slice_shift;
}

static int64_t plan_schedules(const dm_job *job, unsigned threads, gpu_blocks *b)
{
    int64_t slots = 1, schedules = 0;
    for (int i = 0; i < 2; i++) {
        if (!job->schedules[i].table)
            continue;
        schedules++;
        slots = job->schedules[i].slots > slots ? job->schedules[i].slots : slots;
    }
    b->slots_shift = ceil_log2(clamp(ceil_div(slots + 1, threads), 1, MAX_ROW_BLOCKS));
    b->schedules = (int32_t)(schedules << b->slots_shift);
    b->small_schedules = job->num_requests <= GPU_SMALL_REQUESTS && !(job->flags & DM_JOB_LOCAL);
    return b->schedules;
}

/* Teams, of so many threads, for the tables from what the host knows: requests and declared widths; what is live shows
 * on the device. Where requests are few, each has teams of its own, on however small a device. */
static int64_t plan_tables(const gpu_state *gpu, const dm_job *job, unsigned team, gpu_blocks *b)
{
    b->group = 1;
    if (!(job->flags & DM_JOB_TABLES))
        return 0;
    const int64_t slots = job->page_table_1 ? job->page_table_1_cols : 0,
                  pages = job->page_table ? job->page_table_cols : 0;
    const int64_t width = slots > pages ? slots : pages;
    const int64_t requests = clamp(job->num_requests, 1, INT32_MAX);
    const int64_t threads = (int64_t)gpu->multiprocessors * (slots ? WIDE_TABLE_THREADS : TABLE_THREADS);
    const int64_t teams = clamp(threads / team, requests <= GPU_FEW_REQUESTS ? requests : 1, INT32_MAX);
    b->group = (int32_t)ceil_div(requests, teams);
    b->groups = (int32_t)ceil_div(job->num_requests, b->group);
    b->padding_group = job->flags & DM_JOB_FULL_ROWS && job->padded_tokens;
    b->lane_shift = ceil_log2(clamp(width, 1, team));
    const int64_t parts = clamp(teams / clamp(b->groups, 1, INT32_MAX), 1, teams);
    b->column_shift = floor_log2(clamp(ceil_div(width, (int64_t)1 << b->lane_shift), 1, parts));
    const int64_t rows = job->capacity / requests, rows_at_once = team >> b->lane_shift;
    b->row_shift = floor_log2(clamp(rows / rows_at_once / ROWS_OF_PART, 1, parts >> b->column_shift));
    return ((int64_t)b->groups + b->padding_group) << (b->column_shift + b->row_shift);
}

/* The number of the job's blocks, each of which has threads / team teams for the tables. */
static int32_t plan_blocks(const gpu_state *gpu, const dm_job *job, unsigned threads, unsigned team, gpu_blocks *b)
{
    *b = (gpu_blocks){0};
    const int64_t rows = plan_rows(job, threads, b), schedules = plan_schedules(job, threads, b),
                  teams = plan_tables(gpu, job, team, b);
    return (int32_t)(rows + schedules + ceil_div(teams, threads / team));
}

/* A stride bounds a table's columns. */
static bool is_bounded(const dm_job *job)
{
    return job->padded_requests <= GPU_MAX_REQUESTS && job->capacity <= GPU_MAX_CAPACITY &&
           (int64_t)job->padded_requests * job->extend_len <= GPU_MAX_CAPACITY && job->page_table_stride <= INT32_MAX &&
           job->source_stride <= INT32_MAX && job->source_rows <= INT32_MAX;
}

/* Whether a warp has a lane for each request, and is quick to write the padding alone. */
static bool is_few(const dm_job *job)
{
    return job->padded_requests <= GPU_FEW_REQUESTS && job->padded_tokens <= FEW_PADDED_TOKENS;
}

static kernel kernel_for(const dm_job *job)
{
    const bool schedules = job->schedules[0].table || job->schedules[1].table;
    const bool plain = job->page_shift >= 0 && !job->page_table_1 && is_bounded(job);
    const bool has_masks = !(job->pool_size & (job->pool_size - 1));
    if (plain && has_masks && (job->flags & ~(uint32_t)GPU_SET_FREE) == GPU_SET_FIXED)
        return is_few(job) ? FILL_FEW : job->pool_size == 1 ? FILL_SET : FILL_POOLS;
    if (plain && (job->flags & ~(uint32_t)GPU_LENGTHS_FREE) == GPU_LENGTHS_FIXED && !schedules && job->pool_size == 1 &&
        !job->padded_tokens)
        return FILL_LENGTHS;
    return FILL;
}

static dm_status launch(const gpu_state *gpu, const gpu_call *call, dm_stream stream)
{
    void *before, *params[] = {call->param};
    const dm_status status = enter(gpu, &before);
    if (status != DM_OK)
        return status;
    int error = 0;
    if (!gpu->repeats || !gpu_repeat(gpu->repeats, call, stream))
        error = gpu->driver.launch(call->kernel, call->grid, 1, 1, call->threads, 1, 1, 0, stream, params, NULL);
    return leave(gpu, before, "launching the fill", error);
}

static dm_status fill_lengths(const gpu_state *gpu, const dm_job *job, dm_stream stream)
{
    gpu_lengths param = {
        .num_requests = job->num_requests,
        .seq_lens = job->seq_lens,
        .extend = job->extend,
        .seq64 = !!(job->flags & DM_JOB_SEQ64),
        .seq_len_bias = job->seq_len_bias,
        .capacity = (int32_t)job->capacity,
        .topk = job->topk,
        .seqlens_expanded = job->flags & DM_JOB_SEQLENS_EXPANDED ? job->seqlens_expanded : NULL,
        .dsa_cache_seqlens = job->flags & DM_JOB_DSA_CACHE_SEQLENS ? job->dsa_cache_seqlens : NULL,
    };
    param.by_block = job->num_requests > LENGTHS_BY_WARP;
    const unsigned threads = param.by_block ? GPU_FEW_THREADS : LENGTHS_BY_WARP_THREADS;
    const unsigned grid = (unsigned)clamp(ceil_div(job->num_requests, threads), 1, INT32_MAX);
    return launch(gpu, &(gpu_call){gpu->kernels[FILL_LENGTHS], grid, threads, &param, sizeof param}, stream);
}

static dm_status fill_one(const gpu_state *gpu, const dm_job *job, dm_stream stream)
{
    const kernel which = kernel_for(job);
    if (which == FILL_LENGTHS)
        return fill_lengths(gpu, job, stream);
    gpu_launch param = {.job = *job};
    const unsigned threads = threads_for(job->padded_requests);
    const unsigned team = which == FILL_FEW ? threads : GPU_TEAM;
    const unsigned grid = (unsigned)plan_blocks(gpu, job, threads, team, &param.blocks);
    return launch(gpu, &(gpu_call){gpu->kernels[which], grid, threads, &param, sizeof param}, stream);
}

static dm_status fill_several(const gpu_state *gpu, const dm_job *jobs, int count, dm_stream stream)
{
    gpu_launch_many param;
    kernel which = FILL_MANY_SETS;
    int32_t end = 0;
    int64_t requests = 0;
    for (int i = 0; i < count; i++)
        requests = jobs[i].padded_requests > requests ? jobs[i].padded_requests : requests;
    const unsigned threads = threads_for(requests);
    for (int i = 0; i < DM_FILL_MANY_MAX; i++) {
        if (i < count) {
            param.launches[i].job = jobs[i];
            end += plan_blocks(gpu, &jobs[i], threads, GPU_TEAM, &param.launches[i].blocks);
            const kernel alone = kernel_for(&jobs[i]);
            if (alone != FILL_SET && !(alone == FILL_FEW && jobs[i].pool_size == 1))
                which = FILL_MANY;
        }
        param.ends[i] = end;
    }
    const size_t bytes = offsetof(gpu_launch_many, launches) + (size_t)count * sizeof *param.launches;
    return launch(gpu, &(gpu_call){gpu->kernels[which], (unsigned)end, threads, &param, bytes}, stream);
}

dm_status gpu_fill(void *state, const dm_job *jobs, int count, dm_stream stream)
{
    return count == 1 ? fill_one(state, jobs, stream) : fill_several(state, jobs, count, stream);
}
