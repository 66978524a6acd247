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
 * Blocks have roles (gpu_blocks). Row blocks write everything per request and the lengths per token. Schedule blocks
 * write schedules. Table blocks write page-table rows.
 *
 * The time of a small fill is that of dependent loads and of the instructions between them, executed one after the
 * other. So loads are issued before anything looks at one of them, sums within a request are closed forms, common kinds
 * of jobs have kernels of their own in which the compiler drops what they do without, and their sums have 32 bits. */
#ifndef DRAFTMETA_GPU_FILL_H
#define DRAFTMETA_GPU_FILL_H

#include "formula.h"
#include "launch.h"

enum {
    GPU_MIN_WARP = 32,
    GPU_MAX_WARPS = GPU_MAX_THREADS / GPU_MIN_WARP,
    GPU_SHORT_RUN = 16, /* the most tokens of a request that its lane writes alone */
    GPU_COLUMNS = 2,    /* loads on their way together: columns, or many where rows are wide, */
    GPU_MANY_COLUMNS = 8,
    GPU_REQUESTS = 4, /* requests, */
    GPU_QUADS = 8,    /* and four lengths at once; where that is enough, few */
    GPU_FEW_QUADS = 4,
    GPU_WARP_PREFIX = 1024, /* the tokens of so many requests are summed by each warp for itself */
    GPU_SMALL_KV = 1 << 22  /* of a small schedule: the most KV tokens of a request; so no sum leaves 32 bits */
};

/* The sums that a job needs. */
enum { SUM_TOKENS = 1, SUM_KV = 2, SUM_SPARSE = 4 };

/* Over requests. In 64 bits they are exact. In 32 bits, for jobs without a report, tokens count up to one more than the
 * capacity and the others are the low bits, which is all that such a job stores. */
template <class Int> struct gpu_sums {
    Int tokens, kv, sparse;
};

/* What counts tokens, beside sums of that type. */
template <class Int> struct gpu_index {
    typedef int64_t type;
};
template <> struct gpu_index<uint32_t> {
    typedef int32_t type;
};

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

DM_FN int gpu_lane()
{
    return (int)threadIdx.x % gpu_warp_size();
}

DM_FN int gpu_warp()
{
    return (int)threadIdx.x / gpu_warp_size();
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

/* ---- Sums over requests ---- */

DM_FN unsigned gpu_sums_of_rows(const dm_job &job)
{
    return (job.flags & DM_JOB_EXTEND ? SUM_TOKENS : 0) | (job.flags & DM_JOB_CU_SEQLENS_K ? SUM_KV : 0) |
           (job.flags & DM_JOB_DSA_CU_SEQLENS_K ? SUM_SPARSE : 0);
}

/* The most tokens that a sum of the type counts: in 32 bits so many that it shows whether some are dropped. */
template <class Int> DM_FN Int gpu_most(const dm_job &job)
{
    return sizeof(Int) == sizeof(uint32_t) ? (Int)job.capacity + 1 : (Int)INT64_MAX;
}

template <class Int> DM_FN Int gpu_least(Int a, Int b)
{
    return a < b ? a : b;
}

DM_FN int32_t gpu_or_zero(int32_t v)
{
    return v < 0 ? 0 : v;
}

/* What the first token of a request sees, before its clamp; anything where there is none. */
DM_FN int32_t gpu_first_seen(int32_t kv, int32_t q)
{
    return (int32_t)((uint32_t)kv - (uint32_t)q + 1);
}

/* A length as memory has it, clamped and as far as it counts. */
template <class Int> DM_FN Int gpu_kept(int32_t q, Int most)
{
    return gpu_least((Int)gpu_or_zero(q), most);
}

template <class Int> DM_FN void gpu_add(gpu_sums<Int> &to, const gpu_sums<Int> &from)
{
    to.tokens += from.tokens;
    to.kv += from.kv;
    to.sparse += from.sparse;
}

/* dm_sparse. Where sums have 32 bits, pools are powers of two. */
template <class Int> DM_FN int32_t gpu_sparse(const dm_job &job, int32_t e)
{
    if (sizeof(Int) > sizeof(uint32_t))
        return dm_sparse(e, job.topk, job.pool_size);
    const int32_t tail = e & (job.pool_size - 1);
    return gpu_least(e - tail, job.topk) + tail;
}

/* 0 + 1 + ... + n - 1, its low bits. */
DM_FN uint32_t gpu_sum_below(uint32_t n)
{
    return (uint32_t)((uint64_t)n * (n - 1) / 2);
}

/* dm_sparse_sum, its low bits. */
DM_FN uint32_t gpu_sparse_sum(const dm_job &job, uint32_t m)
{
    const uint32_t topk = (uint32_t)job.topk, mask = (uint32_t)job.pool_size - 1, c = topk | mask;
    const uint32_t n = m > c ? m - c : 0, rest = n & mask;
    return gpu_sum_below(gpu_least(m, c) + 1) + topk * n + (n - rest) / 2 * mask + gpu_sum_below(rest);
}

/* dm_sparse_prefix; in 32 bits, and without pools, it is zeros, then first, first + 1, ... up to topk. */
template <class Int>
DM_FN Int gpu_sparse_prefix(const dm_job &job, int32_t kv, int32_t q, typename gpu_index<Int>::type j)
{
    if (sizeof(Int) > sizeof(uint32_t))
        return (Int)dm_sparse_prefix(&job, kv, q, j);
    if (job.pool_size > 1)
        return gpu_sparse_sum(job, (uint32_t)gpu_or_zero(kv - q + (int32_t)j)) -
               gpu_sparse_sum(job, (uint32_t)gpu_or_zero(kv - q));
    const int32_t first = gpu_or_zero(gpu_first_seen(kv, q)), zeros = gpu_or_zero(q - kv - 1);
    const int32_t n = (int32_t)j > zeros ? (int32_t)j - zeros : 0, room = job.topk - first > 0 ? job.topk - first : 0;
    const uint32_t rising = (uint32_t)(room < n ? room : n);
    return (Int)(rising * (uint32_t)first + gpu_sum_below(rising) + ((uint32_t)n - rising) * (uint32_t)job.topk);
}

template <class Int> DM_FN gpu_sums<Int> gpu_sums_of(const dm_job &job, const gpu_request &req, unsigned wanted)
{
    gpu_sums<Int> s = {gpu_kept(req.q, gpu_most<Int>(job)), (Int)req.kv, 0};
    if (wanted & SUM_SPARSE)
        s.sparse = gpu_sparse_prefix<Int>(job, req.kv, req.q, req.q);
    return s;
}

/* One 16-byte load. */
typedef struct alignas(16) gpu_quad {
    int32_t a, b, c, d;
} gpu_quad;

/* Up to BATCH loads on their way together: the tokens of every step-th four requests from quads[i] downwards. */
template <int BATCH, class Int> DM_FN Int gpu_tokens_of_batch(const gpu_quad *quads, Int most, int i, int step)
{
    gpu_quad batch[BATCH];
    uint32_t sum = 0, bits = 0;
    Int kept = 0;
#pragma unroll
    for (int k = 0; k < BATCH; k++)
        batch[k] = i >= k * step ? quads[i - k * step] : gpu_quad{0, 0, 0, 0};
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
        sum += (uint32_t)batch[k].a + (uint32_t)batch[k].b + (uint32_t)batch[k].c + (uint32_t)batch[k].d;
        bits |= (uint32_t)(batch[k].a | batch[k].b | batch[k].c | batch[k].d);
    }
    if (bits <= GPU_MAX_CAPACITY) /* so is each of them, and none is negative */
        return sum;
#pragma unroll
    for (int k = 0; k < BATCH; k++)
        kept += gpu_kept(batch[k].a, most) + gpu_kept(batch[k].b, most) + gpu_kept(batch[k].c, most) +
                gpu_kept(batch[k].d, most);
    return kept;
}

/* The tokens of every step-th request, or four requests, of 0 .. end - 1, from first on. It runs from the end: blocks
 * with other ends then ask for other lines at the same time. */
template <class Int> DM_FN Int gpu_tokens_of_some(const int32_t *lengths, Int most, int32_t end, int first, int step)
{
    const gpu_quad *quads = (const gpu_quad *)lengths;
    const int32_t num_quads = (uintptr_t)lengths % sizeof(gpu_quad) ? 0 : end / 4;
    Int sum = 0;
    if (num_quads <= GPU_FEW_QUADS * step) {
        sum = gpu_least(gpu_tokens_of_batch<GPU_FEW_QUADS>(quads, most, num_quads - 1 - first, step), most);
    } else {
#pragma unroll 1
        for (int i = num_quads - 1 - first; i >= 0; i -= GPU_QUADS * step)
            sum = gpu_least(sum + gpu_tokens_of_batch<GPU_QUADS>(quads, most, i, step), most);
    }
#pragma unroll 1
    for (int32_t r = 4 * num_quads + first; r < end; r += step)
        sum = gpu_least(sum + gpu_kept(lengths[r], most), most);
    return sum;
}

/* The same for the job's requests begin .. end - 1, in whatever form it has their lengths. */
template <class Int> DM_FN Int gpu_tokens_of_share(const dm_job &job, int32_t begin, int32_t end, int first, int step)
{
    const Int most = gpu_most<Int>(job);
    uint32_t flags = 0;
    Int sum = 0;
    if (!(job.flags & (DM_JOB_EXTEND64 | DM_JOB_QUERY_START)))
        return gpu_tokens_of_some((const int32_t *)job.extend + begin, most, end - begin, first, step);
#pragma unroll 1
    for (int64_t r = (int64_t)begin + first; r < end; r += step)
        sum = gpu_least(sum + gpu_kept(dm_q(&job, r, &flags), most), most);
    return sum;
}

/* The sums over requests r, r + step, ... below end, BATCH at most, loaded together. */
template <class Int, int BATCH>
DM_FN gpu_sums<Int> gpu_sums_of_batch(const dm_job &job, int64_t r, int32_t end, int step, unsigned wanted)
{
    gpu_sums<Int> sum = {0, 0, 0};
    gpu_raw raw[BATCH];
#pragma unroll
    for (int i = 0; i < BATCH; i++)
        raw[i] = gpu_load(job, r + i * step < end ? r + i * step : INT32_MAX);
#pragma unroll
    for (int i = 0; i < BATCH; i++)
        if (r + i * step < end)
            gpu_add(sum, gpu_sums_of<Int>(job, gpu_clamp(job, r + i * step, raw[i]), wanted));
    return sum;
}

/* This thread's share of the sums over requests 0 .. end - 1. */
template <class Int> DM_FN gpu_sums<Int> gpu_share_before(const dm_job &job, int32_t end, unsigned wanted)
{
    const int step = (int)blockDim.x;
    gpu_sums<Int> share = {0, 0, 0};
    if (!(wanted & (SUM_KV | SUM_SPARSE))) {
        share.tokens = gpu_tokens_of_share<Int>(job, 0, end, (int)threadIdx.x, step);
        return share;
    }
    if (end <= step)
        return gpu_sums_of_batch<Int, 1>(job, threadIdx.x, end, step, wanted);
#pragma unroll 1
    for (int64_t r = threadIdx.x; r < end; r += GPU_REQUESTS * step) {
        gpu_add(share, gpu_sums_of_batch<Int, GPU_REQUESTS>(job, r, end, step, wanted));
        share.tokens = gpu_least(share.tokens, gpu_most<Int>(job));
    }
    return share;
}

/* Inclusive over the warp. */
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
};

/* Over the block, one request a thread, of which the first requests count: exclusive. Has one barrier; a block that
 * comes here twice puts another between. */
template <class Int> DM_FN gpu_scan_result<Int> gpu_scan(const gpu_sums<Int> &own, unsigned wanted, int requests)
{
    __shared__ gpu_sums<Int> totals[GPU_MAX_WARPS];
    const int warp_size = gpu_warp_size(), warp = gpu_warp(), warps = (requests + warp_size - 1) / warp_size;
    const int lanes = requests < warp_size ? requests : warp_size;
    const gpu_sums<Int> up = gpu_warp_scan(own, wanted, lanes);
    gpu_scan_result<Int> scan = {{up.tokens - own.tokens, up.kv - own.kv, up.sparse - own.sparse}, {0, 0, 0}};
    if (gpu_lane() == lanes - 1 && warp < warps)
        totals[warp] = up;
    __syncthreads();
#pragma unroll /* so that all loads are on their way together */
    for (int w = 0; w < GPU_MAX_WARPS; w++) {
        if (w >= warps)
            continue;
        if (w < warp)
            gpu_add(scan.before, totals[w]);
        gpu_add(scan.total, totals[w]);
    }
    return scan;
}

/* The sum of all threads' shares: each warp puts its part, and behind a barrier every thread may gather them. */
template <class Int> struct gpu_shares {
    gpu_sums<Int> of_warp[GPU_MAX_WARPS];
};

template <class Int> DM_FN void gpu_put_share(gpu_shares<Int> &shares, const gpu_sums<Int> &share, unsigned wanted)
{
    gpu_sums<Int> sum = {0, 0, 0};
    if (wanted & SUM_TOKENS)
        sum.tokens = gpu_warp_sum(share.tokens);
    if (wanted & SUM_KV)
        sum.kv = gpu_warp_sum(share.kv);
    if (wanted & SUM_SPARSE)
        sum.sparse = gpu_warp_sum(share.sparse);
    if (gpu_lane() == 0)
        shares.of_warp[gpu_warp()] = sum;
}

template <class Int> DM_FN gpu_sums<Int> gpu_gather_shares(const gpu_shares<Int> &shares)
{
    const int warps = (int)blockDim.x / gpu_warp_size();
    gpu_sums<Int> sum = {0, 0, 0};
#pragma unroll /* so that all loads are on their way together */
    for (int w = 0; w < GPU_MAX_WARPS; w++)
        if (w < warps)
            gpu_add(sum, shares.of_warp[w]);
    return sum;
}

/* ---- Row blocks ---- */

/* Those that share the tokens of the same requests: blocks, or warps. Each computes the sums for itself, and writes
 * tokens index, index + count, ... of each request. */
typedef struct gpu_slice {
    int index, count;
} gpu_slice;

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

template <class Int> DM_FN void gpu_write_lengths(const dm_job &job, int32_t r, int32_t kv, int64_t t, int32_t e)
{
    if (job.flags & DM_JOB_SEQLENS_EXPANDED)
        job.seqlens_expanded[t] = e;
    if (job.flags & DM_JOB_DSA_CACHE_SEQLENS)
        job.dsa_cache_seqlens[t] = gpu_sparse<Int>(job, e);
    if (job.flags & DM_JOB_TOKEN_TO_REQ)
        job.token_to_req[t] = r;
    if (job.flags & DM_JOB_CONTEXT_LENS)
        job.context_lens[t] = dm_context_len(&job, job.flags & DM_JOB_CONTEXT_PER_REQUEST ? kv : e);
}

/* Tokens first, first + step, ... of one request. */
template <class Int>
DM_FN void gpu_write_run(const dm_job &job, const gpu_request &req, const gpu_sums<Int> &before, int first, int step)
{
    typedef typename gpu_index<Int>::type Index;
    const Index offset = (Index)before.tokens, room = (Index)job.capacity - offset, q = req.q;
    const Index end = gpu_least(room + 1, q); /* the prefix has an entry at the capacity too */
#pragma unroll 1
    for (Index j = first; j < end; j += step) {
        if (j < room)
            gpu_write_lengths<Int>(job, req.r, req.kv, offset + j, gpu_or_zero(req.kv - req.q + 1 + (int32_t)j));
        if (job.flags & DM_JOB_DSA_CU_SEQLENS_K) {
            const Int sparse = before.sparse + gpu_sparse_prefix<Int>(job, req.kv, req.q, j);
            if (gpu_store(&job.dsa_cu_seqlens_k[offset + j], sparse))
                gpu_report(job, DM_REPORT_NARROW, 0);
        }
    }
}

/* Each lane writes its request's tokens if they are few; then the warp writes the long runs one by one. */
template <class Int>
DM_FN void gpu_write_runs(const dm_job &job, const gpu_request &req, const gpu_sums<Int> &before,
                          const gpu_slice &slice)
{
    uint64_t long_lanes = (uint64_t)gpu_ballot(req.q > GPU_SHORT_RUN);
    if (req.q <= GPU_SHORT_RUN)
        gpu_write_run(job, req, before, slice.index, slice.count);
#pragma unroll 1
    for (int lane = 0; long_lanes; lane++, long_lanes >>= 1) {
        if (!(long_lanes & 1))
            continue;
        const gpu_request its = {gpu_from_lane(req.r, lane), gpu_from_lane(req.kv, lane), gpu_from_lane(req.q, lane),
                                 0};
        gpu_write_run(job, its, gpu_broadcast(before, SUM_TOKENS | SUM_SPARSE, lane),
                      slice.index * gpu_warp_size() + gpu_lane(), slice.count * gpu_warp_size());
    }
}

/* Tokens behind the last request's, and the end of their prefix: of these, number first, first + step, ... */
template <class Int> DM_FN void gpu_write_padding(const dm_job &job, const gpu_sums<Int> &total, int first, int step)
{
    typedef typename gpu_index<Int>::type Index;
    const Index tokens = (Index)total.tokens, written = (Index)dm_tokens_written(&job, (int64_t)total.tokens);
#pragma unroll 1
    for (Index t = tokens + first; t <= written; t += step) {
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
                narrow |= gpu_store(&job.token_to_req[t], (uint64_t)((int64_t)job.num_requests + t - tokens));
        }
        if (narrow)
            gpu_report(job, DM_REPORT_NARROW, 0);
    }
}

/* By one thread of the job: the ends of the prefixes, and what only the totals show. */
template <class Int> DM_FN void gpu_write_ends(const dm_job &job, const gpu_sums<Int> &total)
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

/* The tokens of the first r requests where all have the same number. */
template <class Int> DM_FN Int gpu_even_tokens(const dm_job &job, int32_t r)
{
    return (Int)gpu_least(r, job.num_requests) * (Int)job.extend_len;
}

/* What comes behind the last request, by threads that share it; the first has most to do. */
template <class Int> DM_FN void gpu_finish_rows(const dm_job &job, gpu_sums<Int> total, int thread, int threads)
{
    if (!(job.flags & DM_JOB_EXTEND))
        total.tokens = gpu_even_tokens<Int>(job, job.num_requests);
    if (thread == 0)
        gpu_write_ends(job, total);
    if (job.flags & DM_JOB_TOKENS && (job.padded_tokens || job.flags & DM_JOB_DSA_CU_SEQLENS_K))
        gpu_write_padding(job, total, thread, threads);
}

/* The block's requests, a tile of one a thread at a time. The first slice also writes what is per request. */
template <class Int>
DM_FN void gpu_fill_rows(const dm_job &job, const gpu_blocks &blocks, gpu_shares<Int> &shares, int chunk, int index)
{
    const unsigned wanted = gpu_sums_of_rows(job);
    const int threads = (int)blockDim.x, thread = (int)threadIdx.x;
    const gpu_slice slice = {index, 1 << blocks.slice_shift};
    const int64_t first = (int64_t)chunk * blocks.chunk, end = gpu_min(first + blocks.chunk, job.padded_requests);
    const int32_t before = (int32_t)gpu_min(first, job.num_requests);
    gpu_raw raw = gpu_load(job, first + thread);
    if (before > 0 && wanted)
        gpu_put_share(shares, gpu_share_before<Int>(job, before, wanted), wanted);
    gpu_sums<Int> base = {0, 0, 0};
    for (int64_t tile = first; tile < end; tile += threads) {
        const int64_t r = tile + thread;
        gpu_request req = gpu_clamp(job, r, raw);
        const gpu_sums<Int> own = gpu_sums_of<Int>(job, req, wanted);
        if (tile + threads < end)
            raw = gpu_load(job, r + threads);
        if (tile != first)
            __syncthreads(); /* the last tile's readers are done */
        gpu_scan_result<Int> scan = gpu_scan(own, wanted, (int)gpu_min(end - tile, threads));
        if (tile == first && before > 0 && wanted)
            base = gpu_gather_shares(shares);
        gpu_add(scan.before, base);
        if (!(wanted & SUM_TOKENS))
            scan.before.tokens = gpu_even_tokens<Int>(job, (int32_t)r);
        if (job.flags & DM_JOB_TOKENS)
            gpu_write_runs(job, req, scan.before, slice);
        if (slice.index == 0 && r < end)
            gpu_write_request(job, req, scan.before.tokens, scan.before.kv);
        gpu_add(base, scan.total);
        base.tokens = gpu_least(base.tokens, gpu_most<Int>(job));
    }
    if (end == job.padded_requests)
        gpu_finish_rows(job, base, (slice.count - 1 - slice.index) * threads + thread, slice.count * threads);
}

/* ---- Table blocks ---- */

/* One page table as a strided copy of a source row. */
typedef struct gpu_table {
    int32_t *data;
    int64_t stride, cols;
    uint32_t live, step; /* step: elements of the source between two columns */
    bool divide;         /* slots become pages */
} gpu_table;

DM_FN gpu_table gpu_slot_table(const dm_job &job, int32_t kv)
{
    return gpu_table{
        job.page_table_1, job.page_table_1_stride, job.page_table_1_cols, (uint32_t)dm_live_slots(&job, kv), 1, false};
}

DM_FN gpu_table gpu_page_table(const dm_job &job, int32_t kv)
{
    const bool divide = !(job.flags & DM_JOB_BLOCK_TABLE);
    return gpu_table{job.page_table,
                     job.page_table_stride,
                     job.page_table_cols,
                     (uint32_t)dm_live_pages(&job, kv),
                     divide ? (uint32_t)job.page_size : 1,
                     divide};
}

/* A thread's part of the rows of a request: columns column, column + across, ... of rows row, row + down, ... */
typedef struct gpu_part {
    uint32_t column, across;
    int32_t row, down;
} gpu_part;

/* That of thread number thread of a team of so many. */
DM_FN gpu_part gpu_part_of(const gpu_blocks &blocks, int team, int thread, int threads)
{
    const int columns = team & ((1 << blocks.column_shift) - 1);
    const int rows = team >> blocks.column_shift & ((1 << blocks.row_shift) - 1);
    const int lanes = 1 << blocks.lane_shift, down = threads >> blocks.lane_shift;
    return gpu_part{(uint32_t)(columns * lanes + (thread & (lanes - 1))), (uint32_t)lanes << blocks.column_shift,
                    rows * down + (thread >> blocks.lane_shift), down << blocks.row_shift};
}

/* The rows of one request: count, from token t on. */
typedef struct gpu_rows {
    int64_t t, count;
} gpu_rows;

DM_FN void gpu_store_column(const gpu_table &table, const gpu_rows &rows, const gpu_part &part, int64_t c,
                            int32_t value)
{
    int32_t *out = table.data + (rows.t + part.row) * table.stride + c;
#pragma unroll 1
    for (int64_t i = part.row; i < rows.count; i += part.down, out += part.down * table.stride)
        *out = value;
}

/* What a thread has loaded and not yet stored, of columns c, c + across, ... */
template <int COLUMNS> struct gpu_batch {
    int32_t slots[COLUMNS];
};

template <int COLUMNS>
DM_FN void gpu_load_columns(const gpu_table &table, const int32_t *source, uint32_t c, uint32_t across,
                            gpu_batch<COLUMNS> &batch)
{
#pragma unroll
    for (uint32_t i = 0; i < COLUMNS; i++)
        if (c + i * across < table.live)
            batch.slots[i] = source[(uint64_t)(c + i * across) * table.step];
}

/* batch holds the first columns already. */
template <int COLUMNS>
DM_FN void gpu_write_columns(const dm_job &job, const gpu_table &table, const int32_t *source, const gpu_rows &rows,
                             const gpu_part &part, gpu_batch<COLUMNS> &batch)
{
#pragma unroll 1
    for (uint32_t c = part.column; c < table.live;) {
#pragma unroll
        for (uint32_t i = 0; i < COLUMNS; i++)
            if (c + i * part.across < table.live)
                gpu_store_column(table, rows, part, c + i * part.across,
                                 table.divide ? dm_page_of(&job, batch.slots[i]) : batch.slots[i]);
        c += COLUMNS * part.across;
        gpu_load_columns(table, source, c, part.across, batch);
    }
}

/* Zeroes the columns behind the live ones. */
DM_FN void gpu_clear_columns(const gpu_table &table, const gpu_rows &rows, const gpu_part &part)
{
#pragma unroll 1
    for (int64_t c = (int64_t)table.live + part.column; c < table.cols; c += part.across)
        gpu_store_column(table, rows, part, c, 0);
}

/* A request whose rows are to be written, with the first columns on their way. */
template <int COLUMNS> struct gpu_pending {
    gpu_request req;
    const int32_t *source;
    gpu_table table; /* the first that is wanted */
    gpu_batch<COLUMNS> batch;
};

/* An int32 or int64 as memory has it. Its words are apart: extending a sign would wait for it, before what is wanted
 * besides is on its way. */
typedef struct gpu_words {
    int32_t low, high;
} gpu_words;

DM_FN gpu_words gpu_load_words(const void *array, bool wide, int64_t i)
{
    const int32_t *at = (const int32_t *)array + (wide ? 2 * i : i);
    return gpu_words{at[0], wide ? at[1] : 0};
}

DM_FN int64_t gpu_value(const gpu_words &words, bool wide)
{
    return wide ? (int64_t)((uint64_t)(uint32_t)words.high << 32 | (uint32_t)words.low) : words.low;
}

/* A request's length, its place in the source, and its tokens where they are given. */
typedef struct gpu_raw_row {
    gpu_words seq, row;
    int64_t q;
} gpu_raw_row;

DM_FN gpu_table gpu_first_table(const dm_job &job, int32_t kv)
{
    return job.page_table_1 && !job.page_table ? gpu_slot_table(job, kv) : gpu_page_table(job, kv);
}

DM_FN gpu_raw_row gpu_load_row(const dm_job &job, int64_t r)
{
    gpu_raw_row raw = {{0, 0}, {(int32_t)r, 0}, 0};
    if (r >= job.num_requests)
        return raw;
    raw.seq = gpu_load_words(job.seq_lens, job.flags & DM_JOB_SEQ64, r);
    if (job.pool)
        raw.row = gpu_load_words(job.pool, job.flags & DM_JOB_POOL64, r);
    if (job.flags & DM_JOB_EXTEND)
        raw.q = dm_raw_q(&job, r);
    return raw;
}

/* Behind the last request there is one without live columns. */
template <int COLUMNS>
DM_FN void gpu_begin_tables(const dm_job &job, int64_t r, const gpu_raw_row &raw, const gpu_part &part,
                            gpu_pending<COLUMNS> &pending)
{
    const int64_t row = gpu_value(raw.row, job.flags & DM_JOB_POOL64);
    const bool has_row = (uint64_t)row < (uint64_t)job.source_rows; /* row blocks report it */
    pending.req = gpu_clamp(job, r, gpu_raw{gpu_value(raw.seq, job.flags & DM_JOB_SEQ64), raw.q});
    pending.req.kv = has_row ? pending.req.kv : 0;
    pending.source = job.source + (has_row ? row : 0) * job.source_stride;
    pending.table = gpu_first_table(job, pending.req.kv);
    gpu_load_columns(pending.table, pending.source, part.column, part.across, pending.batch);
}

template <int COLUMNS>
DM_FN void gpu_write_tables(const dm_job &job, gpu_pending<COLUMNS> &pending, const gpu_rows &rows,
                            const gpu_part &part)
{
    const bool full = job.flags & DM_JOB_FULL_ROWS;
    gpu_write_columns(job, pending.table, pending.source, rows, part, pending.batch);
    if (full)
        gpu_clear_columns(pending.table, rows, part);
    if (!job.page_table || !job.page_table_1)
        return;
    const gpu_table slots = gpu_slot_table(job, pending.req.kv);
    gpu_load_columns(slots, pending.source, part.column, part.across, pending.batch);
    gpu_write_columns(job, slots, pending.source, rows, part, pending.batch);
    if (full)
        gpu_clear_columns(slots, rows, part);
}

/* The whole block comes here together. The sum over the block's requests before the team's first one, r, is by the
 * warp; that over the requests before the block's first one too where they are few, else by the block. */
template <class Int>
DM_FN Int gpu_tokens_share(const dm_job &job, gpu_shares<Int> &shares, int32_t block_first, int32_t r)
{
    const int step = gpu_warp_size();
    if (block_first <= GPU_WARP_PREFIX)
        return gpu_tokens_of_share<Int>(job, 0, r, gpu_lane(), step);
    const Int share = gpu_tokens_of_share<Int>(job, 0, block_first, (int)threadIdx.x, (int)blockDim.x);
    gpu_put_share(shares, gpu_sums<Int>{share, 0, 0}, SUM_TOKENS);
    return gpu_tokens_of_share<Int>(job, block_first, r, gpu_lane(), step);
}

template <class Int> DM_FN int64_t gpu_tokens_before(gpu_shares<Int> &shares, int32_t block_first, Int share)
{
    const Int tokens = gpu_warp_sum(share);
    if (block_first <= GPU_WARP_PREFIX)
        return (int64_t)tokens;
    __syncthreads();
    return (int64_t)(tokens + gpu_gather_shares(shares).tokens);
}

/* Rows T .. E - 1: all their columns are zero. */
template <int COLUMNS>
DM_FN void gpu_pad_tables(const dm_job &job, gpu_pending<COLUMNS> &pending, int64_t t, const gpu_part &part)
{
    gpu_write_tables(job, pending, gpu_rows{t, dm_tokens_written(&job, t) - t}, part);
}

/* The block's number among those that write tables. Each team of GPU_TEAM threads writes a group of requests, or a part
 * of the rows and columns of one; the last group, behind the requests, may be the padding. */
template <class Int>
DM_FN void gpu_fill_tables(const dm_job &job, const gpu_blocks &blocks, gpu_shares<Int> &shares, int block)
{
    const int part_shift = blocks.column_shift + blocks.row_shift, teams = (int)blockDim.x / GPU_TEAM;
    const int team = block * teams + (int)threadIdx.x / GPU_TEAM;
    const gpu_part part = gpu_part_of(blocks, team, (int)threadIdx.x % GPU_TEAM, GPU_TEAM);
    const int64_t first = (int64_t)(team >> part_shift) * blocks.group;
    const int64_t end = gpu_min(first + blocks.group, job.num_requests);
    const int32_t from = (int32_t)gpu_min(first, job.num_requests);
    const int32_t block_first =
        (int32_t)gpu_min((int64_t)(block * teams >> part_shift) * blocks.group, job.num_requests);
    gpu_raw_row raw = gpu_load_row(job, first);
    gpu_pending<sizeof(Int) == sizeof(uint32_t) ? GPU_COLUMNS : GPU_MANY_COLUMNS> pending;
    Int share = 0;
    if (job.flags & DM_JOB_EXTEND)
        share = gpu_tokens_share(job, shares, block_first, from);
    gpu_begin_tables(job, first, raw, part, pending);
    int64_t t = (int64_t)from * job.extend_len;
    if (job.flags & DM_JOB_EXTEND)
        t = gpu_tokens_before(shares, block_first, share);
    if (first >= job.num_requests) {
        if (blocks.padding_group && team >> part_shift == blocks.groups)
            gpu_pad_tables(job, pending, t, part);
        return;
    }
    for (int64_t r = first;;) {
        gpu_write_tables(job, pending, gpu_rows{t, gpu_min(pending.req.q, job.capacity - t)}, part);
        t += pending.req.q;
        if (++r >= end)
            return;
        gpu_begin_tables(job, r, gpu_load_row(job, r), part, pending);
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
    gpu_sums<uint64_t> own = {0, 0, 0};
#pragma unroll 1
    for (int64_t r = first; r < gpu_min(first + per_thread, job.num_requests); r++) {
        const gpu_request req = gpu_read(job, r);
        own.tokens += (uint64_t)req.q;
        own.kv += gpu_segments_of(s, req);
    }
    const gpu_scan_result<uint64_t> scan = gpu_scan(own, SUM_TOKENS | SUM_KV, (int)blockDim.x);
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

/* A request of a small schedule: the units and segments before it, and its tokens, or itself, as units of low segments
 * each up to the unit number rise, and one more from there on: so many tokens cross one bound at most. */
typedef struct gpu_small_place {
    uint32_t units, segments, low;
    int32_t rise;
} gpu_small_place;

/* Places the first units of the request, and returns its segments. */
DM_FN uint32_t gpu_place_small(const dm_job_schedule &s, const gpu_request &req, gpu_small_place &place)
{
    const bool per_token = s.flags & DM_SCHED_PER_TOKEN;
    const int32_t units = per_token ? gpu_least<int32_t>(req.q, GPU_SHORT_RUN) : 1;
    const int32_t kv = gpu_least<int32_t>(req.kv, GPU_SMALL_KV), e = per_token ? kv - req.q + 1 : kv;
    place.low = dm_segments_of(&s, (uint32_t)gpu_or_zero(e));
    const uint32_t high = dm_segments_of(&s, (uint32_t)gpu_or_zero(e + units - 1));
    place.rise = high > place.low ? (int32_t)(place.low * s.step + s.divisor) - e : units;
    return (uint32_t)units * place.low + (uint32_t)(units - place.rise);
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
    uint32_t unit = at.units, before = at.segments, segments = at.low + (at.rise <= 0);
#pragma unroll 1
    for (int32_t j = 1; before + segments <= segment; j++, unit++) {
        before += segments;
        segments = at.low + (j >= at.rise);
    }
    dm_put_entry(&s, slot, unit, start - before * atoms, segments);
}

/* Whether sums over so few requests fit 32 bits, and loops over its tokens are short. */
DM_FN bool gpu_is_small(const dm_job_schedule &s, const gpu_request &req)
{
    return (req.q <= GPU_SHORT_RUN || !(s.flags & DM_SCHED_PER_TOKEN)) && req.kv < GPU_SMALL_KV;
}

/* The slots that a block writes: first + its thread, and on in steps. */
typedef struct gpu_slots {
    uint32_t first, step;
} gpu_slots;

/* All requests at once, a few a thread, if each of them is small and none is dropped; returns whether it was so. */
DM_FN bool gpu_fill_small_schedule(const dm_job &job, const dm_job_schedule &s, gpu_small_place *places,
                                   const gpu_slots &slots)
{
    const uint32_t not_small = 1 << 20; /* as so many tokens it shows in the sum */
    const int32_t per_thread = (int32_t)gpu_requests_per_thread(job), first = (int32_t)threadIdx.x * per_thread;
    gpu_raw raw[GPU_SMALL_PER_THREAD];
    gpu_small_place own[GPU_SMALL_PER_THREAD];
    gpu_sums<uint32_t> sum = {0, 0, 0}; /* of tokens, and of segments */
#pragma unroll
    for (int i = 0; i < GPU_SMALL_PER_THREAD; i++)
        raw[i] = gpu_load(job, i < per_thread ? first + i : INT32_MAX);
#pragma unroll
    for (int i = 0; i < GPU_SMALL_PER_THREAD; i++) {
        const gpu_request req = gpu_clamp(job, i < per_thread ? first + i : INT32_MAX, raw[i]);
        const uint32_t segments = gpu_place_small(s, req, own[i]);
        own[i].units = s.flags & DM_SCHED_PER_TOKEN ? sum.tokens : (uint32_t)req.r;
        own[i].segments = sum.kv;
        sum.tokens += gpu_is_small(s, req) ? (uint32_t)req.q : not_small;
        sum.kv += segments;
    }
    const int threads = per_thread > 1 ? (int)blockDim.x : job.num_requests; /* that have requests, or more */
    const gpu_scan_result<uint32_t> scan = gpu_scan(sum, SUM_TOKENS | SUM_KV, threads);
    if (scan.total.tokens >= not_small || scan.total.tokens > job.capacity)
        return false;
#pragma unroll
    for (int i = 0; i < GPU_SMALL_PER_THREAD; i++) {
        if (i >= per_thread || first + i >= job.num_requests)
            continue;
        own[i].units += s.flags & DM_SCHED_PER_TOKEN ? scan.before.tokens : 0;
        own[i].segments += scan.before.kv;
        places[first + i] = own[i];
    }
    __syncthreads();
    const int64_t covered = dm_units_covered(&job, &s, dm_tokens_written(&job, scan.total.tokens));
    const uint32_t total = scan.total.kv * (uint32_t)s.atoms;
#pragma unroll 1
    for (uint32_t slot = slots.first; slot <= (uint32_t)s.slots; slot += slots.step) {
        const uint64_t start = dm_slot_start(&s, total, slot);
        if (start < total)
            gpu_write_small_entry(job, s, places, slot, (uint32_t)start);
        else
            dm_put_entry(&s, slot, (uint64_t)covered, 0, 1);
    }
    return true;
}

/* What the roles keep in shared memory; a block has one role. */
template <class Int> union gpu_shared {
    gpu_shares<Int> shares;
    gpu_small_place places[GPU_SMALL_REQUESTS];
    gpu_chunk_sums chunks;
};

/* The block's number among those that write schedules. */
DM_FN void gpu_fill_schedule(const dm_job &job, const dm_job_schedule *schedules, const gpu_blocks &blocks,
                             gpu_small_place *places, gpu_chunk_sums &chunks, int block)
{
    const int number = block >> blocks.slots_shift, slice = block & ((1 << blocks.slots_shift) - 1);
    const dm_job_schedule &s = schedules[schedules[0].table ? number : 1];
    const gpu_slots slots = {slice * blockDim.x + threadIdx.x, blockDim.x << blocks.slots_shift};
    if (blocks.small_schedules) {
        if (gpu_fill_small_schedule(job, s, places, slots))
            return;
        __syncthreads(); /* the scan's readers are done */
    }
    gpu_sum_chunks(job, s, chunks);
    const int64_t written = dm_tokens_written(&job, (int64_t)chunks.tokens[blockDim.x]);
    const int64_t covered = dm_units_covered(&job, &s, written);
    const uint64_t total = gpu_covered_segments(job, s, chunks, covered) * (uint64_t)s.atoms;
#pragma unroll 1
    for (uint32_t slot = slots.first; slot <= (uint32_t)s.slots; slot += slots.step) {
        const uint64_t start = dm_slot_start(&s, total, slot);
        if (start < total)
            gpu_write_entry(job, s, chunks, slot, start);
        else
            dm_put_entry(&s, slot, (uint64_t)covered, 0, 1);
    }
}

/* ---- Few requests ---- */

/* A warp has a lane for each request of the job, so rows and tables need no barrier; and the job is of the kind that
 * has kernels of its own. */

/* The sums of wanted before the request of each lane, and at its end. */
typedef struct gpu_lane_sums {
    gpu_sums<uint32_t> before, up;
} gpu_lane_sums;

DM_FN gpu_lane_sums gpu_sum_lanes(const dm_job &job, const gpu_request &req, unsigned wanted)
{
    const gpu_sums<uint32_t> own = gpu_sums_of<uint32_t>(job, req, wanted);
    gpu_sums<uint32_t> up = gpu_warp_scan(own, wanted, job.padded_requests);
    if (!(wanted & SUM_TOKENS))
        up.tokens = own.tokens + gpu_even_tokens<uint32_t>(job, req.r);
    return gpu_lane_sums{{up.tokens - own.tokens, up.kv - own.kv, up.sparse - own.sparse}, up};
}

/* All warps read all requests. The last warp of all count blocks writes what is per request and behind the last, each
 * of the others a slice of the tokens. */
DM_FN void gpu_fill_few_rows(const dm_job &job, int block, int count)
{
    const int warps = (int)blockDim.x / gpu_warp_size(), number = block * warps + gpu_warp(), last = count * warps - 1;
    const unsigned wanted = gpu_sums_of_rows(job);
    gpu_request req = gpu_read(job, gpu_lane());
    if (number < last) {
        gpu_sums<uint32_t> before = {0, 0, 0};
        if (job.padded_requests > 1)
            before = gpu_sum_lanes(job, req, wanted & (SUM_TOKENS | SUM_SPARSE)).before;
        gpu_write_runs(job, req, before, gpu_slice{number, last});
        return;
    }
    const gpu_lane_sums sums = gpu_sum_lanes(job, req, wanted);
    if (req.r < job.padded_requests)
        gpu_write_request(job, req, sums.before.tokens, sums.before.kv);
    const int last_lane = job.padded_requests > 0 ? job.padded_requests - 1 : 0;
    gpu_finish_rows(job, gpu_broadcast(sums.up, wanted, last_lane), gpu_lane(), gpu_warp_size());
}

/* Each block is a team, for the tables of one request. */
DM_FN void gpu_fill_few_tables(const dm_job &job, const gpu_blocks &blocks, int block)
{
    const int r = block >> (blocks.column_shift + blocks.row_shift), lane = gpu_lane();
    const int64_t share = job.flags & DM_JOB_EXTEND && lane < r ? dm_raw_q(&job, lane) : 0;
    const gpu_raw_row raw = gpu_load_row(job, r);
    uint32_t flags = 0;
    const gpu_part part = gpu_part_of(blocks, block, (int)threadIdx.x, (int)blockDim.x);
    gpu_pending<GPU_COLUMNS> pending;
    int64_t t = (int64_t)r * job.extend_len;
    gpu_begin_tables(job, r, raw, part, pending);
    if (job.flags & DM_JOB_EXTEND)
        t = (int64_t)gpu_warp_sum(gpu_kept(dm_q_of(&job, share, &flags), gpu_most<uint32_t>(job)));
    gpu_write_tables(job, pending, gpu_rows{t, gpu_min(pending.req.q, job.capacity - t)}, part);
}

/* ---- Lengths alone ---- */

/* Tokens first, first + step, ... of n of a request, whose first one is at offset and sees e. */
DM_FN void gpu_write_expanded(const gpu_lengths &in, int32_t offset, int32_t n, int32_t e, int first, int step)
{
#pragma unroll 1
    for (int32_t j = first; j < n; j += step) {
        const int32_t seen = e + j < 0 ? 0 : e + j;
        if (in.seqlens_expanded)
            in.seqlens_expanded[offset + j] = seen;
        if (in.dsa_cache_seqlens)
            in.dsa_cache_seqlens[offset + j] = gpu_least(seen, in.topk);
    }
}

/* A request a lane: each writes its own if it is short; then the warp writes the long ones together. */
DM_FN void gpu_write_requests(const gpu_lengths &in, uint32_t tokens_before, int32_t q, int32_t e)
{
    const int32_t offset = (int32_t)gpu_least(tokens_before, (uint32_t)in.capacity);
    const int32_t n = gpu_least(q < 0 ? 0 : q, in.capacity - offset);
    uint64_t long_lanes = (uint64_t)gpu_ballot(n > GPU_SHORT_RUN);
    if (n <= GPU_SHORT_RUN)
        gpu_write_expanded(in, offset, n, e, 0, 1);
#pragma unroll 1
    for (int lane = 0; long_lanes; lane++, long_lanes >>= 1)
        if (long_lanes & 1)
            gpu_write_expanded(in, gpu_from_lane(offset, lane), gpu_from_lane(n, lane), gpu_from_lane(e, lane),
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

/* A warp's requests, one a lane, without the help of others; or a block's, one a thread, all of which sum what is
 * before them. */
DM_FN void gpu_fill_lengths(const gpu_lengths &in)
{
    __shared__ struct {
        uint32_t before, own;
    } sums_of[GPU_MAX_WARPS];
    const uint32_t most = (uint32_t)in.capacity;
    const int32_t r = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x), warp_first = r - gpu_lane();
    const bool is_there = r < in.num_requests;
    if (!in.by_block && warp_first >= in.num_requests)
        return;
    const int64_t seq = is_there ? dm_load(in.seq_lens, in.seq64, r) : 0;
    const int32_t q = is_there ? in.extend[r] : 0;
    uint32_t before = 0;
    if (in.by_block) {
        before = gpu_tokens_of_some(in.extend, most, r - (int32_t)threadIdx.x, (int)threadIdx.x, (int)blockDim.x);
        before = gpu_warp_sum(before);
    } else if (warp_first > 0) {
        before = gpu_warp_sum(gpu_tokens_of_some(in.extend, most, warp_first, gpu_lane(), gpu_warp_size()));
    }
    const uint32_t own = gpu_kept(q, most), up = gpu_inclusive(own);
    if (in.by_block) {
        if (gpu_lane() == gpu_warp_size() - 1)
            sums_of[gpu_warp()] = {before, up};
        __syncthreads();
        before = 0;
#pragma unroll /* so that all loads are on their way together */
        for (int w = 0; w < GPU_MAX_WARPS; w++)
            if (w < (int)blockDim.x / gpu_warp_size())
                before += sums_of[w].before + (w < gpu_warp() ? sums_of[w].own : 0);
    }
    uint32_t flags = 0;
    const int32_t kv = dm_clamp_length(dm_add_clamped(seq, in.seq_len_bias), 0, &flags);
    gpu_write_requests(in, before + up - own, q, gpu_first_seen(kv, gpu_or_zero(q)));
}

/* ---- The kernels' bodies ---- */

/* Block number block of the job. schedules are the job's, in memory that can be indexed. */
template <class Int>
DM_FN void gpu_fill(const dm_job &job, const dm_job_schedule *schedules, const gpu_blocks &blocks, int block)
{
    __shared__ gpu_shared<Int> shared;
    const int rows = blocks.row_chunks << blocks.slice_shift, tables = rows + blocks.schedules;
    if (block >= tables)
        gpu_fill_tables<Int>(job, blocks, shared.shares, block - tables);
    else if (block >= rows)
        gpu_fill_schedule(job, schedules, blocks, shared.places, shared.chunks, block - rows);
    else
        gpu_fill_rows<Int>(job, blocks, shared.shares, block >> blocks.slice_shift,
                           block & ((1 << blocks.slice_shift) - 1));
}

/* A job of the kind that has kernels of its own, as far as it is known: the compiler drops what it does without. */
template <bool HAS_POOLS> DM_FN dm_job gpu_known_set(const dm_job &job)
{
    dm_job known = job;
    known.flags = (job.flags & GPU_SET_FREE) | GPU_SET_FIXED;
    known.pool_size = HAS_POOLS ? job.pool_size : 1;
    known.page_table_1 = nullptr;
    known.page_shift = job.page_shift & 31;
    known.page_table_stride = (uint32_t)job.page_table_stride;
    known.page_table_bound = (uint32_t)job.page_table_bound;
    known.source_stride = (uint32_t)job.source_stride;
    known.source_rows = (uint32_t)job.source_rows;
    known.capacity = (int32_t)job.capacity;
    return known;
}

DM_FN void gpu_fill_any(const gpu_launch &launch)
{
    gpu_fill<uint64_t>(launch.job, launch.job.schedules, launch.blocks, (int)blockIdx.x);
}

template <bool HAS_POOLS> DM_FN void gpu_fill_set(const gpu_launch &launch)
{
    gpu_fill<uint32_t>(gpu_known_set<HAS_POOLS>(launch.job), launch.job.schedules, launch.blocks, (int)blockIdx.x);
}

DM_FN void gpu_fill_few(const gpu_launch &launch)
{
    __shared__ gpu_shared<uint32_t> shared;
    const dm_job job = gpu_known_set<true>(launch.job);
    const int block = (int)blockIdx.x, rows = 1 << launch.blocks.slice_shift, tables = rows + launch.blocks.schedules;
    if (block >= tables)
        gpu_fill_few_tables(job, launch.blocks, block - tables);
    else if (block < rows)
        gpu_fill_few_rows(job, block, rows);
    else
        gpu_fill_schedule(job, launch.job.schedules, launch.blocks, shared.places, shared.chunks, block - rows);
}

/* Which job of the launch this block works for; *block becomes its number among that job's. */
DM_FN int gpu_job_of_block(const gpu_launch_many &launch, int *block)
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
    return k;
}

DM_FN void gpu_fill_many(const gpu_launch_many &launch)
{
    int block;
    const int k = gpu_job_of_block(launch, &block);
    const gpu_launch &its = launch.launches[k];
    gpu_fill<uint64_t>(its.job, its.job.schedules, its.blocks, block);
}

DM_FN void gpu_fill_many_sets(const gpu_launch_many &launch)
{
    int block;
    const int k = gpu_job_of_block(launch, &block);
    const gpu_launch &its = launch.launches[k];
    gpu_fill<uint32_t>(gpu_known_set<false>(its.job), its.job.schedules, its.blocks, block);
}

#endif
