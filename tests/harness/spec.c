/* Images from specs. */
#include "spec.h"

enum { USUAL_TOPK = 2048, USUAL_PAGE = 64, USUAL_CONTEXT = 256, USUAL_SLOTS = 13 };

typedef struct builder {
    image *img;
    const fill_spec *s;
    dm_fill_desc *d;
} builder;

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t or_usual(int64_t value, int64_t usual)
{
    return value ? value : usual;
}

static int64_t clamp_query(int64_t first, int64_t end)
{
    if (end <= first)
        return 0;
    const uint64_t q = (uint64_t)end - (uint64_t)first;
    return q > INT32_MAX ? INT32_MAX : (int64_t)q;
}

int64_t spec_tokens(const fill_spec *s)
{
    int64_t tokens = 0;
    for (int32_t r = 0; r < s->requests; r++)
        if (s->extend_lens)
            tokens += clamp_query(0, s->extend_lens[r]);
        else if (s->query_start_loc)
            tokens += clamp_query(s->query_start_loc[r], s->query_start_loc[r + 1]);
        else
            tokens += s->extend_len;
    return tokens;
}

/* ---- Parts ---- */

/* Appends an array and returns its contents. Arrays lie at all alignments that their elements allow, in turn, unless
 * the spec wants them aligned. */
static void *add_part(builder *b, image_part part, void **pointer)
{
    part.desc = (int)b->img->count;
    const size_t offset = image_add(b->img, part, b->s->aligned ? 0 : b->img->num_parts * part.elem % 64);
    *pointer = (void *)(uintptr_t)offset;
    return b->img->block + offset;
}

static void add_input(builder *b, dm_vec *v, const char *field, dm_type type, const int64_t *values, int64_t len)
{
    if (!values)
        return;
    const size_t elem = type == DM_INT64 ? 8 : 4;
    *v = (dm_vec){.len = len, .type = type == DM_INT64 ? DM_INT64 : DM_INT32};
    void *data = add_part(b, (image_part){.field = field, .bytes = (size_t)len * elem, .elem = elem}, &v->data);
    for (int64_t i = 0; i < len; i++)
        if (elem == 8)
            ((int64_t *)data)[i] = values[i];
        else
            ((int32_t *)data)[i] = (int32_t)values[i];
}

static void add_output(builder *b, dm_vec *v, const char *field, int64_t len)
{
    *v = (dm_vec){.len = len, .type = DM_INT32};
    add_part(b, (image_part){.field = field, .output = true, .bytes = (size_t)len * 4, .elem = 4}, &v->data);
}

static int32_t *add_table(builder *b, dm_table *t, const char *field, bool output, int64_t rows, int64_t cols)
{
    const int64_t stride = cols + b->s->gap;
    *t = (dm_table){.rows = rows, .cols = cols, .row_stride = b->s->gap ? stride : 0, .type = DM_INT32};
    const int64_t elements = rows ? (rows - 1) * stride + cols : 0;
    const image_part part = {
        .field = field, .output = output, .bytes = (size_t)elements * 4, .elem = 4, .row = (size_t)stride};
    return add_part(b, part, &t->data);
}

/* ---- Inputs ---- */

static void add_lengths(builder *b)
{
    const fill_spec *s = b->s;
    add_input(b, &b->d->seq_lens, "seq_lens", s->seq_type, s->seq_lens, s->requests);
    add_input(b, &b->d->extend_lens, "extend_lens", s->query_type, s->extend_lens, s->requests);
    add_input(b, &b->d->query_start_loc, "query_start_loc", s->query_type, s->query_start_loc, s->requests + 1ll);
}

/* Pages that lie anywhere, each of adjacent slots. */
static int32_t slot_of(const fill_spec *s, int64_t row, int64_t col)
{
    const int64_t page = or_usual(s->page_size, USUAL_PAGE), index = col / page;
    const int64_t slot = (row * 7919 + index * 104729) % (INT32_MAX / page) * page + col % page;
    return (int32_t)(s->negative_slots && index % 2 ? -slot - 1 : slot);
}

static void add_source(builder *b)
{
    const fill_spec *s = b->s;
    dm_table *t = s->blocks ? &b->d->block_table : &b->d->req_to_token;
    const int64_t rows = or_usual(s->pool_rows, s->requests), cols = or_usual(s->context, USUAL_CONTEXT);
    int32_t *slots = add_table(b, t, s->blocks ? "block_table" : "req_to_token", false, rows, cols);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t col = 0; col < cols; col++)
            slots[row * (cols + s->gap) + col] = slot_of(s, row, col);
    add_input(b, &b->d->req_pool_indices, "req_pool_indices", s->pool_type, s->pool_indices, s->requests);
}

/* ---- Outputs ---- */

static void add_vecs(builder *b, unsigned wants, int64_t tokens, int64_t requests)
{
    dm_fill_desc *d = b->d;
    const struct {
        dm_vec *vec;
        const char *field;
        int64_t len;
    } outputs[] = {
        {&d->seqlens_expanded, "seqlens_expanded", tokens},
        {&d->dsa_cache_seqlens, "dsa_cache_seqlens", tokens},
        {&d->dsa_cu_seqlens_k, "dsa_cu_seqlens_k", tokens + 1},
        {&d->token_to_req, "token_to_req", tokens},
        {&d->context_lens, "context_lens", tokens},
        {&d->cache_seqlens, "cache_seqlens", requests},
        {&d->cu_seqlens_q, "cu_seqlens_q", requests + 1},
        {&d->cu_seqlens_k, "cu_seqlens_k", requests + 1},
        {&d->num_tokens, "num_tokens", 1},
    };
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
        if (wants & 1u << i)
            add_output(b, outputs[i].vec, outputs[i].field, outputs[i].len);
}

static void add_page_tables(builder *b, unsigned wants, int64_t tokens)
{
    const fill_spec *s = b->s;
    const int64_t context = or_usual(s->context, USUAL_CONTEXT), page = b->d->page_size;
    const int64_t pages = s->blocks ? context : (context + page - 1) / page;
    if (wants & WANT_TABLE_1)
        add_table(b, &b->d->page_table_1, "page_table_1", true, tokens, or_usual(s->columns, context));
    if (wants & WANT_TABLE)
        add_table(b, &b->d->page_table, "page_table", true, tokens, or_usual(s->columns, pages));
}

static void add_schedules(builder *b, unsigned wants)
{
    static const char *const names[2] = {"schedules[0].table", "schedules[1].table"};
    static const dm_schedule_variant variants[2] = {DM_SCHEDULE_SM90, DM_SCHEDULE_SM100};
    const dm_schedule_unit units[2] = {DM_UNIT_TOKEN, b->s->extend_len ? DM_UNIT_REQUEST : DM_UNIT_TOKEN};
    for (int i = 0; i < 2; i++) {
        dm_schedule *to = &b->d->schedules[i];
        if (!(wants & (unsigned)WANT_SCHEDULE_0 << i))
            continue;
        *to = b->s->schedules[i];
        to->variant = to->variant ? to->variant : variants[i];
        to->unit = to->unit ? to->unit : units[i];
        to->slots = (int32_t)or_usual(to->slots, USUAL_SLOTS);
        add_output(b, &to->table, names[i], 2 * (to->slots + 1ll));
        b->img->parts[b->img->num_parts - 1].row = 2;
    }
}

static void add_report(builder *b)
{
    const image_part part = {.field = "report", .output = true, .sticky = true, .bytes = sizeof(dm_report), .elem = 8};
    void *pointer;
    if (b->s->shares_report) {
        b->d->report = b->img->descs[0].report;
    } else if (!b->s->no_report) {
        *(dm_report *)add_part(b, part, &pointer) = b->s->report;
        b->d->report = pointer;
    }
}

/* ---- The whole ---- */

static dm_fill_desc scalars_of(const fill_spec *s)
{
    return (dm_fill_desc){.size = sizeof(dm_fill_desc),
                          .flags = s->flags,
                          .num_requests = s->requests,
                          .extend_len = s->extend_len,
                          .seq_len_bias = s->seq_len_bias,
                          .topk = (int32_t)or_usual(s->topk, USUAL_TOPK),
                          .pool_size = s->pool_size,
                          .page_size = (int32_t)or_usual(s->page_size, USUAL_PAGE),
                          .padded_requests = s->padded_requests,
                          .padded_tokens = s->padded_tokens,
                          .context_divisor = s->context_divisor,
                          .dcp_world = s->dcp_world,
                          .dcp_rank = s->dcp_rank,
                          .dcp_interleave = s->dcp_interleave};
}

void spec_add(image *img, const fill_spec *s)
{
    builder b = {img, s, &img->descs[img->count]};
    const unsigned wants = (s->wants ? s->wants : WANT_ALL) & ~(s->blocks ? WANT_TABLE_1 : 0u);
    int64_t tokens = or_usual(s->capacity, max64(spec_tokens(s), s->padded_tokens));
    *b.d = scalars_of(s);
    add_lengths(&b);
    if (wants & WANT_TABLES)
        add_source(&b);
    tokens = tokens == NO_TOKENS ? 0 : tokens;
    add_vecs(&b, wants, tokens, max64(s->requests, s->padded_requests));
    add_page_tables(&b, wants, tokens);
    add_schedules(&b, wants);
    add_report(&b);
    img->count++;
}

image *spec_image(const fill_spec *s)
{
    image *img = image_new();
    spec_add(img, s);
    image_finish(img);
    return img;
}
