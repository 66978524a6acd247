/* Work schedules: DeepGEMM's, whose formulas are in include/draftmeta.h. */
#ifndef DRAFTMETA_GPU_SCHEDULES_H
#define DRAFTMETA_GPU_SCHEDULES_H

#include "requests.h"

enum { GPU_SHORT_WALK = 16 }; /* the most units of a request that are walked through one by one */

/* A tile of requests, one a thread, as units of work: count units, of which the first has number unit and sees `first`
 * KV tokens, and each one more than the one before it. */
template <class Int> struct gpu_units {
    Int before[GPU_MAX_THREADS]; /* segments before the request */
    uint32_t unit[GPU_MAX_THREADS];
    int32_t first[GPU_MAX_THREADS], count[GPU_MAX_THREADS];
};

/* What comes before a tile of requests. */
template <class Int> struct gpu_tile {
    uint32_t first;
    Int tokens, segments;
};

/* The segments of c KV tokens, or of none: dm_segments. step_shift is -1 where a rank holds a part, too. */
template <class Int> DM_FN uint32_t gpu_segments(const dm_job_schedule &s, int32_t c)
{
    const uint32_t tokens = (uint32_t)gpu_or_zero(c);
    if (s.step_shift >= 0)
        return (tokens + s.step - s.divisor) >> s.step_shift;
    const dm_shard &shard = s.shard;
    return (gpu_entries_of(shard.round, shard.first, shard.interleave, s.divisor, tokens) + DM_SPLIT - 1) / DM_SPLIT;
}

/* The segments of count units, of which the first sees `first` KV tokens. */
DM_COLD_FN uint64_t gpu_segments_of_many(const dm_job_schedule &s, int32_t first, int32_t count)
{
    return dm_segments_run(&s, (int64_t)first - 1, count);
}

/* The unit of these in which segment w lies, and *before: the segments of those before it. */
DM_COLD_FN int32_t gpu_find_unit(const dm_job_schedule &s, int32_t first, int32_t count, uint64_t w, uint64_t *before)
{
    const int32_t j = (int32_t)dm_segment_token(&s, (int64_t)first - 1, count, w);
    *before = gpu_segments_of_many(s, first, j);
    return j;
}

template <class Int> DM_FN Int gpu_segments_of(const dm_job_schedule &s, int32_t first, int32_t count)
{
    Int segments = 0;
    if (gpu_is_exact<Int>() && count > GPU_SHORT_WALK)
        return (Int)gpu_segments_of_many(s, first, count);
#pragma unroll 1
    for (int32_t j = 0; j < count; j++)
        segments += gpu_segments<Int>(s, first + j);
    return segments;
}

/* The sum of v over the block's earlier threads; *total: over all. The block meets here; one that comes again meets
 * before. */
template <class Int> DM_FN Int gpu_scan_block(Int v, Int *total)
{
    __shared__ Int totals[GPU_MAX_WARPS];
    Int up = v;
#pragma unroll 1
    for (int d = 1; d < gpu_warp_size(); d <<= 1)
        up = gpu_add_below(up, d);
    if (gpu_lane() == gpu_warp_size() - 1)
        totals[gpu_warp()] = up;
    __syncthreads();
    const Int of_warp = gpu_lane() < gpu_warps() ? totals[gpu_lane()] : 0;
    *total = gpu_warp_sum(of_warp);
    return up - v + gpu_warp_sum(gpu_lane() < gpu_warp() ? of_warp : (Int)0);
}

/* Puts the units of the tile's requests that are covered where all threads see them, and goes on to the next tile. */
template <class Int, bool RAGGED>
DM_FN void gpu_put_units(const gpu_job &job, const dm_job_schedule &s, gpu_units<Int> &units, gpu_tile<Int> &tile)
{
    const bool per_token = s.flags & DM_SCHED_PER_TOKEN;
    const uint32_t r = tile.first + threadIdx.x;
    const gpu_request req = gpu_request_of<RAGGED>(job, r, gpu_load<Int, RAGGED>(job, r));
    Int tokens = (Int)r * (uint32_t)job.extend_len, total;
    if (RAGGED) {
        tokens = tile.tokens + gpu_scan_block(gpu_min((Int)req.q, gpu_most<Int>(job)), &total);
        tile.tokens += total;
        __syncthreads();
    }
    int32_t count = per_token ? req.q : req.q > 0;
    if (gpu_is_exact<Int>() || RAGGED) {
        const int64_t room = (job.capacity < INT32_MAX ? job.capacity : INT32_MAX) - (int64_t)tokens;
        if (room < req.q) /* a request is a unit only if there is room for all its tokens */
            count = per_token && room > 0 ? (int32_t)room : 0;
    }
    const int32_t first = per_token ? (int32_t)((uint32_t)req.kv - (uint32_t)req.q + 1) : req.kv;
    units.before[threadIdx.x] = tile.segments + gpu_scan_block(gpu_segments_of<Int>(s, first, count), &total);
    units.unit[threadIdx.x] = per_token ? (uint32_t)tokens : r;
    units.first[threadIdx.x] = first;
    units.count[threadIdx.x] = count;
    tile.segments += total;
    tile.first += blockDim.x;
    __syncthreads();
}

/* a / b, of units of work: out of line where that takes many instructions. */
template <class Int> DM_FN Int gpu_divide_work(Int a, uint32_t b)
{
    return gpu_is_exact<Int>() ? (Int)gpu_divide(a, b) : gpu_divide32((uint32_t)a, b);
}

/* dm_put_entry; without atoms, an offset is less than the unit's segments. */
template <class Int>
DM_FN void gpu_put_entry(const dm_job_schedule &s, uint32_t slot, uint32_t unit, Int offset, uint32_t segments)
{
    const uint32_t atoms = (uint32_t)s.atoms;
    const bool adjacent = s.flags & DM_SCHED_ADJACENT;
    const uint32_t quotient = atoms > 1 ? (uint32_t)gpu_divide_work(offset, adjacent ? atoms : segments) : 0;
    int32_t *const entry = s.table + 2 * (int64_t)slot;
    entry[0] = (int32_t)(unit * atoms + (adjacent ? 0 : quotient));
    entry[1] = (int32_t)(adjacent && atoms > 1 ? quotient : (uint32_t)offset - quotient * segments);
}

/* The entry of a slot that begins at start, in units of work, within the tile. */
template <class Int>
DM_FN void gpu_write_entry(const dm_job_schedule &s, const gpu_units<Int> &units, uint32_t requests, uint32_t slot,
                           Int start)
{
    const uint32_t atoms = (uint32_t)s.atoms;
    const Int segment = atoms == 1 ? start : gpu_divide_work(start, atoms);
    uint32_t at = 0, end = gpu_min<uint32_t>(requests, blockDim.x);
#pragma unroll 1
    while (end - at > 1) {
        const uint32_t middle = (at + end) / 2;
        if (units.before[middle] <= segment)
            at = middle;
        else
            end = middle;
    }
    const int32_t first = units.first[at], count = units.count[at];
    Int before = units.before[at];
    uint32_t segments;
    int32_t j = 0;
    if (gpu_is_exact<Int>() && count > GPU_SHORT_WALK) {
        uint64_t within;
        j = gpu_find_unit(s, first, count, segment - before, &within);
        before += (Int)within;
    }
#pragma unroll 1
    for (;; j++, before += segments) {
        segments = gpu_segments<Int>(s, first + j);
        if (before + segments > segment || j + 1 >= count)
            break;
    }
    gpu_put_entry(s, slot, units.unit[at] + (uint32_t)j, start - before * atoms, segments);
}

/* Where the slots begin, in units of work, of total in all: dm_slot_start, with the quotient known. */
template <class Int> struct gpu_starts {
    Int total, quotient;
    uint32_t rest, covered; /* covered: units, padding among them */
};

template <class Int, bool RAGGED>
DM_FN gpu_starts<Int> gpu_starts_of(const gpu_job &job, const dm_job_schedule &s, const gpu_tile<Int> &all)
{
    const Int total = all.segments * (uint32_t)s.atoms, quotient = gpu_divide_work(total, (uint32_t)s.slots);
    int64_t written = job.tokens_written;
    if (RAGGED || gpu_is_exact<Int>())
        written = gpu_tokens_written(job, RAGGED ? (int64_t)all.tokens : (int64_t)job.num_requests * job.extend_len);
    uint32_t covered = (uint32_t)(written < INT32_MAX ? written : INT32_MAX);
    if (!(s.flags & DM_SCHED_PER_TOKEN))
        covered = gpu_divide32(covered, (uint32_t)job.extend_len);
    return gpu_starts<Int>{total, quotient, (uint32_t)(total - quotient * (uint32_t)s.slots), covered};
}

template <class Int> DM_FN Int gpu_start(const dm_job_schedule &s, const gpu_starts<Int> &starts, uint32_t slot)
{
    const uint32_t even = (uint32_t)s.slots - starts.rest, late = slot > even ? slot - even : 0;
    return slot * starts.quotient + (s.flags & DM_SCHED_TAIL_HEAVY ? late : gpu_min(slot, starts.rest));
}

/* Writes the slots that begin within the tile, from segment low on, and those that begin after all. */
template <class Int>
DM_FN void gpu_write_slots(const gpu_job &job, const dm_job_schedule &s, const gpu_units<Int> &units,
                           const gpu_starts<Int> &starts, const gpu_tile<Int> &tile, Int low, int slice)
{
    const Int atoms = (uint32_t)s.atoms, begin = low * atoms, end = tile.segments * atoms;
#pragma unroll 1
    for (uint32_t slot = (uint32_t)slice * blockDim.x + threadIdx.x; slot <= (uint32_t)s.slots;
         slot += blockDim.x << job.slots_shift) {
        const Int start = gpu_start(s, starts, slot);
        if (start >= starts.total)
            gpu_put_entry<Int>(s, slot, starts.covered, 0, 1);
        else if (!gpu_is_exact<Int>() || (start >= begin && start < end))
            gpu_write_entry<Int>(s, units, (uint32_t)job.num_requests - (tile.first - blockDim.x), slot, start);
    }
}

/* The block's number among those that write schedules. A step's requests are one tile. Others come in tiles, once to
 * know the total and once more to write, unless one tile is all. */
template <class Int, bool RAGGED> DM_FN void gpu_fill_schedule(const gpu_job &job, int block)
{
    __shared__ gpu_units<Int> units;
    const int number = block >> job.slots_shift, slice = block & ((1 << job.slots_shift) - 1);
    const dm_job_schedule &s = job.schedules[number];
    gpu_tile<Int> tile = {0, 0, 0};
    gpu_put_units<Int, RAGGED>(job, s, units, tile);
    if (!gpu_is_exact<Int>()) {
        gpu_write_slots<Int>(job, s, units, gpu_starts_of<Int, RAGGED>(job, s, tile), tile, 0, slice);
        return;
    }
    const bool is_one_tile = tile.first >= (uint32_t)job.num_requests;
#pragma unroll 1
    while (tile.first < (uint32_t)job.num_requests) {
        gpu_put_units<Int, RAGGED>(job, s, units, tile);
    }
    const gpu_starts<Int> starts = gpu_starts_of<Int, RAGGED>(job, s, tile);
    Int low = 0;
    tile = is_one_tile ? tile : gpu_tile<Int>{0, 0, 0};
#pragma unroll 1
    for (;;) {
        if (!is_one_tile) {
            low = tile.segments;
            gpu_put_units<Int, RAGGED>(job, s, units, tile);
        }
        gpu_write_slots<Int>(job, s, units, starts, tile, low, slice);
        if (tile.first >= (uint32_t)job.num_requests)
            return;
    }
}

#endif
