/* The three fills of a step. Each has output buffers of its own, which persist from step to step as in an engine.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "fills.h"
#include "gpu.h"
#include "tools.h"

enum { SCHEDULE_SLOTS = 132, GUARD_BYTES = 64, POISON = 0xa5 };

typedef enum field_id {
    SEQLENS_EXPANDED,
    DSA_CACHE_SEQLENS,
    DSA_CU_SEQLENS_K,
    TOKEN_TO_REQ,
    CONTEXT_LENS,
    PAGE_TABLE,
    CACHE_SEQLENS,
    CU_SEQLENS_Q,
    CU_SEQLENS_K,
    NUM_TOKENS,
    SCHEDULE,
    REPORT,
    NUM_FIELDS
} field_id;

/* An output buffer, as a matrix of 32-bit words; arrays have one column. */
typedef struct field {
    const char *name;
    int64_t rows, columns;
    size_t offset; /* in the block of its fill */
} field;

/* One kind of fill: its output buffers as a block in the context's memory and as one on the host. */
typedef struct fill_pair {
    field fields[NUM_FIELDS];
    size_t bytes;
    void *device_block;
    unsigned char *expected;
    dm_fill_desc device, host; /* the same fill, over device memory and over host memory */
    gpu_graph **graphs;        /* of device, by its num_requests; NULL: not captured yet */
} fill_pair;

/* The inputs that change in every step, one block for one upload: seq_lens, req_pool_indices, extend_lens. */
typedef struct inputs {
    int64_t *seq_lens, *pool_indices;
    int32_t *extend_lens;
} inputs;

struct fills {
    dm_context *ctx;
    const engine *engine;
    fills_options options;
    fill_pair pairs[NUM_FILL_KINDS];
    unsigned char *got; /* a downloaded block */
    size_t input_bytes;
    void *device_inputs, *host_inputs;
    int32_t *device_table; /* its host mirror is the engine's */
    gpu_queue *queue;      /* of the graphs; NULL: there are none */
    int64_t num_graphs;
};

const char *fill_kind_name(fill_kind kind)
{
    static const char *const names[NUM_FILL_KINDS] = {
        [FILL_DRAFT_EXTEND] = "draft-extend", [FILL_DECODE] = "decode", [FILL_TARGET_VERIFY] = "target-verify"};
    return names[kind];
}

/* ---- Layout --------------------------------------------------------------------------------------------------- */

static int32_t tokens_per_request(const fills *f, fill_kind kind)
{
    return kind == FILL_DECODE ? 1 : f->engine->config.draft_tokens;
}

static int64_t token_capacity(const fills *f, fill_kind kind)
{
    return (int64_t)f->engine->config.max_requests * tokens_per_request(f, kind);
}

/* Places the buffers behind one another with guards between them, which are compared as well. */
static void lay_out(fills *f, fill_kind kind)
{
    fill_pair *p = &f->pairs[kind];
    const engine *e = f->engine;
    const int64_t tokens = token_capacity(f, kind), requests = e->config.max_requests;
    const field fields[NUM_FIELDS] = {
        [SEQLENS_EXPANDED] = {"seqlens_expanded", tokens, 1, 0},
        [DSA_CACHE_SEQLENS] = {"dsa_cache_seqlens", tokens, 1, 0},
        [DSA_CU_SEQLENS_K] = {"dsa_cu_seqlens_k", tokens + 1, 1, 0},
        [TOKEN_TO_REQ] = {"token_to_req", tokens, 1, 0},
        [CONTEXT_LENS] = {"context_lens", tokens, 1, 0},
        [PAGE_TABLE] = {"page_table", tokens, e->columns / e->config.page_size, 0},
        [CACHE_SEQLENS] = {"cache_seqlens", requests, 1, 0},
        [CU_SEQLENS_Q] = {"cu_seqlens_q", requests + 1, 1, 0},
        [CU_SEQLENS_K] = {"cu_seqlens_k", requests + 1, 1, 0},
        [NUM_TOKENS] = {"num_tokens", 1, 1, 0},
        [SCHEDULE] = {"schedules[0].table", SCHEDULE_SLOTS + 1, 2, 0},
        [REPORT] = {"report", sizeof(dm_report) / sizeof(int32_t), 1, 0},
    };
    p->bytes = GUARD_BYTES;
    for (int i = 0; i < NUM_FIELDS; i++) {
        p->fields[i] = fields[i];
        p->fields[i].offset = p->bytes;
        const size_t bytes = (size_t)(fields[i].rows * fields[i].columns) * sizeof(int32_t);
        p->bytes += (bytes + 2 * GUARD_BYTES - 1) / GUARD_BYTES * GUARD_BYTES;
    }
}

static inputs inputs_at(const fills *f, void *block)
{
    const int32_t requests = f->engine->config.max_requests;
    int64_t *seq_lens = block;
    return (inputs){seq_lens, seq_lens + requests, (int32_t *)(seq_lens + 2 * requests)};
}

/* ---- Descriptors ---------------------------------------------------------------------------------------------- */

static dm_vec vec_at(const fill_pair *p, unsigned char *block, field_id id)
{
    return (dm_vec){block + p->fields[id].offset, p->fields[id].rows * p->fields[id].columns, DM_INT32};
}

static void describe_outputs(const fill_pair *p, unsigned char *block, dm_fill_desc *d)
{
    const field *table = &p->fields[PAGE_TABLE];
    d->seqlens_expanded = vec_at(p, block, SEQLENS_EXPANDED);
    d->dsa_cache_seqlens = vec_at(p, block, DSA_CACHE_SEQLENS);
    d->dsa_cu_seqlens_k = vec_at(p, block, DSA_CU_SEQLENS_K);
    d->token_to_req = vec_at(p, block, TOKEN_TO_REQ);
    d->context_lens = vec_at(p, block, CONTEXT_LENS);
    d->page_table = (dm_table){block + table->offset, table->rows, table->columns, 0, DM_INT32};
    d->cache_seqlens = vec_at(p, block, CACHE_SEQLENS);
    d->cu_seqlens_q = vec_at(p, block, CU_SEQLENS_Q);
    d->cu_seqlens_k = vec_at(p, block, CU_SEQLENS_K);
    d->num_tokens = vec_at(p, block, NUM_TOKENS);
    d->schedules[0].table = vec_at(p, block, SCHEDULE);
    d->report = (dm_report *)(void *)(block + p->fields[REPORT].offset);
}

/* How the kinds differ: where the query lengths come from, and whether seq_lens count the draft tokens. */
static void describe_kind(const fills *f, fill_kind kind, const inputs *in, dm_fill_desc *d)
{
    const int32_t draft_tokens = f->engine->config.draft_tokens;
    d->schedules[0].unit = DM_UNIT_TOKEN;
    switch (kind) {
    case FILL_DRAFT_EXTEND:
        d->extend_lens = (dm_vec){in->extend_lens, f->engine->config.max_requests, DM_INT32};
        break;
    case FILL_DECODE:
        d->extend_len = 1;
        break;
    case FILL_TARGET_VERIFY:
        d->extend_len = draft_tokens;
        d->seq_len_bias = draft_tokens;
        d->schedules[0].unit = DM_UNIT_REQUEST;
        break;
    case NUM_FILL_KINDS:
        break;
    }
}

/* The fill over the given memory, for a whole batch. */
static dm_fill_desc describe(const fills *f, fill_kind kind, void *input_block, int32_t *table, unsigned char *outputs)
{
    const engine *e = f->engine;
    const inputs in = inputs_at(f, input_block);
    dm_fill_desc d = {.size = sizeof d, .num_requests = e->config.max_requests};
    d.seq_lens = (dm_vec){in.seq_lens, e->config.max_requests, DM_INT64};
    d.req_pool_indices = (dm_vec){in.pool_indices, e->config.max_requests, DM_INT64};
    d.req_to_token = (dm_table){table, e->rows, e->columns, 0, DM_INT32};
    d.topk = f->options.topk;
    d.page_size = e->config.page_size;
    d.padded_tokens = f->options.padded ? token_capacity(f, kind) : 0;
    d.schedules[0].variant = DM_SCHEDULE_SM90;
    d.schedules[0].slots = SCHEDULE_SLOTS;
    describe_outputs(&f->pairs[kind], outputs, &d);
    describe_kind(f, kind, &in, &d);
    return d;
}

/* ---- Construction --------------------------------------------------------------------------------------------- */

/* Both sides start from the same poison, so that what a fill must leave untouched is compared too; reports start as
 * zeros, as the contract asks. */
static dm_status make_pair(fills *f, fill_kind kind)
{
    fill_pair *p = &f->pairs[kind];
    lay_out(f, kind);
    p->expected = tool_calloc(p->bytes, 1);
    memset(p->expected, POISON, p->bytes);
    memset(p->expected + p->fields[REPORT].offset, 0, sizeof(dm_report));
    p->host = describe(f, kind, f->host_inputs, f->engine->table, p->expected);

    const dm_status status = dm_malloc(f->ctx, p->bytes, &p->device_block);
    if (status != DM_OK)
        return status;
    p->device = describe(f, kind, f->device_inputs, f->device_table, p->device_block);
    p->graphs = tool_calloc((size_t)f->engine->config.max_requests + 1, sizeof(gpu_graph *));
    return dm_upload(f->ctx, p->device_block, p->expected, p->bytes, NULL);
}

static dm_status make_inputs(fills *f)
{
    const engine *e = f->engine;
    const size_t table_bytes = (size_t)e->rows * (size_t)e->columns * sizeof *e->table;
    void *table = NULL;
    f->input_bytes = (size_t)e->config.max_requests * (2 * sizeof(int64_t) + sizeof(int32_t));
    f->host_inputs = tool_calloc(f->input_bytes, 1);
    dm_status status = dm_malloc(f->ctx, f->input_bytes, &f->device_inputs);
    if (status == DM_OK)
        status = dm_malloc(f->ctx, table_bytes, &table);
    f->device_table = table;
    return status == DM_OK ? dm_upload(f->ctx, table, e->table, table_bytes, NULL) : status;
}

dm_status fills_new(dm_context *ctx, const engine *e, const fills_options *options, fills **result)
{
    fills *f = tool_calloc(1, sizeof *f);
    *f = (fills){.ctx = ctx, .engine = e, .options = *options};
    f->queue = options->graph ? gpu_queue_open(ctx) : NULL;
    size_t largest = 0;
    dm_status status = make_inputs(f);
    for (fill_kind kind = 0; kind < NUM_FILL_KINDS && status == DM_OK; kind++) {
        status = make_pair(f, kind);
        largest = f->pairs[kind].bytes > largest ? f->pairs[kind].bytes : largest;
    }
    f->got = tool_calloc(largest, 1);
    *result = f;
    if (status != DM_OK) {
        fills_free(f);
        *result = NULL;
    }
    return status;
}

static void free_graphs(fills *f, fill_kind kind)
{
    gpu_graph **graphs = f->pairs[kind].graphs;
    for (int32_t r = 0; graphs != NULL && r <= f->engine->config.max_requests; r++)
        gpu_graph_free(graphs[r]);
    free(graphs);
}

/* Frees device memory without hiding an earlier failure: what dm_free says here would change nothing. */
void fills_free(fills *f)
{
    if (f == NULL)
        return;
    for (fill_kind kind = 0; kind < NUM_FILL_KINDS; kind++) {
        free_graphs(f, kind);
        dm_free(f->ctx, f->pairs[kind].device_block);
        free(f->pairs[kind].expected);
    }
    gpu_queue_close(f->queue);
    dm_free(f->ctx, f->device_table);
    dm_free(f->ctx, f->device_inputs);
    free(f->host_inputs);
    free(f->got);
    free(f);
}

/* ---- A step --------------------------------------------------------------------------------------------------- */

/* Requests behind the batch, which only padded fills look at, have no tokens and the padding row of the table. */
static void write_inputs(const fills *f)
{
    const engine *e = f->engine;
    const inputs in = inputs_at(f, f->host_inputs);
    memset(f->host_inputs, 0, f->input_bytes);
    for (int32_t i = 0; i < e->batch_size; i++) {
        in.seq_lens[i] = e->batch[i].context;
        in.pool_indices[i] = e->batch[i].row;
        in.extend_lens[i] = e->batch[i].accepted;
    }
}

/* A fill under capture. */
typedef struct capture {
    fills *f;
    fill_kind kind;
    dm_status status;
} capture;

static void enqueue_fill(void *arg)
{
    capture *c = arg;
    c->status = dm_fill(c->f->ctx, &c->f->pairs[c->kind].device, gpu_queue_stream(c->f->queue));
}

/* The place of the graph of the fill as it is described now. */
static gpu_graph **graph_of(const fills *f, fill_kind kind)
{
    return &f->pairs[kind].graphs[f->pairs[kind].device.num_requests];
}

static dm_status capture_fill(fills *f, fill_kind kind)
{
    capture c = {f, kind, DM_OK};
    gpu_graph **graph = graph_of(f, kind);
    if (*graph != NULL)
        return DM_OK;
    *graph = gpu_graph_capture(f->queue, enqueue_fill, &c);
    f->num_graphs++;
    return c.status;
}

dm_status fills_load(fills *f)
{
    const engine *e = f->engine;
    write_inputs(f);
    dm_status status = dm_upload(f->ctx, f->device_inputs, f->host_inputs, f->input_bytes, NULL);
    for (int32_t i = 0; i < e->num_changes && status == DM_OK; i++) {
        const engine_change *c = &e->changes[i];
        const size_t start = (size_t)c->row * (size_t)e->columns + (size_t)c->first;
        status =
            dm_upload(f->ctx, f->device_table + start, e->table + start, (size_t)c->count * sizeof *e->table, NULL);
    }
    for (fill_kind kind = 0; kind < NUM_FILL_KINDS && !f->options.padded; kind++) {
        f->pairs[kind].host.num_requests = e->batch_size;
        f->pairs[kind].device.num_requests = e->batch_size;
    }
    for (fill_kind kind = 0; kind < NUM_FILL_KINDS && status == DM_OK && f->queue != NULL; kind++)
        status = capture_fill(f, kind);
    return status;
}

dm_status fills_run(fills *f, fill_kind kind)
{
    if (f->queue != NULL) {
        gpu_graph_launch(*graph_of(f, kind));
        gpu_queue_wait(f->queue);
        return DM_OK;
    }
    const dm_status status = dm_fill(f->ctx, &f->pairs[kind].device, NULL);
    return status == DM_OK ? dm_sync(f->ctx, NULL) : status;
}

int64_t fills_graphs(const fills *f)
{
    return f->num_graphs;
}

int64_t fills_bytes(const fills *f, fill_kind kind)
{
    const dm_fill_desc *d = &f->pairs[kind].host;
    const inputs in = inputs_at(f, f->host_inputs);
    int64_t tokens = 0, page_entries = 0;
    for (int32_t r = 0; r < d->num_requests; r++) {
        const int64_t length = in.seq_lens[r] + d->seq_len_bias;
        const int64_t queries = kind == FILL_DRAFT_EXTEND ? in.extend_lens[r] : d->extend_len;
        tokens += queries;
        page_entries += queries * ((length + d->page_size - 1) / d->page_size);
    }
    tokens = d->padded_tokens > tokens ? d->padded_tokens : tokens;
    const int64_t per_token = 5 * tokens + 1, per_request = 3 * (int64_t)d->num_requests + 2;
    const int64_t per_fill = 1 + 2 * (SCHEDULE_SLOTS + 1);
    return (per_token + page_entries + per_request + per_fill) * (int64_t)sizeof(int32_t);
}

/* ---- The check ------------------------------------------------------------------------------------------------ */

static int32_t word_at(const unsigned char *block, size_t offset)
{
    int32_t word;
    memcpy(&word, block + offset, sizeof word);
    return word;
}

/* Names the buffer and the element at offset; an element past the end is in the guard behind the buffer. */
static void describe_mismatch(const fill_pair *p, size_t offset, const unsigned char *got, mismatch *m)
{
    const field *at = &p->fields[0];
    for (int i = 1; i < NUM_FIELDS && p->fields[i].offset <= offset; i++)
        at = &p->fields[i];
    const int64_t element = ((int64_t)offset - (int64_t)at->offset) / (int64_t)sizeof(int32_t);
    char place[64];
    if (at->columns == 1)
        snprintf(place, sizeof place, "[%lld]", (long long)element);
    else
        snprintf(place, sizeof place, "[%lld][%lld]", (long long)(element / at->columns),
                 (long long)(element % at->columns));
    const bool outside = element < 0 || element >= at->rows * at->columns;
    snprintf(m->text, sizeof m->text, "%s%s%s: expected %d, got %d", at->name, place, outside ? " (outside)" : "",
             (int)word_at(p->expected, offset), (int)word_at(got, offset));
    m->found = true;
}

static int64_t compare(const fill_pair *p, const unsigned char *got, mismatch *first)
{
    int64_t differing = 0;
    if (memcmp(p->expected, got, p->bytes) == 0)
        return 0;
    for (size_t offset = 0; offset < p->bytes; offset += sizeof(int32_t)) {
        if (word_at(p->expected, offset) == word_at(got, offset))
            continue;
        if (!first->found)
            describe_mismatch(p, offset, got, first);
        differing++;
    }
    return differing;
}

dm_status fills_check(fills *f, fill_kind kind, int64_t *mismatches, mismatch *first)
{
    fill_pair *p = &f->pairs[kind];
    oracle_fill(&p->host);
    const dm_status status = dm_download(f->ctx, f->got, p->device_block, p->bytes, NULL);
    if (status != DM_OK)
        return status;
    const int64_t differing = compare(p, f->got, first);
    *mismatches += differing;
    return differing == 0 ? DM_OK : dm_upload(f->ctx, p->device_block, p->expected, p->bytes, NULL);
}
