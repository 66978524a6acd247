/* Lengths alone: the kernel for jobs that want nothing but seqlens_expanded and dsa_cache_seqlens, with a parameter of
 * its own, and with sums of its own, which read four lengths at once. */
#ifndef DRAFTMETA_GPU_LENGTHS_ALONE_H
#define DRAFTMETA_GPU_LENGTHS_ALONE_H

#include "lengths.h"

enum {
    GPU_QUADS = 8,    /* loads of four lengths that a thread has in flight */
    GPU_FEW_QUADS = 2 /* the same where that is enough */
};

/* A length as memory has it, clamped and as far as it counts. */
DM_FN uint32_t gpu_kept(int32_t q, uint32_t most)
{
    return gpu_min((uint32_t)gpu_or_zero(q), most);
}

/* One 16-byte load. */
typedef struct alignas(16) gpu_quad {
    int32_t a, b, c, d;
} gpu_quad;

/* Up to BATCH loads on their way together: the tokens of every step-th four requests from quads[i] downwards. */
template <int BATCH> DM_FN uint32_t gpu_tokens_of_batch(const gpu_quad *quads, uint32_t most, int i, int step)
{
    gpu_quad batch[BATCH];
    uint32_t sum = 0, bits = 0;
    uint32_t kept = 0;
#pragma unroll
    for (int k = 0; k < BATCH; k++)
        batch[k] = i >= k * step ? quads[i - k * step] : gpu_quad{0, 0, 0, 0};
#pragma unroll
    for (int k = 0; k < BATCH; k++) {
        sum += (uint32_t)batch[k].a + (uint32_t)batch[k].b + (uint32_t)batch[k].c + (uint32_t)batch[k].d;
        bits |= (uint32_t)(batch[k].a | batch[k].b | batch[k].c | batch[k].d);
    }
    if (bits <= GPU_STEP_CAPACITY) /* so is each of them, and none is negative */
        return sum;
#pragma unroll
    for (int k = 0; k < BATCH; k++)
        kept += gpu_kept(batch[k].a, most) + gpu_kept(batch[k].b, most) + gpu_kept(batch[k].c, most) +
                gpu_kept(batch[k].d, most);
    return kept;
}

/* The tokens of every step-th request, or four requests, of 0 .. end - 1, from first on. It runs from the end: blocks
 * with other ends then ask for other lines at the same time. */
DM_FN uint32_t gpu_tokens_of_some(const int32_t *lengths, uint32_t most, int32_t end, int first, int step)
{
    const gpu_quad *quads = (const gpu_quad *)lengths;
    const int32_t num_quads = (uintptr_t)lengths % sizeof(gpu_quad) ? 0 : end / 4;
    uint32_t sum = 0;
    if (num_quads <= GPU_FEW_QUADS * step) {
        sum = gpu_min(gpu_tokens_of_batch<GPU_FEW_QUADS>(quads, most, num_quads - 1 - first, step), most);
    } else {
#pragma unroll 1
        for (int i = num_quads - 1 - first; i >= 0; i -= GPU_QUADS * step)
            sum = gpu_min(sum + gpu_tokens_of_batch<GPU_QUADS>(quads, most, i, step), most);
    }
#pragma unroll 1
    for (int32_t r = 4 * num_quads + first; r < end; r += step)
        sum = gpu_min(sum + gpu_kept(lengths[r], most), most);
    return sum;
}

/* What the first token of a request sees, before its clamp; anything where there is none. */
DM_FN int32_t gpu_first_seen(int32_t kv, int32_t q)
{
    return (int32_t)((uint32_t)kv - (uint32_t)q + 1);
}

/* Tokens first, first + step, ... of n of a request, whose first one is at offset and sees e. */
DM_FN void gpu_write_expanded(const gpu_lengths &in, int32_t offset, int32_t n, int32_t e, int first, int step)
{
#pragma unroll 1
    for (int32_t j = first; j < n; j += step) {
        const int32_t seen = e + j < 0 ? 0 : e + j;
        if (in.seqlens_expanded)
            in.seqlens_expanded[offset + j] = seen;
        if (in.dsa_cache_seqlens)
            in.dsa_cache_seqlens[offset + j] = gpu_min(seen, in.topk);
    }
}

/* A request a lane: each writes its own if it is short; then the warp writes the long ones together. */
DM_FN void gpu_write_requests(const gpu_lengths &in, uint32_t tokens_before, int32_t q, int32_t e)
{
    const int32_t offset = (int32_t)gpu_min(tokens_before, (uint32_t)in.capacity);
    const int32_t n = gpu_min(q < 0 ? 0 : q, in.capacity - offset);
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
    uint32_t flags = 0, before = 0;
    if (!in.extend) {
        const int32_t length = dm_clamp_length(dm_add_clamped(seq, in.seq_len_bias), 0, &flags);
        gpu_write_requests(in, (uint32_t)r * (uint32_t)in.extend_len, is_there ? in.extend_len : 0,
                           gpu_first_seen(length, in.extend_len));
        return;
    }
    const int32_t q = is_there ? in.extend[r] : 0;
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
        const bool is_warp = gpu_lane() < gpu_warps(), is_earlier = gpu_lane() < gpu_warp();
        before = gpu_warp_sum(is_warp ? sums_of[gpu_lane()].before + (is_earlier ? sums_of[gpu_lane()].own : 0) : 0u);
    }
    const int32_t kv = dm_clamp_length(dm_add_clamped(seq, in.seq_len_bias), 0, &flags);
    gpu_write_requests(in, before + up - own, q, gpu_first_seen(kv, gpu_or_zero(q)));
}

#endif
