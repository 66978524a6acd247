/* What the host hands to the kernel: the jobs, and which blocks do what. */
#ifndef DRAFTMETA_GPU_LAUNCH_H
#define DRAFTMETA_GPU_LAUNCH_H

#include "job.h"

/* The most threads of a block; shared memory is sized by it. */
enum { GPU_MAX_THREADS = 512 };

/* The blocks of one job, in this order: rows (chunks x slices), one for each schedule, tables (groups x splits). */
typedef struct gpu_blocks {
    int32_t end; /* one past this job's last block in the grid */
    int32_t row_chunks, row_slices;
    int32_t schedules; /* blocks for them: 0, 1 or 2 */
    int32_t table_splits;
    int32_t chunk; /* requests of a row block */
    int32_t group; /* requests of a table block */
    int32_t padding_group; /* 1: the last table group is the padding's rows */
    int64_t slice; /* tokens of a row block */
} gpu_blocks;

/* The kernel's only parameter: at most 4096 bytes, the limit of every driver. */
typedef struct gpu_launch {
    int32_t count;
    gpu_blocks blocks[DM_FILL_MANY_MAX];
    dm_job jobs[DM_FILL_MANY_MAX];
} gpu_launch;

#endif
