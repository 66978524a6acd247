/* What draftmeta bench prints and writes of the rows on a GPU.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_BENCH_TABLE_H
#define DRAFTMETA_BENCH_TABLE_H

#include "bench.h"
#include "bench_rows.h"

typedef struct bench_table {
    const bench_row *rows;
    const bench_result *results;
    int num_rows;
    bool durations;     /* columns are kernels' durations by CUPTI; else what a fill adds to a graph */
    const char *beside; /* the other backend's name; NULL: none */
    double copy_rate;   /* bytes a microsecond, read and written; 0: not known */
    bench_spread empty[BENCH_COLUMNS];
} bench_table;

/* Of the rows that were selected. */
typedef struct bench_tally {
    int met, missed;
    int unknown; /* bars without a time to judge */
} bench_tally;

/* What the columns are, their names, and the empty kernel's times. */
void bench_table_head(const bench_table *t);
void bench_table_row(const bench_table *t, int i);
bench_tally bench_table_tally(const bench_table *t);

/* The selected rows, with spreads and bars; returns an exit status. */
int bench_table_write(const bench_table *t, const char *path, const dm_backend_info *info);

#endif
