/* The report: what the inputs have that the outputs cannot show. It is apart from the blocks that write, so that those
 * need not know of it, and its sums are exact in every kernel. */
#ifndef DRAFTMETA_GPU_REPORT_H
#define DRAFTMETA_GPU_REPORT_H

#include "lengths.h"

/* What is wrong with request r. */
template <bool RAGGED>
DM_FN uint32_t gpu_flags_of(const gpu_job &job, uint32_t r, const gpu_raw &raw, const gpu_request &req)
{
    uint32_t flags = 0;
    if (r >= (uint32_t)job.num_requests)
        return 0;
    if (dm_add_clamped(gpu_value(raw.seq, job.seq_bytes), job.seq_len_bias) != req.kv)
        flags |= DM_REPORT_KV_CLAMPED;
    if (RAGGED && dm_sub_clamped(gpu_value(raw.to, job.extend_bytes), gpu_value(raw.from, job.extend_bytes)) != req.q)
        flags |= DM_REPORT_Q_CLAMPED;
    if (!(job.flags & DM_JOB_TABLES))
        return flags;
    int64_t row = r;
    if (job.pool_bytes)
        row = gpu_value(gpu_load_words(job.pool, job.pool_bytes, r), job.pool_bytes);
    return flags | (row < 0 || row >= job.source_rows ? DM_REPORT_BAD_POOL : 0);
}

DM_FN void gpu_raise_flags(const gpu_job &job, uint32_t r, uint32_t flags)
{
    if (flags)
        gpu_max32(&job.report->bad_request, r + 1);
    if (flags)
        gpu_or32(&job.report->flags, flags);
}

/* One block, a token a thread and as many at a time as it has. Tokens are too few for other sums to be narrow. */
DM_FN void gpu_report_tokens(const gpu_job &job)
{
    const uint32_t n = (uint32_t)job.extend_len, tokens = (uint32_t)job.num_requests * n;
    gpu_sums<uint64_t> sum = {0, 0, 0};
#pragma unroll 1
    for (uint32_t t = threadIdx.x; t < tokens; t += blockDim.x) {
        const uint32_t r = t / n;
        const gpu_raw raw = gpu_load<uint32_t, false>(job, r);
        const gpu_request req = gpu_request_of<false>(job, r, raw);
        if (t < (uint32_t)job.capacity)
            sum.sparse += (uint32_t)gpu_sparse<uint32_t>(job, gpu_seen(req, (int32_t)(t - r * n)));
        if (t != r * n)
            continue;
        sum.kv += (uint32_t)req.kv;
        gpu_raise_flags(job, r, gpu_flags_of<false>(job, r, raw, req));
    }
    const uint64_t kv = gpu_warp_sum(gpu_share_of_block(sum.kv));
    const uint64_t sparse = gpu_warp_sum(gpu_share_of_block(sum.sparse));
    if (threadIdx.x)
        return;
    uint32_t flags = tokens > (uint32_t)job.capacity ? DM_REPORT_TOKENS_DROPPED : 0;
    if ((job.flags & DM_JOB_CU_SEQLENS_K && kv >> 31) || (job.flags & DM_JOB_DSA_CU_SEQLENS_K && sparse >> 31))
        flags |= DM_REPORT_NARROW;
    gpu_max64(&job.report->tokens_wanted, tokens);
    if (flags)
        gpu_or32(&job.report->flags, flags);
}

/* What only the totals show: of tokens, and of prefixes over requests, whose last values are the largest. */
DM_FN void gpu_report_totals(const gpu_job &job, uint64_t tokens, uint64_t kv)
{
    const uint64_t kept = gpu_min(tokens, (uint64_t)job.capacity);
    const uint64_t padding = (uint64_t)gpu_tokens_written(job, (int64_t)tokens) - kept;
    bool narrow = job.flags & DM_JOB_CU_SEQLENS_K && dm_is_narrow(kv);
    if (job.flags & (DM_JOB_CU_SEQLENS_Q | DM_JOB_NUM_TOKENS))
        narrow |= dm_is_narrow(kept);
    if (job.flags & DM_JOB_TOKEN_TO_REQ && padding)
        narrow |= dm_is_narrow((uint64_t)job.num_requests + padding - 1);
    const uint32_t flags =
        (narrow ? DM_REPORT_NARROW : 0) | (tokens > (uint64_t)job.capacity ? DM_REPORT_TOKENS_DROPPED : 0);
    gpu_max64(&job.report->tokens_wanted, tokens);
    if (flags)
        gpu_or32(&job.report->flags, flags);
}

/* The block's requests, one a thread and a tile at a time. */
template <bool RAGGED> DM_FN void gpu_report_requests(const gpu_job &job, int block)
{
    const uint32_t requests = (uint32_t)job.num_requests, last = (uint32_t)job.padded_requests;
    const uint32_t span = (uint32_t)job.report_tile, first = (uint32_t)block * span;
    gpu_sums<uint64_t> base = {0, 0, 0};
    uint32_t summed = 0;
#pragma unroll 1
    for (uint32_t tile = first; tile < first + span && tile <= last; tile += blockDim.x) {
        const uint32_t r = tile + threadIdx.x;
        const gpu_raw raw = gpu_load<uint64_t, RAGGED>(job, r);
        const gpu_request req = gpu_request_of<RAGGED>(job, r, raw);
        if (tile > summed)
            gpu_add(base, gpu_sums_between<uint64_t, RAGGED>(job, summed, gpu_min(tile, requests)));
        summed = tile;
        gpu_sums<uint64_t> before = gpu_scan<uint64_t, RAGGED>(gpu_sums_of<uint64_t>(job, req), true);
        gpu_add(before, base);
        if (!RAGGED)
            before.tokens = (uint64_t)gpu_min(r, requests) * (uint32_t)job.extend_len;
        if (r > last)
            return;
        const gpu_run<uint64_t> run = gpu_run_of(job, r, req, before);
        uint32_t flags = gpu_flags_of<RAGGED>(job, r, raw, req);
        gpu_raise_flags(job, r, flags);
        if (job.flags & DM_JOB_DSA_CU_SEQLENS_K && run.entries > 0 &&
            dm_is_narrow(run.sparse + gpu_sparse_prefix<uint64_t>(job, run.before, run.entries - 1)))
            gpu_or32(&job.report->flags, DM_REPORT_NARROW);
        if (r == last)
            gpu_report_totals(job, before.tokens, before.kv);
    }
}

#endif
