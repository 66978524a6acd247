/* The generator of cases: always the same for a seed, sound images, and every rule of the contract exercised. */
#include <stdlib.h>
#include <string.h>

#include "harness.h"
#include "suite.h"

enum { CASES = 4000, SEED = 1 };

/* ---- The same for a seed -------------------------------------------------------------------------------------- */

static bool same_vec(const dm_vec *a, const dm_vec *b)
{
    return a->data == b->data && a->len == b->len && (a->data == NULL || a->type == b->type);
}

static bool same_table(const dm_table *a, const dm_table *b)
{
    return a->data == b->data && a->rows == b->rows && a->cols == b->cols && a->row_stride == b->row_stride;
}

static bool same_schedule(const dm_schedule *a, const dm_schedule *b)
{
    return same_vec(&a->table, &b->table) && a->variant == b->variant && a->unit == b->unit && a->slots == b->slots &&
           a->divisor == b->divisor;
}

/* Equal, and at the same places of their blocks. */
static bool same_desc(dm_fill_desc a, dm_fill_desc b, const image *image_a, const image *image_b)
{
    image_rebase(&a, image_a->block, NULL);
    image_rebase(&b, image_b->block, NULL);
    return a.flags == b.flags && a.num_requests == b.num_requests && same_vec(&a.seq_lens, &b.seq_lens) &&
           same_vec(&a.extend_lens, &b.extend_lens) && same_vec(&a.query_start_loc, &b.query_start_loc) &&
           a.extend_len == b.extend_len && a.seq_len_bias == b.seq_len_bias &&
           same_table(&a.req_to_token, &b.req_to_token) && same_vec(&a.req_pool_indices, &b.req_pool_indices) &&
           same_table(&a.block_table, &b.block_table) && a.topk == b.topk && a.pool_size == b.pool_size &&
           a.page_size == b.page_size && a.padded_requests == b.padded_requests && a.padded_tokens == b.padded_tokens &&
           same_vec(&a.seqlens_expanded, &b.seqlens_expanded) && same_vec(&a.dsa_cache_seqlens, &b.dsa_cache_seqlens) &&
           same_vec(&a.dsa_cu_seqlens_k, &b.dsa_cu_seqlens_k) && same_vec(&a.token_to_req, &b.token_to_req) &&
           same_vec(&a.context_lens, &b.context_lens) && same_table(&a.page_table_1, &b.page_table_1) &&
           same_table(&a.page_table, &b.page_table) && same_vec(&a.cache_seqlens, &b.cache_seqlens) &&
           same_vec(&a.cu_seqlens_q, &b.cu_seqlens_q) && same_vec(&a.cu_seqlens_k, &b.cu_seqlens_k) &&
           same_vec(&a.num_tokens, &b.num_tokens) && same_schedule(&a.schedules[0], &b.schedules[0]) &&
           same_schedule(&a.schedules[1], &b.schedules[1]) && a.report == b.report;
}

static bool same_image(const image *a, const image *b)
{
    bool same = a->count == b->count && a->bytes == b->bytes && a->num_parts == b->num_parts &&
                memcmp(a->block, b->block, a->bytes) == 0;
    for (size_t i = 0; same && i < a->count; i++)
        same = same_desc(a->descs[i], b->descs[i], a, b);
    return same;
}

START_TEST(a_seed_gives_the_same_cases)
{
    for (uint64_t i = 0; i < 500; i++) {
        image *first = case_make(SEED, i, NULL), *again = case_make(SEED, i, NULL);
        image *other = case_make(SEED + 1, i, NULL), *next = case_make(SEED, i + 1, NULL);
        ck_assert_msg(same_image(first, again), "case %d is not the same twice", (int)i);
        ck_assert_msg(!same_image(first, other), "case %d does not depend on the seed", (int)i);
        ck_assert_msg(!same_image(first, next), "cases %d and %d are the same", (int)i, (int)i + 1);
        case_free(first);
        case_free(again);
        case_free(other);
        case_free(next);
    }
}
END_TEST

/* ---- Sound images --------------------------------------------------------------------------------------------- */

static void check_bytes(const image *img, size_t from, size_t to, unsigned char byte)
{
    for (size_t i = from; i < to; i++)
        if (img->block[i] != byte)
            ck_abort_msg("%s: byte %zu is 0x%02x, not 0x%02x", case_title(img), i, img->block[i], byte);
}

static void check_parts(const image *img)
{
    size_t end = 0;
    for (size_t i = 0; i < img->num_parts; i++) {
        const image_part *part = &img->parts[i];
        ck_assert_uint_ge(part->offset, end + IMAGE_GUARD_BYTES);
        ck_assert_uint_eq(part->offset % part->elem, 0);
        check_bytes(img, end, part->offset, IMAGE_GUARD);
        end = part->offset + part->bytes;
        if (part->output && !part->sticky)
            check_bytes(img, part->offset, end, IMAGE_POISON);
    }
    ck_assert_uint_ge(img->bytes, end + IMAGE_GUARD_BYTES);
    check_bytes(img, end, img->bytes, IMAGE_GUARD);
}

/* data is one of the parts, as an input or an output, and holds so many bytes. */
static void check_array(const image *img, const void *data, size_t bytes, bool output)
{
    if (data == NULL)
        return;
    const size_t offset = (size_t)((const unsigned char *)data - img->block);
    for (size_t i = 0; i < img->num_parts; i++)
        if (img->parts[i].offset == offset && img->parts[i].bytes == bytes && img->parts[i].output == output)
            return;
    ck_abort_msg("%s: an array of %zu bytes is not in the image", case_title(img), bytes);
}

static void check_vec(const image *img, const dm_vec *v, bool output)
{
    check_array(img, v->data, (size_t)v->len * (v->type == DM_INT64 ? 8 : 4), output);
}

static void check_table(const image *img, const dm_table *t, bool output)
{
    const int64_t stride = t->row_stride ? t->row_stride : t->cols;
    ck_assert_int_ge(stride, t->cols);
    check_array(img, t->data, t->rows ? (size_t)((t->rows - 1) * stride + t->cols) * 4 : 0, output);
}

START_TEST(images_are_sound)
{
    for (uint64_t i = 0; i < 1000; i++) {
        image *img = case_make(SEED, i, NULL);
        ck_assert_uint_eq((uintptr_t)img->block % 64, 0);
        check_parts(img);
        for (size_t j = 0; j < img->count; j++) {
            const dm_fill_desc *d = &img->descs[j];
            const dm_vec *const inputs[] = {&d->seq_lens, &d->extend_lens, &d->query_start_loc, &d->req_pool_indices};
            const dm_vec *const outputs[] = {&d->seqlens_expanded,   &d->dsa_cache_seqlens, &d->dsa_cu_seqlens_k,
                                             &d->token_to_req,       &d->context_lens,      &d->cache_seqlens,
                                             &d->cu_seqlens_q,       &d->cu_seqlens_k,      &d->schedules[0].table,
                                             &d->schedules[1].table, &d->num_tokens};
            for (size_t k = 0; k < sizeof inputs / sizeof *inputs; k++)
                check_vec(img, inputs[k], false);
            for (size_t k = 0; k < sizeof outputs / sizeof *outputs; k++)
                check_vec(img, outputs[k], true);
            check_table(img, &d->req_to_token, false);
            check_table(img, &d->block_table, false);
            check_table(img, &d->page_table_1, true);
            check_table(img, &d->page_table, true);
            check_array(img, d->report, sizeof *d->report, true);
        }
        case_free(img);
    }
}
END_TEST

START_TEST(limits_hold)
{
    const case_limits limits = {.max_requests = 5, .max_tokens = 40, .max_columns = 7};
    for (uint64_t i = 0; i < 1000; i++) {
        image *img = case_make(SEED, i, &limits);
        for (size_t j = 0; j < img->count; j++) {
            ck_assert_int_le(img->descs[j].num_requests, 5);
            ck_assert_int_le(img->descs[j].seqlens_expanded.len, 40 + 64);
            ck_assert_int_le(img->descs[j].page_table.rows, 40 + 20);
            ck_assert_int_le(img->descs[j].page_table.cols, 7);
            ck_assert_int_le(img->descs[j].page_table_1.cols, 7);
        }
        case_free(img);
    }
}
END_TEST

/* ---- Coverage -------------------------------------------------------------------------------------------------
 * What occurs is read from the descriptors and their arrays, and from the oracle's reports. */

static struct feature {
    const char *name;
    int seen;
} features[160];

static int num_features;

static void saw(const char *name, bool occurs)
{
    int i = 0;
    while (i < num_features && features[i].name != name && strcmp(features[i].name, name) != 0)
        i++;
    if (i == (int)(sizeof features / sizeof *features))
        ck_abort_msg("more features than there is room for");
    if (i == num_features)
        features[num_features++].name = name;
    features[i].seen += occurs;
}

static int64_t element(const dm_vec *v, int64_t i)
{
    return v->type == DM_INT64 ? ((const int64_t *)v->data)[i] : ((const int32_t *)v->data)[i];
}

static bool holds(const dm_vec *v, int64_t count, int64_t value)
{
    for (int64_t i = 0; v->data != NULL && i < count; i++)
        if (element(v, i) == value)
            return true;
    return false;
}

static bool holds_below(const dm_vec *v, int64_t count, int64_t bound)
{
    for (int64_t i = 0; v->data != NULL && i < count; i++)
        if (element(v, i) < bound)
            return true;
    return false;
}

static bool all_are(const dm_vec *v, int64_t count, int64_t value)
{
    for (int64_t i = 0; v->data != NULL && i < count; i++)
        if (element(v, i) != value)
            return false;
    return v->data != NULL && count > 0;
}

static bool decreases(const dm_vec *v, int64_t count)
{
    for (int64_t i = 1; v->data != NULL && i < count; i++)
        if (element(v, i) < element(v, i - 1))
            return true;
    return false;
}

static void see_steps(const dm_fill_desc *d)
{
    const int64_t r = d->num_requests;
    saw("extend_lens int32", d->extend_lens.data != NULL && d->extend_lens.type == DM_INT32);
    saw("extend_lens int64", d->extend_lens.data != NULL && d->extend_lens.type == DM_INT64);
    saw("query_start_loc int32", d->query_start_loc.data != NULL && d->query_start_loc.type == DM_INT32);
    saw("query_start_loc int64", d->query_start_loc.data != NULL && d->query_start_loc.type == DM_INT64);
    saw("draft extend by a constant", d->extend_len > 1 && d->seq_len_bias == 0);
    saw("target verify", d->extend_len > 1 && d->seq_len_bias == d->extend_len);
    saw("decode", d->extend_len == 1 && d->seq_len_bias == 0);
    saw("extend_len of thousands", d->extend_len > 1000 && d->extend_len < 10000);
    saw("extend_len INT32_MAX", d->extend_len == INT32_MAX);
    saw("bias INT32_MAX", d->seq_len_bias == INT32_MAX);
    saw("no request", r == 0);
    saw("no request and no inputs", r == 0 && d->seq_lens.data == NULL && d->extend_lens.data == NULL);
    saw("one request", r == 1);
    saw("dozens of requests", r > 64 && r <= 300);
    saw("thousands of requests", r > 1000);
}

static void see_lengths(const dm_fill_desc *d)
{
    const int64_t r = d->num_requests;
    const dm_vec *kv = &d->seq_lens, *q = &d->extend_lens, *loc = &d->query_start_loc;
    saw("seq_lens int32", kv->type == DM_INT32);
    saw("seq_lens int64", kv->type == DM_INT64);
    saw("seq_lens longer than needed", kv->len > r);
    saw("kv all zero", all_are(kv, r, 0) && d->seq_len_bias == 0);
    saw("kv negative", holds_below(kv, r, 0));
    saw("kv INT32_MIN", holds(kv, r, INT32_MIN));
    saw("kv INT32_MAX", holds(kv, r, INT32_MAX));
    saw("kv INT64_MIN", holds(kv, r, INT64_MIN));
    saw("kv INT64_MAX with a bias", holds(kv, r, INT64_MAX) && d->seq_len_bias > 0);
    saw("kv 2^32 + 1", holds(kv, r, (1ll << 32) + 1));
    saw("q zero, not all", holds(q, r, 0) && !all_are(q, r, 0));
    saw("q all zero", all_are(q, r, 0));
    saw("q negative", holds_below(q, r, 0));
    saw("q INT32_MAX", holds(q, r, INT32_MAX));
    saw("q INT64_MAX", holds(q, r, INT64_MAX));
    saw("query_start_loc not from 0", loc->data != NULL && element(loc, 0) != 0);
    saw("query_start_loc decreases", decreases(loc, r + 1));
    saw("query_start_loc INT64_MIN", holds(loc, r + 1, INT64_MIN));
    for (int64_t i = 0; i < r; i++) {
        if (q->data == NULL)
            continue;
        saw("kv less than q", element(kv, i) >= 0 && element(kv, i) < element(q, i));
        saw("one q of thousands", element(q, i) > 999 && element(q, i) < 10000 && r > 2);
    }
}

static void see_tables(const dm_fill_desc *d)
{
    static const int pages[] = {1, 16, 64, 128, 3, 100, INT32_MAX};
    static const char *const page_names[] = {"page 1", "page 16",  "page 64",       "page 128",
                                             "page 3", "page 100", "page INT32_MAX"};
    const dm_table *source = &d->req_to_token, *table = &d->page_table, *table_1 = &d->page_table_1;
    const dm_vec *pool = &d->req_pool_indices;
    const int64_t r = d->num_requests;
    const bool wanted = table->data != NULL || table_1->data != NULL;
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        saw(page_names[i], table->data != NULL && d->page_size == pages[i]);
    saw("live rows only", wanted && !(d->flags & DM_FILL_FULL_ROWS));
    saw("full rows", wanted && d->flags & DM_FILL_FULL_ROWS);
    saw("page_table from block_table", d->block_table.data != NULL);
    saw("block_table lacks rows", d->block_table.data != NULL && d->block_table.rows < r);
    saw("block_table strided", d->block_table.row_stride > d->block_table.cols);
    saw("both page tables", table->data != NULL && table_1->data != NULL);
    saw("source strided", source->row_stride > source->cols);
    saw("page_table strided", table->row_stride > table->cols);
    saw("page_table_1 strided", table_1->row_stride > table_1->cols);
    saw("row_stride left 0", table->data != NULL && table->row_stride == 0);
    saw("no columns", table->data != NULL && table->cols == 0);
    saw("thousands of columns", table->cols > 1000 || table_1->cols > 1000);
    saw("page_table_1 wider than its source", table_1->cols > source->cols);
    saw("page_table_1 narrower than its source", table_1->data != NULL && table_1->cols < source->cols);
    for (int64_t i = 0; wanted && i < r; i++) {
        saw("context longer than page_table_1", element(&d->seq_lens, i) > table_1->cols && table_1->cols > 0);
        saw("context shorter than page_table_1", element(&d->seq_lens, i) < table_1->cols);
        saw("context longer than page_table", element(&d->seq_lens, i) > table->cols * d->page_size && table->cols);
        saw("context shorter than page_table", element(&d->seq_lens, i) < (table->cols - 1) * d->page_size);
        saw("context longer than the source", source->data != NULL && element(&d->seq_lens, i) > source->cols);
    }
    saw("req_to_token and no table", source->data != NULL && !wanted);
    saw("pool index is r", source->data != NULL && pool->data == NULL && wanted);
    saw("pool lacks rows", source->data != NULL && pool->data == NULL && source->rows < r && wanted);
    saw("pool int32", pool->data != NULL && pool->type == DM_INT32);
    saw("pool int64", pool->data != NULL && pool->type == DM_INT64);
    saw("pool index negative", wanted && holds_below(pool, r, 0));
    saw("pool index one too large", wanted && holds(pool, r, source->rows));
    saw("pool index 2^32 + 1", wanted && holds(pool, r, (1ll << 32) + 1));
    saw("pool index INT64_MIN", wanted && holds(pool, r, INT64_MIN));
    const dm_vec first = {source->data, source->rows > 0 ? source->cols : 0, DM_INT32};
    saw("negative slots", wanted && holds_below(&first, first.len, 0));
}

static void see_schedule(const dm_schedule *s, const dm_fill_desc *d)
{
    static const char *const kinds[2][3] = {{"SMXX by token", "SM90 by token", "SM100 by token"},
                                            {"SMXX by request", "SM90 by request", "SM100 by request"}};
    for (int unit = 0; unit < 2; unit++)
        for (int variant = 0; variant < 3; variant++)
            saw(kinds[unit][variant], s->table.data != NULL && (int)s->unit == unit + 1 &&
                                          (int)s->variant == variant + 1 && d->extend_len != 1);
    saw("slots 1", s->slots == 1);
    saw("slots 132", s->slots == 132);
    saw("slots 300", s->slots == 300);
    saw("slots odd", s->slots > 1 && s->slots % 2 == 1);
    saw("divisor 0", s->table.data != NULL && s->divisor == 0);
    saw("divisor 1", s->divisor == 1);
    saw("divisor 4", s->divisor == 4);
    saw("divisor 64", s->divisor == 64);
    if (s->table.data == NULL)
        return; /* the rest is read from what the oracle wrote */
    const int32_t *entry = s->table.data;
    bool repeats = false, second = false, sentinels = true;
    for (int32_t i = 0; i < s->slots; i++) {
        const bool last = entry[2 * i] == entry[2 * s->slots] && entry[2 * i + 1] == 0;
        sentinels = sentinels && last;
        second = second || entry[2 * i + 1] > 0;
        repeats = repeats || (!last && entry[2 * i] == entry[2 * i + 2] && entry[2 * i + 1] == entry[2 * i + 3]);
    }
    saw("schedule of sentinels", sentinels);
    saw("schedule that splits a request", second);
    saw("schedule with fewer segments than slots", repeats);
    saw("schedule of nothing per token", s->unit == DM_UNIT_TOKEN && d->seqlens_expanded.data == NULL &&
                                             d->dsa_cache_seqlens.data == NULL && d->dsa_cu_seqlens_k.data == NULL &&
                                             d->token_to_req.data == NULL && d->context_lens.data == NULL &&
                                             d->page_table.data == NULL && d->page_table_1.data == NULL);
}

/* What engines ask for and nothing else: by chance it would be one case in ten thousands. */
static bool is_engines_set(const dm_fill_desc *d)
{
    const bool set = d->seqlens_expanded.data && d->dsa_cache_seqlens.data && d->dsa_cu_seqlens_k.data &&
                     d->page_table.data && d->cache_seqlens.data && d->cu_seqlens_k.data;
    return set && !d->report && !d->page_table_1.data && !d->token_to_req.data && !d->context_lens.data &&
           !d->cu_seqlens_q.data && !d->num_tokens.data && !d->schedules[0].table.data && !d->schedules[1].table.data;
}

static void see_scalars(const dm_fill_desc *d)
{
    const bool dsa = d->dsa_cache_seqlens.data != NULL;
    saw("topk 1", dsa && d->topk == 1);
    saw("topk 2048", dsa && d->topk == 2048);
    saw("topk 4096", dsa && d->topk == 4096);
    saw("topk 0, not used", d->topk == 0);
    saw("pool_size 0", dsa && d->pool_size == 0);
    saw("pool_size 1", dsa && d->pool_size == 1);
    saw("pool_size 4", dsa && d->pool_size == 4);
    saw("pool_size 64", dsa && d->pool_size == 64);
    saw("pool_size odd", dsa && d->pool_size > 1 && d->pool_size % 2 == 1);
    saw("an engine's set alone", is_engines_set(d));
    saw("pool_size over topk", dsa && d->pool_size > d->topk);
    saw("context per request", d->context_lens.data != NULL && d->flags & DM_FILL_CONTEXT_PER_REQUEST);
    saw("context per token", d->context_lens.data != NULL && !(d->flags & DM_FILL_CONTEXT_PER_REQUEST));
    const bool context = d->context_lens.data != NULL;
    const bool scheduled = d->schedules[0].table.data != NULL || d->schedules[1].table.data != NULL;
    saw("context of a compressed cache", context && d->context_divisor > 1);
    saw("context of a rank", context && d->dcp_world > 1);
    saw("schedule of a rank", scheduled && d->dcp_world > 1);
    saw("a rank of a compressed cache", context && d->dcp_world > 1 && d->context_divisor > 1);
    saw("the last rank", scheduled && d->dcp_world > 1 && d->dcp_rank == d->dcp_world - 1);
    saw("dcp_world INT32_MAX", scheduled && d->dcp_world == INT32_MAX);
    saw("dcp_interleave 1", scheduled && d->dcp_world > 1 && d->dcp_interleave <= 1);
    saw("dcp_interleave 64", scheduled && d->dcp_world > 1 && d->dcp_interleave == 64);
    saw("dcp_interleave INT32_MAX", scheduled && d->dcp_world > 1 && d->dcp_interleave == INT32_MAX);
    saw("fewer padded requests than requests", d->padded_requests && d->padded_requests < d->num_requests);
    saw("more padded requests than requests", d->padded_requests > d->num_requests);
    saw("padded_tokens 2^40", d->padded_tokens == 1ll << 40);
}

/* Each output alone, all together, and three in one buffer. */
static void see_outputs(const dm_fill_desc *d)
{
    const struct {
        const char *alone;
        const void *data;
    } outputs[] = {{"seqlens_expanded alone", d->seqlens_expanded.data},
                   {"dsa_cache_seqlens alone", d->dsa_cache_seqlens.data},
                   {"dsa_cu_seqlens_k alone", d->dsa_cu_seqlens_k.data},
                   {"token_to_req alone", d->token_to_req.data},
                   {"context_lens alone", d->context_lens.data},
                   {"page_table_1 alone", d->page_table_1.data},
                   {"page_table alone", d->page_table.data},
                   {"cache_seqlens alone", d->cache_seqlens.data},
                   {"cu_seqlens_q alone", d->cu_seqlens_q.data},
                   {"cu_seqlens_k alone", d->cu_seqlens_k.data},
                   {"num_tokens alone", d->num_tokens.data},
                   {"schedules[0] alone", d->schedules[0].table.data},
                   {"schedules[1] alone", d->schedules[1].table.data}};
    const size_t most = sizeof outputs / sizeof *outputs;
    size_t count = 0;
    for (size_t i = 0; i < most; i++)
        count += outputs[i].data != NULL;
    for (size_t i = 0; i < most; i++)
        saw(outputs[i].alone, count == 1 && outputs[i].data != NULL);
    saw("no output", count == 0);
    saw("all outputs", count == most);
    const void *lens = d->seqlens_expanded.data, *context = d->context_lens.data, *cache = d->cache_seqlens.data;
    saw("three outputs in one buffer", lens != NULL && lens == context && lens == cache);
    saw("two outputs in one buffer", lens != NULL && lens == cache && context != lens);
}

/* Runs the oracle over a report of its own; needs an output whose length is the capacity. */
static void see_report(dm_fill_desc d)
{
    dm_report report = {0}, *own = d.report;
    saw("no report", own == NULL);
    saw("report not empty", own != NULL && (own->flags || own->bad_request || own->tokens_wanted));
    d.report = &report;
    oracle_fill(&d);
    const int64_t tokens = (int64_t)report.tokens_wanted;
    saw("kv clamped", report.flags & DM_REPORT_KV_CLAMPED);
    saw("q clamped", report.flags & DM_REPORT_Q_CLAMPED);
    saw("bad pool", report.flags & DM_REPORT_BAD_POOL);
    saw("narrow", report.flags & DM_REPORT_NARROW);
    saw("narrow cu_seqlens_k", report.flags & DM_REPORT_NARROW && d.cu_seqlens_k.data != NULL);
    saw("tokens dropped", report.flags & DM_REPORT_TOKENS_DROPPED);
    saw("nothing to report", report.flags == 0 && tokens > 0);
    saw("T beyond INT32_MAX", tokens > INT32_MAX);
    saw("T is 0, R is not", tokens == 0 && d.num_requests > 0);
    saw("fewer padded tokens than T", d.padded_tokens > 0 && d.padded_tokens < tokens);
    saw("more padded tokens than T", d.padded_tokens > tokens);
    saw("padded tokens equal T", d.padded_tokens == tokens && tokens > 0);
    if (d.seqlens_expanded.data != NULL) {
        const int64_t len = d.seqlens_expanded.len, needed = tokens > d.padded_tokens ? tokens : d.padded_tokens;
        saw("capacity 0", len == 0 && tokens > 0);
        saw("capacity cuts a request", d.extend_len > 1 && len < tokens && len % d.extend_len != 0);
        saw("capacity cuts the padding", tokens < len && len < d.padded_tokens);
        saw("capacity exact", len == needed);
        saw("capacity with room", len > needed);
    }
}

static void see_image(const image *img)
{
    saw("one descriptor", img->count == 1);
    saw("three descriptors", img->count == 3);
    saw("eight descriptors", img->count == 8);
    for (size_t i = 0; i < img->num_parts; i++) {
        saw("aligned to 64 bytes", img->parts[i].offset % 64 == 0);
        saw("int32 aligned to 4 bytes only", img->parts[i].offset % 8 == 4);
        saw("int64 aligned to 8 bytes only", img->parts[i].elem == 8 && img->parts[i].offset % 16 == 8);
    }
    for (size_t i = 1; i < img->count; i++) {
        const dm_fill_desc *d = &img->descs[i], *first = &img->descs[0];
        saw("shared report", d->report != NULL && d->report == first->report);
        saw("shared inputs", d->seq_lens.data != NULL && d->seq_lens.data == first->seq_lens.data);
        saw("inputs of its own", d->seq_lens.data != first->seq_lens.data);
    }
}

static void see_desc(const dm_fill_desc *d)
{
    see_report(*d); /* first: it writes what the others read */
    see_steps(d);
    see_lengths(d);
    see_tables(d);
    see_scalars(d);
    see_outputs(d);
    see_schedule(&d->schedules[0], d);
    see_schedule(&d->schedules[1], d);
}

START_TEST(every_rule_is_exercised)
{
    for (uint64_t i = 0; i < CASES; i++) {
        image *img = case_make(SEED, i, NULL);
        see_image(img);
        for (size_t j = 0; j < img->count; j++)
            see_desc(&img->descs[j]);
        case_free(img);
    }
    int unseen = 0;
    for (int i = 0; i < num_features; i++)
        if (features[i].seen == 0) {
            fprintf(stderr, "never seen: %s\n", features[i].name);
            unseen++;
        }
    ck_assert_msg(unseen == 0, "%d of %d features never occurred", unseen, num_features);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {a_seed_gives_the_same_cases, images_are_sound, limits_hold, every_rule_is_exercised};
    TCase *tcase = tcase_create("generator");
    tcase_set_timeout(tcase, 120);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    Suite *suite = suite_create("cases");
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
