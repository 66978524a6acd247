/* The parts of draftmeta bench.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_BENCH_H
#define DRAFTMETA_BENCH_H

#include <stdint.h>

#include "draftmeta.h"
#include "tools.h"
#include "workload.h"

typedef struct bench_options {
    int64_t seed;       /* of the inputs */
    const char *match;  /* only the rows whose names contain this */
    const char *json;   /* also write the rows to this file; NULL: do not */
    dm_context *beside; /* another GPU backend's, timed in turns with the first; NULL: none */
    bool strict;        /* a bar that is missed, or cannot be judged, is a failure */
    int64_t samples;    /* of a row and column */
    const char *cupti;  /* the library, or "none"; NULL: by its usual names */
} bench_options;

/* Compares what the context makes of the image with the oracle; returns an exit status. */
int bench_check(dm_context *ctx, const workload *w, const image *img);

/* A report of the run: what is said of the backend, then an array "rows", open until bench_report_close. Both return an
 * exit status. */
int bench_report_open(tool_json *j, const char *path, const dm_backend_info *info);
int bench_report_close(tool_json *j, const char *path);
/* Opens a row's object and says what its shape is. */
void bench_report_row(tool_json *j, const workload *w);

/* Time and print the rows; return an exit status. */
int bench_cpu(dm_context *ctx, const bench_options *options);
int bench_gpu(dm_context *ctx, const bench_options *options);

#endif
