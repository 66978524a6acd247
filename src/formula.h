/* The arithmetic of include/draftmeta.h, once, for the host and for device code. Device code defines DM_FN before. */
#ifndef DRAFTMETA_FORMULA_H
#define DRAFTMETA_FORMULA_H

#include "job.h"

#ifndef DM_FN
#define DM_FN static inline
#endif

/* How a function is declared that few fills need and that is not to be inlined where they all come by. */
#ifndef DM_COLD_FN
#define DM_COLD_FN DM_FN
#endif

/* a + b without overflow, as far as a later clamp to int32 can tell. */
DM_FN int64_t dm_add_clamped(int64_t a, int32_t b)
{
    return a > INT64_MAX - INT32_MAX ? INT64_MAX : a + b;
}

/* b - a without overflow, likewise. */
DM_FN int64_t dm_sub_clamped(int64_t b, int64_t a)
{
    if (b >= 0 && a < b - INT64_MAX)
        return INT64_MAX;
    if (b < 0 && a > b - INT64_MIN)
        return INT64_MIN;
    return b - a;
}

/* a / b; most quotients need no 64-bit division, which is slow on GPUs. */
DM_FN uint64_t dm_divide(uint64_t a, uint32_t b)
{
    return a <= UINT32_MAX ? (uint32_t)a / b : a / b;
}

DM_FN int64_t dm_load(const void *array, int wide, int64_t i)
{
    return wide ? ((const int64_t *)array)[i] : ((const int32_t *)array)[i];
}

/* Into 0 .. INT32_MAX; *flags gets flag if that changes the value. */
DM_FN int32_t dm_clamp_length(int64_t v, uint32_t flag, uint32_t *flags)
{
    const int32_t length = v < 0 ? 0 : v > INT32_MAX ? INT32_MAX : (int32_t)v;
    if (length != v)
        *flags |= flag;
    return length;
}

DM_FN int32_t dm_kv_of(const dm_job *job, int64_t seq, uint32_t *flags)
{
    if ((uint64_t)seq <= INT32_MAX) { /* nearly always; the bias is not negative, so 32 bits do */
        const uint32_t kv = (uint32_t)seq + (uint32_t)job->seq_len_bias;
        *flags |= kv > INT32_MAX ? DM_REPORT_KV_CLAMPED : 0;
        return kv > INT32_MAX ? INT32_MAX : (int32_t)kv;
    }
    return dm_clamp_length(dm_add_clamped(seq, job->seq_len_bias), DM_REPORT_KV_CLAMPED, flags);
}

DM_FN int32_t dm_kv(const dm_job *job, int64_t r, uint32_t *flags)
{
    return dm_kv_of(job, dm_load(job->seq_lens, job->flags & DM_JOB_SEQ64, r), flags);
}

/* q of a request before its clamp. */
DM_FN int64_t dm_raw_q(const dm_job *job, int64_t r)
{
    const int wide = job->flags & DM_JOB_EXTEND64;
    if (!(job->flags & DM_JOB_EXTEND))
        return job->extend_len;
    const int64_t q = dm_load(job->extend, wide, r);
    return job->flags & DM_JOB_QUERY_START ? dm_sub_clamped(dm_load(job->extend, wide, r + 1), q) : q;
}

DM_FN int32_t dm_q_of(const dm_job *job, int64_t raw, uint32_t *flags)
{
    if (!(job->flags & DM_JOB_EXTEND))
        return job->extend_len;
    if (job->flags & (DM_JOB_EXTEND64 | DM_JOB_QUERY_START))
        return dm_clamp_length(raw, DM_REPORT_Q_CLAMPED, flags);
    const int32_t q = (int32_t)raw;
    *flags |= q < 0 ? DM_REPORT_Q_CLAMPED : 0;
    return q < 0 ? 0 : q;
}

DM_FN int32_t dm_q(const dm_job *job, int64_t r, uint32_t *flags)
{
    return dm_q_of(job, dm_raw_q(job, r), flags);
}

/* row if the source has it, or -1 and the flag. */
DM_FN int64_t dm_row_of(const dm_job *job, int64_t row, uint32_t *flags)
{
    if (row >= 0 && row < job->source_rows)
        return row;
    *flags |= DM_REPORT_BAD_POOL;
    return -1;
}

/* The source's row of request r, likewise. */
DM_FN int64_t dm_source_row(const dm_job *job, int64_t r, uint32_t *flags)
{
    return dm_row_of(job, job->pool ? dm_load(job->pool, job->flags & DM_JOB_POOL64, r) : r, flags);
}

/* KV tokens that token j of a request sees. */
DM_FN int32_t dm_expanded(int32_t kv, int32_t q, int64_t j)
{
    const int64_t e = (int64_t)kv - q + 1 + j;
    return e < 0 ? 0 : (int32_t)e;
}

/* How many of x KV tokens the shard holds. */
DM_FN uint32_t dm_local(const dm_shard *shard, uint32_t x)
{
    const uint32_t rounds = x / shard->round, rest = x - rounds * shard->round;
    const uint32_t above = rest > shard->first ? rest - shard->first : 0;
    return rounds * shard->interleave + (above < shard->interleave ? above : shard->interleave);
}

/* What context_lens holds for x: e, or kv. */
DM_FN int32_t dm_context_len(const dm_job *job, int32_t x)
{
    return job->flags & DM_JOB_LOCAL ? (int32_t)(dm_local(&job->shard, (uint32_t)x) / job->context_divisor) : x;
}

/* What sparse attention keeps of e KV tokens: whole pools up to topk, and the tokens after the last whole pool. */
DM_FN int32_t dm_sparse(int32_t e, int32_t topk, int32_t pool)
{
    const int32_t tail = pool > 1 ? e % pool : 0;
    return (e - tail < topk ? e - tail : topk) + tail;
}

/* The sum of dm_sparse over e = 1 .. m. Up to c it is e itself; from c + 1, a multiple of pool, topk + e % pool. */
DM_FN uint64_t dm_sparse_sum(uint32_t m, uint32_t topk, uint32_t pool)
{
    const uint32_t c = pool == 1 ? topk : (topk / pool + 1) * pool - 1;
    if (m <= c)
        return (uint64_t)m * ((uint64_t)m + 1) / 2;
    const uint32_t n = m - c;
    const uint64_t up_to_n = (uint64_t)c * ((uint64_t)c + 1) / 2 + (uint64_t)topk * n;
    if (pool == 1)
        return up_to_n;
    const uint64_t rest = n % pool;
    return up_to_n + (uint64_t)(n / pool) * ((uint64_t)pool * (pool - 1) / 2) + rest * (rest - 1) / 2;
}

/* The sum of dm_sparse over j tokens, of which the first sees before + 1 KV tokens. */
DM_FN uint64_t dm_sparse_run(uint32_t topk, uint32_t pool, int64_t before, int64_t j)
{
    const int64_t last = before + j;
    if (last <= 0)
        return 0;
    return dm_sparse_sum((uint32_t)last, topk, pool) - (before > 0 ? dm_sparse_sum((uint32_t)before, topk, pool) : 0);
}

/* The same over the first j tokens of a request. */
DM_FN uint64_t dm_sparse_prefix(const dm_job *job, int32_t kv, int32_t q, int64_t j)
{
    return dm_sparse_run((uint32_t)job->topk, (uint32_t)job->pool_size, (int64_t)kv - q, j);
}

/* ceil(kv / page_size) */
DM_FN int64_t dm_pages(const dm_job *job, int32_t kv)
{
    const uint32_t up = (uint32_t)kv + (uint32_t)job->page_size - 1;
    return job->page_shift < 0 ? up / (uint32_t)job->page_size : up >> job->page_shift;
}

/* Columns of a row of page_table_1, and of page_table, that are live for kv tokens. */
DM_FN int64_t dm_live_slots(const dm_job *job, int32_t kv)
{
    return kv < job->page_table_1_bound ? kv : job->page_table_1_bound;
}

DM_FN int64_t dm_live_pages(const dm_job *job, int32_t kv)
{
    const int64_t pages = dm_pages(job, kv);
    return pages < job->page_table_bound ? pages : job->page_table_bound;
}

/* E: the tokens that are written, padding included, of total in all. */
DM_FN int64_t dm_tokens_written(const dm_job *job, int64_t total)
{
    const int64_t wanted = total > job->padded_tokens ? total : job->padded_tokens;
    return wanted < job->capacity ? wanted : job->capacity;
}

/* Whether an int32 that holds v's low bits holds v. */
DM_FN int dm_is_narrow(uint64_t v)
{
    return v > INT32_MAX;
}

/* ---- Schedules ---- */

/* Segments of c KV tokens of the rank's: ceil(floor(c / divisor) / split). */
DM_FN uint32_t dm_segments_of(const dm_job_schedule *s, uint32_t c)
{
    const uint32_t up = c + s->step - s->divisor;
    if (!s->step)
        return c >= s->divisor;
    return s->step_shift < 0 ? up / s->step : up >> s->step_shift;
}

/* Segments of x KV tokens of all ranks. */
DM_FN uint32_t dm_segments(const dm_job_schedule *s, uint32_t x)
{
    return dm_segments_of(s, s->flags & DM_SCHED_LOCAL ? dm_local(&s->shard, x) : x);
}

/* The sum of dm_segments_of over c = 0 .. m. */
DM_FN uint64_t dm_segments_of_sum(const dm_job_schedule *s, uint32_t m)
{
    if (!s->step)
        return m >= s->divisor ? m - s->divisor + 1 : 0;
    const uint32_t x = m + s->step - s->divisor + 1;
    const uint64_t whole = s->step_shift < 0 ? x / s->step : x >> s->step_shift;
    return whole * (whole - 1) / 2 * s->step + whole * (x - whole * s->step);
}

/* The sum of floor((a * i + b) / m) over i = 0 .. n - 1, as Euclid divides a by m. No a * n + b exceeds 64 bits. */
DM_FN uint64_t dm_floor_sum(uint64_t n, uint64_t m, uint64_t a, uint64_t b)
{
    uint64_t sum = 0;
    for (;;) {
        sum += n * (n - 1) / 2 * (a / m) + n * (b / m);
        a %= m;
        b %= m;
        const uint64_t last = a * n + b;
        if (last < m)
            return sum;
        n = last / m;
        b = last % m;
        const uint64_t divisor = m;
        m = a;
        a = divisor;
    }
}

/* The sum of dm_segments over x = 0 .. m for a shard. The x in its part of every round make c = 0, 1, 2, ... in turn;
 * those before it in the round repeat the c that the rounds before come to, those behind it the c that this round too
 * does. */
DM_COLD_FN uint64_t dm_local_segments_sum(const dm_job_schedule *s, uint32_t m)
{
    const uint32_t round = s->shard.round, first = s->shard.first, part = s->shard.interleave;
    const uint32_t rounds = (m + 1) / round, rest = (m + 1) - rounds * round, owned = dm_local(&s->shard, m + 1);
    const uint32_t before = rest < first ? rest : first,
                   behind = rest > first && rest - first > part ? rest - first - part : 0;
    uint64_t sum = owned ? dm_segments_of_sum(s, owned - 1) : 0;
    if (rounds)
        sum += (uint64_t)(round - part) *
                   dm_floor_sum(rounds, (uint64_t)DM_SPLIT * s->divisor, part, (uint64_t)(DM_SPLIT - 1) * s->divisor) +
               (uint64_t)(round - first - part) * dm_segments_of(s, rounds * part);
    return sum + (uint64_t)before * dm_segments_of(s, rounds * part) +
           (uint64_t)behind * dm_segments_of(s, rounds * part + part);
}

/* The sum of dm_segments over x = 0 .. m. */
DM_FN uint64_t dm_segments_sum(const dm_job_schedule *s, uint32_t m)
{
    return s->flags & DM_SCHED_LOCAL ? dm_local_segments_sum(s, m) : dm_segments_of_sum(s, m);
}

/* The sum of dm_segments over j tokens, of which the first sees before + 1 KV tokens. */
DM_FN uint64_t dm_segments_run(const dm_job_schedule *s, int64_t before, int64_t j)
{
    const int64_t last = before + j;
    if (last <= 0)
        return 0;
    return dm_segments_sum(s, (uint32_t)last) - (before > 0 ? dm_segments_sum(s, (uint32_t)before) : 0);
}

/* The same over the first j tokens of a request. */
DM_FN uint64_t dm_segments_prefix(const dm_job_schedule *s, int32_t kv, int32_t q, int64_t j)
{
    return dm_segments_run(s, (int64_t)kv - q, j);
}

/* Of count tokens, of which the first sees before + 1, the one in which segment w of theirs lies: the first j with more
 * than w segments in the first j + 1. */
DM_FN int64_t dm_segment_token(const dm_job_schedule *s, int64_t before, int64_t count, uint64_t w)
{
    int64_t low = 0, high = count - 1;
    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (dm_segments_run(s, before, middle + 1) > w)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Units that a schedule covers when tokens are written. */
DM_FN int64_t dm_units_covered(const dm_job *job, const dm_job_schedule *s, int64_t tokens)
{
    const int32_t covered = tokens < INT32_MAX ? (int32_t)tokens : INT32_MAX;
    return s->flags & DM_SCHED_PER_TOKEN ? covered : covered / job->extend_len;
}

/* Where slot i begins, in units of work, of total units. */
DM_FN uint64_t dm_slot_start(const dm_job_schedule *s, uint64_t total, uint32_t i)
{
    const uint32_t slots = (uint32_t)s->slots;
    const uint64_t quotient = dm_divide(total, slots);
    const uint32_t rest = (uint32_t)(total - quotient * slots), even = slots - rest;
    uint32_t extra = i < rest ? i : rest;
    if (s->flags & DM_SCHED_TAIL_HEAVY)
        extra = i > even ? i - even : 0;
    return i * quotient + extra;
}

/* Writes entry i: offset o into unit u of seg segments. */
DM_FN void dm_put_entry(const dm_job_schedule *s, uint32_t i, uint64_t u, uint64_t o, uint32_t seg)
{
    const uint32_t atoms = (uint32_t)s->atoms;
    const int adjacent = s->flags & DM_SCHED_ADJACENT;
    const uint64_t quotient = dm_divide(o, adjacent ? atoms : seg);
    s->table[2 * (int64_t)i] = (int32_t)(uint32_t)(u * atoms + (adjacent ? 0 : quotient));
    s->table[2 * (int64_t)i + 1] = (int32_t)(uint32_t)(adjacent ? quotient : o - quotient * seg);
}

#endif
