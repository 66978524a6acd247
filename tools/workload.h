/* Fills of a given shape, over seeded data like an engine's: what the benchmarks time.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_WORKLOAD_H
#define DRAFTMETA_WORKLOAD_H

#include "harness.h"

enum {
    WORKLOAD_EXPANDED = 32,  /* seqlens_expanded alone */
    WORKLOAD_LENGTHS = 1,    /* seqlens_expanded, dsa_cache_seqlens */
    WORKLOAD_CLIPPED = 128,  /* dsa_cache_seqlens alone */
    WORKLOAD_PREFIXES = 2,   /* dsa_cu_seqlens_k, cache_seqlens, cu_seqlens_k */
    WORKLOAD_PAGE_TABLE = 4, /* page_table */
    WORKLOAD_SLOT_TABLE = 8, /* page_table_1 */
    WORKLOAD_SCHEDULE = 16,  /* one schedule, SM90, 132 slots, unit TOKEN */
    WORKLOAD_CONTEXT = 256,  /* context_lens, token_to_req */
    WORKLOAD_REPORT = 512,   /* a report */
    WORKLOAD_SGLANG = WORKLOAD_LENGTHS | WORKLOAD_PREFIXES | WORKLOAD_PAGE_TABLE,

    WORKLOAD_POOLS = 64,    /* no outputs, from here on: keys are pooled by four */
    WORKLOAD_INT32 = 1024,  /* seq_lens are int32, not int64 */
    WORKLOAD_BIAS = 2048,   /* seq_len_bias is the number of tokens, as in verify */
    WORKLOAD_STARTS = 4096, /* query_start_loc, int32, instead of a query length or extend_lens */
    WORKLOAD_BLOCKS = 8192, /* a block table instead of req_to_token */
    WORKLOAD_SPARE = 16384, /* req_to_token has 65 rows, whatever the number of requests below */
    WORKLOAD_WHOLE = 32768, /* all columns of rows are written, and tokens are padded to what the outputs hold */
    WORKLOAD_RANKS = 65536  /* one of two ranks that share the caches */
};

typedef struct workload {
    const char *name;
    int32_t requests, tokens; /* tokens of a request; variable: 1 .. tokens + 1 */
    bool variable;
    int64_t context; /* KV tokens of a request: half of this to all of it */
    int64_t width;   /* columns of req_to_token, of the block table in tokens; 0: context */
    int32_t page_size;
    unsigned outputs; /* WORKLOAD_* */
} workload;

/* Fills of one shape over different data, as one image: topk 2048. */
image *workload_image(const workload *w, int fills, uint64_t seed);

/* What the fills of the image must move: the bytes it writes, padding apart, those of them that are page tables, the
 * pages whose first slot it reads for page_table, and the slots or blocks that it reads from adjacent places. */
typedef struct workload_traffic {
    int64_t bytes_written, table_bytes, pages_read, slots_read;
} workload_traffic;

workload_traffic workload_traffic_of(const image *img);

#endif
