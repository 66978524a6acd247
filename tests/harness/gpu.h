/* Streams, graphs and timing of the GPU driver beneath a context: what the library leaves to its callers. */
#ifndef DRAFTMETA_HARNESS_GPU_H
#define DRAFTMETA_HARNESS_GPU_H

#include <stdbool.h>

#include "draftmeta.h"

/* A device's driver, opened a second time, with a stream of its own. Every call that fails ends the program with the
 * driver's words: tests and tools have nothing better to do then. */
typedef struct gpu_queue gpu_queue;

/* For the device of ctx; NULL for the CPU backend. The device becomes the calling thread's current one. */
gpu_queue *gpu_queue_open(const dm_context *ctx);
void gpu_queue_close(gpu_queue *q);
dm_stream gpu_queue_stream(const gpu_queue *q);
void gpu_queue_wait(const gpu_queue *q);

/* ---- Graphs ---- */

typedef struct gpu_graph gpu_graph;

/* Captures what enqueue puts on the queue's stream. */
gpu_graph *gpu_graph_capture(gpu_queue *q, void (*enqueue)(void *arg), void *arg);
void gpu_graph_launch(const gpu_graph *g);
void gpu_graph_free(gpu_graph *g);
/* Microseconds from the begin to the end of one replay, on the device. */
double gpu_graph_time(const gpu_graph *g);

/* Grid and block of the graph's first node, which must be a kernel; false where the driver cannot tell. */
bool gpu_graph_shape(const gpu_graph *g, unsigned *grid, unsigned *block);

/* ---- Work to compare with ---- */

typedef struct gpu_module gpu_module;

/* Loads the vendor's device code; NULL where the image is empty, which its first byte tells, or the driver refuses it.
 * Unload it before the queue is closed. */
gpu_module *gpu_module_load(gpu_queue *q, const void *cuda_image, const void *hip_image);
void gpu_module_unload(gpu_module *m);
/* A kernel of one parameter; NULL if there is none of that name. */
void *gpu_module_kernel(const gpu_module *m, const char *name);

/* Enqueues a kernel; params are its parameter. */
void gpu_queue_launch(gpu_queue *q, void *kernel, unsigned grid, unsigned block, void *params);
/* Whether the driver has the next two. */
bool gpu_queue_moves(const gpu_queue *q);
void gpu_queue_copy(gpu_queue *q, void *dst, const void *src, size_t bytes);
/* Writes every byte, to push everything else out of the cache. */
void gpu_queue_set(gpu_queue *q, void *dst, size_t bytes);

#endif
