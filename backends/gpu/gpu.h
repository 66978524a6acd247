/* What the GPU backends share: one vtable body in C over a small table of driver calls. */
#ifndef DRAFTMETA_GPU_H
#define DRAFTMETA_GPU_H

#include "backend.h"

/* CUDA_KERNEL_NODE_PARAMS_v2. */
typedef struct gpu_kernel_node {
    void *function;
    unsigned grid[3], block[3], shared_bytes;
    void **params, **extra;
    void *instead_of_function, *context; /* NULL: none; the current one */
} gpu_kernel_node;

/* The entry points for repeat.h: all of them or, in old drivers and those of other vendors, none. */
typedef struct gpu_graph_calls {
    int (*stream_id)(void *stream, unsigned long long *id);
    int (*stream_priority)(void *stream, int *priority);
    int (*stream_context)(void *stream, void **context);
    int (*stream_create)(void **stream, unsigned flags);
    int (*stream_destroy)(void *stream);
    int (*create)(void **graph, unsigned flags);
    int (*add_kernel)(void **node, void *graph, void *const *after, size_t count, const gpu_kernel_node *kernel);
    int (*destroy)(void *graph);
    int (*instantiate)(void **exec, void *graph, unsigned long long flags);
    int (*upload)(void *exec, void *stream);
    int (*set_kernel)(void *exec, void *node, const gpu_kernel_node *kernel);
    int (*launch)(void *exec, void *stream);
    int (*exec_destroy)(void *exec);
} gpu_graph_calls;

/* A driver's entry points, under the signatures that both vendors have. Results: 0 is success. */
typedef struct gpu_driver {
    int (*init)(unsigned flags);
    int (*driver_version)(int *version);
    int (*device_count)(int *count);
    int (*device_get)(int *device, int ordinal);
    int (*device_name)(char *name, int size, int device);
    int (*device_attribute)(int *value, int attribute, int device);
    int (*module_load)(void **module, const void *image);
    int (*module_unload)(void *module);
    int (*module_function)(void **function, void *module, const char *name);
    int (*launch)(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                  unsigned block_z, unsigned shared_bytes, void *stream, void **params, void **extra);
    int (*mem_alloc)(void **ptr, size_t bytes);
    int (*mem_free)(void *ptr);
    int (*copy_in)(void *dst, const void *src, size_t bytes, void *stream);
    int (*copy_out)(void *dst, const void *src, size_t bytes, void *stream);
    int (*address_range)(void **base, size_t *size, void *ptr);
    int (*stream_sync)(void *stream);
    int (*stream_is_capturing)(void *stream, int *capturing);
    /* The words for an error; a vendor has one of these two. */
    int (*error_string)(int error, const char **text);
    const char *(*error_text)(int error);
    /* A thread's current device, as a context or as an ordinal; a vendor has one of the two. */
    int (*context_retain)(void **context, int device);
    int (*context_release)(int device);
    int (*context_get)(void **context);
    int (*context_set)(void *context);
    int (*ordinal_get)(int *ordinal);
    int (*ordinal_set)(int ordinal);
    gpu_graph_calls graphs;
} gpu_driver;

typedef struct gpu_symbol {
    const char *name;
    size_t offset; /* in gpu_driver */
} gpu_symbol;

/* One open device. */
typedef struct gpu_state gpu_state;

/* What differs between vendors. */
typedef struct gpu_vendor {
    const char *library; /* the driver's SONAME */
    const gpu_symbol *symbols, *graph_symbols;
    size_t num_symbols, num_graph_symbols;
    const unsigned char *image, *image_end; /* the device code; empty if it was built without */
    const char *without_code;               /* what to do about that */
    int oldest_driver;
    void (*format_version)(int version, char *text, size_t size);
    bool (*means_no_device)(int error); /* what init and device_count return on a machine without one */
    int out_of_memory_error;
    int multiprocessors_attribute;

    /* Makes the device usable by this process, and gives that up. */
    int (*retain)(const gpu_driver *driver, int ordinal, int device, void **place);
    int (*release)(const gpu_driver *driver, int device);
    /* Makes place the calling thread's current device; leave restores what was. */
    int (*enter)(const gpu_driver *driver, void *place, void **before);
    int (*leave)(const gpu_driver *driver, void *place, void *before);
} gpu_vendor;

/* The slots of dm_backend; a vendor's table wraps the first two. */
void gpu_probe(const gpu_vendor *vendor, const char *library, dm_backend_info *info);
dm_status gpu_open(const gpu_vendor *vendor, const dm_open_args *args, void **state);
void gpu_close(void *state);
dm_status gpu_device_name(void *state, char *name, size_t size);
dm_status gpu_alloc(void *state, size_t bytes, void **ptr);
dm_status gpu_free(void *state, void *ptr);
dm_status gpu_upload(void *state, void *dst, const void *src, size_t bytes, dm_stream stream);
dm_status gpu_download(void *state, void *dst, const void *src, size_t bytes, dm_stream stream);
dm_status gpu_sync(void *state, dm_stream stream);
dm_status gpu_is_capturing(void *state, dm_stream stream, bool *capturing);
dm_status gpu_check_range(void *state, const char *field, const void *ptr, size_t bytes);
dm_status gpu_fill(void *state, const dm_job *jobs, int count, dm_stream stream);

#endif
