/* draftmeta bench on the host: fills of fixed shapes, each checked against the oracle before it is timed.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "tools.h"
#include "workload.h"

/* What a row's time is compared with, in the same run and in turns. */
typedef enum reference {
    NOTHING,
    MEMCPY_WRITTEN,  /* memcpy of the table's bytes */
    MEMCPY_AND_PAGES /* memcpy of the table's bytes and 64 for each page read */
} reference;

typedef struct row {
    workload work;
    reference reference;
    double bar_us;    /* at most this long; 0: no bar */
    double bar_ratio; /* at most this multiple of the reference; 0: no bar */
} row;

static const row rows[] = {
    {{"lengths", 64, 4, true, 32768, 0, 0, WORKLOAD_LENGTHS}, NOTHING, 1.0, 0},
    {{"lengths", 256, 4, true, 32768, 0, 0, WORKLOAD_LENGTHS}, NOTHING, 0, 0},
    {{"lengths", 1024, 4, true, 32768, 0, 0, WORKLOAD_LENGTHS}, NOTHING, 0, 0},
    {{"lengths", 4096, 4, true, 32768, 0, 0, WORKLOAD_LENGTHS}, NOTHING, 0, 0},
    {{"lengths", 16384, 4, true, 32768, 0, 0, WORKLOAD_LENGTHS}, NOTHING, 0, 0},
    {{"lengths", 65536, 4, true, 32768, 0, 0, WORKLOAD_LENGTHS}, NOTHING, 0, 0},
    {{"lengths+schedule", 64, 4, false, 32768, 0, 0, WORKLOAD_LENGTHS | WORKLOAD_SCHEDULE}, NOTHING, 0, 0},
    {{"sglang-set", 1, 4, false, 32768, 0, 64, WORKLOAD_SGLANG}, NOTHING, 0, 0},
    {{"sglang-set", 64, 4, false, 8192, 0, 64, WORKLOAD_SGLANG}, NOTHING, 0, 0},
    {{"page-table", 64, 4, false, 65536, 0, 64, WORKLOAD_PAGE_TABLE}, MEMCPY_AND_PAGES, 0, 2.5},
    {{"page-table-1", 64, 4, false, 131072, 0, 0, WORKLOAD_SLOT_TABLE}, MEMCPY_WRITTEN, 0, 1 / 0.7},
    {{"page-table-1", 256, 4, false, 65536, 0, 0, WORKLOAD_SLOT_TABLE}, MEMCPY_WRITTEN, 0, 1 / 0.7},
};
enum { NUM_ROWS = sizeof rows / sizeof *rows, REPEATS = 51 };

typedef struct result {
    double us, reference_us;
    workload_traffic traffic;
    const char *verdict; /* of the bar: "met", "missed" or "" */
} result;

/* The image's memory on a context. */
typedef struct placed {
    dm_context *ctx;
    void *block;
    dm_fill_desc desc;
} placed;

static dm_status place(dm_context *ctx, const image *img, placed *p)
{
    *p = (placed){.ctx = ctx, .desc = img->descs[0]};
    dm_status status = dm_malloc(ctx, img->bytes, &p->block);
    if (status == DM_OK)
        status = dm_upload(ctx, p->block, img->block, img->bytes, NULL);
    image_rebase(&p->desc, img->block, p->block);
    return status;
}

static double time_fills(const placed *p, int calls)
{
    const double start = tool_now_us();
    dm_status status = DM_OK;
    for (int i = 0; i < calls && status == DM_OK; i++)
        status = dm_fill(p->ctx, &p->desc, NULL);
    if (status == DM_OK)
        status = dm_sync(p->ctx, NULL);
    if (status != DM_OK)
        exit(tool_failed("dm_fill", status));
    return (tool_now_us() - start) / calls;
}

static double time_memcpy(unsigned char *to, const unsigned char *from, size_t bytes)
{
    const double start = tool_now_us();
    memcpy(to, from, bytes);
    __asm__ volatile("" : : "r"(to) : "memory"); /* the copy is not dead */
    return tool_now_us() - start;
}

static size_t reference_bytes(const row *r, const workload_traffic *t)
{
    switch (r->reference) {
    case NOTHING:
        return 0;
    case MEMCPY_WRITTEN:
        return (size_t)t->table_bytes;
    case MEMCPY_AND_PAGES:
        return (size_t)(t->table_bytes + 64 * t->pages_read);
    }
    return 0;
}

/* Fill and reference take turns; short fills are timed in batches of about 20 microseconds. */
static void measure(const row *r, const placed *p, result *out)
{
    tool_samples fills = {0}, copies = {0};
    const size_t bytes = reference_bytes(r, &out->traffic);
    unsigned char *to = tool_calloc(bytes, 1), *from = tool_calloc(bytes, 1);
    memset(to, 1, bytes);
    memset(from, 2, bytes);
    const double once = time_fills(p, 10);
    const int calls = once < 20 ? (int)(20 / once) + 1 : 1;
    for (int i = 0; i < REPEATS; i++) {
        tool_samples_add(&fills, time_fills(p, calls));
        if (bytes)
            tool_samples_add(&copies, time_memcpy(to, from, bytes));
    }
    out->us = tool_samples_percentile(&fills, 50);
    out->reference_us = tool_samples_percentile(&copies, 50);
    tool_samples_free(&fills);
    tool_samples_free(&copies);
    free(to);
    free(from);
}

static const char *judge(const row *r, const result *x)
{
    if (!r->bar_us && !r->bar_ratio)
        return "";
    const bool met = (!r->bar_us || x->us <= r->bar_us) && (!r->bar_ratio || x->us <= r->bar_ratio * x->reference_us);
    return met ? "met" : "missed";
}

/* Checks the row and times it; returns an exit status. */
static int run_row(dm_context *ctx, const row *r, uint64_t seed, result *out)
{
    image *img = workload_image(&r->work, 1, seed);
    placed p = {0};
    int exit_status = bench_check(ctx, &r->work, img);
    if (exit_status == TOOL_GOOD) {
        const dm_status status = place(ctx, img, &p);
        if (status != DM_OK)
            exit_status = tool_failed(r->work.name, status);
    }
    if (exit_status == TOOL_GOOD) {
        out->traffic = workload_traffic_of(img);
        measure(r, &p, out);
        out->verdict = judge(r, out);
    }
    dm_free(ctx, p.block);
    image_free(img);
    return exit_status;
}

static void print_row(const row *r, const result *x)
{
    char ratio[32] = "", bar[32] = "";
    if (x->reference_us > 0)
        snprintf(ratio, sizeof ratio, "%.2f x memcpy", x->us / x->reference_us);
    if (r->bar_us > 0)
        snprintf(bar, sizeof bar, "<= %.2f us", r->bar_us);
    if (r->bar_ratio > 0)
        snprintf(bar, sizeof bar, "<= %.2f x", r->bar_ratio);
    printf("%-17s %8d x %d%-4s %8lld %12.3f %10.2f  %-14s %-11s %s\n", r->work.name, r->work.requests, r->work.tokens,
           r->work.variable ? " var" : "", (long long)r->work.context, x->us,
           (double)x->traffic.bytes_written / x->us / 1e3, ratio, bar, x->verdict);
    fflush(stdout);
}

static void write_row(tool_json *j, const row *r, const result *x)
{
    bench_report_row(j, &r->work);
    tool_json_real(j, "us", x->us);
    tool_json_int(j, "bytes_written", x->traffic.bytes_written);
    if (x->reference_us > 0)
        tool_json_real(j, "memcpy_us", x->reference_us);
    if (*x->verdict)
        tool_json_string(j, "bar", x->verdict);
    tool_json_close(j, '}');
}

static int write_report(const char *path, const dm_backend_info *info, const result *results)
{
    tool_json j;
    const int status = bench_report_open(&j, path, info);
    if (status != TOOL_GOOD)
        return status;
    for (int i = 0; i < NUM_ROWS; i++)
        if (results[i].us > 0)
            write_row(&j, &rows[i], &results[i]);
    return bench_report_close(&j, path);
}

int bench_cpu(dm_context *ctx, const bench_options *options)
{
    static result results[NUM_ROWS];
    dm_backend_info info = {.size = sizeof info};
    dm_context_info(ctx, &info);
    printf("bench: backend %s (%s), medians of %d, each row equal to the oracle before it is timed\n", info.name,
           info.device_name, REPEATS);
    printf("%-17s %15s %8s %12s %10s  %-14s %-11s %s\n", "fill", "requests", "context", "us", "GB/s out", "reference",
           "bar", "");
    for (int i = 0; i < NUM_ROWS; i++) {
        if (!strstr(rows[i].work.name, options->match))
            continue;
        const int status = run_row(ctx, &rows[i], (uint64_t)options->seed, &results[i]);
        if (status != TOOL_GOOD)
            return status;
        print_row(&rows[i], &results[i]);
    }
    return options->json ? write_report(options->json, &info, results) : TOOL_GOOD;
}
