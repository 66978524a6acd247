/* How long fills take on a GPU, with other things between them.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_BENCH_TIME_H
#define DRAFTMETA_BENCH_TIME_H

#include "bench_others.h"
#include "cupti.h"

/* What is timed: one kernel that enqueue puts on queue. */
typedef struct bench_side {
    void (*enqueue)(void *arg);
    void *arg;
    gpu_queue *queue;
    bench_spread columns[BENCH_COLUMNS]; /* the outcome */
} bench_side;

enum { BENCH_MOST_SIDES = 8 };

/* True for the kernels that cupti_open is to record for bench_time_durations. */
bool bench_time_wants(const char *kernel);

/* The kernels' durations, by CUPTI: so many of each side and column, the sides taking turns. If CUPTI did not record
 * all of them it says so, and the columns are not measured. */
void bench_time_durations(cupti *c, const bench_others *o, bench_side *sides, int num_sides, int samples);

/* What a kernel adds to a chain: a graph of what belongs between, with the kernel, less the same without, so many times
 * each, in turns; of columns from first to last. Of sides that have another queue than the others' only warm: there is
 * nothing between. */
void bench_time_differences(const bench_others *o, bench_side *sides, int num_sides, bench_column first,
                            bench_column last, int samples);

#endif
