/* The parts of draftmeta bench.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_BENCH_H
#define DRAFTMETA_BENCH_H

#include <stdint.h>

#include "draftmeta.h"

typedef struct bench_options {
    int64_t seed;      /* of the inputs */
    const char *match; /* only the rows whose names contain this */
    const char *json;  /* also write the rows to this file; NULL: do not */
} bench_options;

/* Time and print the rows; return an exit status. */
int bench_cpu(dm_context *ctx, const bench_options *options);
int bench_gpu(dm_context *ctx, const bench_options *options);

/* Device code of a kernel draftmeta_empty, which does nothing with parameters as large as a fill's. */
extern const unsigned char bench_empty_image[];

#endif
