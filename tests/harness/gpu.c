/* The second, smaller driver table of the tests and tools; its first is in backends/gpu. */
#include "gpu.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The entry points that both vendors have under one signature. */
typedef struct entry_points {
    int (*stream_create)(void **stream, unsigned flags);
    int (*stream_destroy)(void *stream);
    int (*stream_sync)(void *stream);
    int (*begin_capture)(void *stream, int mode);
    int (*end_capture)(void *stream, void **graph);
    int (*instantiate)(void **exec, void *graph, unsigned long long flags);
    int (*graph_launch)(void *exec, void *stream);
    int (*exec_destroy)(void *exec);
    int (*graph_destroy)(void *graph);
    int (*graph_nodes)(void *graph, void **nodes, size_t *count);
    int (*node_params)(void *node, void *params);
    int (*event_create)(void **event, unsigned flags);
    int (*event_record)(void *event, void *stream);
    int (*event_sync)(void *event);
    int (*event_elapsed)(float *ms, void *from, void *to);
    int (*event_destroy)(void *event);
    int (*module_load)(void **module, const void *image);
    int (*module_unload)(void *module);
    int (*module_function)(void **function, void *module, const char *name);
    int (*launch)(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                  unsigned block_z, unsigned shared, void *stream, void **params, void **extra);
    int (*copy)(void *dst, const void *src, size_t bytes, void *stream);
    int (*set32)(void *dst, unsigned value, size_t count, void *stream);
} entry_points;

typedef struct entry_name {
    const char *cuda, *hip;
    size_t offset;
} entry_name;

#define AT(member) offsetof(entry_points, member)
static const entry_name names[] = {
    {"cuStreamCreate", "hipStreamCreateWithFlags", AT(stream_create)},
    {"cuStreamDestroy_v2", "hipStreamDestroy", AT(stream_destroy)},
    {"cuStreamSynchronize", "hipStreamSynchronize", AT(stream_sync)},
    {"cuStreamBeginCapture_v2", "hipStreamBeginCapture", AT(begin_capture)},
    {"cuStreamEndCapture", "hipStreamEndCapture", AT(end_capture)},
    {"cuGraphInstantiateWithFlags", "hipGraphInstantiateWithFlags", AT(instantiate)},
    {"cuGraphLaunch", "hipGraphLaunch", AT(graph_launch)},
    {"cuGraphExecDestroy", "hipGraphExecDestroy", AT(exec_destroy)},
    {"cuGraphDestroy", "hipGraphDestroy", AT(graph_destroy)},
    {"cuGraphGetNodes", "hipGraphGetNodes", AT(graph_nodes)},
    {"cuGraphKernelNodeGetParams", "hipGraphKernelNodeGetParams", AT(node_params)},
    {"cuEventCreate", "hipEventCreateWithFlags", AT(event_create)},
    {"cuEventRecord", "hipEventRecord", AT(event_record)},
    {"cuEventSynchronize", "hipEventSynchronize", AT(event_sync)},
    {"cuEventElapsedTime", "hipEventElapsedTime", AT(event_elapsed)},
    {"cuEventDestroy_v2", "hipEventDestroy", AT(event_destroy)},
    {"cuModuleLoadData", "hipModuleLoadData", AT(module_load)},
    {"cuModuleUnload", "hipModuleUnload", AT(module_unload)},
    {"cuModuleGetFunction", "hipModuleGetFunction", AT(module_function)},
    {"cuLaunchKernel", "hipModuleLaunchKernel", AT(launch)},
    {"cuMemcpyDtoDAsync_v2", "hipMemcpyDtoDAsync", AT(copy)},
    {"cuMemsetD32Async", "hipMemsetD32Async", AT(set32)},
};
#undef AT

struct gpu_queue {
    bool is_cuda;
    int device;
    void *library;
    entry_points driver;
    void *stream, *begin, *end;
};

struct gpu_module {
    gpu_queue *queue;
    void *module;
};

struct gpu_graph {
    gpu_queue *queue;
    void *graph, *exec;
};

static void need(int error, const char *what)
{
    if (!error)
        return;
    fprintf(stderr, "GPU driver: %s fails with error %d\n", what, error);
    exit(1);
}

static void resolve(gpu_queue *q)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *entry = dlsym(q->library, q->is_cuda ? names[i].cuda : names[i].hip);
        memcpy((char *)&q->driver + names[i].offset, &entry, sizeof entry);
    }
}

/* The context that the library uses too, or the device, made current. */
static void enter_device(const gpu_queue *q)
{
    if (q->is_cuda) {
        int (*retain)(void **, int), (*set)(void *);
        void *context;
        *(void **)&retain = dlsym(q->library, "cuDevicePrimaryCtxRetain");
        *(void **)&set = dlsym(q->library, "cuCtxSetCurrent");
        need(retain(&context, q->device), "cuDevicePrimaryCtxRetain");
        need(set(context), "cuCtxSetCurrent");
    } else {
        int (*set)(int);
        *(void **)&set = dlsym(q->library, "hipSetDevice");
        need(set(q->device), "hipSetDevice");
    }
}

/* Gives the context back that enter_device retained. */
static void leave_device(const gpu_queue *q)
{
    int (*release)(int);
    if (!q->is_cuda)
        return;
    *(void **)&release = dlsym(q->library, "cuDevicePrimaryCtxRelease_v2");
    need(release(q->device), "cuDevicePrimaryCtxRelease");
}

gpu_queue *gpu_queue_open(const dm_context *ctx)
{
    dm_backend_info info = {.size = sizeof info};
    if (dm_context_info(ctx, &info) != DM_OK || strcmp(info.name, "cpu") == 0)
        return NULL;
    gpu_queue *q = calloc(1, sizeof *q);
    need(!q, "calloc");
    q->is_cuda = strcmp(info.name, "cuda") == 0;
    q->device = info.device;
    const char *path = getenv(q->is_cuda ? "DRAFTMETA_CUDA_LIBRARY" : "DRAFTMETA_HIP_LIBRARY");
    q->library = dlopen(path && *path ? path : q->is_cuda ? "libcuda.so.1" : "libamdhip64.so", RTLD_NOW | RTLD_LOCAL);
    need(!q->library, "dlopen");
    resolve(q);
    enter_device(q);
    need(q->driver.stream_create(&q->stream, 1), "creating a stream");
    need(q->driver.event_create(&q->begin, 0), "creating an event");
    need(q->driver.event_create(&q->end, 0), "creating an event");
    return q;
}

void gpu_queue_close(gpu_queue *q)
{
    if (!q)
        return;
    need(q->driver.event_destroy(q->begin), "destroying an event");
    need(q->driver.event_destroy(q->end), "destroying an event");
    need(q->driver.stream_destroy(q->stream), "destroying a stream");
    leave_device(q);
    dlclose(q->library);
    free(q);
}

dm_stream gpu_queue_stream(const gpu_queue *q)
{
    return q ? q->stream : NULL;
}

void gpu_queue_wait(const gpu_queue *q)
{
    need(q->driver.stream_sync(q->stream), "waiting for a stream");
}

gpu_graph *gpu_graph_capture(gpu_queue *q, void (*enqueue)(void *arg), void *arg)
{
    enum { THREAD_LOCAL = 1 };
    gpu_graph *g = calloc(1, sizeof *g);
    need(!g, "calloc");
    g->queue = q;
    need(q->driver.begin_capture(q->stream, THREAD_LOCAL), "beginning a capture");
    enqueue(arg);
    need(q->driver.end_capture(q->stream, &g->graph), "ending a capture");
    need(q->driver.instantiate(&g->exec, g->graph, 0), "instantiating a graph");
    return g;
}

void gpu_graph_launch(const gpu_graph *g)
{
    need(g->queue->driver.graph_launch(g->exec, g->queue->stream), "launching a graph");
}

void gpu_graph_free(gpu_graph *g)
{
    if (!g)
        return;
    need(g->queue->driver.exec_destroy(g->exec), "destroying a graph");
    need(g->queue->driver.graph_destroy(g->graph), "destroying a graph");
    free(g);
}

double gpu_graph_time(const gpu_graph *g)
{
    const gpu_queue *q = g->queue;
    float ms;
    need(q->driver.event_record(q->begin, q->stream), "recording an event");
    gpu_graph_launch(g);
    need(q->driver.event_record(q->end, q->stream), "recording an event");
    need(q->driver.event_sync(q->end), "waiting for an event");
    need(q->driver.event_elapsed(&ms, q->begin, q->end), "reading events");
    return 1e3 * (double)ms;
}

bool gpu_graph_shape(const gpu_graph *g, unsigned *grid, unsigned *block)
{
    const gpu_queue *q = g->queue;
    void *node;
    size_t count = 1;
    struct {
        void *function;
        unsigned grid[3], block[3], shared;
        void **params, **extra;
    } params;
    if (!q->is_cuda || !q->driver.graph_nodes || !q->driver.node_params)
        return false;
    need(q->driver.graph_nodes(g->graph, &node, &count), "listing a graph's nodes");
    need(q->driver.node_params(node, &params), "reading a node");
    *grid = params.grid[0];
    *block = params.block[0];
    return true;
}

/* HIP's driver on NVIDIA takes CUDA's code, not HIP's. */
gpu_module *gpu_module_load(gpu_queue *q, const void *cuda_image, const void *hip_image)
{
    const void *const images[] = {q->is_cuda ? cuda_image : hip_image, cuda_image};
    void *module = NULL;
    for (int i = 0; i < 2 && !module; i++)
        if (*(const char *)images[i] && q->driver.module_load(&module, images[i]))
            module = NULL;
    if (!module)
        return NULL;
    gpu_module *m = calloc(1, sizeof *m);
    need(!m, "calloc");
    *m = (gpu_module){q, module};
    return m;
}

void gpu_module_unload(gpu_module *m)
{
    if (!m)
        return;
    need(m->queue->driver.module_unload(m->module), "unloading device code");
    free(m);
}

void *gpu_module_kernel(const gpu_module *m, const char *name)
{
    void *kernel = NULL;
    return m && !m->queue->driver.module_function(&kernel, m->module, name) ? kernel : NULL;
}

void gpu_queue_launch(gpu_queue *q, void *kernel, unsigned grid, unsigned block, void *params)
{
    void *list[] = {params};
    need(q->driver.launch(kernel, grid, 1, 1, block, 1, 1, 0, q->stream, list, NULL), "launching a kernel");
}

bool gpu_queue_moves(const gpu_queue *q)
{
    return q->driver.copy && q->driver.set32;
}

void gpu_queue_copy(gpu_queue *q, void *dst, const void *src, size_t bytes)
{
    need(q->driver.copy(dst, src, bytes, q->stream), "copying");
}

void gpu_queue_set(gpu_queue *q, void *dst, size_t bytes)
{
    need(q->driver.set32(dst, 0x5a5a5a5a, bytes / 4, q->stream), "filling memory");
}
