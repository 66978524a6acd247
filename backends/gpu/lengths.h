/* Lengths: what is written per request and per token, and the prefixes of both. */
#ifndef DRAFTMETA_GPU_LENGTHS_H
#define DRAFTMETA_GPU_LENGTHS_H

#include "requests.h"

enum { GPU_SHORT_RUN = 16 }; /* the most tokens of a request that its lane writes alone */

/* Those that share the tokens of the same requests, blocks or warps: each writes tokens index, index + count, ... */
typedef struct gpu_slice {
    int index, count;
} gpu_slice;

/* The tokens of one request, or the padding after the last. */
template <class Int> struct gpu_run {
    typename gpu_index<Int>::type offset, lengths, entries; /* entries: of the prefix, which has one at the capacity */
    typename gpu_index<Int>::type before;                   /* token j sees before + 1 + j KV tokens, or none */
    Int sparse;                                             /* the prefix at the first token */
    int32_t kv, r, counts;                                  /* counts: -1 where r is one more for each token, else 0 */
};

/* What context_lens holds for x: e, or kv. */
DM_FN int32_t gpu_context_len(const gpu_job &job, int32_t x)
{
    if (!(job.flags & DM_JOB_LOCAL))
        return x;
    return (int32_t)gpu_entries_of(job.shard.round, job.shard.first, job.shard.interleave, job.context_divisor,
                                   (uint32_t)x);
}

/* What a token has of its own: e, and what follows from it. */
template <class Int>
DM_FN void gpu_write_token(const gpu_job &job, typename gpu_index<Int>::type t, uint32_t r, int32_t e, int32_t kv)
{
    if (job.flags & DM_JOB_SEQLENS_EXPANDED)
        job.seqlens_expanded[t] = e;
    if (job.flags & DM_JOB_DSA_CACHE_SEQLENS)
        job.dsa_cache_seqlens[t] = gpu_sparse<Int>(job, e);
    if (job.flags & DM_JOB_TOKEN_TO_REQ)
        job.token_to_req[t] = (int32_t)r;
    if (job.flags & DM_JOB_CONTEXT_LENS)
        job.context_lens[t] = gpu_context_len(job, job.flags & DM_JOB_CONTEXT_PER_REQUEST ? kv : e);
}

/* Tokens first, first + step, ... */
template <class Int> DM_FN void gpu_write_run(const gpu_job &job, const gpu_run<Int> &run, int first, int step)
{
    typedef typename gpu_index<Int>::type Index;
#pragma unroll 1
    for (Index j = first; j < run.entries; j += step) {
        const Index t = run.offset + j, seen = run.before + 1 + j;
        if (j < run.lengths)
            gpu_write_token<Int>(job, t, (uint32_t)run.r + ((uint32_t)j & (uint32_t)run.counts),
                                 seen < 0 ? 0 : (int32_t)seen, run.kv);
        if (job.flags & DM_JOB_DSA_CU_SEQLENS_K)
            job.dsa_cu_seqlens_k[t] = (int32_t)(uint32_t)(run.sparse + gpu_sparse_prefix<Int>(job, run.before, j));
    }
}

template <class Int> DM_FN gpu_run<Int> gpu_run_of_lane(const gpu_run<Int> &run, int lane)
{
    return gpu_run<Int>{gpu_from_lane(run.offset, lane),  gpu_from_lane(run.lengths, lane),
                        gpu_from_lane(run.entries, lane), gpu_from_lane(run.before, lane),
                        gpu_from_lane(run.sparse, lane),  gpu_from_lane(run.kv, lane),
                        gpu_from_lane(run.r, lane),       gpu_from_lane(run.counts, lane)};
}

/* Each lane writes its own run if that is short; then the warp writes the long ones, one by one. */
template <class Int> DM_FN void gpu_write_runs(const gpu_job &job, const gpu_run<Int> &run, const gpu_slice &slice)
{
    uint64_t rest = (uint64_t)gpu_ballot(run.entries > GPU_SHORT_RUN);
    int first = slice.index, step = slice.count, lane = 0;
    gpu_run<Int> its = run;
    its.entries = run.entries > GPU_SHORT_RUN ? 0 : run.entries;
#pragma unroll 1
    for (;;) {
        gpu_write_run(job, its, first, step);
        if (!rest)
            return;
#pragma unroll 1
        for (; !(rest & 1); rest >>= 1)
            lane++;
        its = gpu_run_of_lane(run, lane++);
        rest >>= 1;
        first = slice.index * gpu_warp_size() + gpu_lane();
        step = slice.count * gpu_warp_size();
    }
}

/* before: the sums before request r, which may be the one after the last: then they are the totals. */
template <class Int>
DM_FN void gpu_write_request(const gpu_job &job, uint32_t r, int32_t kv, const gpu_sums<Int> &before)
{
    const Int tokens = gpu_min(before.tokens, (Int)job.capacity);
    if (job.flags & DM_JOB_CACHE_SEQLENS && r < (uint32_t)job.padded_requests)
        job.cache_seqlens[r] = kv;
    if (job.flags & DM_JOB_CU_SEQLENS_Q)
        job.cu_seqlens_q[r] = (int32_t)(uint32_t)tokens;
    if (job.flags & DM_JOB_CU_SEQLENS_K)
        job.cu_seqlens_k[r] = (int32_t)(uint32_t)before.kv;
    if (job.flags & DM_JOB_NUM_TOKENS && r == (uint32_t)job.padded_requests)
        *job.num_tokens = (int32_t)(uint32_t)tokens;
}

/* Request r's tokens; the one after the last request has the padding. */
template <class Int>
DM_FN gpu_run<Int> gpu_run_of(const gpu_job &job, uint32_t r, const gpu_request &req, const gpu_sums<Int> &before)
{
    typedef typename gpu_index<Int>::type Index;
    const Index offset = (Index)before.tokens, room = (Index)job.capacity - offset;
    if (r != (uint32_t)job.padded_requests)
        return gpu_run<Int>{offset,
                            gpu_min<Index>(req.q, room),
                            gpu_min<Index>((Index)req.q - 1, room) + 1,
                            req.kv - req.q,
                            before.sparse,
                            req.kv,
                            (int32_t)r,
                            0};
    const Index padding = (Index)gpu_tokens_written(job, (int64_t)before.tokens) - offset;
    const Index none = -((Index)1 << (sizeof(Index) * 8 - 2)); /* below 0 for any token */
    return gpu_run<Int>{offset, padding, padding + 1, none, before.sparse, 0, job.num_requests, -1};
}

/* The block's requests, one a thread and a tile at a time; or, where a warp has lanes for all, every warp has them. */
template <class Int, bool RAGGED> DM_FN void gpu_fill_runs(const gpu_job &job, int block)
{
    const bool by_block = job.tile;
    const int number = block & ((1 << job.slice_shift) - 1);
    const gpu_slice slice = by_block ? gpu_slice{number, 1 << job.slice_shift}
                                     : gpu_slice{number * gpu_warps() + gpu_warp(), gpu_warps() << job.slice_shift};
    const uint32_t first = (uint32_t)(block >> job.slice_shift) * (uint32_t)job.tile;
    gpu_sums<Int> base = {0, 0, 0};
    uint32_t summed = 0;
#pragma unroll 1
    for (uint32_t tile = first;;) {
        const uint32_t r = by_block ? tile + threadIdx.x : (uint32_t)gpu_lane();
        const gpu_raw raw = gpu_load<Int, RAGGED>(job, r);
        if (tile > summed)
            gpu_add(base, gpu_sums_between<Int, RAGGED>(job, summed, gpu_min(tile, (uint32_t)job.num_requests)));
        summed = tile;
        const gpu_request req = gpu_request_of<RAGGED>(job, r, raw);
        gpu_sums<Int> before = gpu_scan<Int, RAGGED>(gpu_sums_of<Int>(job, req), by_block);
        gpu_add(before, base);
        if (!RAGGED)
            before.tokens = (Int)gpu_min(r, (uint32_t)job.num_requests) * (Int)job.extend_len;
        if (slice.index == 0 && r <= (uint32_t)job.padded_requests)
            gpu_write_request(job, r, req.kv, before);
        if (job.flags & DM_JOB_TOKENS)
            gpu_write_runs(job, gpu_run_of(job, r, req, before), slice);
        tile += blockDim.x;
        if (!gpu_is_exact<Int>() || tile >= first + (uint32_t)job.tile || tile > (uint32_t)job.padded_requests)
            return;
    }
}

/* ---- Requests with the same number of tokens, in a step ---- */

/* Token j of request r. What comes after the last token counts as requests of one token. */
typedef struct gpu_token {
    uint32_t r;
    int32_t j;
} gpu_token;

DM_FN gpu_token gpu_token_of(const gpu_job &job, uint32_t t)
{
    const uint32_t n = (uint32_t)job.extend_len, tokens = (uint32_t)job.num_requests * n;
    if (t >= tokens)
        return gpu_token{(uint32_t)job.num_requests + t - tokens, 0};
    const uint32_t r = job.extend_shift >= 0 ? t >> job.extend_shift : t / n;
    return gpu_token{r, (int32_t)(t - r * n)};
}

/* A token a thread. So sums within a request are of the same scan as those over requests. A block's tokens are those of
 * whole requests. */
DM_FN void gpu_fill_tokens(const gpu_job &job, int block)
{
    const uint32_t requests = (uint32_t)job.num_requests, tile = (uint32_t)job.tile;
    const uint32_t none = INT32_MAX; /* is after all that is written */
    const uint32_t t = tile && threadIdx.x >= tile ? none : (uint32_t)block * tile + threadIdx.x;
    const gpu_token token = gpu_token_of(job, t);
    const gpu_raw raw = gpu_load<uint32_t, false>(job, token.r);
    gpu_sums<uint32_t> before = {0, 0, 0};
    if (block)
        before =
            gpu_sums_between<uint32_t, false>(job, 0, gpu_min((uint32_t)block * (uint32_t)job.tile_requests, requests));
    const gpu_request req = gpu_request_of<false>(job, token.r, raw);
    const int32_t e = req.q ? gpu_seen(req, token.j) : 0, kept = gpu_sparse<uint32_t>(job, e);
    gpu_add(before, gpu_scan<uint32_t, false>({0, token.j ? 0 : (uint32_t)req.kv, (uint32_t)kept}, tile));
    before.tokens = gpu_min(token.r, requests) * (uint32_t)job.extend_len;
    if (token.j == 0 && token.r <= (uint32_t)job.padded_requests)
        gpu_write_request(job, token.r, req.kv, before);
    if (job.flags & DM_JOB_DSA_CU_SEQLENS_K && (int32_t)t <= job.tokens_written)
        job.dsa_cu_seqlens_k[t] = (int32_t)before.sparse;
    if ((int32_t)t < job.tokens_written)
        gpu_write_token<uint32_t>(job, (int32_t)t, token.r, e, req.kv);
}

#endif
