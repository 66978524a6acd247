/* The kernel, for every GPU. A vendor's source file includes this after it has defined
 *     DM_FN                        how a device function is declared
 *     gpu_warp_size()              lanes of a warp: 32 or 64
 *     gpu_from_lane(v, lane)       a 32- or 64-bit value from one lane of a full warp
 *     gpu_ballot(p)                the lanes of a full warp where p holds
 *     gpu_warp_sum(v)              the sum of a 32- or 64-bit value over a full warp, in every lane
 *     gpu_add_below(v, d)          v and, where there is one, that of the lane d below: 32- or 64-bit, of a full warp
 *     gpu_or32, gpu_max32, gpu_max64(ptr, v)   atomics on global memory
 * and includes it where threadIdx, blockIdx, blockDim, __shared__ and __syncthreads mean what they do in CUDA and HIP.
 *
 * One launch, no workspace, and no block waits for another: a block that needs a sum over earlier requests computes it.
 * Blocks have roles (gpu_blocks). Row blocks write everything per request and the lengths per token. A schedule block
 * writes one schedule. Table blocks write page-table rows.
 *
 * The time of a small fill is that of fetching instructions for the first time, and of dependent loads. So requests
 * that are one to a thread are first tried on the small path: 32-bit sums, and loops over a request's few tokens. It
 * notices by itself when a request is too large for that, and the general path follows. Loops that run a few times are
 * not unrolled. */
#ifndef DRAFTMETA_GPU_FILL_H
#define DRAFTMETA_GPU_FILL_H

#include "formula.h"
#include "launch.h"

enum {
    GPU_MIN_WARP = 32,
    GPU_MAX_WARPS = GPU_MAX_THREADS / GPU_MIN_WARP,
    GPU_SMALL_KV = 1 << 22, /* with this and GPU_SMALL_KEPT no sum over a block's requests leaves an int32 */
    GPU_IN_FLIGHT = 4,      /* columns that a thread loads before it stores the first */
    GPU_QUADS = 8,          /* 16-byte loads on their way together; where that is enough, few */
    GPU_FEW_QUADS = 2
};

/* The sums that a job needs. */
enum { SUM_TOKENS = 1, SUM_KV = 2, SUM_SPARSE = 4 };

template <class Int> struct gpu_sums {
    Int tokens, kv, sparse;
};
typedef gpu_sums<uint64_t> sums;

typedef struct gpu_request {
    int32_t r, kv, q;
    uint32_t flags;
} gpu_request;

/* A request's lengths as they are in memory: both are loaded before either is looked at. */
typedef struct gpu_raw {
    int64_t seq, q;
} gpu_raw;

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

DM_FN gpu_raw gpu_load(const dm_job &job, int64_t r)
{
    if (r >= job.num_requests)
        return gpu_raw{0, 0};
    return gpu_raw{dm_load(job.seq_lens, job.flags & DM_JOB_SEQ64, r), dm_raw_q(&job, r)};
}

/* Request r, or no tokens where there is none. */
DM_FN gpu_request gpu_clamp(const dm_job &job, int64_t r, const gpu_raw &raw)
{
    gpu_request req = {(int32_t)r, 0, 0, 0};
    if (r >= job.num_requests)
        return req;
    req.kv = dm_kv_of(&job, raw.seq, &req.flags);
    req.q = dm_q_of(&job, raw.q, &req.flags);
    return req;
}

DM_FN gpu_request gpu_read(const dm_job &job, int64_t r)
{
    return gpu_clamp(job, r, gpu_load(job, r));
}

/* Whether the small path can hold the request. */
DM_FN bool gpu_is_small(const gpu_request &req)
{
    return req.q <= GPU_SHORT_RUN && req.kv < GPU_SMALL_KV;
}

/* ---- Sums over requests ---- */

DM_FN unsigned gpu_sums_of_rows(const dm_job &job)
{
    return (job.flags & DM_JOB_EXTEND ? SUM_TOKENS : 0) | (job.flags & DM_JOB_CU_SEQLENS_K ? SUM_KV : 0) |
           (job.flags & DM_JOB_DSA_CU_SEQLENS_K ? SUM_SPARSE : 0);
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

/* dm_sparse_prefix for small requests: zeros, then first, first + 1, ... up to topk. */
DM_FN uint32_t gpu_small_prefix(const dm_job &job, int32_t kv, int32_t q, int32_t j)
{
    const int32_t zeros = q - kv - 1 > 0 ? q - kv - 1 : 0, first = kv - q + 1 > 0 ? kv - q + 1 : 0;
    const int32_t n = j > zeros ? j - zeros : 0;
    if (job.pool_size > 1) {
        uint32_t sum = 0;
#pragma unroll 1
        for (int i = 0; i < n; i++)
            sum += (uint32_t)dm_sparse(first + i, job.topk, job.pool_size);
        return sum;
    }
    const int32_t room = job.topk - first > 0 ? job.topk - first : 0, rising = room < n ? room : n;
    return (uint32_t)(rising * first + rising * (rising - 1) / 2 + (n - rising) * job.topk);
}

/* One 16-byte load. */
typedef struct alignas(16) gpu_quad {
    int32_t a, b, c, d;
} gpu_quad;

DM_FN uint32_t gpu_or_zero(int32_t v)
{
    return v < 0 ? 0 : (uint32_t)v;
}

/* The tokens of every step-th request of 0 .. end - 1, from first on. The usual type has a loop of its own, with
 * several loads in flight. It runs from the end: blocks with other ends then ask for other lines at the same time. */
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
    int64_t rest = 0;
    if (end >= 4 * step && (uintptr_t)lengths % sizeof(gpu_quad) == 0) {
        const gpu_quad *quads = (const gpu_quad *)job.extend;
        rest = end / 4 * 4;
#pragma unroll 8
        for (int i = (int)(rest / 4) - 1 - first; i >= 0; i -= step) {
            const gpu_quad quad = quads[i];
            share += gpu_or_zero(quad.a) + gpu_or_zero(quad.b); /* two of them fit 32 bits */
            share += gpu_or_zero(quad.c) + gpu_or_zero(quad.d);
        }
    }
#pragma unroll 4
    for (int64_t r = rest + first; r < end; r += step)
        share += gpu_or_zero(lengths[r]);
    return share;
}

/* This thread's share of the sums over requests 0 .. end - 1. */
DM_FN sums gpu_share_before(const dm_job &job, int64_t end, unsigned wanted)
{
    sums share = {0, 0, 0};
    if (!(wanted & (SUM_KV | SUM_SPARSE))) {
        share.tokens = gpu_share_of_tokens(job, end, (int)threadIdx.x, (int)blockDim.x);
        return share;
    }
#pragma unroll 2
    for (int64_t r = threadIdx.x; r < end; r += blockDim.x)
        gpu_add(share, gpu_sums_of(job, gpu_read(job, r), wanted));
    return share;
}

/* Inclusive over the first lanes of the warp. */
template <class Int> DM_FN gpu_sums<Int> gpu_warp_scan(gpu_sums<Int> s, unsigned wanted, int lanes)
{
#pragma unroll 1
    for (int d = 1; d < lanes; d <<= 1) {
        if (wanted & SUM_TOKENS)
            s.tokens = gpu_add_below(s.tokens, d);
        if (wanted & SUM_KV)
            s.kv = gpu_add_below(s.kv, d);
        if (wanted & SUM_SPARSE)
            s.sparse = gpu_add_below(s.sparse, d);
    }
    return s;
}

template <class Int> DM_FN gpu_sums<Int> gpu_broadcast(const gpu_sums<Int> &s, unsigned wanted, int lane)
{
    gpu_sums<Int> out = {0, 0, 0};
    if (wanted & SUM_TOKENS)
        out.tokens = gpu_from_lane(s.tokens, lane);
    if (wanted & SUM_KV)
        out.kv = gpu_from_lane(s.kv, lane);
    if (wanted & SUM_SPARSE)
        out.sparse = gpu_from_lane(s.sparse, lane);
    return out;
}

template <class Int> struct gpu_scan_result {
    gpu_sums<Int> before; /* over the block's earlier requests */
    gpu_sums<Int> total;  /* over the block's requests */
    bool any;             /* whether any thread brought a mark */
};

/* Over the block, one request a thread, of which the first requests count: exclusive. Has one barrier; a block that
 * comes here twice puts another between. */
template <class Int>
DM_FN gpu_scan_result<Int> gpu_scan(const gpu_sums<Int> &own, unsigned wanted, int requests, bool mark)
{
    __shared__ gpu_sums<Int> totals[GPU_MAX_WARPS];
    __shared__ bool marks[GPU_MAX_WARPS];
    const int warp_size = gpu_warp_size(), warp = (int)threadIdx.x / warp_size;
    const int lanes = requests < warp_size ? requests : warp_size, warps = (requests + warp_size - 1) / warp_size;
    const gpu_sums<Int> up = gpu_warp_scan(own, wanted, lanes);
    const bool marked = gpu_ballot(mark) != 0;
    gpu_scan_result<Int> scan = {{up.tokens - own.tokens, up.kv - own.kv, up.sparse - own.sparse}, {0, 0, 0}, false};
    if (gpu_lane() == lanes - 1 && warp < warps) {
        totals[warp] = up;
        marks[warp] = marked;
    }
    __syncthreads();
#pragma unroll /* so that all loads are on their way together */
    for (int w = 0; w < GPU_MAX_WARPS; w++) {
        if (w >= warps)
            continue;
        if (w < warp)
            gpu_add(scan.before, totals[w]);
        gpu_add(scan.total, totals[w]);
        scan.any |= marks[w];
    }
    return scan;
}

/* The sum of all threads' shares: each warp puts its part, and behind a barrier every thread may gather them. */
typedef struct gpu_shares {
    sums of_warp[GPU_MAX_WARPS];
} gpu_shares;

DM_FN void gpu_put_share(gpu_shares &shares, const sums &share, unsigned wanted)
{
    sums sum = {0, 0, 0};
    if (wanted & SUM_TOKENS)
        sum.tokens = gpu_warp_sum(share.tokens);
    if (wanted & SUM_KV)
        sum.kv = gpu_warp_sum(share.kv);
    if (wanted & SUM_SPARSE)
        sum.sparse = gpu_warp_sum(share.sparse);
    if (gpu_lane() == 0)
        shares.of_warp[threadIdx.x / gpu_warp_size()] = sum;
}

DM_FN sums gpu_gather_shares(const gpu_shares &shares)
{
    const int warps = (int)blockDim.x / gpu_warp_size();
    sums sum = {0, 0, 0};
#pragma unroll /* so that all loads are on their way together */
    for (int w = 0; w < GPU_MAX_WARPS; w++)
        if (w < warps)
            gpu_add(sum, shares.of_warp[w]);
    return sum;
}

/* ---- Row blocks ---- */

/* Which of the row blocks of a chunk this is, of 1 << shift. They share the tokens of a tile on the small path, and the
 * range of all tokens on the general one. The first also writes what is per request. */
typedef struct gpu_slice {
    int index, shift;
    int64_t tokens; /* of its range */
} gpu_slice;

DM_FN int64_t gpu_low(const gpu_slice &slice)
{
    return slice.index * slice.tokens;
}

DM_FN int64_t gpu_high(const gpu_slice &slice)
{
    return (slice.index + 1) >> slice.shift ? INT64_MAX : gpu_low(slice) + slice.tokens;
}

DM_FN void gpu_report(const dm_job &job, uint32_t flags, int32_t bad_request)
{
    if (!(job.flags & DM_JOB_REPORT) || !flags)
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

/* tokens and kv: the sums before the request. */
DM_FN void gpu_write_request(const dm_job &job, gpu_request &req, uint64_t tokens, uint64_t kv)
{
    if (job.flags & DM_JOB_CACHE_SEQLENS)
        job.cache_seqlens[req.r] = req.kv;
    if (job.flags & DM_JOB_CU_SEQLENS_Q)
        job.cu_seqlens_q[req.r] = (int32_t)(uint32_t)gpu_min((int64_t)tokens, job.capacity);
    if (job.flags & DM_JOB_CU_SEQLENS_K)
        job.cu_seqlens_k[req.r] = (int32_t)(uint32_t)kv;
    if (!(job.flags & DM_JOB_REPORT))
        return;
    if (job.flags & DM_JOB_TABLES && req.r < job.num_requests)
        dm_source_row(&job, req.r, &req.flags);
    gpu_report(job, req.flags, req.r + 1);
}

DM_FN void gpu_write_lengths(const dm_job &job, int32_t r, int32_t kv, int64_t t, int32_t e)
{
    if (job.flags & DM_JOB_SEQLENS_EXPANDED)
        job.seqlens_expanded[t] = e;
    if (job.flags & DM_JOB_DSA_CACHE_SEQLENS)
        job.dsa_cache_seqlens[t] = dm_sparse(e, job.topk, job.pool_size);
    if (job.flags & DM_JOB_TOKEN_TO_REQ)
        job.token_to_req[t] = r;
    if (job.flags & DM_JOB_CONTEXT_LENS)
        job.context_lens[t] = dm_context_len(&job, job.flags & DM_JOB_CONTEXT_PER_REQUEST ? kv : e);
}

/* Tokens first, first + step, ... of one request, as far as they are in the slice and below the capacity. */
DM_FN void gpu_write_tokens(const dm_job &job, const gpu_request &req, const sums &before, const gpu_slice &slice,
                            int first, int step)
{
    const int64_t offset = (int64_t)before.tokens, high = gpu_min(gpu_high(slice), job.capacity + 1);
    const int64_t end = gpu_min(high - offset, req.q);
#pragma unroll 1
    for (int64_t j = gpu_max(gpu_low(slice) - offset, 0) + first; j < end; j += step) {
        const int64_t t = offset + j;
        if (t < job.capacity)
            gpu_write_lengths(job, req.r, req.kv, t, dm_expanded(req.kv, req.q, j));
        if (job.flags & DM_JOB_DSA_CU_SEQLENS_K) { /* at the capacity itself too: there the prefix ends */
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
        run.r = gpu_from_lane(req.r, lane);
        run.kv = gpu_from_lane(req.kv, lane);
        run.q = gpu_from_lane(req.q, lane);
        run_before = gpu_broadcast(before, SUM_TOKENS | SUM_SPARSE, lane);
        first = gpu_lane();
        step = gpu_warp_size();
    }
}

/* Tokens behind the last request's, and the end of their prefix. */
DM_FN void gpu_write_padding(const dm_job &job, const sums &total, const gpu_slice &slice, int threads)
{
    const int64_t tokens = (int64_t)total.tokens, written = dm_tokens_written(&job, tokens), high = gpu_high(slice);
#pragma unroll 1
    for (int64_t t = gpu_max(tokens, gpu_low(slice)) + threadIdx.x; t <= written && t < high; t += threads) {
        bool narrow = false;
        if (job.flags & DM_JOB_DSA_CU_SEQLENS_K)
            narrow = gpu_store(&job.dsa_cu_seqlens_k[t], total.sparse);
        if (t < written) {
            if (job.flags & DM_JOB_SEQLENS_EXPANDED)
                job.seqlens_expanded[t] = 0;
            if (job.flags & DM_JOB_DSA_CACHE_SEQLENS)
                job.dsa_cache_seqlens[t] = 0;
            if (job.flags & DM_JOB_CONTEXT_LENS)
                job.context_lens[t] = 0;
            if (job.flags & DM_JOB_TOKEN_TO_REQ)
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
    if (job.flags & DM_JOB_CU_SEQLENS_Q)
        narrow |= gpu_store(&job.cu_seqlens_q[job.padded_requests], kept);
    if (job.flags & DM_JOB_CU_SEQLENS_K)
        narrow |= gpu_store(&job.cu_seqlens_k[job.padded_requests], total.kv);
    if (job.flags & DM_JOB_NUM_TOKENS)
        narrow |= gpu_store(job.num_tokens, kept);
    if (!(job.flags & DM_JOB_REPORT))
        return;
    gpu_report(job, (narrow ? DM_REPORT_NARROW : 0) | (tokens > job.capacity ? DM_REPORT_TOKENS_DROPPED : 0), 0);
    gpu_max64(&job.report->tokens_wanted, total.tokens);
}

/* Behind the last request, by the block's first threads: padding and ends. */
DM_FN void gpu_finish_rows(const dm_job &job, const sums &total, const gpu_slice &slice, int threads)
{
    const uint32_t ends = DM_JOB_CU_SEQLENS_Q | DM_JOB_CU_SEQLENS_K | DM_JOB_NUM_TOKENS | DM_JOB_REPORT;
    if (job.flags & ends && slice.index == 0 && (int)threadIdx.x == threads - 1)
        gpu_write_ends(job, total);
    if (job.flags & DM_JOB_TOKENS && (job.padded_tokens || job.flags & DM_JOB_DSA_CU_SEQLENS_K))
        gpu_write_padding(job, total, slice, threads);
}

DM_FN gpu_sums<uint32_t> gpu_small_sums_of(const dm_job &job, const gpu_request &req, unsigned wanted)
{
    gpu_sums<uint32_t> own = {(uint32_t)req.q, (uint32_t)req.kv, 0};
    if (wanted & SUM_SPARSE && gpu_is_small(req))
        own.sparse = gpu_small_prefix(job, req.kv, req.q, req.q);
    return own;
}

/* A small request's tokens, by one lane. base, and in it before: the sums before the request. */
DM_FN void gpu_write_lane_tokens(const dm_job &job, const gpu_request &req, const sums &base,
                                 const gpu_sums<uint32_t> &before)
{
    const int64_t first = (int64_t)(base.tokens + before.tokens), room = job.capacity - first;
    uint64_t sparse = base.sparse + before.sparse;
    int32_t e = req.kv - req.q + 1;
#pragma unroll 1
    for (int32_t j = 0; j < req.q && j <= room; j++, e++) {
        const int32_t seen = e < 0 ? 0 : e;
        if (j < room)
            gpu_write_lengths(job, req.r, req.kv, first + j, seen);
        if (job.flags & DM_JOB_DSA_CU_SEQLENS_K) { /* at the capacity itself too: there the prefix ends */
            if (gpu_store(&job.dsa_cu_seqlens_k[first + j], sparse))
                gpu_report(job, DM_REPORT_NARROW, 0);
            sparse += (uint32_t)dm_sparse(seen, job.topk, job.pool_size);
        }
    }
}

/* All of the job's rows by one warp, a request a lane, if there are so few and each is small: no barrier stands before
 * the writes. */
DM_FN bool gpu_fill_few_rows(const dm_job &job, const gpu_slice &slice)
{
    __shared__ bool is_large;
    if ((int)threadIdx.x < gpu_warp_size()) {
        const unsigned wanted = gpu_sums_of_rows(job) | SUM_TOKENS;
        const int requests = job.padded_requests;
        gpu_request req = gpu_read(job, threadIdx.x);
        const gpu_sums<uint32_t> own = gpu_small_sums_of(job, req, wanted), up = gpu_warp_scan(own, wanted, requests);
        const bool any_large = gpu_ballot(!gpu_is_small(req)) != 0;
        if (!any_large && slice.index == 0) {
            const gpu_sums<uint32_t> before = {up.tokens - own.tokens, up.kv - own.kv, up.sparse - own.sparse};
            if (job.flags & DM_JOB_TOKENS)
                gpu_write_lane_tokens(job, req, sums{0, 0, 0}, before);
            if ((int)threadIdx.x < requests)
                gpu_write_request(job, req, before.tokens, before.kv);
            const gpu_sums<uint32_t> total = gpu_broadcast(up, wanted, requests ? requests - 1 : 0);
            gpu_finish_rows(job, sums{total.tokens, total.kv, total.sparse}, gpu_slice{0, 0, 0}, gpu_warp_size());
        }
        if (threadIdx.x == 0)
            is_large = any_large;
    }
    __syncthreads();
    return !is_large;
}

/* On the small path a slice has every (1 << shift)-th group of requests. */
DM_FN bool gpu_has_thread(const gpu_slice &slice)
{
    return (((int)threadIdx.x / GPU_GROUP) & ((1 << slice.shift) - 1)) == slice.index;
}

/* The slice's part of a tile whose requests are small, one a thread. base, and in it the scan: the sums before. */
DM_FN void gpu_write_small_tile(const dm_job &job, gpu_request &req, int requests, const sums &base,
                                const gpu_scan_result<uint32_t> &scan, const gpu_slice &slice)
{
    if ((int)threadIdx.x >= requests || !gpu_has_thread(slice))
        return;
    if (job.flags & DM_JOB_TOKENS)
        gpu_write_lane_tokens(job, req, base, scan.before);
    gpu_write_request(job, req, base.tokens + scan.before.tokens, base.kv + scan.before.kv);
}

/* The slice's part of a tile of any requests; adds its sums to base. */
DM_FN void gpu_fill_tile(const dm_job &job, gpu_request &req, int requests, sums &base, const gpu_slice &slice)
{
    const unsigned wanted = gpu_sums_of_rows(job) | SUM_TOKENS;
    gpu_scan_result<uint64_t> scan = gpu_scan(gpu_sums_of(job, req, wanted), wanted, requests, false);
    gpu_add(scan.before, base);
    if (slice.index == 0 && (int)threadIdx.x < requests)
        gpu_write_request(job, req, scan.before.tokens, scan.before.kv);
    if (job.flags & DM_JOB_TOKENS)
        gpu_write_runs(job, req, scan.before, slice);
    gpu_add(base, scan.total);
}

DM_FN void gpu_fill_rows(const dm_job &job, const gpu_blocks &blocks, gpu_shares &shares, int chunk, int index)
{
    const gpu_slice slice = {index, blocks.slice_shift, blocks.slice};
    if (blocks.small && job.padded_requests <= gpu_warp_size() && gpu_fill_few_rows(job, slice))
        return;
    const unsigned wanted = gpu_sums_of_rows(job);
    const int64_t first = (int64_t)chunk * blocks.chunk, before = gpu_min(first, job.num_requests);
    const int64_t end = gpu_min(first + blocks.chunk, job.padded_requests);
    sums base = {wanted & SUM_TOKENS ? 0 : (uint64_t)before * (uint32_t)job.extend_len, 0, 0};
    gpu_raw raw = gpu_load(job, first + threadIdx.x);
    const bool redo = before > 0 && wanted;
    if (redo)
        gpu_put_share(shares, gpu_share_before(job, before, wanted), wanted);
    for (int64_t tile = first; tile < end; tile += blockDim.x) {
        const int requests = (int)gpu_min(end - tile, blockDim.x);
        gpu_request req = gpu_clamp(job, tile + threadIdx.x, raw);
        gpu_scan_result<uint32_t> scan = {{0, 0, 0}, {0, 0, 0}, true};
        if (tile + blockDim.x < end)
            raw = gpu_load(job, tile + blockDim.x + threadIdx.x);
        if (tile != first)
            __syncthreads(); /* the last tile's readers are done */
        if (blocks.small)
            scan = gpu_scan(gpu_small_sums_of(job, req, wanted | SUM_TOKENS), wanted | SUM_TOKENS, requests,
                            !gpu_is_small(req));
        else
            __syncthreads();
        if (redo && tile == first)
            gpu_add(base, gpu_gather_shares(shares));
        if (scan.any) {
            gpu_fill_tile(job, req, requests, base, slice);
        } else {
            gpu_write_small_tile(job, req, requests, base, scan, slice);
            gpu_add(base, sums{scan.total.tokens, scan.total.kv, scan.total.sparse});
        }
    }
    if (end == job.padded_requests)
        gpu_finish_rows(job, base, slice, (int)blockDim.x);
}

/* ---- Table blocks ---- */

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

/* The rows of one request, and this thread's part of their columns: first, first + across, ... */
typedef struct gpu_rows {
    int64_t t, count;
    int64_t first, across;
} gpu_rows;

DM_FN void gpu_store_column(int32_t *out, int64_t stride, int64_t rows, int32_t value)
{
#pragma unroll 1
    for (int64_t i = 0; i < rows; i++, out += stride)
        *out = value;
}

/* What a thread has loaded and not yet stored, of columns c, c + across, ... */
typedef struct gpu_batch {
    int32_t slots[GPU_IN_FLIGHT];
} gpu_batch;

DM_FN void gpu_load_columns(const gpu_table &table, const int32_t *source, int64_t c, int64_t across, gpu_batch &batch)
{
#pragma unroll
    for (int i = 0; i < GPU_IN_FLIGHT; i++)
        if (c + i * across < table.live)
            batch.slots[i] = source[(c + i * across) * table.step];
}

/* batch holds the first columns already. */
DM_FN void gpu_write_columns(const dm_job &job, const gpu_table &table, const int32_t *source, const gpu_rows &rows,
                             gpu_batch &batch)
{
    int32_t *out = table.data + rows.t * table.stride;
#pragma unroll 1
    for (int64_t c = rows.first; c < table.live;) {
#pragma unroll
        for (int i = 0; i < GPU_IN_FLIGHT; i++)
            if (c + i * rows.across < table.live)
                gpu_store_column(out + c + i * rows.across, table.stride, rows.count,
                                 table.divide ? dm_page_of(&job, batch.slots[i]) : batch.slots[i]);
        c += GPU_IN_FLIGHT * rows.across;
        gpu_load_columns(table, source, c, rows.across, batch);
    }
}

/* Zeroes the columns behind the live ones. */
DM_FN void gpu_clear_columns(const gpu_table &table, const gpu_rows &rows)
{
#pragma unroll 1
    for (int64_t c = table.live + rows.first; c < table.cols; c += rows.across)
        gpu_store_column(table.data + rows.t * table.stride + c, table.stride, rows.count, 0);
}

/* A request whose rows are to be written, with the first columns on their way. */
typedef struct gpu_pending {
    gpu_request req;
    const int32_t *source;
    gpu_table table; /* the first that is wanted */
    gpu_batch batch;
} gpu_pending;

DM_FN gpu_table gpu_first_table(const dm_job &job, int32_t kv)
{
    return job.page_table ? gpu_page_table(job, kv) : gpu_slot_table(job, kv);
}

DM_FN void gpu_begin_tables(const dm_job &job, int64_t r, int64_t first, int64_t across, gpu_pending &pending)
{
    const int64_t index = job.pool ? dm_load(job.pool, job.flags & DM_JOB_POOL64, r) : r; /* beside the lengths */
    pending.req = gpu_read(job, r);
    const int64_t row = dm_row_of(&job, index, &pending.req.flags);
    pending.source = job.source + (row < 0 ? 0 : row) * job.source_stride;
    if (row < 0)
        pending.req.kv = 0;
    pending.table = gpu_first_table(job, pending.req.kv);
    gpu_load_columns(pending.table, pending.source, first, across, pending.batch);
}

DM_FN void gpu_write_tables(const dm_job &job, gpu_pending &pending, const gpu_rows &rows)
{
    const bool full = job.flags & DM_JOB_FULL_ROWS;
    gpu_write_columns(job, pending.table, pending.source, rows, pending.batch);
    if (full)
        gpu_clear_columns(pending.table, rows);
    if (!job.page_table || !job.page_table_1)
        return;
    const gpu_table slots = gpu_slot_table(job, pending.req.kv);
    gpu_load_columns(slots, pending.source, rows.first, rows.across, pending.batch);
    gpu_write_columns(job, slots, pending.source, rows, pending.batch);
    if (full)
        gpu_clear_columns(slots, rows);
}

/* The tokens before request r. The whole block comes here together. Where that takes a lane a few loads at most, each
 * warp sums by itself, without a barrier. */
DM_FN int64_t gpu_tokens_before(const dm_job &job, gpu_shares &shares, int64_t r)
{
    if (!(job.flags & DM_JOB_EXTEND))
        return r * job.extend_len;
    if (r <= 4 * gpu_warp_size())
        return (int64_t)gpu_warp_sum(gpu_share_of_tokens(job, r, gpu_lane(), gpu_warp_size()));
    gpu_put_share(shares, sums{gpu_share_of_tokens(job, r, (int)threadIdx.x, (int)blockDim.x), 0, 0}, SUM_TOKENS);
    __syncthreads();
    return (int64_t)gpu_gather_shares(shares).tokens;
}

/* Rows T .. E - 1: all their columns are zero. */
DM_FN void gpu_pad_tables(const dm_job &job, gpu_shares &shares, int split, int split_shift)
{
    const int64_t t = gpu_tokens_before(job, shares, job.num_requests), across = (int64_t)blockDim.x << split_shift;
    const gpu_rows rows = {t, dm_tokens_written(&job, t) - t, (int64_t)split * blockDim.x + threadIdx.x, across};
    gpu_pending none = {{0, 0, 0, 0}, job.source, gpu_first_table(job, 0), {{0}}};
    gpu_write_tables(job, none, rows);
}

/* A block has 1 << team_shift teams of threads, each of which writes the rows of one request at a time. */
DM_FN void gpu_fill_tables(const dm_job &job, const gpu_blocks &blocks, gpu_shares &shares, int group, int split)
{
    const int64_t first = (int64_t)group * blocks.group, end = gpu_min(first + blocks.group, job.num_requests);
    if (first >= job.num_requests) {
        if (blocks.padding_group)
            gpu_pad_tables(job, shares, split, blocks.split_shift);
        return;
    }
    const int team_threads = (int)blockDim.x >> blocks.team_shift, team = (int)threadIdx.x / team_threads;
    const int64_t column = (int64_t)split * team_threads + (int)threadIdx.x % team_threads;
    const int64_t across = (int64_t)team_threads << blocks.split_shift;
    gpu_pending pending;
    int64_t r = first + team;
    if (r < end)
        gpu_begin_tables(job, r, column, across, pending);
    int64_t t = gpu_tokens_before(job, shares, first);
    int64_t behind = first; /* t is the first token of this request */
#pragma unroll 1
    while (r < end) {
        uint32_t flags = 0;
        for (; behind < r; behind++)
            t += dm_q(&job, behind, &flags);
        gpu_write_tables(job, pending, gpu_rows{t, gpu_min(pending.req.q, job.capacity - t), column, across});
        r += 1 << blocks.team_shift;
        if (r < end)
            gpu_begin_tables(job, r, column, across, pending);
    }
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
    const gpu_scan_result<uint64_t> scan = gpu_scan(own, SUM_TOKENS | SUM_KV, (int)blockDim.x, false);
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
DM_FN bool gpu_fill_small_schedule(const dm_job &job, const dm_job_schedule &s, gpu_small_place *places)
{
    const gpu_request req = gpu_read(job, threadIdx.x);
    const gpu_sums<uint32_t> own = {(uint32_t)req.q, gpu_few_segments_of(s, req), 0};
    const gpu_scan_result<uint32_t> scan = gpu_scan(own, SUM_TOKENS | SUM_KV, job.num_requests, !gpu_is_small(req));
    if (scan.any || scan.total.tokens > job.capacity)
        return false;
    if ((int)threadIdx.x < job.num_requests)
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

/* What the roles keep in shared memory; a block has one role. */
typedef union gpu_shared {
    gpu_shares shares;
    gpu_small_place places[GPU_MAX_THREADS];
    gpu_chunk_sums chunks;
} gpu_shared;

DM_FN void gpu_fill_schedule(const dm_job &job, const dm_job_schedule &s, gpu_shared &shared, bool small)
{
    if (small) {
        if (gpu_fill_small_schedule(job, s, shared.places))
            return;
        __syncthreads(); /* the scan's readers are done */
    }
    gpu_chunk_sums &chunks = shared.chunks;
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
}

/* ---- Lengths alone ---- */

/* Offsets count at most this many tokens of a request: what is behind the capacity is dropped anyway, and so sums fit
 * 32 bits. */
DM_FN uint32_t gpu_kept(const gpu_lengths &in, int32_t q)
{
    const int32_t least = q < in.capacity ? q : in.capacity;
    return (uint32_t)(least < 0 ? 0 : least);
}

DM_FN uint32_t gpu_least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Up to BATCH loads on their way together: the tokens of every step-th four requests from quads[i] downwards. */
template <int BATCH> DM_FN uint32_t gpu_kept_of_batch(const gpu_lengths &in, int i, int step)
{
    const gpu_quad *quads = (const gpu_quad *)in.extend;
    gpu_quad batch[BATCH];
    uint32_t sum = 0, kept = 0;
    int32_t all = 0;
#pragma unroll
    for (int k = 0; k < BATCH; k++)
        batch[k] = i >= k * step ? quads[i - k * step] : gpu_quad{0, 0, 0, 0};
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
        sum += (uint32_t)batch[k].a + (uint32_t)batch[k].b + (uint32_t)batch[k].c + (uint32_t)batch[k].d;
        all |= batch[k].a | batch[k].b | batch[k].c | batch[k].d;
    }
    if ((uint32_t)all < GPU_MAX_LENGTHS_CAPACITY) /* so is each of them, and none is negative */
        return sum;
#pragma unroll
    for (int k = 0; k < BATCH; k++)
        kept +=
            gpu_kept(in, batch[k].a) + gpu_kept(in, batch[k].b) + gpu_kept(in, batch[k].c) + gpu_kept(in, batch[k].d);
    return kept;
}

/* The tokens of every step-th four requests of 0 .. end - 1, from first on: up to the capacity. end is divisible by 4.
 * It runs from the end: blocks with other ends then ask for other lines at the same time. */
DM_FN uint32_t gpu_kept_of_some(const gpu_lengths &in, int32_t end, int first, int step)
{
    uint32_t kept = 0;
    int i = end / 4 - 1 - first;
    if (end / 4 <= GPU_FEW_QUADS * step)
        return gpu_kept_of_batch<GPU_FEW_QUADS>(in, i, step);
#pragma unroll 1
    for (; i >= 0; i -= GPU_QUADS * step)
        kept = gpu_least(kept + gpu_kept_of_batch<GPU_QUADS>(in, i, step), (uint32_t)in.capacity);
    return kept;
}

/* Tokens first, first + step, ... of n of a request, whose first one is at offset and sees e. */
DM_FN void gpu_write_expanded(const gpu_lengths &in, uint32_t offset, int32_t n, int32_t e, int first, int step)
{
    int32_t *expanded = in.seqlens_expanded ? in.seqlens_expanded + offset : nullptr;
    int32_t *sparse = in.dsa_cache_seqlens ? in.dsa_cache_seqlens + offset : nullptr;
#pragma unroll 1
    for (int32_t j = first; j < n; j += 4 * step) {
#pragma unroll
        for (int32_t i = 0; i < 4; i++) {
            const int32_t k = j + i * step;
            if (k >= n)
                continue;
            const int32_t seen = e + k < 0 ? 0 : e + k;
            if (expanded)
                expanded[k] = seen;
            if (sparse)
                sparse[k] = seen < in.topk ? seen : in.topk;
        }
    }
}

/* A request a lane: each writes its own if it is short; then the warp writes the long ones together. */
DM_FN void gpu_write_requests(const gpu_lengths &in, uint32_t offset, int32_t q, int32_t e)
{
    const uint32_t from = gpu_least(offset, (uint32_t)in.capacity);
    const int32_t n = (int32_t)gpu_least(gpu_kept(in, q), (uint32_t)in.capacity - from);
    uint64_t long_lanes = (uint64_t)gpu_ballot(n > GPU_SHORT_RUN);
    gpu_write_expanded(in, from, n > GPU_SHORT_RUN ? 0 : n, e, 0, 1);
#pragma unroll 1
    for (int lane = 0; long_lanes; lane++, long_lanes >>= 1)
        if (long_lanes & 1)
            gpu_write_expanded(in, gpu_from_lane(from, lane), gpu_from_lane(n, lane), gpu_from_lane(e, lane),
                               gpu_lane(), gpu_warp_size());
}

DM_FN uint32_t gpu_inclusive(uint32_t v)
{
#pragma unroll
    for (int d = 1; d < 64; d *= 2)
        if (d < gpu_warp_size())
            v = gpu_add_below(v, d);
    return v;
}

/* seq_lens[r] and q of a request, before their clamps. */
typedef struct gpu_pair {
    int64_t seq;
    int32_t q;
} gpu_pair;

DM_FN gpu_pair gpu_load_pair(const gpu_lengths &in, int32_t r)
{
    if (r >= in.num_requests)
        return gpu_pair{0, 0};
    return gpu_pair{dm_load(in.seq_lens, in.seq64, r), in.extend[r]};
}

DM_FN int32_t gpu_first_seen(const gpu_lengths &in, const gpu_pair &pair)
{
    uint32_t flags = 0;
    const int32_t kv = dm_clamp_length(dm_add_clamped(pair.seq, in.seq_len_bias), 0, &flags);
    return kv - (pair.q < 0 ? 0 : pair.q) + 1;
}

/* A warp's requests, one a lane, without the help of others. */
DM_FN void gpu_fill_lengths_by_warp(const gpu_lengths &in)
{
    const int32_t r = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), first = r - gpu_lane();
    if (first >= in.num_requests)
        return;
    const gpu_pair pair = gpu_load_pair(in, r);
    uint32_t before = 0;
    if (first)
        before = gpu_warp_sum(gpu_kept_of_some(in, first, gpu_lane(), gpu_warp_size()));
    const uint32_t own = gpu_kept(in, pair.q), offset = before + gpu_inclusive(own) - own;
    gpu_write_requests(in, offset, pair.q, gpu_first_seen(in, pair));
}

/* A block's requests, one a thread: all of its threads sum what is before them. */
DM_FN void gpu_fill_lengths_by_block(const gpu_lengths &in)
{
    __shared__ struct {
        uint32_t share, total;
    } sums_of[GPU_MAX_LENGTHS_THREADS / GPU_MIN_WARP];
    const int warp = (int)threadIdx.x / gpu_warp_size(), warps = (int)blockDim.x / gpu_warp_size();
    const int32_t first = (int32_t)blockIdx.x * in.chunk, r = first + (int32_t)threadIdx.x;
    const gpu_pair pair = gpu_load_pair(in, (int)threadIdx.x < in.chunk ? r : in.num_requests);
    const uint32_t share = gpu_warp_sum(gpu_kept_of_some(in, first, (int)threadIdx.x, (int)blockDim.x));
    const uint32_t own = gpu_kept(in, pair.q), up = gpu_inclusive(own);
    if (gpu_lane() == gpu_warp_size() - 1)
        sums_of[warp] = {gpu_least(share, (uint32_t)in.capacity), gpu_least(up, (uint32_t)in.capacity)};
    __syncthreads();
    uint32_t offset = up - own;
#pragma unroll /* so that all loads are on their way together */
    for (int w = 0; w < GPU_MAX_LENGTHS_THREADS / GPU_MIN_WARP; w++)
        if (w < warps)
            offset += sums_of[w].share + (w < warp ? sums_of[w].total : 0);
    gpu_write_requests(in, offset, pair.q, gpu_first_seen(in, pair));
}

DM_FN void gpu_fill_lengths(const gpu_lengths &in)
{
    if (in.chunk)
        gpu_fill_lengths_by_block(in);
    else
        gpu_fill_lengths_by_warp(in);
}

/* ---- The kernels' bodies ---- */

/* Block number block of the job. schedules are the job's, in memory that can be indexed. */
DM_FN void gpu_fill(const dm_job &job, const dm_job_schedule *schedules, const gpu_blocks &blocks, int block)
{
    __shared__ gpu_shared shared;
    const int rows = blocks.row_chunks << blocks.slice_shift, tables = rows + blocks.schedules;
    if (block >= tables) {
        const int split = (block - tables) & ((1 << blocks.split_shift) - 1);
        gpu_fill_tables(job, blocks, shared.shares, (block - tables) >> blocks.split_shift, split);
    } else if (block >= rows) {
        gpu_fill_schedule(job, schedules[schedules[0].table ? block - rows : 1], shared,
                          blocks.small && job.num_requests <= (int)blockDim.x);
    } else {
        gpu_fill_rows(job, blocks, shared.shares, block >> blocks.slice_shift, block & ((1 << blocks.slice_shift) - 1));
    }
}

/* The job as far as its kind is known: the compiler drops all that the kind does without. */
DM_FN dm_job gpu_known_job(const dm_job &job, uint32_t free, uint32_t fixed)
{
    dm_job known = job;
    known.flags = (job.flags & free) | fixed;
    known.pool_size = 1;
    known.padded_tokens = 0;
    known.page_table_1 = nullptr;
    known.page_shift = job.page_shift & 31;
    return known;
}

DM_FN void gpu_fill_set(const gpu_launch &launch)
{
    gpu_fill(gpu_known_job(launch.job, GPU_SET_FREE, GPU_SET_FIXED), launch.job.schedules, launch.blocks,
             (int)blockIdx.x);
}

/* Which job of the launch this block works for; *block becomes its number among that job's. */
DM_FN int gpu_job_of_block(const gpu_launch_many &launch, int *block)
{
    int k = 0;
    while ((int)blockIdx.x >= launch.blocks[k].end)
        k++;
    *block = (int)blockIdx.x - (k ? launch.blocks[k - 1].end : 0);
    return k;
}

DM_FN void gpu_fill_many(const gpu_launch_many &launch)
{
    int block;
    const int k = gpu_job_of_block(launch, &block);
    gpu_fill(launch.jobs[k], launch.jobs[k].schedules, launch.blocks[k], block);
}

DM_FN void gpu_fill_many_sets(const gpu_launch_many &launch)
{
    int block;
    const int k = gpu_job_of_block(launch, &block);
    gpu_fill(gpu_known_job(launch.jobs[k], GPU_SET_FREE, GPU_SET_FIXED), launch.jobs[k].schedules, launch.blocks[k],
             block);
}

#endif
