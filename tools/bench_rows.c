/* The rows of draftmeta bench on a GPU, as engines ask for them, and the bars.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench_rows.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools.h"

const char *const bench_column_names[BENCH_COLUMNS] = {"warm", "code", "cold"};

/* The project's bars. */
enum { PAGE = 64, GRAPH_WIDTH = 8263 /* columns of an engine's table of slots */ };
enum { MOST_BARRED_REQUESTS = 64 }; /* a schedule of more is of more than 511 tokens, which other kernels write */
static const double most_cold_us = 4.0, most_cold_lengths_us = 2.2, schedule_us = 0.9, copy_share = 0.85;
/* Relative bars hold to 5%, or a tick of NVIDIA's clock. */
static const double tolerance = 0.05, tick_us = 0.032;

/* ---- SGLang's kernels ----------------------------------------------------------------------------------------- */

/* What SGLang 0.5.17's kernel takes for the same outputs: H200, probe at 7c4d730. */
typedef struct peer_time {
    const char *row;
    double us[BENCH_COLUMNS];
    double times; /* the bar */
} peer_time;

static const peer_time sglang_times[] = {
    {"decode 8x300 pt64", {1.38, 1.44, 1.92}, 1.0},   {"decode 1x300 +pt1", {1.15, 1.25, 1.63}, 1.1},
    {"decode 8x300 +pt1", {1.38, 1.47, 2.01}, 1.0},   {"verify 8x300 +pt1", {2.34, 2.40, 2.56}, 1.0},
    {"extend 8x300 +pt1", {1.60, 1.63, 2.37}, 1.0},   {"decode 48x3000 +pt1", {2.98, 3.07, 3.26}, 1.0},
    {"verify 48x3000 +pt1", {8.67, 8.77, 8.90}, 0.5}, {"extend 48x3000 +pt1", {3.01, 3.10, 3.81}, 1.0},
};

static void set_peer(bench_row *row)
{
    for (size_t i = 0; i < sizeof sglang_times / sizeof *sglang_times; i++)
        if (strcmp(sglang_times[i].row, row->name) == 0) {
            row->peer = sglang_times[i].us;
            row->times_of_peer = sglang_times[i].times;
        }
}

/* ---- Making rows ---------------------------------------------------------------------------------------------- */

typedef struct list {
    bench_row *rows;
    int count;
} list;

/* A row of one fill, without bars. */
static __attribute__((format(printf, 3, 4))) bench_row *add(list *l, workload work, const char *format, ...)
{
    if (l->count == BENCH_MOST_ROWS)
        abort();
    bench_row *row = &l->rows[l->count++];
    *row = (bench_row){.work = work, .fills = 1, .base = -1};
    va_list args;
    va_start(args, format);
    vsnprintf(row->name, sizeof row->name, format, args);
    va_end(args);
    row->work.name = row->name;
    set_peer(row);
    return row;
}

/* The last row has a schedule more than the row number base. */
static void bar_schedule(const list *l, int base)
{
    bench_row *row = &l->rows[l->count - 1];
    row->base = base;
    row->over_base_us = schedule_us;
}

static const struct shape {
    int32_t requests;
    int64_t context;
} shapes[] = {{1, 300}, {8, 300}, {48, 3000}};
enum { NUM_SHAPES = sizeof shapes / sizeof *shapes };

/* The engine's shape number s. */
static workload engine_work(int s, int32_t tokens, bool variable, unsigned outputs)
{
    return (workload){NULL, shapes[s].requests, tokens, variable, shapes[s].context, GRAPH_WIDTH, PAGE, outputs};
}

/* ---- SGLang --------------------------------------------------------------------------------------------------- */

static const struct step {
    const char *name;
    int32_t tokens;
    bool variable;
    unsigned outputs;
} steps[] = {
    {"decode", 1, false, WORKLOAD_PREFIXES | WORKLOAD_CLIPPED},
    {"verify", 4, false, WORKLOAD_PREFIXES | WORKLOAD_LENGTHS | WORKLOAD_BIAS},
    {"extend", 4, false, WORKLOAD_PREFIXES | WORKLOAD_LENGTHS},
    {"extend-var", 3, true, WORKLOAD_PREFIXES | WORKLOAD_LENGTHS}, /* 1 to 4 tokens */
};
enum { NUM_STEPS = sizeof steps / sizeof *steps, BOTH_TABLES = WORKLOAD_PAGE_TABLE | WORKLOAD_SLOT_TABLE };

static bench_row *add_step(list *l, const struct step *step, int s, unsigned more, const char *suffix)
{
    const workload work = engine_work(s, step->tokens, step->variable, step->outputs | more | WORKLOAD_SPARE);
    bench_row *row = add(l, work, "%s %dx%d%s", step->name, (int)shapes[s].requests, (int)shapes[s].context, suffix);
    row->most_cold_us = most_cold_us;
    return row;
}

/* +pt1: page_table_1 as wide as a graph's, beside the page-64 table. */
static void add_sglang(list *l)
{
    for (int i = 0; i < NUM_STEPS * NUM_SHAPES; i++) {
        const struct step *step = &steps[i / NUM_SHAPES];
        const int s = i % NUM_SHAPES, base = l->count;
        add_step(l, step, s, BOTH_TABLES, " +pt1");
        add_step(l, step, s, BOTH_TABLES | WORKLOAD_SCHEDULE, " +pt1 +schedule");
        bar_schedule(l, base);
        add_step(l, step, s, WORKLOAD_PAGE_TABLE, " pt64");
        add_step(l, step, s, BOTH_TABLES | WORKLOAD_POOLS, " +pt1 pools");
    }
    /* the sibling backends of multi-step drafting */
    bench_row *two = add_step(l, &steps[0], 1, BOTH_TABLES | WORKLOAD_SCHEDULE, " +pt1 +schedule, two");
    two->fills = 2;
    two->most_cold_us = 0;
}

/* ---- vLLM ----------------------------------------------------------------------------------------------------- */

enum {
    VLLM = WORKLOAD_INT32 | WORKLOAD_STARTS | WORKLOAD_BLOCKS | WORKLOAD_CONTEXT | WORKLOAD_PAGE_TABLE | WORKLOAD_WHOLE
};

static bench_row *add_vllm_row(list *l, int s, bool variable, unsigned more, const char *suffix)
{
    workload work = engine_work(s, variable ? 3 : 1, variable, VLLM | more);
    if (more & WORKLOAD_RANKS)
        work.page_size *= 2; /* a block of each rank */
    bench_row *row = add(l, work, "vllm %s %dx%d%s", variable ? "varlen" : "decode", (int)shapes[s].requests,
                         (int)shapes[s].context, suffix);
    row->most_cold_us = most_cold_us;
    return row;
}

/* varlen: 1 to 4 tokens for each request. */
static void add_vllm(list *l)
{
    for (int i = 0; i < 2 * NUM_SHAPES; i++) {
        const int s = i % NUM_SHAPES, base = l->count;
        const bool variable = i / NUM_SHAPES;
        add_vllm_row(l, s, variable, 0, "");
        add_vllm_row(l, s, variable, WORKLOAD_SCHEDULE, " +schedule");
        bar_schedule(l, base);
        if (variable)
            add_vllm_row(l, s, variable, WORKLOAD_SCHEDULE | WORKLOAD_RANKS, " ranks +sched.");
    }
    add_vllm_row(l, 1, true, WORKLOAD_SCHEDULE | WORKLOAD_REPORT, " +sched. report");
}

/* ---- Lengths -------------------------------------------------------------------------------------------------- */

static void add_lengths_row(list *l, const char *name, int32_t requests, bool variable, unsigned outputs)
{
    enum { LENGTHS_BAR_REQUESTS = 256 };
    const workload work = {NULL, requests, 4, variable, 32768, 0, 0, outputs};
    bench_row *row = add(l, work, "%s %dx%s", name, (int)requests, variable ? "1..5" : "4");
    row->most_cold_us = requests <= LENGTHS_BAR_REQUESTS ? most_cold_lengths_us : 0;
}

/* int32: what dm_fill_draft_extend asks for. */
static void add_lengths(list *l)
{
    static const int32_t few[] = {3, 64, 256}, many[] = {1024, 4096, 65536}, expanded[] = {3, 32, 256, 1024, 4096};
    for (int i = 0; i < 6; i++)
        add_lengths_row(l, "lengths", few[i / 2], i % 2, WORKLOAD_LENGTHS | WORKLOAD_INT32);
    for (int i = 0; i < 3; i++)
        add_lengths_row(l, "lengths int64", many[i], true, WORKLOAD_LENGTHS);
    for (int i = 0; i < 5; i++)
        add_lengths_row(l, "expanded int64", expanded[i], true, WORKLOAD_EXPANDED);
}

/* ---- Large fills ---------------------------------------------------------------------------------------------- */

static const struct large {
    int32_t requests;
    bool variable;
    int32_t context_k, width_k; /* thousands of tokens; width 0: context */
    unsigned more;
    bool with_schedule; /* also such a row */
} large[] = {
    {1, false, 32, 0, 0, true},
    {64, false, 64, 0, 0, true},
    {64, true, 64, 0, 0, true},
    {64, true, 32, 1024, 0, false},
    {256, false, 4, 0, 0, false},
    {256, true, 4, 0, 0, true},
    {1024, false, 1, 0, 0, false},
    {1024, true, 1, 0, 0, false},
    {1024, true, 64, 0, 0, false},
    {1, false, 8, 128, WORKLOAD_POOLS, false},
    {64, true, 8, 128, WORKLOAD_POOLS, false},
};

static workload set_work(int32_t requests, bool variable, int64_t context_k, int64_t width_k, unsigned more)
{
    return (workload){NULL, requests, 4, variable, 1024 * context_k, 1024 * width_k, PAGE, WORKLOAD_SGLANG | more};
}

static void add_set(list *l, const struct large *x, unsigned more, const char *suffix)
{
    char width[16] = "";
    if (x->width_k)
        snprintf(width, sizeof width, " of %dk", (int)x->width_k);
    add(l, set_work(x->requests, x->variable, x->context_k, x->width_k, x->more | more), "set %dx%s %dk%s%s%s",
        (int)x->requests, x->variable ? "1..5" : "4", (int)x->context_k, width,
        x->more & WORKLOAD_POOLS ? " pools" : "", suffix);
}

static void add_large(list *l)
{
    for (size_t i = 0; i < sizeof large / sizeof *large; i++) {
        const int base = l->count;
        add_set(l, &large[i], 0, "");
        if (!large[i].with_schedule)
            continue;
        add_set(l, &large[i], WORKLOAD_SCHEDULE, " +schedule");
        if (large[i].requests <= MOST_BARRED_REQUESTS)
            bar_schedule(l, base);
    }
    const workload slots = {NULL, 256, 4, false, 131072, 0, 0, WORKLOAD_SLOT_TABLE};
    add(l, slots, "page-table-1 256x4 128k")->copy_share = copy_share;
    const int one = l->count;
    add(l, set_work(64, true, 8, 0, 0), "set 64x1..5 8k, one");
    bench_row *eight = add(l, set_work(64, true, 8, 0, 0), "set 64x1..5 8k, eight");
    eight->fills = 8;
    eight->base = one;
}

bench_row *bench_rows(int *count)
{
    list l = {.rows = tool_calloc(BENCH_MOST_ROWS, sizeof *l.rows)};
    add_sglang(&l);
    add_vllm(&l);
    add_lengths(&l);
    add_large(&l);
    *count = l.count;
    return l.rows;
}

/* ---- Bars ----------------------------------------------------------------------------------------------------- */

static double tolerated(double limit_us)
{
    const double relative = limit_us * tolerance;
    return limit_us + (relative > tick_us ? relative : tick_us);
}

typedef struct judge {
    const bench_result *result;
    bool durations;
    bench_verdict *verdicts;
    int count;
} judge;

/* limit_us 0: not known. */
static void apply(judge *j, bench_column column, double limit_us, const char *of)
{
    const double us = j->durations ? j->result->columns[column].median : 0;
    const bench_state state = us <= 0 || limit_us <= 0 ? BENCH_UNKNOWN : us <= limit_us ? BENCH_MET : BENCH_MISSED;
    j->verdicts[j->count++] = (bench_verdict){column, limit_us, of, state};
}

int bench_judge(const bench_row *rows, const bench_result *results, int i, bool durations, double copy_rate,
                bench_verdict *verdicts)
{
    const bench_row *row = &rows[i];
    judge j = {&results[i], durations, verdicts, 0};
    for (int cold = 1; cold >= 0; cold--) {
        const bench_column column = cold ? BENCH_COLD : BENCH_WARM;
        if (row->peer)
            apply(&j, column, tolerated(row->times_of_peer * row->peer[column]), "SGLang");
        if (row->over_base_us > 0 && results[row->base].selected) {
            const double base_us = results[row->base].columns[column].median;
            apply(&j, column, base_us > 0 ? tolerated(base_us + row->over_base_us) : 0, "no schedule");
        }
    }
    if (row->most_cold_us > 0)
        apply(&j, BENCH_COLD, row->most_cold_us, "");
    if (row->copy_share > 0)
        apply(&j, BENCH_WARM, copy_rate > 0 ? results[i].bytes / copy_rate / row->copy_share : 0, "copy");
    return j.count;
}
