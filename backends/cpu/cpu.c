/* The CPU backend: memory is the host's, a fill has finished when it returns.
 *
 * A fill walks the requests once. On the way it writes the outputs per request and, as long as there is little to do,
 * the tokens too: a small fill is over then, on the calling thread, with no fork. Where there are threads to share a
 * large one, or page tables, it leaves marks behind, the sums before every chunk of requests, from which any token is
 * found in a few steps: the rest is written in tiles of tokens and columns, in parallel if that is worth it. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "formula.h"
#include "rows.h"

enum {
    MAX_THREADS = 1024,
    MAX_CHUNKS = 256,
    MIN_CHUNK_REQUESTS = 32,
    PARALLEL_REQUESTS = 8192,   /* from here on, requests are walked in parallel */
    PARALLEL_BYTES = 256 << 10, /* from here on, tokens are written in parallel, */
    THREAD_BYTES = 128 << 10,   /* by a thread for so many */
    TILED_REQUESTS = 1024,      /* from here on, tokens are left to tiles, where their number is known */
    SHORT_RUN = 16,             /* tokens of a request for which a plain loop is fastest */
    WIDE_RUN = 8,               /* tokens that are written at once where the tile has room */
    TILES_PER_THREAD = 8,
    MIN_TILE_TOKENS = 16,
    MIN_TILE_COLUMNS = 256,
    MAX_TILE_COLUMNS = 1 << 16,
    SLOTS_PER_LINE = 16,
    STRIP_COLUMNS = 1 << 12 /* columns whose source stays in the first-level cache for all of a request's tokens */
};

typedef struct cpu_state {
    int threads;
    const dm_rows *rows;
} cpu_state;

/* Sums over all requests before one. */
typedef struct mark {
    int64_t tokens;
    uint64_t kv, sparse, segments[2];
    double cells;   /* elements that page tables take to read and write; kept if one is wanted, */
    int64_t widest; /* and so is the most live columns of a row */
} mark;

/* One request, with the sums before it. */
typedef struct request {
    int64_t r;
    mark at;
    int32_t kv, q;
    uint32_t flags;
} request;

typedef struct plan {
    const dm_job *job;
    const dm_rows *rows;
    int threads;
    bool has_tokens, has_sums; /* any output per token; any sum beside tokens and kv */
    double token_bytes;        /* written per token, live elements of page tables apart */
    int chunks;
    int64_t chunk;   /* requests of a chunk */
    int64_t total;   /* T */
    int64_t written; /* E */
    int64_t pending; /* the first token that the walk left to the tiles */
    mark marks[MAX_CHUNKS + 1];
} plan;

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static void report(const dm_job *job, uint32_t flags, int64_t bad_request)
{
    if (!job->report || !flags)
        return;
    __atomic_fetch_or(&job->report->flags, flags, __ATOMIC_RELAXED);
    uint32_t bad = __atomic_load_n(&job->report->bad_request, __ATOMIC_RELAXED);
    while (bad < (uint64_t)bad_request &&
           !__atomic_compare_exchange_n(&job->report->bad_request, &bad, (uint32_t)bad_request, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
    }
}

/* ---- Requests ---- */

static void read_request(const dm_job *job, request *req)
{
    req->kv = req->q = 0;
    req->flags = 0;
    if (req->r < job->num_requests) {
        req->kv = dm_kv(job, req->r, &req->flags);
        req->q = dm_q(job, req->r, &req->flags);
    }
}

static request request_at(const dm_job *job, int64_t r, const mark *at)
{
    request req = {.r = r, .at = *at};
    read_request(job, &req);
    return req;
}

static uint64_t segments_of(const dm_job_schedule *s, const request *req)
{
    if (s->flags & DM_SCHED_PER_TOKEN)
        return dm_segments_prefix(s, req->kv, req->q, req->q);
    return dm_segments(s, (uint32_t)req->kv);
}

/* Live columns of the request's rows. */
typedef struct live_columns {
    int64_t slots, pages;
} live_columns;

static live_columns live_columns_of(const dm_job *job, const request *req)
{
    return (live_columns){.slots = job->page_table_1 ? dm_live_slots(job, req->kv) : 0,
                          .pages = job->page_table ? dm_live_pages(job, req->kv) : 0};
}

/* A page's first slot takes a line to read. */
static double cells_of(const dm_job *job, const request *req, live_columns n)
{
    const double line = job->flags & DM_JOB_BLOCK_TABLE ? 1 : (double)min64(job->page_size, SLOTS_PER_LINE);
    return (double)(n.slots + n.pages) * req->q + (double)n.slots + (double)n.pages * line;
}

static void add_sums(const dm_job *job, request *req)
{
    if (job->flags & DM_JOB_TABLES && req->q) {
        const live_columns n = live_columns_of(job, req);
        req->at.cells += cells_of(job, req, n);
        req->at.widest = max64(req->at.widest, max64(n.slots, n.pages));
    }
    if (job->dsa_cu_seqlens_k)
        req->at.sparse += dm_sparse_prefix(job, req->kv, req->q, req->q);
    for (int i = 0; i < 2; i++)
        if (job->schedules[i].table)
            req->at.segments[i] += segments_of(&job->schedules[i], req);
}

/* Adds the request to the sums before it and goes on to the next. */
static void next_request(const plan *p, request *req)
{
    req->at.tokens += req->q;
    req->at.kv += (uint64_t)req->kv;
    if (p->has_sums)
        add_sums(p->job, req);
    req->r++;
    read_request(p->job, req);
}

static void write_request(const dm_job *job, request *req)
{
    if (job->cache_seqlens)
        job->cache_seqlens[req->r] = req->kv;
    if (job->cu_seqlens_q)
        job->cu_seqlens_q[req->r] = (int32_t)(uint32_t)min64(req->at.tokens, job->capacity);
    if (job->cu_seqlens_k)
        job->cu_seqlens_k[req->r] = (int32_t)(uint32_t)req->at.kv;
    if (job->flags & DM_JOB_TABLES && req->r < job->num_requests)
        dm_source_row(job, req->r, &req->flags);
    report(job, req->flags, req->r + 1);
}

/* The request that holds token t < T. */
static request find_token(const plan *p, int64_t t)
{
    int low = 0, high = p->chunks - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (p->marks[middle].tokens <= t)
            low = middle;
        else
            high = middle - 1;
    }
    request req = request_at(p->job, low * p->chunk, &p->marks[low]);
    while (req.at.tokens + req.q <= t)
        next_request(p, &req);
    return req;
}

/* ---- Tokens ---- */

/* Tokens t .. t + n - 1 of the fill: j and on of a request. room: tokens from t on that the caller writes, in order. */
typedef struct run {
    const request *req;
    int64_t t, j, n, room;
} run;

static void write_sparse_prefix(const dm_job *job, const run *u)
{
    const request *req = u->req;
    uint64_t sum = req->at.sparse + dm_sparse_prefix(job, req->kv, req->q, u->j);
    for (int64_t i = 0; i < u->n; i++) {
        job->dsa_cu_seqlens_k[u->t + i] = (int32_t)(uint32_t)sum;
        sum += (uint32_t)dm_sparse(dm_expanded(req->kv, req->q, u->j + i), job->topk, job->pool_size);
    }
}

static void write_pooled(const dm_job *job, const run *u)
{
    for (int64_t i = 0; i < u->n; i++)
        job->dsa_cache_seqlens[u->t + i] =
            dm_sparse(dm_expanded(u->req->kv, u->req->q, u->j + i), job->topk, job->pool_size);
}

static void write_local_context(const dm_job *job, const run *u)
{
    const request *req = u->req;
    const bool per_request = job->flags & DM_JOB_CONTEXT_PER_REQUEST;
    for (int64_t i = 0; i < u->n; i++)
        job->context_lens[u->t + i] =
            dm_context_len(job, per_request ? req->kv : dm_expanded(req->kv, req->q, u->j + i));
}

/* context_lens, if they are e or kv as they stand. */
static int32_t *whole_context(const dm_job *job)
{
    return job->flags & DM_JOB_LOCAL ? NULL : job->context_lens;
}

/* The job's fields are copied first: as far as the compiler knows, the stores could change them. */
static void write_short_lengths(const dm_job *job, const run *u)
{
    const int32_t kv = u->req->kv, r = (int32_t)u->req->r, topk = job->topk, pool = job->pool_size;
    const bool per_request = job->flags & DM_JOB_CONTEXT_PER_REQUEST;
    int32_t *expanded = job->seqlens_expanded, *sparse = job->dsa_cache_seqlens, *owner = job->token_to_req;
    int32_t *context = whole_context(job);
    int64_t e = (int64_t)kv - u->req->q + 1 + u->j;
    for (int64_t t = u->t; t < u->t + u->n; t++, e++) {
        const int32_t seen = e < 0 ? 0 : (int32_t)e;
        if (expanded)
            expanded[t] = seen;
        if (sparse)
            sparse[t] = dm_sparse(seen, topk, pool);
        if (owner)
            owner[t] = r;
        if (context)
            context[t] = per_request ? kv : seen;
    }
}

/* WIDE_RUN tokens whatever n is, so that no branch depends on it. Those too many are the next requests', which are
 * written later. */
static void write_wide_lengths(const dm_job *job, const run *u)
{
    const int32_t kv = u->req->kv, r = (int32_t)u->req->r, topk = job->topk;
    const uint32_t first = (uint32_t)kv - (uint32_t)u->req->q + 1 + (uint32_t)u->j;
    int32_t *context = whole_context(job);
    int32_t seen[WIDE_RUN];
    for (int i = 0; i < WIDE_RUN; i++) {
        const int32_t e = (int32_t)(first + (uint32_t)i);
        seen[i] = e < 0 ? 0 : e;
    }
    if (job->seqlens_expanded)
        memcpy(job->seqlens_expanded + u->t, seen, sizeof seen);
    if (context && !(job->flags & DM_JOB_CONTEXT_PER_REQUEST))
        memcpy(context + u->t, seen, sizeof seen);
    for (int i = 0; job->dsa_cache_seqlens && i < WIDE_RUN; i++)
        job->dsa_cache_seqlens[u->t + i] = seen[i] < topk ? seen[i] : topk;
    for (int i = 0; job->token_to_req && i < WIDE_RUN; i++)
        job->token_to_req[u->t + i] = r;
    for (int i = 0; context && job->flags & DM_JOB_CONTEXT_PER_REQUEST && i < WIDE_RUN; i++)
        context[u->t + i] = kv;
}

static void write_long_lengths(const plan *p, const run *u)
{
    const dm_job *job = p->job;
    const int32_t first = (int32_t)((int64_t)u->req->kv - u->req->q + 1 + u->j);
    int32_t *context = whole_context(job);
    if (job->seqlens_expanded)
        p->rows->ramp(job->seqlens_expanded + u->t, u->n, first);
    if (job->dsa_cache_seqlens && job->pool_size == 1)
        p->rows->clipped_ramp(job->dsa_cache_seqlens + u->t, u->n, first, job->topk);
    else if (job->dsa_cache_seqlens)
        write_pooled(job, u);
    if (job->token_to_req)
        p->rows->set(job->token_to_req + u->t, u->n, (int32_t)u->req->r);
    if (context && job->flags & DM_JOB_CONTEXT_PER_REQUEST)
        p->rows->set(context + u->t, u->n, u->req->kv);
    else if (context)
        p->rows->ramp(context + u->t, u->n, first);
}

static void write_lengths(const plan *p, const run *u)
{
    if (u->n <= WIDE_RUN && u->room >= WIDE_RUN && p->job->pool_size == 1)
        write_wide_lengths(p->job, u);
    else if (u->n < SHORT_RUN)
        write_short_lengths(p->job, u);
    else
        write_long_lengths(p, u);
    if (p->job->context_lens && p->job->flags & DM_JOB_LOCAL)
        write_local_context(p->job, u);
    if (p->job->dsa_cu_seqlens_k)
        write_sparse_prefix(p->job, u);
}

static void copy_row(int32_t *to, const int32_t *from, int64_t columns)
{
    if (columns > 0)
        memcpy(to, from, (size_t)columns * sizeof *to);
}

static void zero_rest(int32_t *row, int64_t live, int64_t c0, int64_t c1)
{
    const int64_t from = max64(live, c0);
    if (from < c1)
        memset(row + from, 0, (size_t)(c1 - from) * sizeof *row);
}

/* Columns c0 .. c1 - 1 of a request's rows: strips of the source, each written to every token's row while it is hot. */
static void write_slot_rows(const plan *p, const run *u, const int32_t *source, int64_t live, int64_t c0, int64_t c1)
{
    const dm_job *job = p->job;
    int32_t *rows = job->page_table_1 + u->t * job->page_table_1_stride;
    const int64_t end = min64(c1, live);
    for (int64_t c = c0; c < end; c += STRIP_COLUMNS)
        for (int64_t i = 0; i < u->n; i++)
            copy_row(rows + i * job->page_table_1_stride + c, source + c, min64(STRIP_COLUMNS, end - c));
    if (job->flags & DM_JOB_FULL_ROWS)
        for (int64_t i = 0; i < u->n; i++)
            zero_rest(rows + i * job->page_table_1_stride, live, c0, min64(c1, job->page_table_1_cols));
}

static void write_page_rows(const plan *p, const run *u, const int32_t *source, int64_t live, int64_t c0, int64_t c1)
{
    const dm_job *job = p->job;
    int32_t *rows = job->page_table + u->t * job->page_table_stride;
    const int64_t end = min64(c1, live);
    for (int64_t c = c0; c < end; c += STRIP_COLUMNS) {
        const int64_t n = min64(STRIP_COLUMNS, end - c);
        if (!(job->flags & DM_JOB_BLOCK_TABLE))
            p->rows->pages(rows + c, u->n, job->page_table_stride, n, source + c * job->page_size, job->page_size);
        else
            for (int64_t i = 0; i < u->n; i++)
                copy_row(rows + i * job->page_table_stride + c, source + c, n);
    }
    if (job->flags & DM_JOB_FULL_ROWS)
        for (int64_t i = 0; i < u->n; i++)
            zero_rest(rows + i * job->page_table_stride, live, c0, min64(c1, job->page_table_cols));
}

/* What a tile covers: tokens t0 .. t1 - 1, and of the page tables columns c0 .. c1 - 1. */
typedef struct tile {
    int64_t t0, t1, c0, c1;
} tile;

static void write_tables(const plan *p, const run *u, int64_t c0, int64_t c1)
{
    const dm_job *job = p->job;
    uint32_t flags = 0;
    const int64_t row = u->req->r < job->num_requests ? dm_source_row(job, u->req->r, &flags) : -1;
    const int32_t *source = row < 0 ? NULL : job->source + row * job->source_stride;
    const int32_t kv = row < 0 ? 0 : u->req->kv;
    if (job->page_table_1)
        write_slot_rows(p, u, source, dm_live_slots(job, kv), c0, c1);
    if (job->page_table)
        write_page_rows(p, u, source, dm_live_pages(job, kv), c0, c1);
}

static void write_run(const plan *p, const run *u, const tile *area)
{
    if (area->c0 == 0)
        write_lengths(p, u);
    if (p->job->flags & DM_JOB_TABLES)
        write_tables(p, u, area->c0, area->c1);
}

/* Tokens t0 .. t1 - 1 beyond the last request's. */
static void write_padding(const plan *p, int64_t t0, const tile *area)
{
    const dm_job *job = p->job;
    const request none = {.r = job->num_requests, .at = p->marks[p->chunks]};
    const run u = {.req = &none, .t = t0, .n = area->t1 - t0, .j = 0};
    if (u.n <= 0)
        return;
    int32_t *const zero[] = {job->seqlens_expanded, job->dsa_cache_seqlens, job->context_lens};
    for (int i = 0; i < 3 && area->c0 == 0; i++)
        if (zero[i])
            p->rows->set(zero[i] + t0, u.n, 0);
    if (job->dsa_cu_seqlens_k && area->c0 == 0)
        p->rows->set(job->dsa_cu_seqlens_k + t0, u.n, (int32_t)(uint32_t)none.at.sparse);
    for (int64_t t = t0; job->token_to_req && area->c0 == 0 && t < area->t1; t++)
        job->token_to_req[t] = (int32_t)(uint32_t)(job->num_requests + t - p->total);
    if (job->flags & DM_JOB_TABLES)
        write_tables(p, &u, area->c0, area->c1);
}

static void write_tile(const plan *p, const tile *area)
{
    const int64_t live_end = min64(area->t1, p->total);
    if (area->t0 < live_end) {
        request req = find_token(p, area->t0);
        for (int64_t t = area->t0; t < live_end; next_request(p, &req)) {
            const int64_t j = t - req.at.tokens, n = min64(req.q - j, live_end - t);
            if (n > 0)
                write_run(p, &(run){.req = &req, .t = t, .j = j, .n = n, .room = live_end - t}, area);
            t += n;
        }
    }
    write_padding(p, max64(area->t0, p->total), area);
}

/* Bytes that tokens take, roughly, whose page tables take so many cells (cells_of). */
static double bytes_of(const plan *p, double tokens, double cells)
{
    return tokens * p->token_bytes + 4 * cells;
}

static int64_t declared_columns(const dm_job *job)
{
    return max64(job->page_table_1 ? job->page_table_1_cols : 0, job->page_table ? job->page_table_cols : 0);
}

/* Threads that so many bytes are worth: waking one, and waiting for it, takes as long as some of them. */
static int threads_for(const plan *p, double bytes)
{
    return bytes < PARALLEL_BYTES                      ? 1
           : bytes < (double)p->threads * THREAD_BYTES ? (int)(bytes / THREAD_BYTES)
                                                       : p->threads;
}

/* Writes the tokens that the walk left, and the padding. Tiles have few tokens before they have few columns, as those
 * side by side find the same requests. */
static void write_pending_tokens(const plan *p)
{
    const int64_t left = p->written - p->pending;
    const int64_t written = p->job->flags & DM_JOB_FULL_ROWS ? declared_columns(p->job) : p->marks[p->chunks].widest;
    const int64_t columns = max64(written, 1);
    if (!p->has_tokens || left <= 0)
        return;
    const int threads = threads_for(p, bytes_of(p, (double)left, p->marks[p->chunks].cells));
    if (threads == 1) {
        write_tile(p, &(tile){p->pending, p->written, 0, columns});
        return;
    }
    const int64_t all = (int64_t)threads * TILES_PER_THREAD;
    const int64_t tokens = max64(ceil_div(left, all), MIN_TILE_TOKENS), down = ceil_div(left, tokens);
    const int64_t most = min64(ceil_div(columns, ceil_div(all, down)), MAX_TILE_COLUMNS);
    const int64_t width = ceil_div(max64(most, MIN_TILE_COLUMNS), SLOTS_PER_LINE) * SLOTS_PER_LINE;
    const int64_t across = ceil_div(columns, width);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t i = 0; i < down * across; i++) {
        const int64_t t = p->pending + i / across * tokens, c = i % across * width;
        write_tile(p, &(tile){t, min64(t + tokens, p->written), c, min64(c + width, columns)});
    }
}

/* ---- The walk over the requests ---- */

/* Walks one chunk from the sums before it and returns those after it. */
static mark walk_chunk(const plan *p, int c, const mark *at, bool write)
{
    const int64_t end = min64((c + 1) * p->chunk, p->job->padded_requests);
    request req = request_at(p->job, c * p->chunk, at);
    for (; req.r < end; next_request(p, &req))
        if (write)
            write_request(p->job, &req);
    return req.at;
}

static mark sum_of(const mark *a, const mark *b)
{
    return (mark){.tokens = a->tokens + b->tokens,
                  .kv = a->kv + b->kv,
                  .sparse = a->sparse + b->sparse,
                  .segments = {a->segments[0] + b->segments[0], a->segments[1] + b->segments[1]},
                  .cells = a->cells + b->cells,
                  .widest = max64(a->widest, b->widest)};
}

static void walk_in_parallel(plan *p)
{
#pragma omp parallel for num_threads(p->threads)
    for (int c = 0; c < p->chunks; c++)
        p->marks[c + 1] = walk_chunk(p, c, &(mark){0}, false);
    for (int c = 0; c < p->chunks; c++)
        p->marks[c + 1] = sum_of(&p->marks[c], &p->marks[c + 1]);
#pragma omp parallel for num_threads(p->threads)
    for (int c = 0; c < p->chunks; c++)
        walk_chunk(p, c, &p->marks[c], true);
}

/* Writes the request's tokens unless they, or earlier ones, are worth more threads, as rows of tables may be. */
static void write_small_run(plan *p, const request *req)
{
    const int64_t t = req->at.tokens;
    if (p->pending < t || req->q == 0 || t >= p->job->capacity || p->job->padded_requests >= TILED_REQUESTS)
        return;
    if (p->threads > 1 && (p->job->flags & DM_JOB_TABLES || bytes_of(p, (double)(t + req->q), 0) >= PARALLEL_BYTES))
        return;
    const tile all = {0, 0, 0, INT64_MAX};
    write_run(p, &(run){.req = req, .t = t, .n = min64(req->q, p->job->capacity - t)}, &all);
    p->pending = t + req->q;
}

static void walk_serially(plan *p)
{
    request req = request_at(p->job, 0, &p->marks[0]);
    for (int c = 0; c < p->chunks; c++) {
        const int64_t end = min64((c + 1) * p->chunk, p->job->padded_requests);
        for (; req.r < end; next_request(p, &req)) {
            write_request(p->job, &req);
            if (p->has_tokens)
                write_small_run(p, &req);
        }
        p->marks[c + 1] = req.at;
    }
}

static void walk_requests(plan *p)
{
    const int64_t requests = p->job->padded_requests;
    p->chunk = max64((requests + MAX_CHUNKS - 1) / MAX_CHUNKS, MIN_CHUNK_REQUESTS);
    p->chunks = (int)((requests + p->chunk - 1) / p->chunk);
    p->marks[0] = (mark){0};
    p->pending = 0;
    if (requests >= PARALLEL_REQUESTS && p->threads > 1)
        walk_in_parallel(p);
    else
        walk_serially(p);
    p->total = p->marks[p->chunks].tokens;
    p->written = dm_tokens_written(p->job, p->total);
}

/* ---- Schedules ---- */

/* The sums before request r <= R. */
static request find_request(const plan *p, int64_t r)
{
    const int64_t c = p->chunks ? min64(r / p->chunk, p->chunks) : 0;
    request req = request_at(p->job, c * p->chunk, &p->marks[c]);
    while (req.r < r)
        next_request(p, &req);
    return req;
}

/* Segments of all units that schedule i covers. */
static uint64_t covered_segments(const plan *p, int i, int64_t covered)
{
    const dm_job_schedule *s = &p->job->schedules[i];
    if (!(s->flags & DM_SCHED_PER_TOKEN))
        return find_request(p, min64(covered, p->job->num_requests)).at.segments[i];
    if (covered >= p->total)
        return p->marks[p->chunks].segments[i];
    const request req = find_token(p, covered);
    return req.at.segments[i] + dm_segments_prefix(s, req.kv, req.q, covered - req.at.tokens);
}

/* Advances req to the request that holds segment w of schedule i. */
static void seek_segment(const plan *p, request *req, int i, uint64_t w)
{
    int c = (int)(req->r / p->chunk);
    while (p->marks[c + 1].segments[i] <= w)
        c++;
    if (c * p->chunk > req->r)
        *req = request_at(p->job, c * p->chunk, &p->marks[c]);
    while (req->at.segments[i] + segments_of(&p->job->schedules[i], req) <= w)
        next_request(p, req);
}

static void write_entry(const plan *p, const request *req, int i, uint32_t slot, uint64_t start)
{
    const dm_job_schedule *s = &p->job->schedules[i];
    const uint64_t atoms = (uint64_t)s->atoms;
    uint64_t unit = (uint64_t)req->r, before = req->at.segments[i];
    uint32_t segments = dm_segments(s, (uint32_t)req->kv);
    if (s->flags & DM_SCHED_PER_TOKEN) {
        const int64_t j = dm_segment_token(s, (int64_t)req->kv - req->q, req->q, start - before);
        unit = (uint64_t)(req->at.tokens + j);
        before += dm_segments_prefix(s, req->kv, req->q, j);
        segments = dm_segments(s, (uint32_t)dm_expanded(req->kv, req->q, j));
    }
    dm_put_entry(s, slot, unit, start - before * atoms, segments);
}

static void write_schedule(const plan *p, int i)
{
    const dm_job_schedule *s = &p->job->schedules[i];
    const int64_t covered = dm_units_covered(p->job, s, p->written);
    const uint64_t atoms = (uint64_t)s->atoms, total = covered_segments(p, i, covered) * atoms;
    request req = request_at(p->job, 0, &p->marks[0]);
    for (uint32_t slot = 0; slot <= (uint32_t)s->slots; slot++) {
        const uint64_t start = dm_slot_start(s, total, slot);
        if (start >= total) {
            dm_put_entry(s, slot, (uint64_t)covered, 0, 1);
            continue;
        }
        seek_segment(p, &req, i, start / atoms);
        write_entry(p, &req, i, slot, start);
    }
}

/* ---- The fill ---- */

static uint64_t sparse_before(const plan *p, int64_t t)
{
    if (t >= p->total)
        return p->marks[p->chunks].sparse;
    const request req = find_token(p, t);
    return req.at.sparse + dm_sparse_prefix(p->job, req.kv, req.q, t - req.at.tokens);
}

/* Stores the low bits; returns whether that lost any. */
static bool store(int32_t *out, uint64_t value)
{
    *out = (int32_t)(uint32_t)value;
    return dm_is_narrow(value);
}

/* The ends of the prefixes and what is written once per fill. The sums only grow, so the last entries tell whether any
 * entry was narrow. */
static bool write_ends(const plan *p)
{
    const dm_job *job = p->job;
    const uint64_t tokens = (uint64_t)min64(p->total, job->capacity);
    bool narrow = false;
    if (job->dsa_cu_seqlens_k)
        narrow |= store(&job->dsa_cu_seqlens_k[p->written], sparse_before(p, p->written));
    if (job->cu_seqlens_q)
        narrow |= store(&job->cu_seqlens_q[job->padded_requests], tokens);
    if (job->cu_seqlens_k)
        narrow |= store(&job->cu_seqlens_k[job->padded_requests], p->marks[p->chunks].kv);
    if (job->num_tokens)
        narrow |= store(job->num_tokens, tokens);
    if (job->token_to_req && p->written > p->total)
        narrow |= dm_is_narrow((uint64_t)(job->num_requests + p->written - 1 - p->total));
    for (int i = 0; i < 2; i++)
        if (job->schedules[i].table)
            write_schedule(p, i);
    return narrow;
}

static void raise_tokens_wanted(dm_report *to, uint64_t tokens)
{
    uint64_t seen = __atomic_load_n(&to->tokens_wanted, __ATOMIC_RELAXED);
    while (seen < tokens &&
           !__atomic_compare_exchange_n(&to->tokens_wanted, &seen, tokens, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

static void fill_one(const cpu_state *cpu, const dm_job *job)
{
    plan p;
    p.job = job;
    p.rows = cpu->rows;
    p.threads = cpu->threads;
    p.has_tokens = job->flags & DM_JOB_TOKENS;
    p.has_sums =
        job->flags & DM_JOB_TABLES || job->dsa_cu_seqlens_k || job->schedules[0].table || job->schedules[1].table;
    p.token_bytes = 20 + (job->flags & DM_JOB_FULL_ROWS ? 4.0 * (double)declared_columns(job) : 0);
    walk_requests(&p);
    write_pending_tokens(&p);
    const bool narrow = write_ends(&p);
    report(job, (narrow ? DM_REPORT_NARROW : 0) | (p.total > job->capacity ? DM_REPORT_TOKENS_DROPPED : 0), 0);
    if (job->report)
        raise_tokens_wanted(job->report, (uint64_t)p.total);
}

static dm_status cpu_fill(void *state, const dm_job *jobs, int count, dm_stream stream)
{
    (void)stream;
    for (int i = 0; i < count; i++)
        fill_one(state, &jobs[i]);
    return DM_OK;
}

/* ---- The rest of the backend ---- */

const dm_rows *dm_rows_choose(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        return &dm_rows_avx512;
    if (__builtin_cpu_supports("avx2"))
        return &dm_rows_avx2;
#endif
    return &dm_rows_base;
}

static dm_status cpu_device_name(void *state, char *name, size_t size)
{
    const cpu_state *cpu = state;
    snprintf(name, size, "host, %d thread%s, %s", cpu->threads, cpu->threads == 1 ? "" : "s", cpu->rows->isa);
    return DM_OK;
}

static void cpu_probe(const char *library, dm_backend_info *info)
{
    (void)library;
    const cpu_state cpu = {omp_get_max_threads(), dm_rows_choose()};
    info->state = DM_BACKEND_READY;
    info->device_count = 1;
    cpu_device_name((void *)(uintptr_t)&cpu, info->device_name, sizeof info->device_name);
}

static dm_status cpu_open(const dm_open_args *args, void **state)
{
    cpu_state *cpu = malloc(sizeof *cpu);
    if (!cpu)
        return dm_fail(DM_ERR_OUT_OF_MEMORY, "no memory for the CPU backend");
    const int threads = args->threads ? args->threads : omp_get_max_threads();
    *cpu = (cpu_state){threads < MAX_THREADS ? threads : MAX_THREADS, dm_rows_choose()};
    *state = cpu;
    return DM_OK;
}

static dm_status cpu_alloc(void *state, size_t bytes, void **ptr)
{
    (void)state;
    if (posix_memalign(ptr, 64, bytes) == 0)
        return DM_OK;
    *ptr = NULL;
    return dm_fail(DM_ERR_OUT_OF_MEMORY, "no host memory for %zu bytes", bytes);
}

static dm_status cpu_free(void *state, void *ptr)
{
    (void)state;
    free(ptr);
    return DM_OK;
}

static dm_status cpu_copy(void *state, void *dst, const void *src, size_t bytes, dm_stream stream)
{
    (void)state, (void)stream;
    if (bytes)
        memmove(dst, src, bytes);
    return DM_OK;
}

static dm_status cpu_sync(void *state, dm_stream stream)
{
    (void)state, (void)stream;
    return DM_OK;
}

static dm_status cpu_is_capturing(void *state, dm_stream stream, bool *capturing)
{
    (void)state, (void)stream;
    *capturing = false;
    return DM_OK;
}

/* The host cannot say whose memory this is; the sanitizers can. */
static dm_status cpu_check_range(void *state, const char *field, const void *ptr, size_t bytes)
{
    (void)state, (void)field, (void)ptr, (void)bytes;
    return DM_OK;
}

const dm_backend dm_backend_cpu = {
    .name = "cpu",
    .probe = cpu_probe,
    .open = cpu_open,
    .close = free,
    .device_name = cpu_device_name,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_copy,
    .download = cpu_copy,
    .sync = cpu_sync,
    .is_capturing = cpu_is_capturing,
    .check_range = cpu_check_range,
    .fill = cpu_fill,
};
