/* draftmeta bench on a GPU: every fill as graph nodes, beside an empty kernel, a bare launch and a device copy.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "gpu.h"
#include "tools.h"
#include "workload.h"

/* The most that a fill may take, as a multiple of the empty kernel, plus the time that traffic takes a copy; and what
 * the fastest peer takes for the same outputs, in microseconds on an H100 (docs/performance.md). 0: no such bar. */
typedef struct bar {
    double empties, traffic, peer_us;
} bar;

typedef struct row {
    workload work;
    int fills; /* descriptors in the call */
    bar bar;
} row;

enum { SGLANG_SCHEDULE = WORKLOAD_SGLANG | WORKLOAD_SCHEDULE, SGLANG_POOLS = WORKLOAD_SGLANG | WORKLOAD_POOLS };

static const row rows[] = {
    {{"lengths", 3, 4, true, 32768, 0, 0, WORKLOAD_LENGTHS}, 1, {1.5, 0, 0}},
    {{"lengths", 256, 4, true, 32768, 0, 0, WORKLOAD_LENGTHS}, 1, {1.9, 0, 0}},
    {{"lengths", 1024, 4, true, 32768, 0, 0, WORKLOAD_LENGTHS}, 1, {0, 0, 0}},
    {{"lengths", 4096, 4, true, 32768, 0, 0, WORKLOAD_LENGTHS}, 1, {2.2, 0, 0}},
    {{"lengths", 65536, 4, true, 32768, 0, 0, WORKLOAD_LENGTHS}, 1, {15, 0, 0}},
    {{"expanded", 3, 4, true, 32768, 0, 0, WORKLOAD_EXPANDED}, 1, {0, 0, 1.29}},
    {{"expanded", 32, 4, true, 32768, 0, 0, WORKLOAD_EXPANDED}, 1, {0, 0, 1.55}},
    {{"expanded", 256, 4, true, 32768, 0, 0, WORKLOAD_EXPANDED}, 1, {0, 0, 1.82}},
    {{"expanded", 1024, 4, true, 32768, 0, 0, WORKLOAD_EXPANDED}, 1, {0, 0, 1.92}},
    {{"expanded", 4096, 4, true, 32768, 0, 0, WORKLOAD_EXPANDED}, 1, {0, 0, 2.07}},
    {{"sglang-set", 1, 4, false, 32768, 0, 64, WORKLOAD_SGLANG}, 1, {2.25, 1.3, 2.05}},
    {{"sglang-set", 1, 4, true, 32768, 0, 64, WORKLOAD_SGLANG}, 1, {2.25, 1.3, 2.05}},
    {{"sglang-set", 3, 4, true, 32768, 0, 64, WORKLOAD_SGLANG}, 1, {2.25, 1.3, 0}},
    {{"sglang-set", 8, 4, false, 32768, 0, 64, WORKLOAD_SGLANG}, 1, {2.25, 1.3, 6.2}},
    {{"sglang-set", 8, 4, true, 32768, 0, 64, WORKLOAD_SGLANG}, 1, {2.25, 1.3, 6.2}},
    {{"sglang-set", 32, 4, false, 16384, 0, 64, WORKLOAD_SGLANG}, 1, {2.25, 1.3, 21}},
    {{"sglang-set", 32, 4, true, 16384, 0, 64, WORKLOAD_SGLANG}, 1, {2.25, 1.3, 21}},
    {{"sglang-set", 64, 4, false, 65536, 0, 64, WORKLOAD_SGLANG}, 1, {2.25, 1.3, 41}},
    {{"sglang-set", 64, 4, true, 65536, 0, 64, WORKLOAD_SGLANG}, 1, {2.25, 1.3, 97}},
    {{"sglang-set", 64, 4, true, 32768, 1048576, 64, WORKLOAD_SGLANG}, 1, {2.25, 1.3, 317}},
    {{"sglang-set", 128, 4, false, 8192, 0, 64, WORKLOAD_SGLANG}, 1, {2.25, 1.3, 80}},
    {{"sglang-set", 128, 4, true, 8192, 0, 64, WORKLOAD_SGLANG}, 1, {2.25, 1.3, 80}},
    {{"sglang-set", 256, 4, false, 4096, 0, 64, WORKLOAD_SGLANG}, 1, {3, 1.3, 160}},
    {{"sglang-set", 256, 4, true, 4096, 0, 64, WORKLOAD_SGLANG}, 1, {3, 1.3, 160}},
    {{"sglang-set", 512, 4, true, 2048, 0, 64, WORKLOAD_SGLANG}, 1, {0, 0, 430}},
    {{"sglang-set", 1024, 4, false, 1024, 0, 64, WORKLOAD_SGLANG}, 1, {4, 1.3, 1220}},
    {{"sglang-set", 1024, 4, true, 1024, 0, 64, WORKLOAD_SGLANG}, 1, {4, 1.3, 1540}},
    {{"sglang-set", 1024, 4, true, 65536, 0, 64, WORKLOAD_SGLANG}, 1, {4, 1.3, 0}},
    {{"set, pools", 1, 4, false, 8192, 131072, 64, SGLANG_POOLS}, 1, {0, 0, 1.84}},
    {{"set, pools", 1, 4, true, 8192, 131072, 64, SGLANG_POOLS}, 1, {0, 0, 1.88}},
    {{"set, pools", 64, 4, true, 8192, 131072, 64, SGLANG_POOLS}, 1, {0, 0, 17.7}},
    {{"set+schedule", 1, 4, false, 32768, 0, 64, SGLANG_SCHEDULE}, 1, {2.65, 1.3, 0}},
    {{"set+schedule", 64, 4, false, 65536, 0, 64, SGLANG_SCHEDULE}, 1, {2.65, 1.3, 0}},
    {{"set+schedule", 64, 4, true, 65536, 0, 64, SGLANG_SCHEDULE}, 1, {2.65, 1.3, 0}},
    {{"set+schedule", 256, 4, true, 4096, 0, 64, SGLANG_SCHEDULE}, 1, {3.4, 1.3, 0}},
    {{"page-table-1", 256, 4, false, 131072, 0, 0, WORKLOAD_SLOT_TABLE}, 1, {0, 1 / 0.85, 0}},
    {{"one of eight", 64, 4, true, 8192, 0, 64, WORKLOAD_SGLANG}, 1, {0, 0, 0}},
    {{"eight at once", 64, 4, true, 8192, 0, 64, WORKLOAD_SGLANG}, 8, {0, 0, 0}},
};
enum { NUM_ROWS = sizeof rows / sizeof *rows, REPEATS = 60, NODES = 50, COLD_NODES = 8, CALLS = 20 };
enum { FLUSH_BYTES = 256 << 20, COPY_BYTES = 1 << 30, EMPTY_GRID = 132, EMPTY_BLOCK = 256 };

typedef struct result {
    double hot_us, cold_us, empty_us, host_us, bare_us;
    double beside_us;     /* hot, on the other backend; 0: there is none */
    double bytes;         /* pages read at 64 each, and what is written; for page_table_1 read and written once each */
    unsigned grid, block; /* 0 where the driver does not tell */
} result;

/* What all rows share. */
typedef struct bench {
    dm_context *ctx;
    gpu_queue *queue;
    void *flush, *copy_from, *copy_to, *params;
    double copy_rate; /* bytes read and written, per microsecond */
} bench;

/* The fills of a row on the device. */
typedef struct call {
    bench *b;
    dm_fill_desc descs[DM_FILL_MANY_MAX];
    const dm_fill_desc *list[DM_FILL_MANY_MAX];
    void *memory;
    int fills;
    unsigned grid, block;
} call;

/* ---- What is enqueued ----------------------------------------------------------------------------------------- */

static void enqueue_fill(void *arg)
{
    const call *c = arg;
    const dm_status status = dm_fill_many(c->b->ctx, c->list, (size_t)c->fills, gpu_queue_stream(c->b->queue));
    if (status != DM_OK)
        exit(tool_failed("dm_fill_many", status));
}

static void enqueue_hot(void *arg)
{
    for (int i = 0; i < NODES; i++)
        enqueue_fill(arg);
}

static void enqueue_flushes(void *arg)
{
    const bench *b = arg;
    for (int i = 0; i < COLD_NODES; i++)
        gpu_queue_set(b->queue, b->flush, FLUSH_BYTES);
}

static void enqueue_cold(void *arg)
{
    const call *c = arg;
    for (int i = 0; i < COLD_NODES; i++) {
        gpu_queue_set(c->b->queue, c->b->flush, FLUSH_BYTES);
        enqueue_fill(arg);
    }
}

static void enqueue_empty(void *arg)
{
    const bench *b = arg;
    for (int i = 0; i < NODES; i++)
        gpu_queue_launch(b->queue, EMPTY_GRID, EMPTY_BLOCK, b->params);
}

static void enqueue_bare(void *arg)
{
    const call *c = arg;
    gpu_queue_launch(c->b->queue, c->grid, c->block, c->b->params);
}

static void enqueue_copy(void *arg)
{
    const bench *b = arg;
    gpu_queue_copy(b->queue, b->copy_to, b->copy_from, COPY_BYTES);
}

/* ---- Timing --------------------------------------------------------------------------------------------------- */

static double host_time(const bench *b, void (*enqueue)(void *), void *arg)
{
    gpu_queue_wait(b->queue);
    const double start = tool_now_us();
    for (int i = 0; i < CALLS; i++)
        enqueue(arg);
    return (tool_now_us() - start) / CALLS;
}

static double median(tool_samples *s)
{
    const double m = tool_samples_percentile(s, 50);
    tool_samples_free(s);
    return m;
}

/* All of a row's timings take turns, so that they meet the same clocks. beside: the same fills on another backend, or
 * NULL. */
static void measure(bench *b, call *c, call *beside, result *out)
{
    tool_samples hot = {0}, other = {0}, cold = {0}, flush = {0}, empty = {0};
    gpu_graph *others = beside ? gpu_graph_capture(beside->b->queue, enqueue_hot, beside) : NULL;
    gpu_graph *one = gpu_graph_capture(b->queue, enqueue_fill, c);
    gpu_graph *hots = gpu_graph_capture(b->queue, enqueue_hot, c);
    gpu_graph *colds = gpu_graph_capture(b->queue, enqueue_cold, c);
    gpu_graph *flushes = gpu_graph_capture(b->queue, enqueue_flushes, b);
    gpu_graph *empties = gpu_graph_capture(b->queue, enqueue_empty, b);
    const bool has_shape = gpu_graph_shape(one, &c->grid, &c->block);
    if (!has_shape)
        c->grid = EMPTY_GRID, c->block = EMPTY_BLOCK;
    for (int i = -3; i < REPEATS; i++) {
        if (i == 0) { /* the first turns warm up */
            tool_samples *all[] = {&hot, &other, &cold, &flush, &empty};
            for (int k = 0; k < 5; k++)
                all[k]->count = 0;
        }
        tool_samples_add(&hot, gpu_graph_time(hots) / NODES);
        if (others)
            tool_samples_add(&other, gpu_graph_time(others) / NODES);
        tool_samples_add(&empty, gpu_graph_time(empties) / NODES);
        tool_samples_add(&cold, gpu_graph_time(colds) / COLD_NODES);
        tool_samples_add(&flush, gpu_graph_time(flushes) / COLD_NODES);
    }
    gpu_graph_free(others);
    gpu_graph_free(one);
    gpu_graph_free(hots);
    gpu_graph_free(colds);
    gpu_graph_free(flushes);
    gpu_graph_free(empties);
    out->grid = has_shape ? c->grid : 0;
    out->block = has_shape ? c->block : 0;
    out->hot_us = median(&hot);
    out->beside_us = median(&other);
    out->empty_us = median(&empty);
    out->cold_us = median(&cold) - median(&flush);
}

/* A call, and a launch of the same shape. After some thousand launches outside of graphs the driver takes about 0.33 us
 * more for every kernel, in graphs too: so all rows' graphs are timed before the first row comes here. */
static void measure_host(bench *b, call *c, result *out)
{
    tool_samples host = {0}, bare = {0};
    c->grid = out->grid ? out->grid : EMPTY_GRID;
    c->block = out->block ? out->block : EMPTY_BLOCK;
    for (int i = -3; i < REPEATS; i++) {
        if (i == 0)
            host.count = bare.count = 0;
        tool_samples_add(&host, host_time(b, enqueue_fill, c));
        tool_samples_add(&bare, host_time(b, enqueue_bare, c));
    }
    out->host_us = median(&host);
    out->bare_us = median(&bare);
}

static void measure_copy(bench *b)
{
    tool_samples s = {0};
    gpu_graph *copies = gpu_graph_capture(b->queue, enqueue_copy, b);
    for (int i = 0; i < REPEATS; i++)
        tool_samples_add(&s, gpu_graph_time(copies));
    gpu_graph_free(copies);
    b->copy_rate = 2.0 * COPY_BYTES / median(&s);
}

/* ---- Rows ----------------------------------------------------------------------------------------------------- */

static dm_status place(bench *b, const image *img, call *c)
{
    *c = (call){.b = b, .fills = (int)img->count};
    dm_status status = dm_malloc(b->ctx, img->bytes, &c->memory);
    if (status == DM_OK)
        status = dm_upload(b->ctx, c->memory, img->block, img->bytes, NULL);
    for (int i = 0; i < c->fills; i++) {
        c->descs[i] = img->descs[i];
        c->list[i] = &c->descs[i];
        image_rebase(&c->descs[i], img->block, c->memory);
    }
    return status;
}

/* Checks the fills against the oracle, then places them. */
static int check_and_place(bench *b, const row *r, const image *img, call *c)
{
    const int exit_status = bench_check(b->ctx, &r->work, img);
    if (exit_status != TOOL_GOOD)
        return exit_status;
    const dm_status status = place(b, img, c);
    return status == DM_OK ? TOOL_GOOD : tool_failed(r->work.name, status);
}

/* beside: the other backend, or NULL. */
static int run_row(bench *b, bench *beside, const row *r, uint64_t seed, result *out)
{
    call c = {0}, d = {0};
    *out = (result){0};
    image *img = workload_image(&r->work, r->fills, seed);
    int exit_status = check_and_place(b, r, img, &c);
    if (exit_status == TOOL_GOOD && beside)
        exit_status = check_and_place(beside, r, img, &d);
    const workload_traffic traffic = workload_traffic_of(img);
    image_free(img);
    if (exit_status == TOOL_GOOD) {
        out->bytes = (double)(traffic.bytes_written + 64 * traffic.pages_read + 4 * traffic.slots_read);
        measure(b, &c, beside ? &d : NULL, out);
    }
    dm_free(b->ctx, c.memory);
    if (beside)
        dm_free(beside->ctx, d.memory);
    return exit_status;
}

static int run_row_on_host(bench *b, const row *r, uint64_t seed, result *out)
{
    call c = {0};
    image *img = workload_image(&r->work, r->fills, seed);
    const dm_status status = place(b, img, &c);
    image_free(img);
    if (status == DM_OK)
        measure_host(b, &c, out);
    dm_free(b->ctx, c.memory);
    return status == DM_OK ? TOOL_GOOD : tool_failed(r->work.name, status);
}

/* The tightest of the row's bars, in microseconds of this run; 0: none. */
static double bar_of(const bench *b, const row *r, const result *x)
{
    double limit = r->bar.empties * x->empty_us + r->bar.traffic * x->bytes / b->copy_rate;
    if (r->bar.peer_us > 0 && (limit == 0 || 1.05 * r->bar.peer_us < limit))
        limit = 1.05 * r->bar.peer_us;
    return limit;
}

static void print_row(const bench *b, const row *r, const result *x)
{
    const double limit = bar_of(b, r, x);
    char judged[48] = "", ratio[16] = "", shape[24] = "?";
    if (x->grid > 0)
        snprintf(shape, sizeof shape, "%ux%u", x->grid, x->block);
    if (x->beside_us > 0)
        snprintf(ratio, sizeof ratio, "%7.3f ", x->hot_us / x->beside_us);
    if (limit > 0)
        snprintf(judged, sizeof judged, "%8.3f %s", limit, x->hot_us <= limit ? "met" : "MISSED");
    printf("%-13s %6d x%d%-4s %7lld %8lld %10s %8.3f %6.2f %8.3f %9.0f %5.2f %6.2f %5.2f %s%s\n", r->work.name,
           r->work.requests, r->work.tokens, r->work.variable ? " var" : "", (long long)r->work.context,
           (long long)(r->work.width ? r->work.width : r->work.context), shape, x->hot_us, x->hot_us / x->empty_us,
           x->cold_us, x->bytes / 1024, x->bytes / x->hot_us / b->copy_rate, x->host_us, x->host_us / x->bare_us, ratio,
           judged);
    fflush(stdout);
}

static void write_row(tool_json *j, const bench *b, const row *r, const result *x)
{
    bench_report_row(j, &r->work);
    tool_json_int(j, "fills", r->fills);
    tool_json_real(j, "hot_us", x->hot_us);
    if (x->beside_us > 0)
        tool_json_real(j, "beside_us", x->beside_us);
    tool_json_real(j, "cold_us", x->cold_us);
    tool_json_real(j, "empty_us", x->empty_us);
    tool_json_real(j, "bytes", x->bytes);
    tool_json_real(j, "copy_us", x->bytes / b->copy_rate);
    tool_json_real(j, "host_us", x->host_us);
    tool_json_real(j, "bare_us", x->bare_us);
    tool_json_real(j, "bar_us", bar_of(b, r, x));
    tool_json_close(j, '}');
}

static int write_report(const char *path, const bench *b, const dm_backend_info *info, const result *results)
{
    tool_json j;
    const int status = bench_report_open(&j, path, info);
    if (status != TOOL_GOOD)
        return status;
    for (int i = 0; i < NUM_ROWS; i++)
        if (results[i].hot_us > 0)
            write_row(&j, b, &rows[i], &results[i]);
    return bench_report_close(&j, path);
}

/* ---- The whole --------------------------------------------------------------------------------------------------- */

/* The first fill after dm_open pays for nothing that dm_open should have paid for. */
static double first_call_us(dm_context *ctx)
{
    const dm_fill_desc none = {.size = sizeof none};
    const double start = tool_now_us();
    if (dm_fill(ctx, &none, NULL) != DM_OK || dm_sync(ctx, NULL) != DM_OK)
        return 0;
    return tool_now_us() - start;
}

static int set_up(dm_context *ctx, bench *b)
{
    *b = (bench){.ctx = ctx, .params = tool_calloc(4096, 1)};
    dm_status status = dm_malloc(ctx, FLUSH_BYTES, &b->flush);
    if (status == DM_OK)
        status = dm_malloc(ctx, COPY_BYTES, &b->copy_from);
    if (status == DM_OK)
        status = dm_malloc(ctx, COPY_BYTES, &b->copy_to);
    if (status != DM_OK)
        return tool_failed("setting up", status);
    b->queue = gpu_queue_open(ctx);
    gpu_queue_load(b->queue, bench_empty_cuda_image, bench_empty_hip_image, "draftmeta_empty");
    return TOOL_GOOD;
}

static void tear_down(bench *b)
{
    gpu_queue_close(b->queue);
    dm_free(b->ctx, b->flush);
    dm_free(b->ctx, b->copy_from);
    dm_free(b->ctx, b->copy_to);
    free(b->params);
}

static void print_head(const bench *b, const dm_backend_info *info, const dm_backend_info *beside, double first_us)
{
    printf("bench: backend %s (%s, %s), medians of %d, each row equal to the oracle before it is timed\n", info->name,
           info->device_name, info->driver_version, REPEATS);
    printf("copy %.0f GB/s read and written; first call after dm_open %.0f us\n", b->copy_rate / 1e3, first_us);
    if (beside)
        printf("ratio: hot us as a multiple of what the %s backend takes, in turns\n", beside->name);
    printf("%-13s %-14s %7s %8s %10s %8s %6s %8s %9s %5s %6s %5s %s%s\n", "fill", "requests", "context", "width",
           "launch", "hot us", "/empty", "cold us", "KiB", "/copy", "host", "/bare", beside ? "  ratio " : "",
           "     bar");
}

static int run_rows(bench *b, bench *beside, const bench_options *options, result *results)
{
    const uint64_t seed = (uint64_t)options->seed;
    int status = TOOL_GOOD;
    for (int i = 0; i < NUM_ROWS && status == TOOL_GOOD; i++)
        if (strstr(rows[i].work.name, options->match))
            status = run_row(b, beside, &rows[i], seed, &results[i]);
    for (int i = 0; i < NUM_ROWS && status == TOOL_GOOD; i++) {
        if (!strstr(rows[i].work.name, options->match))
            continue;
        status = run_row_on_host(b, &rows[i], seed, &results[i]);
        if (status == TOOL_GOOD)
            print_row(b, &rows[i], &results[i]);
    }
    return status;
}

int bench_gpu(dm_context *ctx, const bench_options *options)
{
    bench b, beside = {.ctx = options->beside};
    static result results[NUM_ROWS];
    dm_backend_info info = {.size = sizeof info}, other = {.size = sizeof other};
    dm_context_info(ctx, &info);
    const double first_us = first_call_us(ctx);
    if (beside.ctx) {
        dm_context_info(beside.ctx, &other);
        beside.queue = gpu_queue_open(beside.ctx);
        if (!beside.queue) {
            tool_error("--beside is for GPU backends");
            return TOOL_USAGE;
        }
    }
    int status = set_up(ctx, &b);
    if (status == TOOL_GOOD) {
        measure_copy(&b);
        print_head(&b, &info, beside.ctx ? &other : NULL, first_us);
        status = run_rows(&b, beside.ctx ? &beside : NULL, options, results);
    }
    if (status == TOOL_GOOD && options->json)
        status = write_report(options->json, &b, &info, results);
    tear_down(&b);
    gpu_queue_close(beside.queue);
    return status;
}
