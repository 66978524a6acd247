/* draftmeta bench on a GPU: every row checked against the oracle, then timed warm, with foreign code between fills, and
 * with the L2 flushed besides.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_others.h"
#include "bench_rows.h"
#include "bench_table.h"
#include "bench_time.h"
#include "cupti.h"
#include "gpu.h"
#include "tools.h"

enum { EMPTY_GRID = 132, EMPTY_BLOCK = 256, CALLS = 20, DISCARDED = 3 };

/* A backend on the GPU. */
typedef struct place {
    dm_context *ctx;
    gpu_queue *queue;
} place;

/* The fills of a row on the device. */
typedef struct call {
    const place *at;
    dm_fill_desc descs[DM_FILL_MANY_MAX];
    const dm_fill_desc *list[DM_FILL_MANY_MAX];
    void *memory;
    int fills;
} call;

typedef struct bench {
    const bench_options *options;
    place main, beside; /* beside.ctx NULL: none */
    bench_others others;
    bench_row *rows;
    int num_rows;
    bench_result results[BENCH_MOST_ROWS];
    call calls[BENCH_MOST_ROWS], beside_calls[BENCH_MOST_ROWS];
    cupti *cupti; /* NULL: there is none */
    bench_table table;
} bench;

/* ---- What is enqueued ----------------------------------------------------------------------------------------- */

static void enqueue_fill(void *arg)
{
    const call *c = arg;
    const dm_status status = dm_fill_many(c->at->ctx, c->list, (size_t)c->fills, gpu_queue_stream(c->at->queue));
    if (status != DM_OK)
        exit(tool_failed("dm_fill_many", status));
}

static void enqueue_empty(void *arg)
{
    bench_others_empty(arg, EMPTY_GRID, EMPTY_BLOCK);
}

/* ---- Placing the rows ----------------------------------------------------------------------------------------- */

static dm_status place_image(const place *at, const image *img, call *c)
{
    *c = (call){.at = at, .fills = (int)img->count};
    dm_status status = dm_malloc(at->ctx, img->bytes, &c->memory);
    if (status == DM_OK)
        status = dm_upload(at->ctx, c->memory, img->block, img->bytes, NULL);
    for (int i = 0; i < c->fills; i++) {
        c->descs[i] = img->descs[i];
        c->list[i] = &c->descs[i];
        image_rebase(&c->descs[i], img->block, c->memory);
    }
    return status;
}

/* Checks the fills against the oracle, then places them; returns an exit status. */
static int check_and_place(const place *at, const bench_row *row, const image *img, call *c)
{
    const int exit_status = bench_check(at->ctx, &row->work, img);
    if (exit_status != TOOL_GOOD)
        return exit_status;
    const dm_status status = place_image(at, img, c);
    return status == DM_OK ? TOOL_GOOD : tool_failed(row->name, status);
}

static int prepare_row(bench *b, int i)
{
    const bench_row *row = &b->rows[i];
    bench_result *result = &b->results[i];
    image *img = workload_image(&row->work, row->fills, (uint64_t)b->options->seed);
    const workload_traffic traffic = workload_traffic_of(img);
    int status = check_and_place(&b->main, row, img, &b->calls[i]);
    if (status == TOOL_GOOD && b->beside.ctx)
        status = check_and_place(&b->beside, row, img, &b->beside_calls[i]);
    image_free(img);
    result->bytes = (double)(traffic.bytes_written + 64 * traffic.pages_read + 4 * traffic.slots_read);
    return status;
}

static int prepare(bench *b)
{
    const double start = tool_now_us();
    int count = 0;
    for (int i = 0; i < b->num_rows; i++) {
        if (!strstr(b->rows[i].name, b->options->match))
            continue;
        const int status = prepare_row(b, i);
        if (status != TOOL_GOOD)
            return status;
        b->results[i].selected = true;
        count++;
    }
    if (!count) {
        tool_error("--match: there is no row with %s in its name", b->options->match);
        return TOOL_USAGE;
    }
    printf("rows equal to the oracle: %d (%.0f s)\n", count, (tool_now_us() - start) / 1e6);
    fflush(stdout);
    return TOOL_GOOD;
}

/* ---- Timing on the device ------------------------------------------------------------------------------------- */

typedef enum how { DURATIONS, DIFFERENCES, CHAIN } how;

/* Rows that take turns: one, and those that have it as their base. */
typedef struct group {
    int rows[BENCH_MOST_SIDES / 2], count;
} group;

static group group_of(const bench *b, int first)
{
    group g = {.rows = {first}, .count = 1};
    for (int i = first + 1; i < b->num_rows; i++)
        if (b->results[i].selected && b->rows[i].base == first && g.count < BENCH_MOST_SIDES / 2)
            g.rows[g.count++] = i;
    return g;
}

static bool leads_a_group(const bench *b, int i)
{
    return b->results[i].selected && (b->rows[i].base < 0 || !b->results[b->rows[i].base].selected);
}

static void time_sides(bench *b, how way, bench_side *sides, int count)
{
    const int samples = (int)b->options->samples, pairs = samples / 3;
    if (way == CHAIN)
        bench_time_differences(&b->others, sides, count, BENCH_CODE, BENCH_CODE, pairs);
    else if (way == DIFFERENCES)
        bench_time_differences(&b->others, sides, count, BENCH_WARM, BENCH_COLD, pairs);
    else
        bench_time_durations(b->cupti, &b->others, sides, count, samples);
}

/* Sides are the rows' fills, then those of the other backend, which is no part of a chain. */
static void time_group(bench *b, const group *g, how way)
{
    bench_side sides[BENCH_MOST_SIDES] = {{0}};
    const int count = b->beside.ctx && way != CHAIN ? 2 * g->count : g->count;
    for (int k = 0; k < count; k++) {
        call *calls = k < g->count ? b->calls : b->beside_calls;
        call *c = &calls[g->rows[k % g->count]];
        sides[k] = (bench_side){.enqueue = enqueue_fill, .arg = c, .queue = c->at->queue};
    }
    time_sides(b, way, sides, count);
    for (int k = 0; k < count; k++) {
        bench_result *x = &b->results[g->rows[k % g->count]];
        if (way == CHAIN)
            x->chain = sides[k].columns[BENCH_CODE];
        else
            memcpy(k < g->count ? x->columns : x->beside, sides[k].columns, sizeof x->columns);
    }
}

static void time_groups(bench *b, how way)
{
    for (int i = 0; i < b->num_rows; i++) {
        if (!leads_a_group(b, i))
            continue;
        const group g = group_of(b, i);
        time_group(b, &g, way);
        for (int k = 0; k < g.count && way != CHAIN; k++)
            bench_table_row(&b->table, g.rows[k]);
    }
}

static void time_empty(bench *b, how way)
{
    bench_side empty = {.enqueue = enqueue_empty, .arg = &b->others, .queue = b->main.queue};
    if (!b->others.empty)
        return;
    time_sides(b, way, &empty, 1);
    memcpy(b->table.empty, empty.columns, sizeof b->table.empty);
}

static void find_shapes(bench *b)
{
    for (int i = 0; i < b->num_rows; i++) {
        if (!b->results[i].selected)
            continue;
        gpu_graph *one = gpu_graph_capture(b->main.queue, enqueue_fill, &b->calls[i]);
        gpu_graph_shape(one, &b->results[i].grid, &b->results[i].block);
        gpu_graph_free(one);
    }
}

/* ---- Timing on the host --------------------------------------------------------------------------------------- */

static double host_time(const bench *b, const call *c, const bench_result *x)
{
    gpu_queue_wait(b->main.queue);
    const double start = tool_now_us();
    for (int i = 0; i < CALLS; i++)
        if (c)
            enqueue_fill((void *)c);
        else
            bench_others_empty(&b->others, x->grid ? x->grid : EMPTY_GRID, x->block ? x->block : EMPTY_BLOCK);
    return (tool_now_us() - start) / CALLS;
}

static double median(tool_samples *s)
{
    const double m = tool_samples_percentile(s, 50);
    tool_samples_free(s);
    return m;
}

/* A call that repeats, and launches of an empty kernel of the same shape, in turns. */
static void time_host(bench *b, int i)
{
    tool_samples host = {0}, bare = {0};
    bench_result *x = &b->results[i];
    for (int k = -DISCARDED; k < b->options->samples / 3; k++) {
        const double fill_us = host_time(b, &b->calls[i], x);
        const double empty_us = b->others.empty ? host_time(b, NULL, x) : 0;
        if (k < 0)
            continue;
        tool_samples_add(&host, fill_us);
        tool_samples_add(&bare, empty_us);
    }
    gpu_queue_wait(b->main.queue);
    x->host_us = median(&host);
    x->bare_us = median(&bare);
}

/* ---- The whole ------------------------------------------------------------------------------------------------ */

/* The first fill after dm_open pays for nothing that dm_open should have paid for. */
static double first_call_us(dm_context *ctx)
{
    const dm_fill_desc none = {.size = sizeof none};
    const double start = tool_now_us();
    if (dm_fill(ctx, &none, NULL) != DM_OK || dm_sync(ctx, NULL) != DM_OK)
        return 0;
    return tool_now_us() - start;
}

/* Graphs first: after some thousand launches outside of them the driver takes more time between kernels, in graphs too.
 * CUPTI last, as it slows launches down. */
static void time_all(bench *b)
{
    find_shapes(b);
    if (b->cupti)
        time_groups(b, CHAIN);
    for (int i = 0; i < b->num_rows; i++)
        if (b->results[i].selected)
            time_host(b, i);
    const char *why = b->cupti ? cupti_start(b->cupti, bench_time_wants) : NULL;
    if (why)
        tool_error("no CUPTI: %s", why);
    b->table.durations = b->cupti && !why;
    const how way = b->table.durations ? DURATIONS : DIFFERENCES;
    time_empty(b, way);
    bench_table_head(&b->table);
    time_groups(b, way);
}

/* Says how the bars came out; returns an exit status. */
static int conclude(const bench *b)
{
    const bench_tally t = bench_table_tally(&b->table);
    printf("bars: %d met, %d missed, %d unknown\n", t.met, t.missed, t.unknown);
    return b->options->strict && t.missed + t.unknown > 0 ? TOOL_MISMATCH : TOOL_GOOD;
}

/* The library that is asked for must work. */
static int find_cupti(bench *b)
{
    const char *path = b->options->cupti, *why = NULL;
    if (path && strcmp(path, "none") == 0)
        return TOOL_GOOD;
    b->cupti = cupti_load(path, &why);
    if (!path || b->cupti)
        return TOOL_GOOD;
    tool_error("--cupti %s: %s", path, why);
    return TOOL_USAGE;
}

static int open_places(bench *b, dm_context *ctx)
{
    b->main = (place){ctx, gpu_queue_open(ctx)};
    b->beside.ctx = b->options->beside;
    if (b->beside.ctx)
        b->beside.queue = gpu_queue_open(b->beside.ctx);
    if (b->beside.ctx && !b->beside.queue) {
        tool_error("--beside is for GPU backends");
        return TOOL_USAGE;
    }
    return bench_others_open(ctx, b->main.queue, &b->others);
}

static void close_all(bench *b)
{
    cupti_close(b->cupti);
    for (int i = 0; i < b->num_rows; i++) {
        dm_free(b->main.ctx, b->calls[i].memory);
        if (b->beside.ctx)
            dm_free(b->beside.ctx, b->beside_calls[i].memory);
    }
    if (b->others.ctx)
        bench_others_close(&b->others);
    gpu_queue_close(b->main.queue);
    gpu_queue_close(b->beside.queue);
    free(b->rows);
    free(b);
}

static int run(bench *b, dm_context *ctx)
{
    dm_backend_info info = {.size = sizeof info}, other = {.size = sizeof other};
    dm_context_info(ctx, &info);
    const double first_us = first_call_us(ctx);
    int status = find_cupti(b);
    if (status == TOOL_GOOD)
        status = open_places(b, ctx);
    if (status != TOOL_GOOD)
        return status;
    if (b->beside.ctx)
        dm_context_info(b->beside.ctx, &other);
    b->table.beside = b->beside.ctx ? other.name : NULL;
    b->table.copy_rate = bench_others_copy_rate(&b->others);
    printf("bench: backend %s (%s, %s), %d samples\n", info.name, info.device_name, info.driver_version,
           (int)b->options->samples);
    printf("first call after dm_open %.0f us; copy %.0f GB/s read and written; foreign kernels %.0f us\n", first_us,
           b->table.copy_rate / 1e3, bench_others_code_us(&b->others));
    status = prepare(b);
    if (status != TOOL_GOOD)
        return status;
    time_all(b);
    if (b->options->json)
        status = bench_table_write(&b->table, b->options->json, &info);
    const int judged = conclude(b);
    return status == TOOL_GOOD ? judged : status;
}

int bench_gpu(dm_context *ctx, const bench_options *options)
{
    bench *b = tool_calloc(1, sizeof *b);
    b->options = options;
    b->rows = bench_rows(&b->num_rows);
    b->table = (bench_table){.rows = b->rows, .results = b->results, .num_rows = b->num_rows};
    const int status = run(b, ctx);
    close_all(b);
    return status;
}
