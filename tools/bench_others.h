/* What draftmeta bench runs on a GPU beside fills: foreign kernels, an empty one, and what pushes the L2's contents
 * out.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_BENCH_OTHERS_H
#define DRAFTMETA_BENCH_OTHERS_H

#include "bench_rows.h"
#include "gpu.h"

enum { BENCH_FOREIGN = 10 /* kernels of foreign.cu */ };

typedef struct bench_others {
    dm_context *ctx;
    gpu_queue *queue; /* where all this runs */
    gpu_module *empty_code, *foreign_code;
    void *empty, *foreign[BENCH_FOREIGN]; /* kernels; NULL: there is no code of them for this GPU */
    void *words;                          /* what foreign kernels read and write */
    void *flush, *copy_from, *copy_to;    /* NULL: the driver cannot set and copy */
    void *params;
} bench_others;

/* Returns an exit status. */
int bench_others_open(dm_context *ctx, gpu_queue *queue, bench_others *o);
void bench_others_close(bench_others *o);

/* Whether what belongs between fills in a column can be had. */
bool bench_others_have(const bench_others *o, bench_column column);
/* Enqueues it. */
void bench_others_between(const bench_others *o, bench_column column);

/* Enqueues the empty kernel, which must be there; its parameter is as large as a fill's. */
void bench_others_empty(const bench_others *o, unsigned grid, unsigned block);

/* Bytes that a device-to-device copy reads and writes in a microsecond; 0 where the driver cannot. */
double bench_others_copy_rate(bench_others *o);
/* How long the foreign kernels take; 0 where there are none. */
double bench_others_code_us(bench_others *o);

#endif
