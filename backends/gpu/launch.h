/* What the host hands to the kernels: jobs as the device reads them. */
#ifndef DRAFTMETA_GPU_LAUNCH_H
#define DRAFTMETA_GPU_LAUNCH_H

#include "job.h"

enum {
    GPU_MAX_THREADS = 512,             /* of a block; shared memory is sized by it */
    GPU_STEP_CAPACITY = (1 << 22) - 2, /* the most tokens of a step */
    GPU_STEP_TOKENS = 1 << 18,   /* where all requests have as many: the most tokens, padding and the end among them */
    GPU_STEP_REQUESTS = 1 << 16, /* the most requests of a step */
    GPU_STEP_STRIDE = 1 << 30,   /* the most elements from one row to the next: the next column fits 32 bits */
    GPU_STEP_UNITS = 511,        /* with a schedule: the most tokens, so that segments fit 32 bits */
    GPU_STEP_REPORT = 4096,      /* with a report: the most tokens */
    GPU_WARP_REQUESTS = 31,      /* for which a warp of any GPU has lanes, and one more for what follows them */
    GPU_LEAST_TEAM_SHIFT = 6     /* log2 of the fewest threads for one request's rows: whole warps of any GPU */
};

/* No padding, so that equal launches are equal bytes. */
#pragma GCC diagnostic push
#if UINTPTR_MAX > UINT32_MAX /* as on hosts of GPUs */
#pragma GCC diagnostic error "-Wpadded"
#endif

/* A job, lowered once more so that the device computes nothing that the host can. Its blocks stand in this order:
 * schedules, lengths, reports, tables. Pointers are device addresses; those of what is not wanted are anything.
 *
 * A kernel waits for each line of 64 bytes of its parameter that it is the first to touch, and the first line has 48,
 * as CUDA passes it. So what a role needs stands in as few lines as can be. */
typedef struct gpu_job {
    /* Every role */
    uint32_t flags; /* DM_JOB_* */
    int32_t schedule_blocks, length_blocks, report_blocks;
    int32_t num_requests, extend_len;
    int32_t seq_bytes; /* of an element: 4 or 8; so are the others */
    int32_t seq_len_bias;
    const void *seq_lens;
    int64_t capacity; /* M */

    /* Tables. Of the threads with this role, number N is for columns N & column_mask, and on in steps of one more than
     * that, rows (N >> column_shift) & row_mask, likewise, of request N >> request_shift. A column is what is read: an
     * element of the source for page_table_1, and of those every one that begins a page for page_table; where there is
     * page_table alone, only the latter. */
    int32_t pool_bytes; /* 0: request r has row r */
    uint32_t column_mask, row_mask;
    int32_t column_shift, request_shift;
    int32_t read_size, read_shift; /* KV tokens of a column; read_shift -1: no power of two */
    uint32_t read_bound;           /* of the wider table */
    const void *pool;              /* without indices: seq_lens */
    const int32_t *source;
    int64_t source_rows, source_stride;
    int32_t step_size;               /* elements of the source from one column to the next */
    int32_t slice_shift;             /* log2 of the blocks that share the tokens of a tile of requests */
    int32_t entry_size, entry_shift; /* elements of the source that make an entry of page_table */
    int32_t *page_table_1, *page_table;
    int64_t page_table_1_stride, page_table_stride;
    uint32_t slot_bound, page_bound; /* columns that page_table_1, and page_table, and the source have; 0: no table */

    /* Lengths */
    int32_t padded_requests;
    int32_t topk, pool_size;
    int32_t tile;           /* requests, or tokens of whole requests, that a block's threads have; 0: a warp has all */
    int32_t extend_shift;   /* extend_len is 1 << extend_shift, or extend_shift is -1 */
    int32_t tokens_written; /* E, where all requests have extend_len tokens */
    int32_t *cache_seqlens, *cu_seqlens_k;
    int32_t *seqlens_expanded, *dsa_cache_seqlens, *dsa_cu_seqlens_k;
    int32_t *token_to_req, *context_lens, *cu_seqlens_q, *num_tokens;
    const void *extend; /* of ragged requests */
    int32_t extend_bytes;
    int32_t report_tile; /* requests of a block for the report */
    int64_t padded_tokens;

    /* Schedules, of which the first is wanted if any is */
    dm_job_schedule schedules[2];
    int32_t tile_requests; /* of a tile of tokens */
    int32_t padding_teams; /* how many teams share the padding's rows, as if there were as many requests more */
    int32_t slots_shift;   /* log2 of the blocks that share a schedule's slots */

    /* What few jobs have */
    int32_t unused;
    dm_report *report;
    int64_t page_table_1_cols, page_table_cols;
    int32_t page_size, page_shift;
    dm_shard shard;
    uint32_t context_divisor;
} gpu_job;

/* The parameter of the kernel for lengths alone: as few bytes as can be, the first needed first. */
typedef struct gpu_lengths {
    int32_t num_requests;
    int32_t by_block; /* 0: each warp sums by itself what is before its requests */
    const void *seq_lens;
    const int32_t *extend; /* NULL: extend_len for every request */
    int32_t seq64, seq_len_bias;
    int32_t capacity, topk;
    int32_t *seqlens_expanded, *dsa_cache_seqlens; /* NULL: not wanted */
    int32_t extend_len;
    int32_t unused;
} gpu_lengths;

/* The parameter of the kernels for many jobs: at most 4096 bytes, the limit of every driver. */
typedef struct gpu_jobs {
    int32_t ends[DM_FILL_MANY_MAX]; /* one past each job's last block; those after the last job repeat it */
    gpu_job jobs[DM_FILL_MANY_MAX];
} gpu_jobs;

#pragma GCC diagnostic pop

#endif
