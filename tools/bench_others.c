/* What draftmeta bench runs on a GPU beside fills.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench_others.h"

#include <stdio.h>
#include <stdlib.h>

#include "tools.h"

/* The device code of empty.cu and foreign.cu. Where it could not be compiled its first byte is 0. */
extern const unsigned char bench_empty_cuda_image[], bench_empty_hip_image[];
extern const unsigned char bench_foreign_cuda_image[], bench_foreign_hip_image[];

enum { FLUSH_BYTES = 256 << 20, COPY_BYTES = 1 << 30, REPEATS = 20, PARAMS_BYTES = 4096 };
/* Blocks enough for several on every multiprocessor, of a warp for each of its parts. */
enum { FOREIGN_GRID = 512, FOREIGN_BLOCK = 128 };

static void find_kernels(bench_others *o)
{
    o->empty_code = gpu_module_load(o->queue, bench_empty_cuda_image, bench_empty_hip_image);
    o->empty = gpu_module_kernel(o->empty_code, "draftmeta_empty");
    o->foreign_code = gpu_module_load(o->queue, bench_foreign_cuda_image, bench_foreign_hip_image);
    for (int i = 0; i < BENCH_FOREIGN; i++) {
        char name[32];
        snprintf(name, sizeof name, "draftmeta_foreign_%d", i);
        o->foreign[i] = gpu_module_kernel(o->foreign_code, name);
    }
}

int bench_others_open(dm_context *ctx, gpu_queue *queue, bench_others *o)
{
    *o = (bench_others){.ctx = ctx, .queue = queue, .params = tool_calloc(PARAMS_BYTES, 1)};
    dm_status status = dm_malloc(ctx, FOREIGN_GRID * FOREIGN_BLOCK * sizeof(uint32_t), &o->words);
    if (status == DM_OK && gpu_queue_moves(queue)) {
        status = dm_malloc(ctx, FLUSH_BYTES, &o->flush);
        if (status == DM_OK)
            status = dm_malloc(ctx, COPY_BYTES, &o->copy_from);
        if (status == DM_OK)
            status = dm_malloc(ctx, COPY_BYTES, &o->copy_to);
    }
    if (status != DM_OK)
        return tool_failed("setting up", status);
    find_kernels(o);
    return TOOL_GOOD;
}

void bench_others_close(bench_others *o)
{
    gpu_module_unload(o->empty_code);
    gpu_module_unload(o->foreign_code);
    dm_free(o->ctx, o->words);
    dm_free(o->ctx, o->flush);
    dm_free(o->ctx, o->copy_from);
    dm_free(o->ctx, o->copy_to);
    free(o->params);
}

bool bench_others_have(const bench_others *o, bench_column column)
{
    bool have = column != BENCH_COLD || o->flush;
    for (int i = 0; i < BENCH_FOREIGN && column != BENCH_WARM; i++)
        have = have && o->foreign[i];
    return have;
}

void bench_others_between(const bench_others *o, bench_column column)
{
    void *words = o->words;
    for (int i = 0; i < BENCH_FOREIGN && column != BENCH_WARM; i++)
        gpu_queue_launch(o->queue, o->foreign[i], FOREIGN_GRID, FOREIGN_BLOCK, &words);
    if (column == BENCH_COLD)
        gpu_queue_set(o->queue, o->flush, FLUSH_BYTES);
}

void bench_others_empty(const bench_others *o, unsigned grid, unsigned block)
{
    gpu_queue_launch(o->queue, o->empty, grid, block, o->params);
}

static void enqueue_copy(void *arg)
{
    const bench_others *o = arg;
    gpu_queue_copy(o->queue, o->copy_to, o->copy_from, COPY_BYTES);
}

static void enqueue_code(void *arg)
{
    bench_others_between(arg, BENCH_CODE);
}

/* Of the work in a graph, the median. */
static double time_once(bench_others *o, void (*enqueue)(void *arg))
{
    tool_samples times = {0};
    gpu_graph *graph = gpu_graph_capture(o->queue, enqueue, o);
    for (int i = 0; i < REPEATS; i++)
        tool_samples_add(&times, gpu_graph_time(graph));
    gpu_graph_free(graph);
    const double us = tool_samples_percentile(&times, 50);
    tool_samples_free(&times);
    return us;
}

double bench_others_copy_rate(bench_others *o)
{
    const double us = o->copy_to ? time_once(o, enqueue_copy) : 0;
    return us > 0 ? 2.0 * COPY_BYTES / us : 0;
}

double bench_others_code_us(bench_others *o)
{
    return bench_others_have(o, BENCH_CODE) ? time_once(o, enqueue_code) : 0;
}
