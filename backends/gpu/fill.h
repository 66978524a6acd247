/* The kernels' bodies, for every GPU; threads.h says what a vendor's source file defines before it includes this.
 *
 * One launch, no workspace, and no block waits for another: a block that needs a sum over earlier requests computes it.
 * A block has one role: it writes a schedule, lengths, a report or table rows, and each role is in a file of its own.
 *
 * Between an engine's kernels the caches hold nothing of this code: what a role costs there is the distinct
 * instructions that it walks through. So roles are templates of what differs (the integers of sums, and whether
 * requests have query lengths of their own), loops are unrolled only where loads are to be in flight together, and what
 * is rare is out of line. */
#ifndef DRAFTMETA_GPU_FILL_H
#define DRAFTMETA_GPU_FILL_H

#include "lengths_alone.h"
#include "report.h"
#include "schedules.h"
#include "tables.h"

/* Block number block of a job. RAGGED: requests have query lengths of their own. REPORT: and there may be a report. */
template <class Int, bool RAGGED, bool REPORT> DM_FN void gpu_fill_block(const gpu_job &job, int block)
{
    const int lengths = block - job.schedule_blocks, reports = lengths - job.length_blocks;
    const int tables = reports - job.report_blocks;
    const bool by_token = !RAGGED && !gpu_is_exact<Int>();
    if (tables >= 0)
        gpu_fill_tables<Int, RAGGED>(job, tables);
    else if (lengths < 0)
        gpu_fill_schedule<Int, RAGGED>(job, block);
    else if (reports < 0 && by_token)
        gpu_fill_tokens(job, lengths);
    else if (reports < 0)
        gpu_fill_runs<Int, RAGGED>(job, lengths);
    else if (REPORT && by_token)
        gpu_report_tokens(job);
    else if (REPORT)
        gpu_report_requests<RAGGED>(job, reports);
}

/* A step: what engines ask for (gpu_kind_of in plan.c), as many tokens for each request. */
DM_FN void gpu_step(const gpu_job &job, int block)
{
    gpu_fill_block<uint32_t, false, true>(job, block);
}

/* Whatever the contract allows. */
DM_FN void gpu_any(const gpu_job &job, int block)
{
    if (job.flags & DM_JOB_EXTEND)
        gpu_fill_block<uint64_t, true, true>(job, block);
    else
        gpu_fill_block<uint64_t, false, true>(job, block);
}

/* Which job of the launch this block works for; *block becomes its number among that job's. */
DM_FN const gpu_job &gpu_job_of_block(const gpu_jobs &launch, int *block)
{
    int k = 0, first = 0;
#pragma unroll /* so that all ends are operands, not loads one after the other */
    for (int i = 0; i < DM_FILL_MANY_MAX - 1; i++) {
        if ((int)blockIdx.x < launch.ends[i])
            continue;
        k = i + 1;
        first = launch.ends[i];
    }
    *block = (int)blockIdx.x - first;
    return launch.jobs[k];
}

/* The kernels: one job, or as many as a launch takes. */
DM_FN void gpu_fill_step(const gpu_job &job)
{
    gpu_step(job, (int)blockIdx.x);
}

/* A step of requests with query lengths of their own; with a report, which is as much code again, or without. */
DM_FN void gpu_fill_ragged(const gpu_job &job)
{
    gpu_fill_block<uint32_t, true, false>(job, (int)blockIdx.x);
}

DM_FN void gpu_fill_ragged_report(const gpu_job &job)
{
    gpu_fill_block<uint32_t, true, true>(job, (int)blockIdx.x);
}

DM_FN void gpu_fill(const gpu_job &job)
{
    gpu_any(job, (int)blockIdx.x);
}

DM_FN void gpu_fill_steps(const gpu_jobs &launch)
{
    int block;
    const gpu_job &job = gpu_job_of_block(launch, &block);
    gpu_step(job, block);
}

DM_FN void gpu_fill_many(const gpu_jobs &launch)
{
    int block;
    const gpu_job &job = gpu_job_of_block(launch, &block);
    gpu_any(job, block);
}

#endif
