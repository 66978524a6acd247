/* A fill, checked and lowered: what every backend works from, on the host and, as a kernel parameter, on the device. */
#ifndef DRAFTMETA_JOB_H
#define DRAFTMETA_JOB_H

#include <stdint.h>

#include "draftmeta.h"

enum {
    DM_JOB_SEQ64 = 1,        /* seq_lens is int64 */
    DM_JOB_EXTEND64 = 2,     /* extend is int64 */
    DM_JOB_POOL64 = 4,       /* pool is int64 */
    DM_JOB_EXTEND = 8,       /* extend is given, else extend_len holds for every request */
    DM_JOB_QUERY_START = 16, /* extend holds the prefix of the query lengths */
    DM_JOB_BLOCK_TABLE = 32, /* source holds pages, not slots */
    DM_JOB_FULL_ROWS = 64,   /* zero what is not live */
    DM_JOB_CONTEXT_PER_REQUEST = 128,
    DM_JOB_TABLES = 256,    /* a page table is wanted: check every request's row of the source */
    DM_JOB_TOKENS = 512,    /* any output per token is wanted, which bounds capacity */
    DM_JOB_LOCAL = 1 << 10, /* context_lens are not e and kv themselves, or a schedule's c are not */

    /* The outputs that are wanted: one register instead of a pointer each. */
    DM_JOB_SEQLENS_EXPANDED = 1 << 16,
    DM_JOB_DSA_CACHE_SEQLENS = 1 << 17,
    DM_JOB_DSA_CU_SEQLENS_K = 1 << 18,
    DM_JOB_TOKEN_TO_REQ = 1 << 19,
    DM_JOB_CONTEXT_LENS = 1 << 20,
    DM_JOB_CACHE_SEQLENS = 1 << 21,
    DM_JOB_CU_SEQLENS_Q = 1 << 22,
    DM_JOB_CU_SEQLENS_K = 1 << 23,
    DM_JOB_NUM_TOKENS = 1 << 24,
    DM_JOB_REPORT = 1 << 25
};

enum { DM_SPLIT = 256 }; /* KV tokens, or entries of a compressed cache, of a schedule's segment */

enum {
    DM_SCHED_PER_TOKEN = 1,  /* units are tokens, else requests of extend_len tokens */
    DM_SCHED_TAIL_HEAVY = 2, /* the remainder goes to the last slots, else to the first */
    DM_SCHED_ADJACENT = 4,   /* an entry is (u * atoms, o / atoms), else (u * atoms + o / seg, o % seg) */
    DM_SCHED_LOCAL = 8       /* c counts the tokens that the shard holds */
};

/* The rank's part of a KV cache that several share: of every round tokens, interleave from first on. Where a number
 * does not fit, UINT32_MAX stands for it, which is beyond any length too. round 1, first 0, interleave 1: all of them.
 */
typedef struct dm_shard {
    uint32_t round, first, interleave;
} dm_shard;

/* No padding, so that equal jobs are equal bytes. */
#pragma GCC diagnostic push
#if UINTPTR_MAX > UINT32_MAX /* as on hosts of GPUs */
#pragma GCC diagnostic error "-Wpadded"
#endif

typedef struct dm_job_schedule {
    int32_t *table; /* NULL: not wanted */
    int32_t slots;
    int32_t atoms; /* entries' first element counts a unit as this many */
    uint32_t divisor;
    uint32_t step;      /* KV tokens of a segment, divisor * split; 0: more than any length, one segment holds all */
    int32_t step_shift; /* step is 1 << step_shift, or step_shift is -1 */
    uint32_t flags;
    dm_shard shard;
    int32_t unused;
} dm_job_schedule;

/* Pointers are device addresses; NULL outputs are not wanted. Strides are in elements. A kernel waits for each line of
 * 64 bytes of its parameter that it is the first to touch: what is used together stands together. */
typedef struct dm_job {
    uint32_t flags;
    int32_t num_requests;
    int32_t padded_requests; /* at least num_requests */
    int32_t extend_len;

    /* What every fill reads, and page_table */
    const void *seq_lens;
    const void *extend; /* NULL: extend_len for every request */
    const void *pool;   /* NULL: request r has row r */
    const int32_t *source;
    int64_t capacity; /* M; INT64_MAX without a bound */
    int32_t *page_table;
    int64_t page_table_stride, source_stride;
    int64_t page_table_bound; /* columns that table and source both have */
    int64_t source_rows;
    int32_t page_size, page_shift; /* page_size is 1 << page_shift, or page_shift is -1 */

    /* What rows need besides */
    int32_t seq_len_bias, topk, pool_size, unused;
    int64_t padded_tokens;
    int32_t *seqlens_expanded, *dsa_cache_seqlens, *dsa_cu_seqlens_k, *cache_seqlens, *cu_seqlens_k;
    int32_t *token_to_req, *context_lens, *cu_seqlens_q, *num_tokens;
    dm_report *report;

    /* What few fills have */
    int64_t page_table_cols;
    int32_t *page_table_1;
    int64_t page_table_1_bound, page_table_1_stride, page_table_1_cols;
    dm_shard shard;
    uint32_t context_divisor;
    dm_job_schedule schedules[2];
} dm_job;

#pragma GCC diagnostic pop

#endif
