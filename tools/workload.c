/* Fills of a given shape, over seeded data like an engine's.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "workload.h"

enum { TOPK = 2048, SLOTS = 132, SPARE_ROWS = 65 };

static dm_vec add_vec(image *img, const char *field, bool output, int64_t len, dm_type type)
{
    const size_t elem = type == DM_INT64 ? 8 : 4;
    const image_part part = {.field = field, .output = output, .bytes = (size_t)len * elem, .elem = elem};
    return (dm_vec){(void *)image_add(img, part, 0), len, type};
}

static dm_table add_table(image *img, const char *field, bool output, int64_t rows, int64_t cols)
{
    const image_part part = {
        .field = field, .output = output, .bytes = (size_t)(rows * cols) * 4, .elem = 4, .row = (size_t)cols};
    return (dm_table){(void *)image_add(img, part, 0), rows, cols, 0, DM_INT32};
}

static int64_t width_of(const workload *w)
{
    return w->width ? w->width : w->context;
}

static int64_t columns_of(const workload *w)
{
    return (width_of(w) + w->page_size - 1) / w->page_size;
}

static void add_lengths(image *img, const workload *w, dm_fill_desc *d)
{
    const dm_type type = w->outputs & WORKLOAD_INT32 ? DM_INT32 : DM_INT64;
    d->seq_lens = add_vec(img, "seq_lens", false, w->requests, type);
    d->seq_len_bias = w->outputs & WORKLOAD_BIAS ? w->tokens : 0;
    if (w->outputs & WORKLOAD_STARTS)
        d->query_start_loc = add_vec(img, "query_start_loc", false, w->requests + 1, DM_INT32);
    else if (w->variable)
        d->extend_lens = add_vec(img, "extend_lens", false, w->requests, DM_INT32);
    else
        d->extend_len = w->tokens;
}

static void add_inputs(image *img, const workload *w, dm_fill_desc *d)
{
    d->size = sizeof *d;
    d->num_requests = w->requests;
    d->topk = TOPK;
    d->pool_size = w->outputs & WORKLOAD_POOLS ? 4 : 1;
    d->page_size = w->page_size;
    d->dcp_world = w->outputs & WORKLOAD_RANKS ? 2 : 0;
    add_lengths(img, w, d);
    if (w->outputs & WORKLOAD_BLOCKS) {
        d->block_table = add_table(img, "block_table", false, w->requests, columns_of(w));
    } else if (w->outputs & (WORKLOAD_PAGE_TABLE | WORKLOAD_SLOT_TABLE)) {
        d->req_pool_indices = add_vec(img, "req_pool_indices", false, w->requests, DM_INT64);
        d->req_to_token =
            add_table(img, "req_to_token", false, w->outputs & WORKLOAD_SPARE ? SPARE_ROWS : w->requests, width_of(w));
    }
}

static void add_report(image *img, dm_fill_desc *d)
{
    const image_part part = {.field = "report", .output = true, .sticky = true, .bytes = sizeof(dm_report), .elem = 8};
    d->report = (void *)image_add(img, part, 0);
}

static void add_token_outputs(image *img, const workload *w, dm_fill_desc *d, int64_t tokens)
{
    if (w->outputs & (WORKLOAD_LENGTHS | WORKLOAD_EXPANDED))
        d->seqlens_expanded = add_vec(img, "seqlens_expanded", true, tokens, DM_INT32);
    if (w->outputs & (WORKLOAD_LENGTHS | WORKLOAD_CLIPPED))
        d->dsa_cache_seqlens = add_vec(img, "dsa_cache_seqlens", true, tokens, DM_INT32);
    if (w->outputs & WORKLOAD_CONTEXT) {
        d->context_lens = add_vec(img, "context_lens", true, tokens, DM_INT32);
        d->token_to_req = add_vec(img, "token_to_req", true, tokens, DM_INT32);
    }
    if (w->outputs & WORKLOAD_PREFIXES) {
        d->dsa_cu_seqlens_k = add_vec(img, "dsa_cu_seqlens_k", true, tokens + 1, DM_INT32);
        d->cache_seqlens = add_vec(img, "cache_seqlens", true, w->requests, DM_INT32);
        d->cu_seqlens_k = add_vec(img, "cu_seqlens_k", true, w->requests + 1, DM_INT32);
    }
}

static void add_outputs(image *img, const workload *w, dm_fill_desc *d)
{
    const int64_t tokens = (int64_t)w->requests * (w->tokens + w->variable);
    add_token_outputs(img, w, d, tokens);
    if (w->outputs & WORKLOAD_PAGE_TABLE)
        d->page_table = add_table(img, "page_table", true, tokens, columns_of(w));
    if (w->outputs & WORKLOAD_SLOT_TABLE)
        d->page_table_1 = add_table(img, "page_table_1", true, tokens, width_of(w));
    if (w->outputs & WORKLOAD_SCHEDULE)
        d->schedules[0] = (dm_schedule){add_vec(img, "schedules[0].table", true, 2 * (SLOTS + 1), DM_INT32),
                                        DM_SCHEDULE_SM90, DM_UNIT_TOKEN, SLOTS, 0};
    if (w->outputs & WORKLOAD_WHOLE) {
        d->flags = DM_FILL_FULL_ROWS;
        d->padded_tokens = tokens;
    }
    if (w->outputs & WORKLOAD_REPORT)
        add_report(img, d);
}

/* Pages of the pool in random order; a request's slots are adjacent within a page only. */
static void draw_slots(const workload *w, const dm_table *table, rng *r)
{
    int32_t *slots = table->data;
    const int64_t page = w->page_size ? w->page_size : 1;
    const int64_t pool = table->rows * table->cols / page + 1;
    for (int64_t row = 0; row < table->rows; row++)
        for (int64_t c = 0; c < table->cols; c += page) {
            const int64_t first = rng_between(r, 0, pool) * page;
            for (int64_t i = c; i < c + page && i < table->cols; i++)
                slots[row * table->cols + i] = (int32_t)(first + i - c);
        }
}

static void draw_blocks(const dm_table *table, rng *r)
{
    for (int64_t i = 0; i < table->rows * table->cols; i++)
        ((int32_t *)table->data)[i] = (int32_t)rng_between(r, 0, table->rows * table->cols);
}

static int64_t element(const dm_vec *v, int64_t i)
{
    return v->type == DM_INT64 ? ((const int64_t *)v->data)[i] : ((const int32_t *)v->data)[i];
}

static void set_element(const dm_vec *v, int64_t i, int64_t value)
{
    if (v->type == DM_INT64)
        ((int64_t *)v->data)[i] = value;
    else
        ((int32_t *)v->data)[i] = (int32_t)value;
}

static void draw_inputs(const workload *w, const dm_fill_desc *d, rng r)
{
    int64_t start = 0;
    for (int32_t i = 0; i < w->requests; i++) {
        set_element(&d->seq_lens, i, rng_between(&r, w->context / 2, w->context));
        const int64_t tokens = w->variable ? rng_between(&r, 1, w->tokens + 1) : w->tokens;
        start += tokens;
        if (d->extend_lens.data)
            set_element(&d->extend_lens, i, tokens);
        if (d->query_start_loc.data)
            set_element(&d->query_start_loc, i + 1, start);
        if (d->req_pool_indices.data)
            set_element(&d->req_pool_indices, i, d->req_to_token.rows - 1 - i);
    }
    if (d->req_to_token.data)
        draw_slots(w, &d->req_to_token, &r);
    if (d->block_table.data)
        draw_blocks(&d->block_table, &r);
}

image *workload_image(const workload *w, int fills, uint64_t seed)
{
    image *img = image_new();
    img->count = (size_t)fills;
    for (size_t i = 0; i < img->count; i++) {
        add_inputs(img, w, &img->descs[i]);
        add_outputs(img, w, &img->descs[i]);
    }
    image_finish(img);
    for (size_t i = 0; i < img->count; i++)
        draw_inputs(w, &img->descs[i], rng_seeded(seed, i));
    return img;
}

static int64_t tokens_of(const dm_fill_desc *d, int32_t r)
{
    if (d->query_start_loc.data)
        return element(&d->query_start_loc, r + 1) - element(&d->query_start_loc, r);
    return d->extend_lens.data ? element(&d->extend_lens, r) : d->extend_len;
}

static int64_t live_columns(const dm_table *t, int64_t kv, int64_t page)
{
    const int64_t live = t->data ? (kv + page - 1) / page : 0;
    return live < t->cols ? live : t->cols;
}

static workload_traffic traffic_of(const dm_fill_desc *d)
{
    int64_t tokens = 0, cells = 0, pages = 0, slots = 0;
    for (int32_t r = 0; r < d->num_requests; r++) {
        const int64_t kv = element(&d->seq_lens, r) + d->seq_len_bias, q = tokens_of(d, r);
        const int64_t live_pages = live_columns(&d->page_table, kv, d->page_size);
        const int64_t live_slots = live_columns(&d->page_table_1, kv, 1);
        const bool whole = d->flags & DM_FILL_FULL_ROWS;
        tokens += q;
        pages += d->block_table.data ? 0 : live_pages;
        slots += live_slots + (d->block_table.data ? live_pages : 0);
        cells += q * (whole ? d->page_table.cols + d->page_table_1.cols : live_pages + live_slots);
    }
    const int64_t per_token = !!d->seqlens_expanded.data + !!d->dsa_cache_seqlens.data + !!d->dsa_cu_seqlens_k.data +
                              !!d->context_lens.data + !!d->token_to_req.data;
    const int64_t per_request = !!d->cache_seqlens.data + !!d->cu_seqlens_k.data;
    const int64_t elements = tokens * per_token + d->num_requests * per_request + d->schedules[0].table.len;
    return (workload_traffic){4 * (elements + cells), 4 * cells, pages, slots};
}

workload_traffic workload_traffic_of(const image *img)
{
    workload_traffic sum = {0};
    for (size_t i = 0; i < img->count; i++) {
        const workload_traffic t = traffic_of(&img->descs[i]);
        sum.bytes_written += t.bytes_written;
        sum.table_bytes += t.table_bytes;
        sum.pages_read += t.pages_read;
        sum.slots_read += t.slots_read;
    }
    return sum;
}
