/* The kernel, for every GPU. A vendor's source file includes this after it has defined
 *     DM_FN                        how a device function is declared
 *     gpu_warp_size()              lanes of a warp: 32 or 64
 *     gpu_shift_up(v, d)           a 32- or 64-bit value from the lane d below, of a full warp; below lane d anything
 *     gpu_from_lane(v, lane)       a 32- or 64-bit value from one lane of a full warp
 *     gpu_ballot(p)                the lanes of a full warp where p holds
 *     gpu_or32, gpu_max32, gpu_max64(ptr, v)   atomics on global memory
 * and includes it where threadIdx, blockIdx, blockDim, __shared__ and __syncthreads mean what they do in CUDA and HIP.
 *
 * One launch, no workspace, and no block waits for another: a block that needs a sum over earlier requests computes it.
 * Blocks have roles (gpu_blocks). Row blocks write everything per request and the lengths per token. A schedule block
 * writes one schedule. Table blocks write page-table rows.
 *
 * The time of a small fill is that of fetching instructions for the first time, and of dependent loads. So a block that
 * has no more requests than threads first tries the small path: 32-bit sums, and loops over a request's few tokens. It
 * notices by itself when a request is too large for that, and takes the general path. Loops that run a few times are
 * not unrolled. */
#ifndef DRAFTMETA_GPU_FILL_H
#define DRAFTMETA_GPU_FILL_H

#include "formula.h"
#include "launch.h"

enum {
    GPU_MIN_WARP = 32,
    GPU_MAX_WARPS = GPU_MAX_THREADS / GPU_MIN_WARP,
    GPU_SMALL_KV = 1 << 22, /* with this and GPU_SMALL_KEPT no sum over GPU_MAX_THREADS requests leaves an int32 */
    GPU_IN_FLIGHT = 4       /* columns that a thread loads before it stores the first */
};

/* The sums that a job needs. */
enum { SUM_TOKENS = 1, SUM_KV = 2, SUM_SPARSE = 4 };

template <class Int> struct gpu_sums {
    Int tokens, kv, sparse;
};
typedef gpu_sums<uint64_t> sums;
typedef gpu_sums<uint32_t> small_sums;

typedef struct gpu_request {
    int32_t r, kv, q;
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

/* Request r, or no tokens where there is none. */
DM_FN gpu_request gpu_read(const dm_job &job, int64_t r)
{
    gpu_request req = {(int32_t)r, 0, 0, 0};
    if (r < job.num_requests) {
        req.kv = dm_kv(&job, r, &req.flags);
        req.q = dm_q(&job, r, &req.flags);
    }
    return req;
}

/* Whether the small path can hold the request. */
DM_FN bool gpu_is_small(const gpu_request &req)
{
    return req.q <= GPU_SHORT_RUN && req.kv < GPU_SMALL_KV && !req.flags;
}

/* ---- Sums over requests ---- */

DM_FN unsigned gpu_sums_of_rows(const dm_job &job)
{
    return (job.extend ? SUM_TOKENS : 0) | (job.cu_seqlens_k ? SUM_KV : 0) | (job.dsa_cu_seqlens_k ? SUM_SPARSE : 0);
}

template <class Int> DM_FN void gpu_add(gpu_sums<Int> &to, const gpu_sums<Int> &from)
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

DM_FN small_sums gpu_small_sums_of(const dm_job &job, const gpu_request &req, unsigned wanted)
{
    small_sums s = {(uint32_t)req.q, (uint32_t)req.kv, 0};
#pragma unroll 1
    for (int j = 0; wanted & SUM_SPARSE && j < req.q && j < GPU_SHORT_RUN; j++)
        s.sparse += (uint32_t)dm_sparse(dm_expanded(req.kv, req.q, j), job.topk, job.pool_size);
    return s;
}

/* This thread's share of the sums over requests 0 .. end - 1. */
DM_FN sums gpu_share_before(const dm_job &job, int64_t end, unsigned wanted)
{
    sums share = {0, 0, 0};
#pragma unroll 4
    for (int64_t r = threadIdx.x; r < end; r += blockDim.x) {
        gpu_request req = {(int32_t)r, 0, 0, 0};
        if (wanted & (SUM_KV | SUM_SPARSE))
            req.kv = dm_kv(&job, r, &req.flags);
        req.q = dm_q(&job, r, &req.flags);
        gpu_add(share, gpu_sums_of(job, req, wanted));
    }
    return share;
}

/* This thread's share of the tokens of requests 0 .. end - 1, every step-th from first. */
DM_FN uint64_t gpu_share_of_tokens(const dm_job &job, int64_t end, int first, int step)
{
    uint64_t share = 0;
    uint32_t flags = 0;
    if (job.flags & (DM_JOB_EXTEND64 | DM_JOB_QUERY_START)) {
#pragma unroll 1
        for (int64_t r = first; r < end; r += step)
            share += (uint32_t)dm_q(&job, r, &flags);
        return share;
    }
    const int32_t *lengths = (const int32_t *)job.extend;
#pragma unroll 4
    for (int64_t r = first; r < end; r += step)
        share += (uint32_t)(lengths[r] < 0 ? 0 : lengths[r]);
    return share;
}

template <class Int> DM_FN Int gpu_scan_step(Int v, int d)
{
    const Int below = gpu_shift_up(v, d);
    return gpu_lane() >= d ? v + below : v;
}

/* Inclusive over the first lanes of the warp. */
template <class Int> DM_FN gpu_sums<Int> gpu_warp_scan(gpu_sums<Int> s, unsigned wanted, int lanes)
{
#pragma unroll 1
    for (int d = 1; d < lanes; d <<= 1) {
        if (wanted & SUM_TOKENS)
            s.tokens = gpu_scan_step(s.tokens, d);
        if (wanted & SUM_KV)
            s.kv = gpu_scan_step(s.kv, d);
        if (wanted & SUM_SPARSE)
            s.sparse = gpu_scan_step(s.sparse, d);
    }
    return s;
}

template <class Int> DM_FN gpu_sums<Int> gpu_broadcast(const gpu_sums<Int> &s, unsigned wanted, int lane)
{
    return gpu_sums<Int>{wanted & SUM_TOKENS ? gpu_from_lane(s.tokens, lane) : 0,
                         wanted & SUM_KV ? gpu_from_lane(s.kv, lane) : 0,
                         wanted & SUM_SPARSE ? gpu_from_lane(s.sparse, lane) : 0};
}

template <class Int> struct gpu_scan_result {
    gpu_sums<Int> before; /* over all earlier requests */
    gpu_sums<Int> total;  /* over the whole block's and all earlier ones */
    bool any;             /* whether any thread brought a mark */
};

/* Adds what the other warps hold. share: this thread's part of a sum over what comes before the block, if has_share. */
template <class Int>
DM_FN void gpu_join_warps(gpu_scan_result<Int> &scan, const gpu_sums<Int> &up, const gpu_sums<Int> &share,
                          unsigned wanted, bool has_share)
{
    __shared__ gpu_sums<Int> totals[GPU_MAX_WARPS], shares[GPU_MAX_WARPS];
    __shared__ bool marks[GPU_MAX_WARPS];
    const int warp = (int)threadIdx.x / gpu_warp_size(), warps = (int)blockDim.x / gpu_warp_size();
    const gpu_sums<Int> shared_up = has_share ? gpu_warp_scan(share, wanted, gpu_warp_size()) : share;
    if (gpu_lane() == gpu_warp_size() - 1) {
        totals[warp] = up;
        shares[warp] = shared_up;
        marks[warp] = scan.any;
    }
    __syncthreads();
#pragma unroll 1
    for (int w = 0; w < warps; w++) {
        if (has_share) {
            gpu_add(scan.before, shares[w]);
            gpu_add(scan.total, shares[w]);
        }
        if (w < warp)
            gpu_add(scan.before, totals[w]);
        gpu_add(scan.total, totals[w]);
        scan.any |= marks[w];
    }
}

/* Over the block, one request a thread; over the first warp only if that holds all requests, without a barrier. A block
 * that scans twice puts a barrier between. */
template <class Int>
DM_FN gpu_scan_result<Int> gpu_scan(const gpu_sums<Int> &own, const gpu_sums<Int> &share, unsigned wanted,
                                    bool has_share, bool one_warp, int requests, bool mark)
{
    const int lanes = one_warp ? requests : gpu_warp_size();
    const gpu_sums<Int> up = gpu_warp_scan(own, wanted, lanes);
    gpu_scan_result<Int> scan = {
        {up.tokens - own.tokens, up.kv - own.kv, up.sparse - own.sparse}, {0, 0, 0}, gpu_ballot(mark) != 0};
    if (one_warp)
        scan.total = gpu_broadcast(up, wanted, lanes > 0 ? lanes - 1 : 0);
    else
        gpu_join_warps(scan, up, share, wanted, has_share);
    return scan;
}

/* ---- Row blocks ---- */

/* The tokens that a row block writes: low .. high - 1. The block of the first also writes what is per request. */
typedef struct gpu_slice {
    int64_t low, high;
} gpu_slice;

DM_FN void gpu_report(const dm_job &job, uint32_t flags, int32_t bad_request)
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

template <class Int> DM_FN void gpu_write_request(const dm_job &job, gpu_request &req, const gpu_sums<Int> &before)
{
    if (job.cache_seqlens)
        job.cache_seqlens[req.r] = req.kv;
    if (job.cu_seqlens_q)
        job.cu_seqlens_q[req.r] = (int32_t)(uint32_t)gpu_min((int64_t)before.tokens, job.capacity);
    if (job.cu_seqlens_k)
        job.cu_seqlens_k[req.r] = (int32_t)(uint32_t)before.kv;
    if (!job.report)
        return;
    if (job.flags & DM_JOB_TABLES && req.r < job.num_requests)
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
        job.token_to_req[t] = req.r;
    if (job.context_lens)
        job.context_lens[t] = job.flags & DM_JOB_CONTEXT_PER_REQUEST ? req.kv : e;
}

/* All tokens of a request that are below the capacity, and the prefix up to it. */
DM_FN void gpu_write_few_tokens(const dm_job &job, const gpu_request &req, const small_sums &before)
{
    const int32_t capacity = job.capacity < INT32_MAX ? (int32_t)job.capacity : INT32_MAX;
    uint32_t sparse = before.sparse;
#pragma unroll 1
    for (int j = 0; j < req.q; j++) {
        const int32_t t = (int32_t)before.tokens + j, e = dm_expanded(req.kv, req.q, j);
        if (t < capacity)
            gpu_write_lengths(job, req, t, e);
        if (job.dsa_cu_seqlens_k && t <= capacity) {
            job.dsa_cu_seqlens_k[t] = (int32_t)sparse;
            sparse += (uint32_t)dm_sparse(e, job.topk, job.pool_size);
        }
    }
}

/* Tokens first, first + step, ... of one request, as far as they are in the slice and below the capacity. */
DM_FN void gpu_write_tokens(const dm_job &job, const gpu_request &req, const sums &before, const gpu_slice &slice,
                            int first, int step)
{
    const int64_t offset = (int64_t)before.tokens, high = gpu_min(slice.high, job.capacity + 1);
    const int64_t end = gpu_min(high - offset, req.q);
#pragma unroll 1
    for (int64_t j = gpu_max(slice.low - offset, 0) + first; j < end; j += step) {
        const int64_t t = offset + j;
        if (t < job.capacity)
            gpu_write_lengths(job, req, t, dm_expanded(req.kv, req.q, j));
        if (job.dsa_cu_seqlens_k) { /* at the capacity itself too: there the prefix ends */
            const uint64_t sparse = before.sparse + dm_sparse_prefix(&job, req.kv, req.q, j);
            if (gpu_store(&job.dsa_cu_seqlens_k[t], sparse))
                gpu_report(job, DM_REPORT_NARROW, 0);
        }
    }
}

/* Each lane writes its request's tokens if they are few (GPU_SHORT_RUN); then the warp writes the long requests one by
 * one. */
DM_FN void gpu_write_runs(const dm_job &job, const gpu_request &req, const sums &before, const gpu_slice &slice)
{
    if (job.capacity == INT64_MAX)
        return; /* no output per token */
    uint64_t long_lanes = (uint64_t)gpu_ballot(req.q > GPU_SHORT_RUN);
    gpu_request run = req;
    sums run_before = before;
    int first = 0, step = 1;
    if (req.q > GPU_SHORT_RUN)
        run.q = 0;
    for (int lane = -1;;) {
        gpu_write_tokens(job, run, run_before, slice, first, step);
        if (!long_lanes)
            return;
        for (lane++; !(long_lanes & 1); long_lanes >>= 1)
            lane++;
        long_lanes >>= 1;
        const uint64_t lengths = gpu_from_lane((uint64_t)(uint32_t)req.kv << 32 | (uint32_t)req.q, lane);
        run.r = (int32_t)gpu_from_lane((uint64_t)(uint32_t)req.r, lane);
        run.kv = (int32_t)(lengths >> 32);
        run.q = (int32_t)(uint32_t)lengths;
        run_before = gpu_broadcast(before, SUM_TOKENS | SUM_SPARSE, lane);
        first = gpu_lane();
        step = gpu_warp_size();
    }
}

/* Tokens behind the last request's, and the end of their prefix. */
DM_FN void gpu_write_padding(const dm_job &job, const sums &total, const gpu_slice &slice, int threads)
{
    const int64_t tokens = (int64_t)total.tokens, written = dm_tokens_written(&job, tokens);
#pragma unroll 1
    for (int64_t t = gpu_max(tokens, slice.low) + threadIdx.x; t <= written && t < slice.high; t += threads) {
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

/* Behind the last request: padding and ends. */
DM_FN void gpu_finish_rows(const dm_job &job, const sums &total, const gpu_slice &slice, int threads)
{
    if (job.padded_tokens || job.dsa_cu_seqlens_k)
        gpu_write_padding(job, total, slice, threads);
    if (slice.low == 0 && threadIdx.x == 0)
        gpu_write_ends(job, total);
}

/* All requests at once, one a thread, if each of them is small; returns whether it was so. */
DM_FN bool gpu_fill_small_rows(const dm_job &job, bool one_warp, int threads)
{
    const unsigned wanted = gpu_sums_of_rows(job);
    gpu_request req = gpu_read(job, threadIdx.x);
    const small_sums own = gpu_small_sums_of(job, req, wanted);
    gpu_scan_result<uint32_t> scan =
        gpu_scan(own, own, wanted, false, one_warp, job.padded_requests, !gpu_is_small(req));
    if (scan.any)
        return false;
    if (!job.extend) {
        scan.before.tokens = gpu_min(threadIdx.x, job.num_requests) * job.extend_len;
        scan.total.tokens = (uint32_t)(job.num_requests * job.extend_len);
    }
    if ((int)threadIdx.x < job.padded_requests)
        gpu_write_request(job, req, scan.before);
    if (job.capacity != INT64_MAX)
        gpu_write_few_tokens(job, req, scan.before);
    gpu_finish_rows(job, sums{scan.total.tokens, scan.total.kv, scan.total.sparse}, gpu_slice{0, INT64_MAX}, threads);
    return true;
}

/* One request a thread, from tile on; returns the sums over everything up to the tile's end. before: those before the
 * tile, or this thread's share of them. */
DM_FN sums gpu_fill_tile(const dm_job &job, int64_t tile, int64_t end, const sums &before, bool is_share, bool one_warp,
                         const gpu_slice &slice)
{
    const unsigned wanted = gpu_sums_of_rows(job);
    gpu_request req = {0, 0, 0, 0};
    if (tile + threadIdx.x < end)
        req = gpu_read(job, tile + threadIdx.x);
    gpu_scan_result<uint64_t> scan = {{0, 0, 0}, {0, 0, 0}, false};
    if (wanted)
        scan =
            gpu_scan(gpu_sums_of(job, req, wanted), before, wanted, is_share, one_warp, (int)gpu_min(end, 64), false);
    if (!is_share) {
        gpu_add(scan.before, before);
        gpu_add(scan.total, before);
    }
    if (!job.extend) {
        scan.before.tokens = (uint64_t)gpu_min(tile + threadIdx.x, job.num_requests) * (uint32_t)job.extend_len;
        scan.total.tokens = (uint64_t)job.num_requests * (uint32_t)job.extend_len;
    }
    if (slice.low == 0 && tile + threadIdx.x < end)
        gpu_write_request(job, req, scan.before);
    gpu_write_runs(job, req, scan.before, slice);
    return scan.total;
}

DM_FN void gpu_fill_rows(const dm_job &job, const gpu_blocks &blocks, int chunk, int index)
{
    const bool one_warp = job.padded_requests <= gpu_warp_size();
    const int threads = one_warp ? gpu_warp_size() : (int)blockDim.x;
    if ((int)threadIdx.x >= threads)
        return;
    if (blocks.small && gpu_fill_small_rows(job, one_warp, threads))
        return;
    const int64_t low = index * blocks.slice, high = low + blocks.slice;
    const gpu_slice slice = {low, (index + 1) >> blocks.slice_shift ? INT64_MAX : high};
    const int64_t first = (int64_t)chunk * blocks.chunk;
    const int64_t end = gpu_min(first + blocks.chunk, job.padded_requests);
    const unsigned wanted = gpu_sums_of_rows(job);
    sums before = {0, 0, 0};
    if (wanted && first)
        before = gpu_share_before(job, gpu_min(first, job.num_requests), wanted);
    bool is_share = wanted && first;
    int64_t tile = first;
    do { /* once even without requests */
        if (!one_warp)
            __syncthreads(); /* the last scan's readers are done */
        before = gpu_fill_tile(job, tile, end, before, is_share, one_warp, slice);
        is_share = false;
        tile += blockDim.x;
    } while (tile < end);
    if (end == job.padded_requests)
        gpu_finish_rows(job, before, slice, threads);
}

/* ---- Table blocks ---- */

/* The tokens before request r. The whole block must come here together. Each warp sums by itself where that is no more
 * than a few loads a lane. */
DM_FN uint64_t gpu_tokens_before(const dm_job &job, int64_t r)
{
    __shared__ uint64_t warp_sums[GPU_MAX_WARPS];
    const int warp_size = gpu_warp_size(), last = warp_size - 1, warps = (int)blockDim.x / warp_size;
    const bool by_warp = r <= 4 * warp_size;
    const sums up = gpu_warp_scan(sums{gpu_share_of_tokens(job, r, by_warp ? gpu_lane() : (int)threadIdx.x,
                                                           by_warp ? warp_size : (int)blockDim.x),
                                       0, 0},
                                  SUM_TOKENS, warp_size);
    if (by_warp)
        return gpu_from_lane(up.tokens, last);
    if (gpu_lane() == last)
        warp_sums[threadIdx.x / warp_size] = up.tokens;
    __syncthreads();
    uint64_t sum = 0;
#pragma unroll 1
    for (int w = 0; w < warps; w++)
        sum += warp_sums[w];
    return sum;
}

/* Where a table block is among the tokens. Known late, so that loads of the tables need not wait for it. */
typedef struct gpu_cursor {
    int64_t first; /* the block's first request */
    int64_t t;     /* of the current request; -1: not known yet */
} gpu_cursor;

/* The whole block must come here together. */
DM_FN void gpu_locate(const dm_job &job, gpu_cursor &at)
{
    if (at.t >= 0)
        return;
    if (!job.extend)
        at.t = at.first * job.extend_len;
    else
        at.t = at.first ? (int64_t)gpu_tokens_before(job, at.first) : 0;
}

/* One page table as a strided copy of a source row. */
typedef struct gpu_table {
    int32_t *data;
    int64_t stride, cols;
    int32_t live;
    int32_t step; /* elements of the source between two columns */
    bool divide;  /* slots become pages */
} gpu_table;

DM_FN gpu_table gpu_slot_table(const dm_job &job, int32_t kv)
{
    return gpu_table{
        job.page_table_1, job.page_table_1_stride, job.page_table_1_cols, (int32_t)dm_live_slots(&job, kv), 1, false};
}

DM_FN gpu_table gpu_page_table(const dm_job &job, int32_t kv)
{
    const bool divide = !(job.flags & DM_JOB_BLOCK_TABLE);
    return gpu_table{job.page_table,
                     job.page_table_stride,
                     job.page_table_cols,
                     (int32_t)dm_live_pages(&job, kv),
                     divide ? job.page_size : 1,
                     divide};
}

DM_FN void gpu_store_column(int32_t *out, int64_t stride, int64_t rows, int32_t value)
{
#pragma unroll 1
    for (int64_t i = 0; i < rows; i++, out += stride)
        *out = value;
}

/* The columns of a request's rows that fall to this block, of 1 << split_shift. */
DM_FN void gpu_write_columns(const dm_job &job, const gpu_table &table, const int32_t *source, int32_t q,
                             gpu_cursor &at, int split, int split_shift)
{
    const int64_t across = (int64_t)blockDim.x << split_shift;
#pragma unroll 1
    for (int64_t base = (int64_t)split * blockDim.x; base < table.live; base += GPU_IN_FLIGHT * across) {
        int32_t slots[GPU_IN_FLIGHT];
        const int64_t c = base + threadIdx.x;
#pragma unroll
        for (int i = 0; i < GPU_IN_FLIGHT; i++)
            if (c + i * across < table.live)
                slots[i] = source[(c + i * across) * table.step];
        gpu_locate(job, at);
        int32_t *out = table.data + at.t * table.stride + c;
        const int64_t rows = gpu_min(q, job.capacity - at.t);
#pragma unroll
        for (int i = 0; i < GPU_IN_FLIGHT; i++)
            if (c + i * across < table.live)
                gpu_store_column(out + i * across, table.stride, rows,
                                 table.divide ? dm_page_of(&job, slots[i]) : slots[i]);
    }
}

/* Zeroes the columns behind the live ones. */
DM_FN void gpu_clear_columns(const gpu_table &table, int64_t t, int64_t rows, int split, int split_shift)
{
#pragma unroll 1
    for (int64_t c = table.live + (int64_t)split * blockDim.x + threadIdx.x; c < table.cols;
         c += (int64_t)blockDim.x << split_shift)
        gpu_store_column(table.data + t * table.stride + c, table.stride, rows, 0);
}

DM_FN void gpu_write_tables(const dm_job &job, const int32_t *source, int32_t kv, int32_t q, gpu_cursor &at, int split,
                            int split_shift)
{
#pragma unroll 1
    for (int i = 0; i < 2; i++) {
        const gpu_table table = i == 0 ? gpu_page_table(job, kv) : gpu_slot_table(job, kv);
        if (!table.data)
            continue;
        gpu_write_columns(job, table, source, q, at, split, split_shift);
        if (job.flags & DM_JOB_FULL_ROWS) {
            gpu_locate(job, at);
            gpu_clear_columns(table, at.t, gpu_min(q, job.capacity - at.t), split, split_shift);
        }
    }
}

/* Rows T .. E - 1: all their columns are zero. */
DM_FN void gpu_pad_tables(const dm_job &job, gpu_cursor &at, int split, int split_shift)
{
    gpu_locate(job, at);
    const int64_t rows = dm_tokens_written(&job, at.t) - at.t;
    gpu_table slots = gpu_slot_table(job, 0), pages = gpu_page_table(job, 0);
    if (slots.data)
        gpu_clear_columns(slots, at.t, rows, split, split_shift);
    if (pages.data)
        gpu_clear_columns(pages, at.t, rows, split, split_shift);
}

DM_FN void gpu_fill_tables(const dm_job &job, const gpu_blocks &blocks, int group, int split)
{
    const int64_t first = gpu_min((int64_t)group * blocks.group, job.num_requests);
    const int64_t end = gpu_min(first + blocks.group, job.num_requests);
    gpu_cursor at = {first, -1};
#pragma unroll 1
    for (int64_t r = first; r < end; r++) {
        gpu_request req = gpu_read(job, r);
        const int64_t row = dm_source_row(&job, r, &req.flags);
        const int32_t *source = job.source + row * job.source_stride;
        gpu_write_tables(job, source, row < 0 ? 0 : req.kv, req.q, at, split, blocks.split_shift);
        if (r + 1 < end) {
            gpu_locate(job, at);
            at.t += req.q;
        }
    }
    if (first == job.num_requests && blocks.padding_group)
        gpu_pad_tables(job, at, split, blocks.split_shift);
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

DM_FN int64_t gpu_requests_per_thread(const dm_job &job)
{
    return ((uint32_t)job.num_requests + blockDim.x - 1) / blockDim.x;
}

DM_FN void gpu_sum_chunks(const dm_job &job, const dm_job_schedule &s, gpu_chunk_sums &chunks)
{
    const int64_t per_thread = gpu_requests_per_thread(job), first = threadIdx.x * per_thread;
    sums own = {0, 0, 0};
#pragma unroll 1
    for (int64_t r = first; r < gpu_min(first + per_thread, job.num_requests); r++) {
        const gpu_request req = gpu_read(job, r);
        own.tokens += (uint64_t)req.q;
        own.kv += gpu_segments_of(s, req);
    }
    const gpu_scan_result<uint64_t> scan = gpu_scan(own, own, SUM_TOKENS | SUM_KV, false, false, 0, false);
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
#pragma unroll 1
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
#pragma unroll 1
    for (int64_t r = chunk * gpu_requests_per_thread(job);; r++) {
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
    const int64_t per_thread = gpu_requests_per_thread(job), chunk = (uint32_t)r / (uint32_t)per_thread;
    uint64_t segments = chunks.segments[chunk];
#pragma unroll 1
    for (int64_t i = chunk * per_thread; i < r; i++)
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
    const uint32_t atoms = (uint32_t)s.atoms;
    const uint64_t segment = atoms == 1 ? start : dm_divide(start, atoms);
    const gpu_place at = gpu_find(job, s, chunks, segment, false);
    uint64_t unit = (uint64_t)at.req.r, before = at.segments;
    uint32_t c = (uint32_t)at.req.kv;
    if (s.flags & DM_SCHED_PER_TOKEN) {
        const int64_t j = dm_segment_token(&s, at.req.kv, at.req.q, segment - before);
        unit = at.tokens + (uint64_t)j;
        before += dm_segments_prefix(&s, at.req.kv, at.req.q, j);
        c = (uint32_t)dm_expanded(at.req.kv, at.req.q, j);
    }
    dm_put_entry(&s, slot, unit, start - before * atoms, dm_segments(&s, c));
}

/* A request with the tokens and segments before it. */
typedef struct gpu_small_place {
    uint32_t tokens, segments;
    int32_t kv, q;
} gpu_small_place;

DM_FN uint32_t gpu_few_segments_of(const dm_job_schedule &s, const gpu_request &req)
{
    uint32_t segments = 0;
    if (!(s.flags & DM_SCHED_PER_TOKEN))
        return dm_segments(&s, (uint32_t)req.kv);
#pragma unroll 1
    for (int j = 0; j < req.q && j < GPU_SHORT_RUN; j++)
        segments += dm_segments(&s, (uint32_t)dm_expanded(req.kv, req.q, j));
    return segments;
}

DM_FN void gpu_write_small_entry(const dm_job &job, const dm_job_schedule &s, const gpu_small_place *places,
                                 uint32_t slot, uint32_t start)
{
    const uint32_t atoms = (uint32_t)s.atoms, segment = atoms == 1 ? start : start / atoms;
    int low = 0, high = job.num_requests - 1;
#pragma unroll 1
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (places[middle].segments <= segment)
            low = middle;
        else
            high = middle - 1;
    }
    const gpu_small_place at = places[low];
    uint32_t unit = (uint32_t)low, before = at.segments, c = (uint32_t)at.kv;
    uint32_t segments = dm_segments(&s, c);
    if (s.flags & DM_SCHED_PER_TOKEN) {
        unit = at.tokens;
        segments = dm_segments(&s, (uint32_t)dm_expanded(at.kv, at.q, 0));
#pragma unroll 1
        for (int j = 1; before + segments <= segment; j++, unit++) {
            before += segments;
            segments = dm_segments(&s, (uint32_t)dm_expanded(at.kv, at.q, j));
        }
    }
    dm_put_entry(&s, slot, unit, start - before * atoms, segments);
}

/* All requests at once, one a thread, if each of them is small and none is dropped; returns whether it was so. */
DM_FN bool gpu_fill_small_schedule(const dm_job &job, const dm_job_schedule &s)
{
    __shared__ gpu_small_place places[GPU_MAX_THREADS];
    const gpu_request req = gpu_read(job, threadIdx.x);
    const small_sums own = {(uint32_t)req.q, gpu_few_segments_of(s, req), 0};
    const gpu_scan_result<uint32_t> scan = gpu_scan(own, own, SUM_TOKENS | SUM_KV, false, false, 0, !gpu_is_small(req));
    if (scan.any || scan.total.tokens > job.capacity)
        return false;
    places[threadIdx.x] = gpu_small_place{scan.before.tokens, scan.before.kv, req.kv, req.q};
    __syncthreads();
    const int64_t covered = dm_units_covered(&job, &s, dm_tokens_written(&job, scan.total.tokens));
    const uint32_t total = scan.total.kv * (uint32_t)s.atoms;
#pragma unroll 1
    for (uint32_t slot = threadIdx.x; slot <= (uint32_t)s.slots; slot += blockDim.x) {
        const uint64_t start = dm_slot_start(&s, total, slot);
        if (start < total)
            gpu_write_small_entry(job, s, places, slot, (uint32_t)start);
        else
            dm_put_entry(&s, slot, (uint64_t)covered, 0, 1);
    }
    return true;
}

DM_FN void gpu_fill_schedule(const dm_job &job, const dm_job_schedule &s, bool small)
{
    __shared__ gpu_chunk_sums chunks;
    if (small) {
        if (gpu_fill_small_schedule(job, s))
            return;
        __syncthreads(); /* the scan's readers are done */
    }
    gpu_sum_chunks(job, s, chunks);
    const int64_t written = dm_tokens_written(&job, (int64_t)chunks.tokens[blockDim.x]);
    const int64_t covered = dm_units_covered(&job, &s, written);
    const uint64_t total = gpu_covered_segments(job, s, chunks, covered) * (uint64_t)s.atoms;
#pragma unroll 1
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

/* ---- The kernels' bodies ---- */

/* Block number block of the job. */
DM_FN void gpu_fill(const dm_job &job, const gpu_blocks &blocks, int block)
{
    const int rows = blocks.row_chunks << blocks.slice_shift, tables = rows + blocks.schedules;
    if (block >= tables) {
        const int split = (block - tables) & ((1 << blocks.split_shift) - 1);
        gpu_fill_tables(job, blocks, (block - tables) >> blocks.split_shift, split);
    } else if (block >= rows) {
        gpu_fill_schedule(job, job.schedules[job.schedules[0].table ? block - rows : 1], blocks.small);
    } else {
        gpu_fill_rows(job, blocks, block >> blocks.slice_shift, block & ((1 << blocks.slice_shift) - 1));
    }
}

DM_FN void gpu_fill_many(const gpu_launch_many &launch)
{
    int k = 0;
    while ((int)blockIdx.x >= launch.blocks[k].end)
        k++;
    gpu_fill(launch.jobs[k], launch.blocks[k], (int)blockIdx.x - (k ? launch.blocks[k - 1].end : 0));
}

#endif
