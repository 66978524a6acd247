/* What include/draftmeta.h promises of a fill, done naively: one request, one token, one column after the other. */
#include "harness.h"

#include <stdlib.h>

/* Holds any sum or difference of two int64. */
__extension__ typedef __int128 wide;

/* A fill under way. */
typedef struct fill {
    const dm_fill_desc *d;
    int64_t capacity; /* M; INT64_MAX: no bound */
    int64_t tokens;   /* T */
    int64_t covered;  /* E */
    uint32_t flags, bad_request;
} fill;

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t element(const dm_vec *v, int64_t i)
{
    return v->type == DM_INT64 ? ((const int64_t *)v->data)[i] : ((const int32_t *)v->data)[i];
}

static int32_t *cell(const dm_table *t, int64_t row, int64_t col)
{
    int64_t stride = t->row_stride ? t->row_stride : t->cols;
    return (int32_t *)t->data + row * stride + col;
}

/* Stores value in entry i of an output, if that output is wanted. */
static void store(fill *f, const dm_vec *v, int64_t i, int64_t value)
{
    if (!v->data)
        return;
    if (value < INT32_MIN || value > INT32_MAX)
        f->flags |= DM_REPORT_NARROW;
    ((uint32_t *)v->data)[i] = (uint32_t)value;
}

/* ---- Requests ---- */

static void blame(fill *f, int64_t r, uint32_t flag)
{
    f->flags |= flag;
    if (f->bad_request < (uint32_t)r + 1)
        f->bad_request = (uint32_t)r + 1;
}

static int64_t clamp(fill *f, int64_t r, wide x, uint32_t flag)
{
    if (x >= 0 && x <= INT32_MAX)
        return (int64_t)x;
    blame(f, r, flag);
    return x < 0 ? 0 : INT32_MAX;
}

static int64_t kv_of(fill *f, int64_t r)
{
    return clamp(f, r, (wide)element(&f->d->seq_lens, r) + f->d->seq_len_bias, DM_REPORT_KV_CLAMPED);
}

static int64_t q_of(fill *f, int64_t r)
{
    const dm_fill_desc *d = f->d;
    if (d->extend_lens.data)
        return clamp(f, r, element(&d->extend_lens, r), DM_REPORT_Q_CLAMPED);
    if (!d->query_start_loc.data)
        return d->extend_len;
    wide first = element(&d->query_start_loc, r), end = element(&d->query_start_loc, r + 1);
    return clamp(f, r, end - first, DM_REPORT_Q_CLAMPED);
}

/* The table that page_table and page_table_1 are read from, and request r's row in it: -1 if that is out of range. */
static const dm_table *source_of(fill *f, int64_t r, int64_t *row)
{
    const dm_fill_desc *d = f->d;
    const dm_table *source = d->block_table.data ? &d->block_table : &d->req_to_token;
    *row = d->req_pool_indices.data ? element(&d->req_pool_indices, r) : r;
    if (*row < 0 || *row >= source->rows) {
        blame(f, r, DM_REPORT_BAD_POOL);
        *row = -1;
    }
    return source;
}

/* Looks at every request once, wanted or dropped: the clamps, the pool indices, and T. */
static void survey_requests(fill *f)
{
    for (int64_t r = 0; r < f->d->num_requests; r++) {
        int64_t row;
        kv_of(f, r);
        f->tokens += q_of(f, r);
        if (f->d->page_table.data || f->d->page_table_1.data)
            source_of(f, r, &row);
    }
}

static void fill_requests(fill *f)
{
    const dm_fill_desc *d = f->d;
    int64_t sum_q = 0, sum_kv = 0;
    store(f, &d->cu_seqlens_q, 0, 0);
    store(f, &d->cu_seqlens_k, 0, 0);
    for (int64_t r = 0; r < max64(d->num_requests, d->padded_requests); r++) {
        int64_t kv = r < d->num_requests ? kv_of(f, r) : 0;
        sum_q += r < d->num_requests ? q_of(f, r) : 0;
        sum_kv += kv;
        store(f, &d->cache_seqlens, r, kv);
        store(f, &d->cu_seqlens_q, r + 1, min64(sum_q, f->capacity));
        store(f, &d->cu_seqlens_k, r + 1, sum_kv);
    }
}

/* ---- Tokens ---- */

/* M: the smallest length of the per-token outputs. */
static int64_t capacity_of(const dm_fill_desc *d)
{
    int64_t m = INT64_MAX;
    const dm_vec *vecs[] = {&d->seqlens_expanded, &d->dsa_cache_seqlens, &d->token_to_req, &d->context_lens};
    for (size_t i = 0; i < sizeof vecs / sizeof *vecs; i++)
        if (vecs[i]->data)
            m = min64(m, vecs[i]->len);
    if (d->dsa_cu_seqlens_k.data)
        m = min64(m, d->dsa_cu_seqlens_k.len - 1);
    if (d->page_table_1.data)
        m = min64(m, d->page_table_1.rows);
    if (d->page_table.data)
        m = min64(m, d->page_table.rows);
    return m;
}

/* The KV tokens that sparse attention reads of e. */
static int64_t kept_of(const dm_fill_desc *d, int64_t e)
{
    if (d->pool_size <= 1)
        return min64(e, d->topk);
    return min64(e - e % d->pool_size, d->topk) + e % d->pool_size;
}

/* How many of the first x KV tokens this rank holds: every W-th part of I, and what there is of one that is not full.
 */
static int64_t local_of(const dm_fill_desc *d, int64_t x)
{
    const int64_t w = max64(d->dcp_world, 1), i = max64(d->dcp_interleave, 1), parts = x / i;
    return (parts + w - 1 - d->dcp_rank) / w * i + (parts % w == d->dcp_rank ? x % i : 0);
}

/* Row t of a page table, for request r; r < 0: a padding token. */
static void fill_row(fill *f, const dm_table *table, int64_t t, int64_t r, int64_t page)
{
    if (!table->data)
        return;
    bool in_pages = f->d->block_table.data != NULL;
    int64_t row = -1, kv = r < 0 ? 0 : kv_of(f, r);
    const dm_table *source = r < 0 ? NULL : source_of(f, r, &row);
    for (int64_t c = 0; c < table->cols; c++) {
        int64_t from = in_pages ? c : c * page; /* the source's column */
        if (row >= 0 && c * page < kv && from < source->cols)
            *cell(table, t, c) = in_pages ? *cell(source, row, from) : (int32_t)(*cell(source, row, from) / page);
        else if (f->d->flags & DM_FILL_FULL_ROWS)
            *cell(table, t, c) = 0;
    }
}

static void fill_rows(fill *f, int64_t t, int64_t r)
{
    fill_row(f, &f->d->page_table_1, t, r, 1);
    fill_row(f, &f->d->page_table, t, r, f->d->page_size);
}

/* Everything that is per token, but for the schedules. */
static void fill_tokens(fill *f)
{
    const dm_fill_desc *d = f->d;
    int64_t t = 0, sum = 0;
    store(f, &d->dsa_cu_seqlens_k, 0, 0);
    for (int64_t r = 0; r < d->num_requests; r++) {
        int64_t kv = kv_of(f, r), q = q_of(f, r);
        for (int64_t j = 0; j < q && t < f->covered; j++, t++) {
            int64_t e = max64(0, kv - q + 1 + j), kept = kept_of(d, e);
            sum += kept;
            store(f, &d->seqlens_expanded, t, e);
            store(f, &d->dsa_cache_seqlens, t, kept);
            store(f, &d->dsa_cu_seqlens_k, t + 1, sum);
            store(f, &d->token_to_req, t, r);
            int64_t seen = local_of(d, d->flags & DM_FILL_CONTEXT_PER_REQUEST ? kv : e);
            store(f, &d->context_lens, t, seen / max64(d->context_divisor, 1));
            fill_rows(f, t, r);
        }
    }
    for (; t < f->covered; t++) {
        store(f, &d->seqlens_expanded, t, 0);
        store(f, &d->dsa_cache_seqlens, t, 0);
        store(f, &d->dsa_cu_seqlens_k, t + 1, sum);
        store(f, &d->token_to_req, t, d->num_requests + t - f->tokens);
        store(f, &d->context_lens, t, 0);
        fill_rows(f, t, -1);
    }
}

/* ---- Schedules ---- */

/* c of each unit covered, padding included. */
static int64_t *schedule_lengths(fill *f, dm_schedule_unit unit, int64_t units)
{
    int64_t *c = harness_alloc((size_t)units * sizeof *c), t = 0;
    for (int64_t r = 0; r < f->d->num_requests && t < units; r++) {
        int64_t kv = kv_of(f, r), q = q_of(f, r);
        if (unit == DM_UNIT_REQUEST)
            c[t++] = local_of(f->d, kv);
        else
            for (int64_t j = 0; j < q && t < units; j++)
                c[t++] = local_of(f->d, max64(0, kv - q + 1 + j));
    }
    return c;
}

static int64_t schedule_start(const dm_schedule *s, int64_t i, int64_t total)
{
    int64_t quot = total / s->slots, rem = total % s->slots;
    return i * quot + (s->variant == DM_SCHEDULE_SM90 ? max64(0, i - (s->slots - rem)) : min64(i, rem));
}

static void fill_schedule(fill *f, const dm_schedule *s)
{
    int64_t n = s->unit == DM_UNIT_REQUEST ? f->d->extend_len : 1;
    int64_t a = s->variant == DM_SCHEDULE_SM100 ? n : (n + 1) / 2;
    int64_t units = min64(f->covered, INT32_MAX) / n;
    int64_t *seg = schedule_lengths(f, s->unit, units), total = 0;
    for (int64_t u = 0; u < units; u++) {
        seg[u] = (seg[u] / max64(s->divisor, 1) + 255) / 256;
        total += seg[u] * a;
    }
    int64_t u = 0, before = 0; /* before: P[u - 1] * a; starts never decrease, so u never goes back */
    for (int64_t i = 0; i <= s->slots; i++) {
        int64_t start = schedule_start(s, i, total), first = units * a, second = 0;
        if (start < total) {
            for (; before + seg[u] * a <= start; u++)
                before += seg[u] * a;
            int64_t o = start - before;
            first = s->variant == DM_SCHEDULE_SM100 ? u * a : u * a + o / seg[u];
            second = s->variant == DM_SCHEDULE_SM100 ? o / a : o % seg[u];
        }
        store(f, &s->table, 2 * i, first);
        store(f, &s->table, 2 * i + 1, second);
    }
    free(seg);
}

/* ---- The whole ---- */

static void write_report(const fill *f, dm_report *report)
{
    report->flags |= f->flags | (f->tokens > f->capacity ? DM_REPORT_TOKENS_DROPPED : 0);
    if (report->bad_request < f->bad_request)
        report->bad_request = f->bad_request;
    if (report->tokens_wanted < (uint64_t)f->tokens)
        report->tokens_wanted = (uint64_t)f->tokens;
}

void oracle_fill(const dm_fill_desc *desc)
{
    fill f = {.d = desc, .capacity = capacity_of(desc)};
    survey_requests(&f);
    f.covered = min64(max64(desc->padded_tokens, f.tokens), f.capacity);
    fill_requests(&f);
    if (f.capacity < INT64_MAX) /* else nothing per token is wanted, and T may be astronomical */
        fill_tokens(&f);
    store(&f, &desc->num_tokens, 0, min64(f.tokens, f.capacity));
    for (int i = 0; i < 2; i++)
        if (desc->schedules[i].table.data)
            fill_schedule(&f, &desc->schedules[i]);
    if (desc->report)
        write_report(&f, desc->report);
}
