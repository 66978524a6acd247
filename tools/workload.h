/* Fills of a given shape, over seeded data like an engine's: what the benchmarks time.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_WORKLOAD_H
#define DRAFTMETA_WORKLOAD_H

#include "harness.h"

enum {
    WORKLOAD_EXPANDED = 32,  /* seqlens_expanded alone */
    WORKLOAD_LENGTHS = 1,    /* seqlens_expanded, dsa_cache_seqlens */
    WORKLOAD_PREFIXES = 2,   /* dsa_cu_seqlens_k, cache_seqlens, cu_seqlens_k */
    WORKLOAD_PAGE_TABLE = 4, /* page_table */
    WORKLOAD_SLOT_TABLE = 8, /* page_table_1 */
    WORKLOAD_SCHEDULE = 16,  /* one schedule, SM90, 132 slots, unit TOKEN */
    WORKLOAD_POOLS = 64,     /* not an output: keys are pooled by four */
    WORKLOAD_SGLANG = WORKLOAD_LENGTHS | WORKLOAD_PREFIXES | WORKLOAD_PAGE_TABLE
};

typedef struct workload {
    const char *name;
    int32_t requests, tokens; /* tokens of a request; variable: 1 .. tokens + 1 */
    bool variable;
    int64_t context; /* KV tokens of a request: half of this to all of it */
    int64_t width;   /* columns of req_to_token; 0: context */
    int32_t page_size;
    unsigned outputs; /* WORKLOAD_* */
} workload;

/* Fills of one shape over different data, as one image: int64 lengths and pool indices, topk 2048. */
image *workload_image(const workload *w, int fills, uint64_t seed);

/* What the fills of the image must move: the bytes it writes, those of them that are page tables, the pages whose first
 * slot it reads for page_table, and the slots it reads for page_table_1. */
typedef struct workload_traffic {
    int64_t bytes_written, table_bytes, pages_read, slots_read;
} workload_traffic;

workload_traffic workload_traffic_of(const image *img);

#endif
