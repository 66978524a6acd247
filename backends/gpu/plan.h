/* From jobs to launches: what the device is told, and how many blocks and threads it takes. Arithmetic alone. */
#ifndef DRAFTMETA_GPU_PLAN_H
#define DRAFTMETA_GPU_PLAN_H

#include <stdbool.h>

#include "launch.h"

/* What engines ask for, in which sums have 32 bits: steps, in which all requests have as many tokens, and ragged ones;
 * and all else. */
typedef enum gpu_kind { GPU_STEP, GPU_RAGGED, GPU_ANY } gpu_kind;

gpu_kind gpu_kind_of(const dm_job *job);

/* Whether the kernel for lengths alone takes the job. */
bool gpu_is_lengths(const dm_job *job);

/* Lowers it for that kernel; returns its blocks, and how many threads each has. */
unsigned gpu_plan_lengths(const dm_job *job, gpu_lengths *out, unsigned *threads);

/* The threads of a block of a launch for these jobs, each taken for that kind. */
unsigned gpu_plan_threads(const dm_job *jobs, int count, gpu_kind kind);

/* Lowers the job for a device of `multiprocessors` and blocks of `threads`; returns its blocks. */
unsigned gpu_plan(const dm_job *job, gpu_kind kind, int multiprocessors, unsigned threads, gpu_job *out);

#endif
