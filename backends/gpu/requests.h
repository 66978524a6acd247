/* Requests as the bodies see them, and sums over them. No block waits for another: one that needs a sum over earlier
 * requests computes it. Loads are issued before anything looks at one of them, as a small fill's time is that of
 * dependent loads, and of the instructions that nothing has loaded before. */
#ifndef DRAFTMETA_GPU_REQUESTS_H
#define DRAFTMETA_GPU_REQUESTS_H

#include "threads.h"

enum { GPU_LOADS = 2 }; /* requests that a thread has in flight */

/* The lengths of a request as memory has them; where all requests have the same query length, nothing of it. */
typedef struct gpu_raw {
    gpu_words seq, from, to;
} gpu_raw;

typedef struct gpu_request {
    int32_t kv, q;
} gpu_request;

/* The query length of request r, which there is. */
DM_FN void gpu_load_query(const gpu_job &job, uint32_t r, gpu_raw &raw)
{
    const bool prefix = job.flags & DM_JOB_QUERY_START;
    raw.to = gpu_load_words(job.extend, job.extend_bytes, r + prefix);
    if (prefix)
        raw.from = gpu_load_words(job.extend, job.extend_bytes, r);
}

/* The request to load for r. A step has at least one, and loads the last where there is no such request: a branch would
 * take longer. */
template <class Int> DM_FN uint32_t gpu_loaded(const gpu_job &job, uint32_t r)
{
    return gpu_is_exact<Int>() ? r : gpu_min(r, (uint32_t)job.num_requests - 1);
}

/* Request r; anything where there is none. RAGGED: requests have query lengths of their own. */
template <class Int, bool RAGGED> DM_FN gpu_raw gpu_load(const gpu_job &job, uint32_t r)
{
    gpu_raw raw = {{0, 0}, {0, 0}, {0, 0}};
    if (gpu_is_exact<Int>() && r >= (uint32_t)job.num_requests)
        return raw;
    raw.seq = gpu_load_words(job.seq_lens, job.seq_bytes, gpu_loaded<Int>(job, r));
    if (RAGGED)
        gpu_load_query(job, gpu_loaded<Int>(job, r), raw);
    return raw;
}

/* q where it is given, the clamped difference, which is exact. */
DM_FN int32_t gpu_query_of(const gpu_job &job, const gpu_raw &raw)
{
    const int64_t from = gpu_value(raw.from, job.extend_bytes), to = gpu_value(raw.to, job.extend_bytes);
    const uint64_t length = (uint64_t)to - (uint64_t)from;
    return to <= from ? 0 : length > INT32_MAX ? INT32_MAX : (int32_t)length;
}

/* kv: the sum with the bias, which is not negative, clamped. */
DM_FN int32_t gpu_kv_of(const gpu_job &job, const gpu_raw &raw)
{
    const int32_t seq = gpu_saturated(raw.seq, job.seq_bytes);
    const uint32_t sum = (uint32_t)seq + (uint32_t)job.seq_len_bias;
    return seq < 0 ? gpu_or_zero((int32_t)sum) : (int32_t)gpu_min<uint32_t>(sum, INT32_MAX);
}

/* No tokens where there is no such request. */
template <bool RAGGED> DM_FN gpu_request gpu_request_of(const gpu_job &job, uint32_t r, const gpu_raw &raw)
{
    const bool is_there = r < (uint32_t)job.num_requests;
    const int32_t q = RAGGED ? gpu_query_of(job, raw) : job.extend_len;
    return gpu_request{gpu_kv_of(job, raw) & -(int32_t)is_there, q & -(int32_t)is_there}; /* without a branch */
}

/* The KV tokens that token j of a request sees, as far as there is such a token. */
DM_FN int32_t gpu_seen(const gpu_request &req, int32_t j)
{
    return gpu_or_zero((int32_t)((uint32_t)req.kv - (uint32_t)req.q + 1) + j);
}

/* E: the tokens that are written, padding included, of total in all; padded_tokens is no more than the capacity. */
DM_FN int64_t gpu_tokens_written(const gpu_job &job, int64_t total)
{
    return gpu_min(total > job.padded_tokens ? total : job.padded_tokens, job.capacity);
}

/* ---- What sparse attention keeps ---- */

/* dm_sparse of e tokens. In a step, pools are powers of two. */
template <class Int> DM_FN int32_t gpu_sparse(const gpu_job &job, int32_t e)
{
    if (gpu_is_exact<Int>())
        return dm_sparse(e, job.topk, job.pool_size);
    const int32_t tail = e & (job.pool_size - 1);
    return gpu_min(e - tail, job.topk) + tail;
}

/* 0 + 1 + ... + n - 1, its low bits. */
DM_FN uint32_t gpu_sum_below(uint32_t n)
{
    return (uint32_t)((uint64_t)n * (n - 1) / 2);
}

/* dm_sparse_sum of a step, its low bits. */
DM_FN uint32_t gpu_pooled_sum(uint32_t m, uint32_t topk, uint32_t mask)
{
    const uint32_t c = topk | mask, n = m > c ? m - c : 0, rest = n & mask;
    return gpu_sum_below(gpu_min(m, c) + 1) + topk * n + (n - rest) / 2 * mask + gpu_sum_below(rest);
}

/* The same over the tokens of a request that see before + 1, ..., last KV tokens. */
DM_COLD_FN uint32_t gpu_pooled_prefix(int32_t before, int32_t last, int32_t topk, int32_t mask)
{
    return gpu_pooled_sum((uint32_t)gpu_or_zero(last), (uint32_t)topk, (uint32_t)mask) -
           gpu_pooled_sum((uint32_t)gpu_or_zero(before), (uint32_t)topk, (uint32_t)mask);
}

/* The same, exact. */
DM_COLD_FN uint64_t gpu_exact_prefix(int32_t topk, int32_t pool, int64_t before, int64_t j)
{
    return dm_sparse_run((uint32_t)topk, (uint32_t)pool, before, j);
}

/* The sum over the first j tokens of a request, of which the first sees before + 1 KV tokens. Without pools these are
 * zeros, then first, first + 1, ... up to topk. */
template <class Int>
DM_FN Int gpu_sparse_prefix(const gpu_job &job, typename gpu_index<Int>::type before, typename gpu_index<Int>::type j)
{
    if (gpu_is_exact<Int>())
        return (Int)gpu_exact_prefix(job.topk, job.pool_size, before, j);
    if (job.pool_size > 1)
        return gpu_pooled_prefix((int32_t)before, (int32_t)(before + j), job.topk, job.pool_size - 1);
    const int32_t first = gpu_or_zero((int32_t)((uint32_t)before + 1)), zeros = gpu_or_zero(-(int32_t)before - 1);
    const int32_t n = gpu_or_zero((int32_t)j - zeros);
    const uint32_t rising = (uint32_t)gpu_min(gpu_or_zero(job.topk - first), n);
    return (Int)(rising * (uint32_t)first + gpu_sum_below(rising) + ((uint32_t)n - rising) * (uint32_t)job.topk);
}

/* Entries of a compressed cache for those of x KV tokens that a rank holds. */
DM_COLD_FN uint32_t gpu_entries_of(uint32_t round, uint32_t first, uint32_t interleave, uint32_t divisor, uint32_t x)
{
    const dm_shard shard = {round, first, interleave};
    const uint32_t held = dm_local(&shard, x);
    return divisor == 1 ? held : held / divisor; /* a division is slow */
}

/* ---- Sums over requests ---- */

template <class Int> struct gpu_sums {
    Int tokens, kv, sparse;
};

/* The most tokens that a sum counts: in 32 bits so many that it shows whether some are dropped. */
template <class Int> DM_FN Int gpu_most(const gpu_job &job)
{
    return gpu_is_exact<Int>() ? (Int)INT64_MAX : (Int)job.capacity + 1;
}

template <class Int> DM_FN gpu_sums<Int> gpu_sums_of(const gpu_job &job, const gpu_request &req)
{
    return gpu_sums<Int>{gpu_min((Int)req.q, gpu_most<Int>(job)), (Int)req.kv,
                         gpu_sparse_prefix<Int>(job, req.kv - req.q, req.q)};
}

template <class Int> DM_FN void gpu_add(gpu_sums<Int> &to, const gpu_sums<Int> &from)
{
    to.tokens += from.tokens;
    to.kv += from.kv;
    to.sparse += from.sparse;
}

/* The sums before each thread's own: over the warp or, with by_block, over the block, which meets here then. A block
 * that comes again meets before. TOKENS: sums of tokens are wanted too. */
template <class Int, bool TOKENS> DM_FN gpu_sums<Int> gpu_scan(const gpu_sums<Int> &own, bool by_block)
{
    __shared__ gpu_sums<Int> totals[GPU_MAX_WARPS];
    gpu_sums<Int> up = own;
#pragma unroll 1
    for (int d = 1; d < gpu_warp_size(); d <<= 1) {
        if (TOKENS)
            up.tokens = gpu_add_below(up.tokens, d);
        up.kv = gpu_add_below(up.kv, d);
        up.sparse = gpu_add_below(up.sparse, d);
    }
    gpu_sums<Int> before = {up.tokens - own.tokens, up.kv - own.kv, up.sparse - own.sparse};
    if (!by_block)
        return before;
    if (gpu_lane() == gpu_warp_size() - 1)
        totals[gpu_warp()] = up;
    __syncthreads();
    const gpu_sums<Int> below = gpu_lane() < gpu_warp() ? totals[gpu_lane()] : gpu_sums<Int>{0, 0, 0};
    if (TOKENS)
        before.tokens += gpu_warp_sum(below.tokens);
    before.kv += gpu_warp_sum(below.kv);
    before.sparse += gpu_warp_sum(below.sparse);
    return before;
}

/* The sum of v over the block, which meets here, as shares: those of a warp's lanes make it up. */
template <class Int> DM_FN Int gpu_share_of_block(Int v)
{
    __shared__ Int of_warp[GPU_MAX_WARPS];
    const Int sum = gpu_warp_sum(v);
    __syncthreads(); /* the readers of the last time are done */
    if (gpu_lane() == 0)
        of_warp[gpu_warp()] = sum;
    __syncthreads();
    return gpu_lane() < gpu_warps() ? of_warp[gpu_lane()] : 0;
}

/* The sums over requests from .. to - 1, by the block, which meets here. */
template <class Int, bool RAGGED> DM_FN gpu_sums<Int> gpu_sums_between(const gpu_job &job, uint32_t from, uint32_t to)
{
    gpu_sums<Int> sum = {0, 0, 0};
#pragma unroll 1
    for (uint32_t r = from + threadIdx.x; r < to; r += blockDim.x) {
        gpu_add(sum, gpu_sums_of<Int>(job, gpu_request_of<RAGGED>(job, r, gpu_load<Int, RAGGED>(job, r))));
        if (RAGGED)
            sum.tokens = gpu_min(sum.tokens, gpu_most<Int>(job));
    }
    if (RAGGED)
        sum.tokens = gpu_min(gpu_warp_sum(gpu_share_of_block(sum.tokens)), gpu_most<Int>(job));
    sum.kv = gpu_warp_sum(gpu_share_of_block(sum.kv));
    sum.sparse = gpu_warp_sum(gpu_share_of_block(sum.sparse));
    return sum;
}

/* This thread's part of the tokens of requests from .. to - 1, which threads share. */
template <class Int>
DM_FN Int gpu_tokens_share(const gpu_job &job, uint32_t from, uint32_t to, uint32_t thread, uint32_t threads)
{
    Int sum = 0;
#pragma unroll 1
    for (uint32_t r = from + thread; r < to; r += GPU_LOADS * threads) {
        gpu_raw raw[GPU_LOADS] = {};
#pragma unroll
        for (uint32_t i = 0; i < GPU_LOADS; i++)
            if (r + i * threads < to)
                gpu_load_query(job, r + i * threads, raw[i]);
#pragma unroll
        for (uint32_t i = 0; i < GPU_LOADS; i++)
            sum += gpu_min((Int)gpu_query_of(job, raw[i]), gpu_most<Int>(job));
        sum = gpu_min(sum, gpu_most<Int>(job));
    }
    return sum;
}

/* The tokens before request r, in each lane of a warp. The warps of a block share those before block_first if they are
 * many; the block meets here. */
template <class Int> DM_FN Int gpu_tokens_before(const gpu_job &job, uint32_t block_first, uint32_t r)
{
    const bool together = block_first > GPU_LOADS * GPU_MIN_WARP;
    Int share = 0, of_block = 0;
    uint32_t from = 0, to = together ? block_first : r;
#pragma unroll 1
    for (bool by_block = together;; by_block = false, from = to, to = r) {
        share = gpu_tokens_share<Int>(job, from, to, by_block ? threadIdx.x : (uint32_t)gpu_lane(),
                                      by_block ? blockDim.x : (uint32_t)gpu_warp_size());
        if (!by_block)
            break;
        of_block = gpu_share_of_block(share);
    }
    return gpu_min(gpu_warp_sum(share + of_block), gpu_most<Int>(job));
}

#endif
