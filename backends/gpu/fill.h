/* The kernel, for every GPU. A vendor's source file includes this after it has defined
 *     DM_FN                        how a device function is declared
 *     gpu_warp_size()              lanes of a warp: 32 or 64
 *     gpu_shift_up(v, d)           a 64-bit value from the lane d below, of a full warp; below lane d anything
 *     gpu_from_lane(v, lane)       a 64-bit value from one lane of a full warp
 *     gpu_ballot(p)                the lanes of a full warp where p holds
 *     gpu_or32, gpu_max32, gpu_max64(ptr, v)   atomics on global memory
 * and includes it where threadIdx, blockIdx, blockDim, __shared__ and __syncthreads mean what they do in CUDA and HIP.
 *
 * One launch, no workspace, and no block waits for another: a block that needs a sum over earlier requests computes it.
 * Blocks have roles (gpu_blocks). Row blocks write everything per request and the lengths per token. A schedule block
 * writes one schedule. Table blocks write page-table rows. */
#ifndef DRAFTMETA_GPU_FILL_H
#define DRAFTMETA_GPU_FILL_H

#include "formula.h"
#include "launch.h"

enum {
    GPU_MIN_WARP = 32,
    GPU_MAX_WARPS = GPU_MAX_THREADS / GPU_MIN_WARP,
    GPU_SHORT_RUN = 16, /* tokens of a request that one lane writes; more are the whole warp's */
    GPU_IN_FLIGHT = 4   /* columns that a thread loads before it stores the first */
};

/* The sums that a job needs. */
enum { SUM_TOKENS = 1, SUM_KV = 2, SUM_SPARSE = 4 };

typedef struct sums {
    uint64_t tokens, kv, sparse;
} sums;

typedef struct gpu_request {
    int64_t r;
    int32_t kv, q;
    uint32_t flags;
} gpu_request;

DM_FN int64_t gpu_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

DM_FN int64_t gpu_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

DM_FN int gpu_lane()
{
    return (int)threadIdx.x % gpu_warp_size();
}

DM_FN gpu_request gpu_read(const dm_job &job, int64_t r)
{
    gpu_request req = {r, 0, 0, 0};
    if (r < job.num_requests) {
        req.kv = dm_kv(&job, r, &req.flags);
        req.q = dm_q(&job, r, &req.flags);
    }
    return req;
}

/* ---- Sums over requests ---- */

DM_FN unsigned gpu_sums_of_rows(const dm_job &job)
{
    return (job.extend ? SUM_TOKENS : 0) | (job.cu_seqlens_k ? SUM_KV : 0) | (job.dsa_cu_seqlens_k ? SUM_SPARSE : 0);
}

DM_FN void gpu_add(sums &to, const sums &from)
{
    to.tokens += from.tokens;
    to.kv += from.kv;
    to.sparse += from.sparse;
}

DM_FN sums gpu_sums_of(const dm_job &job, const gpu_request &req, unsigned wanted)
{
    sums s = {(uint64_t)req.q, (uint64_t)req.kv, 0};
    if (wanted & SUM_SPARSE)
        s.sparse = dm_sparse_prefix(&job, req.kv, req.q, req.q);
    return s;
}

/* This thread's share of the sums over requests 0 .. end - 1. */
DM_FN sums gpu_share_before(const dm_job &job, int64_t end, unsigned wanted)
{
    sums share = {0, 0, 0};
#pragma unroll 4
    for (int64_t r = threadIdx.x; r < end; r += blockDim.x) {
        gpu_request req = {r, 0, 0, 0};
        if (wanted & (SUM_KV | SUM_SPARSE))
            req.kv = dm_kv(&job, r, &req.flags);
        req.q = dm_q(&job, r, &req.flags);
        gpu_add(share, gpu_sums_of(job, req, wanted));
    }
    return share;
}

DM_FN uint64_t gpu_warp_scan_one(uint64_t v, int lanes)
{
    for (int d = 1; d < lanes; d <<= 1) {
        const uint64_t below = gpu_shift_up(v, d);
        if (gpu_lane() >= d)
            v += below;
    }
    return v;
}

/* Inclusive over the first lanes of the warp. */
DM_FN sums gpu_warp_scan(sums s, unsigned wanted, int lanes)
{
    if (wanted & SUM_TOKENS)
        s.tokens = gpu_warp_scan_one(s.tokens, lanes);
    if (wanted & SUM_KV)
        s.kv = gpu_warp_scan_one(s.kv, lanes);
    if (wanted & SUM_SPARSE)
        s.sparse = gpu_warp_scan_one(s.sparse, lanes);
    return s;
}

DM_FN sums gpu_broadcast(const sums &s, unsigned wanted, int lane)
{
    return sums{wanted & SUM_TOKENS ? gpu_from_lane(s.tokens, lane) : 0,
                wanted & SUM_KV ? gpu_from_lane(s.kv, lane) : 0,
                wanted & SUM_SPARSE ? gpu_from_lane(s.sparse, lane) : 0};
}

typedef struct gpu_scan_result {
    sums before; /* over all earlier requests */
    sums total;  /* over the whole block's and all earlier ones */
} gpu_scan_result;

/* Over the block: own is this thread's request, share its part of what comes before the block. */
DM_FN gpu_scan_result gpu_block_scan(const sums &own, const sums &share, unsigned wanted, bool has_share)
{
    __shared__ sums own_totals[GPU_MAX_WARPS], shares[GPU_MAX_WARPS];
    const int warp_size = gpu_warp_size(), warp = (int)threadIdx.x / warp_size, last = warp_size - 1;
    const int warps = (int)blockDim.x / warp_size;
    const sums up = gpu_warp_scan(own, wanted, warp_size);
    const sums shared_up = has_share ? gpu_warp_scan(share, wanted, warp_size) : share;
    __syncthreads(); /* the last scan's readers are done */
    if (gpu_lane() == last) {
        own_totals[warp] = up;
        shares[warp] = shared_up;
    }
    __syncthreads();
    gpu_scan_result result = {{up.tokens - own.tokens, up.kv - own.kv, up.sparse - own.sparse}, {0, 0, 0}};
    for (int w = 0; w < warps; w++) {
        if (has_share) {
            gpu_add(result.before, shares[w]);
            gpu_add(result.total, shares[w]);
        }
        if (w < warp)
            gpu_add(result.before, own_totals[w]);
        gpu_add(result.total, own_totals[w]);
    }
    return result;
}

/* Over one warp, all of the job's requests. */
DM_FN gpu_scan_result gpu_single_warp_scan(const sums &own, unsigned wanted, int requests)
{
    const sums up = gpu_warp_scan(own, wanted, requests);
    return gpu_scan_result{{up.tokens - own.tokens, up.kv - own.kv, up.sparse - own.sparse},
                           gpu_broadcast(up, wanted, requests > 0 ? requests - 1 : 0)};
}

/* ---- Row blocks ---- */

DM_FN void gpu_report(const dm_job &job, uint32_t flags, int64_t bad_request)
{
    if (!job.report || !flags)
        return;
    gpu_or32(&job.report->flags, flags);
    if (bad_request)
        gpu_max32(&job.report->bad_request, (uint32_t)bad_request);
}

/* Stores the low bits; returns whether that lost any. */
DM_FN bool gpu_store(int32_t *out, uint64_t value)
{
    *out = (int32_t)(uint32_t)value;
    return dm_is_narrow(value);
}

DM_FN void gpu_write_request(const dm_job &job, gpu_request &req, const sums &before)
{
    if (job.cache_seqlens)
        job.cache_seqlens[req.r] = req.kv;
    if (job.cu_seqlens_q)
        job.cu_seqlens_q[req.r] = (int32_t)(uint32_t)gpu_min((int64_t)before.tokens, job.capacity);
    if (job.cu_seqlens_k)
        job.cu_seqlens_k[req.r] = (int32_t)(uint32_t)before.kv;
    if (job.report && job.flags & DM_JOB_TABLES && req.r < job.num_requests)
        dm_source_row(&job, req.r, &req.flags);
    gpu_report(job, req.flags, req.r + 1);
}

DM_FN void gpu_write_lengths(const dm_job &job, const gpu_request &req, int64_t t, int32_t e)
{
    if (job.seqlens_expanded)
        job.seqlens_expanded[t] = e;
    if (job.dsa_cache_seqlens)
        job.dsa_cache_seqlens[t] = dm_sparse(e, job.topk, job.pool_size);
    if (job.token_to_req)
        job.token_to_req[t] = (int32_t)req.r;
    if (job.context_lens)
        job.context_lens[t] = job.flags & DM_JOB_CONTEXT_PER_REQUEST ? req.kv : e;
}

/* Tokens of one request, every step-th from j0, inside [low, high); the prefix also at the capacity itself. */
DM_FN void gpu_write_tokens(const dm_job &job, const gpu_request &req, const sums &before, int64_t low, int64_t high,
                            int first, int step)
{
    const int64_t offset = (int64_t)before.tokens;
    const int64_t begin = gpu_max(low - offset, 0) + first, end = gpu_min(high - offset, req.q);
    for (int64_t j = begin; j < end; j += step) {
        const int64_t t = offset + j;
        if (t < job.capacity)
            gpu_write_lengths(job, req, t, dm_expanded(req.kv, req.q, j));
        if (job.dsa_cu_seqlens_k && t <= job.capacity) {
            const uint64_t sparse = before.sparse + dm_sparse_prefix(&job, req.kv, req.q, j);
            if (gpu_store(&job.dsa_cu_seqlens_k[t], sparse))
                gpu_report(job, DM_REPORT_NARROW, 0);
        }
    }
}

/* Requests of few tokens are written by their lane; the others one by one by the whole warp. */
DM_FN void gpu_write_runs(const dm_job &job, const gpu_request &req, const sums &before, int64_t low, int64_t high)
{
    const bool is_long = req.q > GPU_SHORT_RUN;
    if (!is_long)
        gpu_write_tokens(job, req, before, low, high, 0, 1);
    uint64_t long_lanes = gpu_ballot(is_long);
    for (int lane = 0; long_lanes; lane++, long_lanes >>= 1) {
        if (!(long_lanes & 1))
            continue;
        const uint64_t lengths = gpu_from_lane((uint64_t)(uint32_t)req.kv << 32 | (uint32_t)req.q, lane);
        const gpu_request other = {(int64_t)gpu_from_lane((uint64_t)req.r, lane), (int32_t)(lengths >> 32),
                                   (int32_t)(uint32_t)lengths, 0};
        const sums other_before = gpu_broadcast(before, SUM_TOKENS | SUM_SPARSE, lane);
        gpu_write_tokens(job, other, other_before, low, high, gpu_lane(), gpu_warp_size());
    }
}

/* Tokens behind the last request's, and the end of their prefix. */
DM_FN void gpu_write_padding(const dm_job &job, const sums &total, int64_t low, int64_t high, int threads)
{
    const int64_t tokens = (int64_t)total.tokens, written = dm_tokens_written(&job, tokens);
    for (int64_t t = gpu_max(tokens, low) + threadIdx.x; t <= written && t < high; t += threads) {
        bool narrow = job.dsa_cu_seqlens_k && gpu_store(&job.dsa_cu_seqlens_k[t], total.sparse);
        if (t < written) {
            if (job.seqlens_expanded)
                job.seqlens_expanded[t] = 0;
            if (job.dsa_cache_seqlens)
                job.dsa_cache_seqlens[t] = 0;
            if (job.context_lens)
                job.context_lens[t] = 0;
            if (job.token_to_req)
                narrow |= gpu_store(&job.token_to_req[t], (uint64_t)(job.num_requests + t - tokens));
        }
        if (narrow)
            gpu_report(job, DM_REPORT_NARROW, 0);
    }
}

/* By one thread of the job: the ends of the prefixes, and what only the totals show. */
DM_FN void gpu_write_ends(const dm_job &job, const sums &total)
{
    const int64_t tokens = (int64_t)total.tokens;
    const uint64_t kept = (uint64_t)gpu_min(tokens, job.capacity);
    bool narrow = false;
    if (job.cu_seqlens_q)
        narrow |= gpu_store(&job.cu_seqlens_q[job.padded_requests], kept);
    if (job.cu_seqlens_k)
        narrow |= gpu_store(&job.cu_seqlens_k[job.padded_requests], total.kv);
    if (job.num_tokens)
        narrow |= gpu_store(job.num_tokens, kept);
    if (!job.report)
        return;
    gpu_report(job, (narrow ? DM_REPORT_NARROW : 0) | (tokens > job.capacity ? DM_REPORT_TOKENS_DROPPED : 0), 0);
    gpu_max64(&job.report->tokens_wanted, total.tokens);
}

/* What every row block does for one request a thread, once the sums are known. */
DM_FN void gpu_write_row(const dm_job &job, gpu_request &req, sums &before, int64_t end, int64_t low, int64_t high)
{
    if (!job.extend)
        before.tokens = (uint64_t)(gpu_min(req.r, job.num_requests) * job.extend_len);
    if (low == 0 && req.r < end)
        gpu_write_request(job, req, before);
    gpu_write_runs(job, req, before, low, high);
}

DM_FN void gpu_finish_rows(const dm_job &job, sums total, int64_t low, int64_t high, int threads)
{
    if (!job.extend)
        total.tokens = (uint64_t)((int64_t)job.num_requests * job.extend_len);
    gpu_write_padding(job, total, low, high, threads);
    if (low == 0 && threadIdx.x == 0)
        gpu_write_ends(job, total);
}

/* All requests by one warp: no barrier. */
DM_FN void gpu_fill_few_rows(const dm_job &job, int64_t low, int64_t high)
{
    const unsigned wanted = gpu_sums_of_rows(job);
    if ((int)threadIdx.x >= gpu_warp_size())
        return;
    gpu_request req = gpu_read(job, threadIdx.x);
    gpu_scan_result scan = gpu_single_warp_scan(gpu_sums_of(job, req, wanted), wanted, job.padded_requests);
    gpu_write_row(job, req, scan.before, job.padded_requests, low, high);
    gpu_finish_rows(job, scan.total, low, high, gpu_warp_size());
}

DM_FN void gpu_fill_rows(const dm_job &job, const gpu_blocks &blocks, int chunk, int slice)
{
    const int64_t low = slice * blocks.slice;
    const int64_t high = slice + 1 < blocks.row_slices ? low + blocks.slice : INT64_MAX;
    if (job.padded_requests <= gpu_warp_size()) {
        gpu_fill_few_rows(job, low, high);
        return;
    }
    const unsigned wanted = gpu_sums_of_rows(job);
    const int64_t first = (int64_t)chunk * blocks.chunk;
    const int64_t end = gpu_min(first + blocks.chunk, job.padded_requests);
    sums before_tile = {0, 0, 0};
    if (wanted && first)
        before_tile = gpu_share_before(job, gpu_min(first, job.num_requests), wanted);
    bool is_share = first > 0; /* of the block's sum before; later tiles carry the whole sum */
    for (int64_t tile = first; tile < end; tile += blockDim.x) {
        gpu_request req = gpu_read(job, gpu_min(tile + threadIdx.x, end));
        if (req.r == end)
            req.kv = req.q = 0, req.flags = 0;
        gpu_scan_result scan = {{0, 0, 0}, {0, 0, 0}};
        if (wanted)
            scan = gpu_block_scan(gpu_sums_of(job, req, wanted), before_tile, wanted, is_share);
        if (!is_share) {
            gpu_add(scan.before, before_tile);
            gpu_add(scan.total, before_tile);
        }
        gpu_write_row(job, req, scan.before, end, low, high);
        before_tile = scan.total;
        is_share = false;
    }
    if (end == job.padded_requests)
        gpu_finish_rows(job, before_tile, low, high, blockDim.x);
}

/* ---- Table blocks ---- */

/* The sum of this over the block's threads, in all of them. */
DM_FN uint64_t gpu_block_sum(uint64_t share)
{
    __shared__ uint64_t warp_sums[GPU_MAX_WARPS];
    const int warp_size = gpu_warp_size(), warps = (int)blockDim.x / warp_size;
    share = gpu_warp_scan_one(share, warp_size);
    if (warps == 1)
        return gpu_from_lane(share, warp_size - 1);
    if (gpu_lane() == warp_size - 1)
        warp_sums[threadIdx.x / warp_size] = share;
    __syncthreads();
    uint64_t sum = 0;
    for (int w = 0; w < warps; w++)
        sum += warp_sums[w];
    return sum;
}

/* One page table as a copy from a source row: column c is source[c * step] / divisor. */
typedef struct gpu_table {
    int32_t *data;
    int64_t stride, cols, live;
    const int32_t *source;
    int32_t step;    /* elements of the source between two columns */
    int32_t divisor; /* 1: a plain copy */
} gpu_table;

DM_FN gpu_table gpu_slot_table(const dm_job &job, const int32_t *source, int32_t kv)
{
    return gpu_table{job.page_table_1, job.page_table_1_stride, job.page_table_1_cols,
                     dm_live_cols(kv, 1, job.page_table_1_cols, job.source_cols), source, 1, 1};
}

DM_FN gpu_table gpu_page_table(const dm_job &job, const int32_t *source, int32_t kv)
{
    const int32_t step = job.flags & DM_JOB_BLOCK_TABLE ? 1 : job.page_size;
    return gpu_table{job.page_table, job.page_table_stride, job.page_table_cols,
                     dm_live_cols(kv, job.page_size, job.page_table_cols, dm_source_pages(&job)), source, step, step};
}

DM_FN void gpu_store_column(const gpu_table &table, int64_t t, int64_t rows, int64_t c, int32_t value)
{
    int32_t *out = table.data + t * table.stride + c;
    for (int64_t i = 0; i < rows; i++, out += table.stride)
        *out = value;
}

/* The columns of rows t .. t + rows - 1 that fall to this thread, of splits blocks. */
DM_FN void gpu_write_columns(const gpu_table &table, int64_t t, int64_t rows, int split, int splits, bool full)
{
    const int64_t across = (int64_t)splits * blockDim.x;
    int64_t c = (int64_t)split * blockDim.x + threadIdx.x;
    for (; c < table.live; c += GPU_IN_FLIGHT * across) {
        int32_t slots[GPU_IN_FLIGHT];
#pragma unroll
        for (int i = 0; i < GPU_IN_FLIGHT; i++)
            if (c + i * across < table.live)
                slots[i] = table.source[(c + i * across) * table.step];
#pragma unroll
        for (int i = 0; i < GPU_IN_FLIGHT; i++)
            if (c + i * across < table.live)
                gpu_store_column(table, t, rows, c + i * across, dm_page_of(slots[i], table.divisor));
    }
    if (!full)
        return;
    const int64_t begin = (int64_t)split * blockDim.x + threadIdx.x;
    for (c = begin + (table.live > begin ? (table.live - begin + across - 1) / across * across : 0); c < table.cols;
         c += across)
        gpu_store_column(table, t, rows, c, 0);
}

DM_FN void gpu_write_tables(const dm_job &job, const gpu_blocks &blocks, int64_t r, int32_t kv, int64_t t, int64_t rows,
                            int split)
{
    uint32_t flags = 0;
    const bool full = job.flags & DM_JOB_FULL_ROWS;
    const int64_t row = r < job.num_requests ? dm_source_row(&job, r, &flags) : -1;
    const int32_t *source = row < 0 ? nullptr : job.source + row * job.source_stride;
    if (row < 0)
        kv = 0;
    if (job.page_table)
        gpu_write_columns(gpu_page_table(job, source, kv), t, rows, split, blocks.table_splits, full);
    if (job.page_table_1)
        gpu_write_columns(gpu_slot_table(job, source, kv), t, rows, split, blocks.table_splits, full);
}

/* Tokens before request r, by the whole block. */
DM_FN int64_t gpu_tokens_before(const dm_job &job, int64_t r)
{
    if (!job.extend)
        return r * job.extend_len;
    return r ? (int64_t)gpu_block_sum(gpu_share_before(job, r, SUM_TOKENS).tokens) : 0;
}

DM_FN void gpu_fill_tables(const dm_job &job, const gpu_blocks &blocks, int group, int split)
{
    const int64_t first = gpu_min((int64_t)group * blocks.group, job.num_requests);
    const int64_t end = gpu_min(first + blocks.group, job.num_requests);
    int64_t t = gpu_tokens_before(job, first);
    for (int64_t r = first; r < end && t < job.capacity; r++) {
        const gpu_request req = gpu_read(job, r);
        gpu_write_tables(job, blocks, r, req.kv, t, gpu_min(req.q, job.capacity - t), split);
        t += req.q;
    }
    if (first == job.num_requests && blocks.padding_group)
        gpu_write_tables(job, blocks, first, 0, t, gpu_max(dm_tokens_written(&job, t) - t, 0), split);
}

/* ---- Schedule blocks ---- */

/* The prefixes at the first request of every thread's chunk, and over all. */
typedef struct gpu_chunk_sums {
    uint64_t tokens[GPU_MAX_THREADS + 1], segments[GPU_MAX_THREADS + 1];
} gpu_chunk_sums;

/* A place among the requests, with the tokens and segments before it. */
typedef struct gpu_place {
    gpu_request req;
    uint64_t tokens, segments;
} gpu_place;

DM_FN uint64_t gpu_segments_of(const dm_job_schedule &s, const gpu_request &req)
{
    if (s.flags & DM_SCHED_PER_TOKEN)
        return dm_segments_prefix(&s, req.kv, req.q, req.q);
    return dm_segments(&s, (uint32_t)req.kv);
}

DM_FN int gpu_requests_per_thread(const dm_job &job)
{
    return (job.num_requests + (int)blockDim.x - 1) / (int)blockDim.x;
}

DM_FN void gpu_sum_chunks(const dm_job &job, const dm_job_schedule &s, gpu_chunk_sums &chunks)
{
    const int64_t per_thread = gpu_requests_per_thread(job), first = threadIdx.x * per_thread;
    sums own = {0, 0, 0};
    for (int64_t r = first; r < gpu_min(first + per_thread, job.num_requests); r++) {
        const gpu_request req = gpu_read(job, r);
        own.tokens += (uint64_t)req.q;
        own.kv += gpu_segments_of(s, req);
    }
    const gpu_scan_result scan = gpu_block_scan(own, own, SUM_TOKENS | SUM_KV, false);
    chunks.tokens[threadIdx.x] = scan.before.tokens;
    chunks.segments[threadIdx.x] = scan.before.kv;
    if (threadIdx.x == 0) {
        chunks.tokens[blockDim.x] = scan.total.tokens;
        chunks.segments[blockDim.x] = scan.total.kv;
    }
    __syncthreads();
}

/* The last chunk whose prefix is at most v. */
DM_FN int gpu_find_chunk(const uint64_t *prefix, uint64_t v)
{
    int low = 0, high = (int)blockDim.x - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (prefix[middle] <= v)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* The request that holds token v, or segment v of s, of those that are there. */
DM_FN gpu_place gpu_find(const dm_job &job, const dm_job_schedule &s, const gpu_chunk_sums &chunks, uint64_t v,
                         bool by_token)
{
    const int chunk = gpu_find_chunk(by_token ? chunks.tokens : chunks.segments, v);
    gpu_place at = {{0, 0, 0, 0}, chunks.tokens[chunk], chunks.segments[chunk]};
    for (int64_t r = (int64_t)chunk * gpu_requests_per_thread(job);; r++) {
        at.req = gpu_read(job, r);
        const uint64_t segments = gpu_segments_of(s, at.req);
        if (by_token ? at.tokens + (uint64_t)at.req.q > v : at.segments + segments > v)
            return at;
        at.tokens += (uint64_t)at.req.q;
        at.segments += segments;
    }
}

/* The segments before request r <= R. */
DM_FN uint64_t gpu_segments_before(const dm_job &job, const dm_job_schedule &s, const gpu_chunk_sums &chunks, int64_t r)
{
    if (r >= job.num_requests)
        return chunks.segments[blockDim.x];
    const int64_t per_thread = gpu_requests_per_thread(job);
    uint64_t segments = chunks.segments[r / per_thread];
    for (int64_t i = r / per_thread * per_thread; i < r; i++)
        segments += gpu_segments_of(s, gpu_read(job, i));
    return segments;
}

/* Segments of the units that are covered. */
DM_FN uint64_t gpu_covered_segments(const dm_job &job, const dm_job_schedule &s, const gpu_chunk_sums &chunks,
                                    int64_t covered)
{
    if (!(s.flags & DM_SCHED_PER_TOKEN))
        return gpu_segments_before(job, s, chunks, covered);
    if ((uint64_t)covered >= chunks.tokens[blockDim.x])
        return chunks.segments[blockDim.x];
    const gpu_place at = gpu_find(job, s, chunks, (uint64_t)covered, true);
    return at.segments + dm_segments_prefix(&s, at.req.kv, at.req.q, covered - (int64_t)at.tokens);
}

DM_FN void gpu_write_entry(const dm_job &job, const dm_job_schedule &s, const gpu_chunk_sums &chunks, uint32_t slot,
                           uint64_t start)
{
    const uint64_t atoms = (uint64_t)s.atoms, segment = atoms == 1 ? start : start / atoms;
    const gpu_place at = gpu_find(job, s, chunks, segment, false);
    uint64_t unit = (uint64_t)at.req.r, before = at.segments, segments = dm_segments(&s, (uint32_t)at.req.kv);
    if (s.flags & DM_SCHED_PER_TOKEN) {
        const int64_t j = dm_segment_token(&s, at.req.kv, at.req.q, segment - before);
        unit = at.tokens + (uint64_t)j;
        before += dm_segments_prefix(&s, at.req.kv, at.req.q, j);
        segments = dm_segments(&s, (uint32_t)dm_expanded(at.req.kv, at.req.q, j));
    }
    dm_put_entry(&s, slot, unit, start - before * atoms, segments);
}

DM_FN void gpu_fill_schedule(const dm_job &job, const dm_job_schedule &s)
{
    __shared__ gpu_chunk_sums chunks;
    gpu_sum_chunks(job, s, chunks);
    const int64_t written = dm_tokens_written(&job, (int64_t)chunks.tokens[blockDim.x]);
    const int64_t covered = dm_units_covered(&job, &s, written);
    const uint64_t total = gpu_covered_segments(job, s, chunks, covered) * (uint64_t)s.atoms;
    for (uint32_t slot = threadIdx.x; slot <= (uint32_t)s.slots; slot += blockDim.x) {
        const uint64_t start = dm_slot_start(&s, total, slot);
        if (start < total)
            gpu_write_entry(job, s, chunks, slot, start);
        else
            dm_put_entry(&s, slot, (uint64_t)covered, 0, 1);
    }
    if (threadIdx.x == 0 && dm_is_narrow((uint64_t)covered * (uint64_t)s.atoms))
        gpu_report(job, DM_REPORT_NARROW, 0);
}

/* ---- The kernel ---- */

DM_FN void gpu_fill(const gpu_launch &launch)
{
    int k = 0;
    while (k + 1 < launch.count && (int)blockIdx.x >= launch.blocks[k].end)
        k++;
    const dm_job &job = launch.jobs[k];
    const gpu_blocks &blocks = launch.blocks[k];
    int block = (int)blockIdx.x - (k ? launch.blocks[k - 1].end : 0);
    const int rows = blocks.row_chunks * blocks.row_slices;
    if (block < rows) {
        gpu_fill_rows(job, blocks, block / blocks.row_slices, block % blocks.row_slices);
        return;
    }
    block -= rows;
    if (block < blocks.schedules) {
        gpu_fill_schedule(job, job.schedules[job.schedules[0].table ? block : 1]);
        return;
    }
    block -= blocks.schedules;
    gpu_fill_tables(job, blocks, block / blocks.table_splits, block % blocks.table_splits);
}

#endif
