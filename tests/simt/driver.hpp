/* A GPU driver without a GPU: devices, memory, streams, graphs and events in host memory; a launch runs the fill's
 * device code on the host and has finished when it returns. One core serves libcuda's names and libamdhip64's.
 *
 * It is strict where drivers are: a call needs a current context, functions and streams are used in theirs, memory that
 * was not allocated is refused, and what a stream under capture forbids fails and invalidates the capture.
 *
 * Environment, read when the library is loaded: SIMT_DEVICES (2), SIMT_MULTIPROCESSORS (8), SIMT_WARP (32 or 64; not
 * for CUDA), SIMT_ORDER (forward or reverse), SIMT_FAIL=NAME[:N[:CODE]] as control.h's simt_fail, and SIMT_LEAKS=1,
 * which lists on stderr at the end what was not given back. */
#ifndef DRAFTMETA_DRIVER_HPP
#define DRAFTMETA_DRIVER_HPP

#include <cstddef>
#include <functional>

namespace driver
{

/* The numbers are the same for both vendors. */
enum Error : int {
    success = 0,
    invalid_value = 1,
    out_of_memory = 2,
    not_initialized = 3,
    no_device = 100,
    invalid_device = 101,
    invalid_image = 200,
    invalid_context = 201,
    invalid_handle = 400,
    illegal_state = 401,
    not_found = 500,
    not_ready = 600,
    out_of_resources = 701,
    not_supported = 801,
    capture_unsupported = 900,
    capture_invalidated = 901,
    capture_implicit = 906,
    capture_wrong_thread = 908,
    unknown = 999
};

/* nullptr for a number that is not listed above. */
const char *error_words(int error);

/* Every entry point runs its body through this: one at a time, counted under its name, and failing when it is told to.
 */
int enter(const char *name, const std::function<int()> &body);

/* What differs between the vendors; each one's file of names defines it. */
struct Vendor {
    unsigned warp;      /* by default */
    bool warp_is_fixed; /* else SIMT_WARP can change it */
    bool has_contexts;  /* a thread has no current device until it is given one */
    int multiprocessors_attribute;
};
extern const Vendor vendor;

/* ---- The calls, within enter ---- */

using Handle = void *;

struct Shape {
    unsigned x, y, z;
};

int init(unsigned flags);
int device_count(int *count);
int device_get(int *device, int ordinal);
int device_name(char *name, int size, int device);
int device_attribute(int *value, int attribute, int device);

int context_retain(Handle *context, int device);
int context_release(int device);
int context_get(Handle *context);
int context_set(Handle context);
int ordinal_get(int *ordinal);
int ordinal_set(int ordinal);

int module_load(Handle *module, const void *image);
int module_unload(Handle module);
int module_function(Handle *function, Handle module, const char *name);
/* A launch; in memory as CUDA_KERNEL_NODE_PARAMS_v2. */
struct KernelCall {
    Handle function;
    Shape grid, block;
    unsigned shared_bytes;
    void **params, **extra;
    Handle instead_of_function = nullptr, context = nullptr;
};
int launch(const KernelCall &call, Handle stream);

int mem_alloc(void **ptr, std::size_t bytes);
int mem_free(void *ptr);
int copy_in(void *dst, const void *src, std::size_t bytes, Handle stream);
int copy_out(void *dst, const void *src, std::size_t bytes, Handle stream);
int address_range(void **base, std::size_t *size, const void *ptr);

int stream_create(Handle *stream, unsigned flags, int priority = 0);
int stream_destroy(Handle stream);
int stream_synchronize(Handle stream);
int stream_id(Handle stream, unsigned long long *id);
int stream_priority(Handle stream, int *priority);
int stream_context(Handle stream, Handle *context);
int stream_is_capturing(Handle stream, int *status);
int begin_capture(Handle stream, int mode);
int end_capture(Handle stream, Handle *graph);

int graph_create(Handle *graph);
int graph_add_kernel(Handle *node, Handle graph, std::size_t dependencies, const KernelCall *call);
int graph_instantiate(Handle *exec, Handle graph);
int graph_upload(Handle exec, Handle stream);
int graph_set_kernel(Handle exec, Handle node, const KernelCall *call);
int graph_launch(Handle exec, Handle stream);
int graph_destroy(Handle graph);
int exec_destroy(Handle exec);

int event_create(Handle *event);
int event_destroy(Handle event);
int event_record(Handle event, Handle stream);
int event_synchronize(Handle event);
int event_elapsed(float *milliseconds, Handle start, Handle end);

} // namespace driver

#endif
