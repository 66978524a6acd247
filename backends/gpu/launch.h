/* What the host hands to the kernels: jobs, and which blocks do what. */
#ifndef DRAFTMETA_GPU_LAUNCH_H
#define DRAFTMETA_GPU_LAUNCH_H

#include "job.h"

enum {
    GPU_MAX_THREADS = 256,    /* of a block; shared memory is sized by it */
    GPU_SMALL_PER_THREAD = 4, /* requests of a thread in a small schedule, of 128 threads at least, and in all */
    GPU_SMALL_REQUESTS = 512,
    GPU_FEW_REQUESTS = 32, /* for each of which a warp of any GPU has a lane; in blocks of */
    GPU_FEW_THREADS = 128,
    GPU_TEAM = 64 /* threads that write rows of one request, full warps, whatever their size; where requests are few,
                     whole blocks do */
};

/* The blocks of one job, in this order: rows (chunks << slice_shift), schedules, tables. Counts that a block's number
 * is divided by are powers of two. */
typedef struct gpu_blocks {
    int32_t row_chunks, slice_shift;
    int32_t chunk;     /* requests of a row block */
    int32_t schedules; /* blocks for schedules: for each, 1 << slots_shift, which share its slots */
    int32_t slots_shift;
    int32_t small_schedules; /* 1: so few requests that they may be written the short way */
    int32_t group, groups;   /* requests of a team, and how many such groups there are */
    int32_t lane_shift;      /* a team writes 1 << lane_shift columns at once, of several rows if those are few */
    int32_t column_shift;    /* so many teams share a request's columns, */
    int32_t row_shift;       /* and so many its rows */
    int32_t padding_group;   /* 1: behind the groups comes one of the padding's rows */
} gpu_blocks;

/* The kind of job that has kernels of its own, in which sums have 32 bits: what SGLang and vLLM ask for, without a
 * report. Its flags outside FREE are FIXED, pages and pools are powers of two, and it has no table of slots. */
enum {
    GPU_SET_FREE = DM_JOB_SEQ64 | DM_JOB_POOL64 | DM_JOB_EXTEND | DM_JOB_BLOCK_TABLE | DM_JOB_CU_SEQLENS_Q |
                   DM_JOB_TOKEN_TO_REQ | DM_JOB_CONTEXT_LENS | DM_JOB_CONTEXT_PER_REQUEST | DM_JOB_NUM_TOKENS,
    GPU_SET_FIXED = DM_JOB_TABLES | DM_JOB_TOKENS | DM_JOB_SEQLENS_EXPANDED | DM_JOB_DSA_CACHE_SEQLENS |
                    DM_JOB_DSA_CU_SEQLENS_K | DM_JOB_CACHE_SEQLENS | DM_JOB_CU_SEQLENS_K,
    GPU_MAX_REQUESTS = 1 << 16,
    GPU_MAX_CAPACITY = (1 << 23) - 2 /* so that sums of tokens over a block fit 32 bits */
};

/* The parameter of draftmeta_fill_lengths, for jobs that want nothing but these two outputs: as few bytes as can be,
 * the first needed first. The limits are those above. */
typedef struct gpu_lengths {
    int32_t num_requests;
    int32_t by_block; /* 0: each warp sums by itself what is before its requests */
    const void *seq_lens;
    const int32_t *extend;
    int32_t seq64, seq_len_bias;
    int32_t capacity, topk;
    int32_t *seqlens_expanded, *dsa_cache_seqlens; /* NULL: not wanted */
} gpu_lengths;

enum {
    GPU_LENGTHS_FREE = DM_JOB_SEQ64 | DM_JOB_SEQLENS_EXPANDED | DM_JOB_DSA_CACHE_SEQLENS,
    GPU_LENGTHS_FIXED = DM_JOB_EXTEND | DM_JOB_TOKENS
};

/* The parameter of draftmeta_fill and of the kernels for kinds. Fixed addresses: constants are operands, not loads. */
typedef struct gpu_launch {
    gpu_blocks blocks;
    dm_job job;
} gpu_launch;

/* The parameter of the kernels for many jobs: at most 4096 bytes, the limit of every driver. */
typedef struct gpu_launch_many {
    int32_t ends[DM_FILL_MANY_MAX]; /* one past each job's last block; those behind the last job repeat it */
    gpu_launch launches[DM_FILL_MANY_MAX];
} gpu_launch_many;

#endif
