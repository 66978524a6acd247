/* How long fills take on a GPU: the kernel's duration by CUPTI's records, or the difference of two graphs.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "bench_time.h"

#include <stdlib.h>
#include <string.h>

#include "tools.h"

static bench_spread spread_of(tool_samples *s)
{
    const bench_spread spread = {tool_samples_percentile(s, 50), tool_samples_percentile(s, 10),
                                 tool_samples_percentile(s, 90)};
    tool_samples_free(s);
    return spread;
}

/* ---- Durations ------------------------------------------------------------------------------------------------ */

enum { BATCH = 10 /* samples of a turn */, WARM_UP = 3 };

/* The launches that CUPTI will have records of, in their order: where the duration goes, NULL: nowhere. */
typedef struct launches {
    tool_samples **sinks;
    size_t count, room;
} launches;

bool bench_time_wants(const char *kernel)
{
    return strncmp(kernel, "draftmeta_fill", 14) == 0 || strcmp(kernel, "draftmeta_empty") == 0;
}

static void launch(launches *l, const bench_side *side, tool_samples *sink)
{
    if (l->count == l->room)
        abort();
    l->sinks[l->count++] = sink;
    side->enqueue(side->arg);
}

/* Fills that follow each other at once, or each after the end of what belongs between: in an engine's stream too it has
 * ended when the fill begins, and so the figures of SGLang's kernels were taken that are bars. */
static void take_turn(launches *l, const bench_others *o, const bench_side *side, bench_column column,
                      tool_samples *sink)
{
    for (int i = 0; i < WARM_UP && column == BENCH_WARM; i++)
        launch(l, side, NULL);
    for (int i = 0; i < BATCH; i++) {
        if (column != BENCH_WARM) {
            bench_others_between(o, column);
            gpu_queue_wait(o->queue);
        }
        launch(l, side, sink);
        if (column != BENCH_WARM)
            gpu_queue_wait(side->queue);
    }
    gpu_queue_wait(side->queue);
}

/* Gives every launch its duration. */
static void collect(cupti *c, const launches *l)
{
    cupti_kernel *kernels = tool_calloc(l->count, sizeof *kernels);
    const size_t recorded = cupti_take(c, kernels, l->count);
    for (size_t i = 0; i < l->count && recorded == l->count; i++)
        if (l->sinks[i])
            tool_samples_add(l->sinks[i], (double)(kernels[i].end - kernels[i].start) / 1e3);
    free(kernels);
    if (recorded != l->count)
        tool_error("CUPTI recorded %zu of %zu kernels; with DRAFTMETA_GRAPHS=0 no fill is launched as a graph",
                   recorded, l->count);
}

void bench_time_durations(cupti *c, const bench_others *o, bench_side *sides, int num_sides, int samples)
{
    const int turns = (samples + BATCH - 1) / BATCH;
    tool_samples all[BENCH_MOST_SIDES][BENCH_COLUMNS] = {{{0}}};
    launches l = {.room = (size_t)(turns * num_sides * (WARM_UP + BENCH_COLUMNS * BATCH))};
    l.sinks = tool_calloc(l.room, sizeof *l.sinks);
    cupti_take(c, NULL, 0); /* what came before */
    for (int turn = 0; turn < turns; turn++)
        for (int k = 0; k < num_sides * BENCH_COLUMNS; k++) {
            const bench_column column = (bench_column)(k % BENCH_COLUMNS);
            const int side = k / BENCH_COLUMNS;
            if (bench_others_have(o, column))
                take_turn(&l, o, &sides[side], column, &all[side][column]);
        }
    collect(c, &l);
    for (int k = 0; k < num_sides * BENCH_COLUMNS; k++)
        sides[k / BENCH_COLUMNS].columns[k % BENCH_COLUMNS] = spread_of(&all[k / BENCH_COLUMNS][k % BENCH_COLUMNS]);
    free(l.sinks);
}

/* ---- Differences ---------------------------------------------------------------------------------------------- */

enum { CHAIN = 10 /* fills in a graph */, DISCARDED = 2 };

typedef struct chain {
    const bench_others *others;
    bench_side *side;
    bench_column column;
    bool with;            /* the kernel; without it, warm has as many of it less */
    gpu_graph *graphs[2]; /* without it, and with it */
    tool_samples differences;
} chain;

static void enqueue_chain(void *arg)
{
    const chain *c = arg;
    for (int i = 0; i < CHAIN; i++) {
        if (c->column == BENCH_WARM)
            c->side->enqueue(c->side->arg);
        else
            bench_others_between(c->others, c->column);
        if (c->with)
            c->side->enqueue(c->side->arg);
    }
}

static void capture(chain *c)
{
    for (int with = 0; with < 2; with++) {
        c->with = with;
        c->graphs[with] = gpu_graph_capture(c->side->queue, enqueue_chain, c);
    }
}

static void time_chain(chain *c, bool discard)
{
    const double without = gpu_graph_time(c->graphs[0]), with = gpu_graph_time(c->graphs[1]);
    if (!discard)
        tool_samples_add(&c->differences, (with - without) / CHAIN);
}

static bool can_chain(const bench_others *o, const bench_side *side, bench_column column)
{
    return bench_others_have(o, column) && (column == BENCH_WARM || side->queue == o->queue);
}

void bench_time_differences(const bench_others *o, bench_side *sides, int num_sides, bench_column first,
                            bench_column last, int samples)
{
    chain chains[BENCH_MOST_SIDES * BENCH_COLUMNS];
    int count = 0;
    for (int i = 0; i < num_sides; i++)
        for (int column = (int)first; column <= (int)last; column++)
            if (can_chain(o, &sides[i], (bench_column)column)) {
                chains[count] = (chain){.others = o, .side = &sides[i], .column = (bench_column)column};
                capture(&chains[count++]);
            }
    for (int turn = -DISCARDED; turn < samples; turn++)
        for (int i = 0; i < count; i++)
            time_chain(&chains[i], turn < 0);
    for (int i = 0; i < count; i++) {
        chains[i].side->columns[chains[i].column] = spread_of(&chains[i].differences);
        gpu_graph_free(chains[i].graphs[0]);
        gpu_graph_free(chains[i].graphs[1]);
    }
}
