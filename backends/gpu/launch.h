/* What the host hands to the kernels: jobs, and which blocks do what. */
#ifndef DRAFTMETA_GPU_LAUNCH_H
#define DRAFTMETA_GPU_LAUNCH_H

#include "job.h"

/* The most threads of a block; shared memory is sized by it. */
enum { GPU_MAX_THREADS = 256 };

/* The small path: most tokens of a request; most topk and pool_size together; requests that a slice takes at a time. */
enum { GPU_SHORT_RUN = 16, GPU_SMALL_KEPT = 1 << 17, GPU_GROUP = 32 };

/* The blocks of one job, in this order: rows (chunks << slice_shift), one for each schedule, tables (groups <<
 * split_shift). Counts that a block's number is divided by are powers of two. */
typedef struct gpu_blocks {
    int32_t end; /* one past this job's last block in the grid */
    int32_t row_chunks, slice_shift;
    int32_t schedules; /* blocks for them: 0, 1 or 2 */
    int32_t split_shift;
    int32_t chunk;         /* requests of a row block */
    int32_t group;         /* requests of a table block */
    int32_t team_shift;    /* of a table block, 1 << team_shift at a time */
    int32_t padding_group; /* 1: the last table group is the padding's rows */
    int32_t small;         /* 1: the small path may do, if the requests' lengths allow */
    int64_t slice;         /* tokens of a row block, on the general path */
} gpu_blocks;

/* Kinds of jobs that are common and small: a kernel that knows their flags beforehand executes half the instructions.
 * A job is of a kind if its flags outside FREE are FIXED and it has no pools, no odd page size, no padding
 * and no table of slots. */
enum {
    GPU_SET_FREE = DM_JOB_SEQ64 | DM_JOB_POOL64 | DM_JOB_EXTEND | DM_JOB_CU_SEQLENS_Q | DM_JOB_TOKEN_TO_REQ |
                   DM_JOB_CONTEXT_LENS | DM_JOB_NUM_TOKENS,
    GPU_SET_FIXED = DM_JOB_TABLES | DM_JOB_TOKENS | DM_JOB_SEQLENS_EXPANDED | DM_JOB_DSA_CACHE_SEQLENS |
                    DM_JOB_DSA_CU_SEQLENS_K | DM_JOB_CACHE_SEQLENS | DM_JOB_CU_SEQLENS_K
};

/* The parameter of draftmeta_fill_lengths, for jobs that want nothing but these two outputs: as few bytes as can be,
 * the first needed first, for a block waits for each line of it. extend lies at a multiple of 16. */
typedef struct gpu_lengths {
    int32_t num_requests; /* at most GPU_MAX_LENGTHS_REQUESTS */
    int32_t chunk;        /* requests of a block, at most its threads, divisible by 4; 0: each warp is for itself */
    const void *seq_lens;
    const int32_t *extend;
    int32_t seq64, seq_len_bias;
    int32_t capacity; /* below GPU_MAX_LENGTHS_CAPACITY */
    int32_t topk;
    int32_t *seqlens_expanded, *dsa_cache_seqlens; /* NULL: not wanted */
} gpu_lengths;

enum {
    GPU_LENGTHS_FREE = DM_JOB_SEQ64 | DM_JOB_SEQLENS_EXPANDED | DM_JOB_DSA_CACHE_SEQLENS,
    GPU_LENGTHS_FIXED = DM_JOB_EXTEND | DM_JOB_TOKENS,
    GPU_MAX_LENGTHS_REQUESTS = 1 << 16,
    GPU_MAX_LENGTHS_CAPACITY = 1 << 25, /* so that sums over a warp fit 32 bits */
    GPU_MAX_LENGTHS_THREADS = 512
};

/* The parameter of draftmeta_fill and of the kernels for kinds. Fixed addresses: constants are operands, not loads. */
typedef struct gpu_launch {
    gpu_blocks blocks;
    dm_job job;
} gpu_launch;

/* The parameter of draftmeta_fill_many: at most 4096 bytes, the limit of every driver. */
typedef struct gpu_launch_many {
    int32_t count;
    gpu_blocks blocks[DM_FILL_MANY_MAX];
    dm_job jobs[DM_FILL_MANY_MAX];
} gpu_launch_many;

#endif
