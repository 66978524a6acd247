/* The rows of draftmeta bench on a GPU, what is measured of each, and the bars.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_BENCH_ROWS_H
#define DRAFTMETA_BENCH_ROWS_H

#include "workload.h"

/* What runs between two fills that are timed. */
typedef enum bench_column {
    BENCH_WARM, /* nothing: the same fill, back to back */
    BENCH_CODE, /* kernels whose instructions fill the caches */
    BENCH_COLD, /* these, and 256 MB are written, which takes the L2 */
    BENCH_COLUMNS
} bench_column;

extern const char *const bench_column_names[BENCH_COLUMNS];

typedef struct bench_row {
    char name[40];
    workload work;        /* of that name */
    int fills;            /* descriptors in the call */
    int base;             /* the row that it takes turns with, further up; -1: none */
    double over_base_us;  /* bar: at most so much more than the base, warm and cold; 0: none */
    double most_cold_us;  /* bar; 0: none */
    double copy_share;    /* bar: warm, at least this share of the bytes a second that a copy moves; 0: none */
    const double *peer;   /* what SGLang's kernel takes, by column; NULL: not measured */
    double times_of_peer; /* bar: warm and cold at most */
} bench_row;

enum { BENCH_MOST_ROWS = 128 };

/* All rows, in an array of BENCH_MOST_ROWS for free(). */
bench_row *bench_rows(int *count);

/* ---- Results -------------------------------------------------------------------------------------------------- */

/* Of the samples, microseconds; median 0: not measured. */
typedef struct bench_spread {
    double median, p10, p90;
} bench_spread;

typedef struct bench_result {
    bool selected;
    bench_spread columns[BENCH_COLUMNS], beside[BENCH_COLUMNS]; /* of the other backend */
    bench_spread chain;                                         /* what a fill adds to a chain of other kernels */
    double host_us, bare_us;
    double bytes;         /* pages read at 64 each, and what is written; adjacent slots read and written once each */
    unsigned grid, block; /* 0 where the driver does not tell */
} bench_result;

/* A bar, as it applies in this run. */
typedef enum bench_state {
    BENCH_MET,
    BENCH_MISSED,
    BENCH_UNKNOWN /* there is no time to judge, or none to compare with */
} bench_state;

typedef struct bench_verdict {
    bench_column column;
    double limit_us; /* tolerance included, where the bar is relative; 0: not known */
    const char *of;  /* whose time it is, or "" */
    bench_state state;
} bench_verdict;

enum { BENCH_MOST_BARS = 6 };

/* The bars of row i, in *verdicts, and how many there are; one that compares with a row that was not selected is none.
 * durations: the results' columns are durations of kernels; else all is unknown. copy_rate: bytes a microsecond, read
 * and written; 0: not known. */
int bench_judge(const bench_row *rows, const bench_result *results, int i, bool durations, double copy_rate,
                bench_verdict *verdicts);

#endif
