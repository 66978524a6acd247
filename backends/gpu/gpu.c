/* The GPU backends' host side: opens a driver, loads the device code, launches it. No vendor's name in here. */
#include "gpu.h"

#include "kernels.h"
#include "plan.h"
#include "repeat.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The kernels of the device code. */
#define KERNEL(NAME, name, parameter) NAME,
typedef enum kernel { GPU_KERNELS(KERNEL) NUM_KERNELS } kernel;
#undef KERNEL

#define KERNEL(NAME, name, parameter) "draftmeta_" #name,
static const char *const kernel_names[NUM_KERNELS] = {GPU_KERNELS(KERNEL)};
#undef KERNEL

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

_Static_assert(sizeof(gpu_jobs) <= 4096, "more than drivers take as parameters");

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
    gpu_lengths param;
    unsigned threads;
    const unsigned grid = gpu_plan_lengths(job, &param, &threads);
    return launch(gpu, &(gpu_call){gpu->kernels[FILL_LENGTHS], grid, threads, &param, sizeof param}, stream);
}

static kernel kernel_for(const dm_job *job, gpu_kind kind)
{
    switch (kind) {
    case GPU_STEP:
        return FILL_STEP;
    case GPU_RAGGED:
        return job->flags & DM_JOB_REPORT ? FILL_RAGGED_REPORT : FILL_RAGGED;
    case GPU_ANY:
        break;
    }
    return FILL;
}

static dm_status fill_one(const gpu_state *gpu, const dm_job *job, dm_stream stream)
{
    if (gpu_is_lengths(job))
        return fill_lengths(gpu, job, stream);
    const gpu_kind kind = gpu_kind_of(job);
    const unsigned threads = gpu_plan_threads(job, 1, kind);
    gpu_job param;
    const unsigned grid = gpu_plan(job, kind, gpu->multiprocessors, threads, &param);
    return launch(gpu, &(gpu_call){gpu->kernels[kernel_for(job, kind)], grid, threads, &param, sizeof param}, stream);
}

static dm_status fill_several(const gpu_state *gpu, const dm_job *jobs, int count, dm_stream stream)
{
    gpu_kind kind = GPU_STEP;
    for (int i = 0; i < count; i++)
        kind = gpu_kind_of(&jobs[i]) == GPU_STEP ? kind : GPU_ANY;
    const unsigned threads = gpu_plan_threads(jobs, count, kind);
    gpu_jobs param;
    int32_t end = 0;
    for (int i = 0; i < DM_FILL_MANY_MAX; i++) {
        if (i < count)
            end += (int32_t)gpu_plan(&jobs[i], kind, gpu->multiprocessors, threads, &param.jobs[i]);
        param.ends[i] = end;
    }
    const size_t bytes = offsetof(gpu_jobs, jobs) + (size_t)count * sizeof *param.jobs;
    void *function = gpu->kernels[kind == GPU_STEP ? FILL_STEPS : FILL_MANY];
    return launch(gpu, &(gpu_call){function, (unsigned)end, threads, &param, bytes}, stream);
}

dm_status gpu_fill(void *state, const dm_job *jobs, int count, dm_stream stream)
{
    return count == 1 ? fill_one(state, jobs, stream) : fill_several(state, jobs, count, stream);
}
