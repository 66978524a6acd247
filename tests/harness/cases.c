/* Seeded fills: what an engine does on most days, and what it does on its worst.
 *
 * No expression draws twice where C leaves the order open, so that every compiler makes the same cases.
 *
 * A descriptor is made in the order of make_desc: the plan (what is wanted, how large), the inputs, what these inputs
 * come to in tokens, and then outputs that are large enough, or on purpose not. */
#include "harness.h"

#include <stdlib.h>

#define LENGTH(list) (sizeof(list) / sizeof *(list))

enum step { STEP_EXTEND, STEP_START_LOC, STEP_UNIFORM, STEP_VERIFY, STEP_DECODE, NUM_STEPS };

static const char *const step_names[NUM_STEPS] = {"extend", "extend-start-loc", "extend-uniform", "verify", "decode"};

/* Inputs that no engine would write on purpose. */
enum { HOSTILE_KV = 1, HOSTILE_Q = 2, HOSTILE_POOL = 4, HOSTILE_SLOTS = 8 };

enum {
    WANT_EXPANDED = 1 << 0,
    WANT_DSA = 1 << 1,
    WANT_DSA_PREFIX = 1 << 2,
    WANT_TOKEN_TO_REQ = 1 << 3,
    WANT_CONTEXT = 1 << 4,
    WANT_TABLE_1 = 1 << 5,
    WANT_TABLE = 1 << 6,
    WANT_CACHE = 1 << 7,
    WANT_CU_Q = 1 << 8,
    WANT_CU_K = 1 << 9,
    WANT_NUM_TOKENS = 1 << 10,
    WANT_SCHEDULE_0 = 1 << 11,
    WANT_SCHEDULE_1 = 1 << 12,
    WANT_BITS = 13,
    WANT_ALL = (1 << WANT_BITS) - 1,
    WANT_TABLES = WANT_TABLE_1 | WANT_TABLE,
    WANT_ENGINES_LENGTHS = WANT_EXPANDED | WANT_DSA,
    WANT_ENGINES_SET = WANT_ENGINES_LENGTHS | WANT_DSA_PREFIX | WANT_CACHE | WANT_CU_K | WANT_TABLE,
    WANT_PER_TOKEN = WANT_EXPANDED | WANT_DSA | WANT_DSA_PREFIX | WANT_TOKEN_TO_REQ | WANT_CONTEXT | WANT_TABLES
};

/* What was drawn for the descriptor being made. */
typedef struct plan {
    enum step step;
    unsigned hostile, wants;
    dm_type q_type;
    int64_t context;  /* KV tokens that the source of the page tables holds per request */
    int64_t max_q;    /* query tokens of a usual request */
    int64_t tokens;   /* T, as the inputs have it */
    int64_t budget;   /* tokens that may be written */
    int64_t capacity; /* the per-token outputs hold at least this many */
} plan;

typedef struct maker {
    rng r;
    rng context; /* what draw_context draws, so that fills without such features are as they were before these, */
    rng engine;  /* and what draw_engines_set draws */
    bool like_an_engine; /* fills of the kinds for which GPUs have kernels of their own */
    image *img;
    int desc; /* the descriptor being made */
    case_limits limits;
} maker;

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t between(maker *m, int64_t lo, int64_t hi)
{
    return rng_between(&m->r, lo, hi);
}

static bool chance(maker *m, int percent)
{
    return rng_chance(&m->r, percent);
}

static int32_t pick(maker *m, const int32_t *list, size_t count)
{
    return list[between(m, 0, (int64_t)count - 1)];
}

static dm_type pick_type(maker *m)
{
    return chance(m, 50) ? DM_INT32 : DM_INT64;
}

/* ---- Arrays ---- */

static size_t element_bytes(dm_type type)
{
    return type == DM_INT64 ? 8 : 4;
}

/* Half of all arrays are aligned to no more than their element. */
static size_t misalign(maker *m, size_t elem)
{
    return chance(m, 50) ? 0 : elem * (size_t)between(m, 1, 64 / (int64_t)elem - 1);
}

/* Adds an array to the block and *pointer to it; returns its contents. */
static void *add_part(maker *m, image_part part, void **pointer)
{
    part.desc = m->desc;
    size_t offset = image_add(m->img, part, misalign(m, part.elem));
    *pointer = (void *)(uintptr_t)offset;
    return m->img->block + offset;
}

static image_part *last_part(maker *m)
{
    return &m->img->parts[m->img->num_parts - 1];
}

static void add_output(maker *m, dm_vec *v, const char *field, int64_t len)
{
    *v = (dm_vec){.len = len, .type = DM_INT32};
    add_part(m, (image_part){.field = field, .output = true, .bytes = (size_t)len * 4, .elem = 4}, &v->data);
}

static void write_element(void *data, dm_type type, int64_t i, int64_t value)
{
    if (type == DM_INT64)
        ((int64_t *)data)[i] = value;
    else
        ((int32_t *)data)[i] = (int32_t)value;
}

/* Sometimes longer than values, by garbage. */
static void add_input(maker *m, dm_vec *v, const char *field, dm_type type, const int64_t *values, int64_t count)
{
    int64_t extra = chance(m, 80) ? 0 : between(m, 1, 9);
    *v = (dm_vec){.len = count + extra, .type = type};
    size_t elem = element_bytes(type);
    void *data = add_part(m, (image_part){.field = field, .bytes = (size_t)v->len * elem, .elem = elem}, &v->data);
    for (int64_t i = 0; i < v->len; i++)
        write_element(data, type, i, i < count ? values[i] : (int64_t)rng_next(&m->r));
}

/* A table of table->rows and ->cols with rows sometimes farther apart than they need be. */
static int32_t *add_table(maker *m, dm_table *table, const char *field, bool output)
{
    int64_t stride = table->cols + (chance(m, 50) ? between(m, 1, 20) : 0);
    table->type = DM_INT32;
    table->row_stride = stride == table->cols && chance(m, 50) ? 0 : stride;
    int64_t elements = table->rows > 0 ? (table->rows - 1) * stride + table->cols : 0;
    image_part part = {
        .field = field, .output = output, .bytes = (size_t)elements * 4, .elem = 4, .row = (size_t)stride};
    return add_part(m, part, &table->data);
}

/* A value that no length or index has, or just beyond what one may be. */
static int64_t extreme(maker *m, dm_type type)
{
    static const int64_t narrow[] = {-1, -2, -1000, INT32_MIN, INT32_MIN + 1, INT32_MAX, INT32_MAX - 1, 1 << 30};
    static const int64_t broad[] = {INT64_MIN,       INT64_MAX,       INT64_MIN + 1,    INT64_MAX - 1,
                                    INT32_MAX + 1ll, (1ll << 32) + 1, -(1ll << 32) + 3, 1ll << 40};
    if (type == DM_INT64 && chance(m, 50))
        return broad[between(m, 0, LENGTH(broad) - 1)];
    return narrow[between(m, 0, LENGTH(narrow) - 1)];
}

/* Replaces about one value in five, and at least one, by extremes. */
static void make_hostile(maker *m, int64_t *values, int64_t count, dm_type type)
{
    if (count == 0)
        return;
    int64_t at = between(m, 0, count - 1);
    for (int64_t i = 0; i < count; i++)
        if (i == at || chance(m, 20))
            values[i] = extreme(m, type);
}

/* ---- The plan ---- */

static int32_t draw_requests(maker *m)
{
    static const struct {
        int of_10000;
        int64_t lo, hi;
    } sizes[] = {{2, 65536, 65536}, {20, 301, 5000}, {400, 65, 300}, {500, 0, 0}, {1300, 1, 1}, {2000, 9, 64}};
    int64_t lo = 2, hi = 10, roll = between(m, 0, 9999);
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        roll -= sizes[i].of_10000;
        if (roll < 0) {
            lo = sizes[i].lo;
            hi = sizes[i].hi;
            break;
        }
    }
    return (int32_t)min64(between(m, lo, hi), m->limits.max_requests);
}

static unsigned draw_wants(maker *m)
{
    if (chance(m, 1))
        return 0;
    if (chance(m, 20))
        return 1u << between(m, 0, WANT_BITS - 1);
    return chance(m, 20) ? WANT_ALL : (unsigned)rng_next(&m->r) & WANT_ALL;
}

static unsigned draw_hostile(maker *m)
{
    unsigned hostile = 0;
    for (int bit = 0; bit < 4; bit++)
        if (chance(m, 12))
            hostile |= 1u << bit;
    return hostile;
}

/* Wants, and the scalars that stand for themselves. */
static void draw_scalars(maker *m, plan *p, dm_fill_desc *d)
{
    static const int32_t topks[] = {1, 2, 16, 64, 512, 1024, 2048, 4096, INT32_MAX};
    static const int32_t pools[] = {0, 1, 1, 2, 3, 4, 7, 64, 100};
    static const int32_t pages[] = {1, 2, 3, 16, 48, 64, 64, 100, 128, 1 << 20, INT32_MAX};
    p->wants = draw_wants(m);
    d->topk = chance(m, 30) ? (int32_t)between(m, 1, 40) : pick(m, topks, LENGTH(topks));
    d->pool_size = pick(m, pools, LENGTH(pools));
    d->page_size = pick(m, pages, LENGTH(pages));
    if (!(p->wants & (WANT_DSA | WANT_DSA_PREFIX)) && chance(m, 50))
        d->topk = 0;
    if (!(p->wants & WANT_TABLE) && chance(m, 50))
        d->page_size = 0;
    if (chance(m, 50))
        d->flags |= DM_FILL_FULL_ROWS;
    if (d->extend_len && chance(m, 50))
        d->flags |= DM_FILL_CONTEXT_PER_REQUEST;
}

/* What engines want, on good days and bad. */
static void draw_engines_set(maker *m, plan *p, dm_fill_desc *d)
{
    static const int32_t pools[] = {1, 1, 1, 2, 4, 4, 64, 1 << 30}, pages[] = {1, 16, 64, 64, 128, 1 << 20};
    rng *r = &m->engine;
    const unsigned others = p->wants & ~(unsigned)WANT_TABLE_1;
    const bool lengths = rng_chance(r, 20), alone = rng_chance(r, 60);
    p->wants = lengths ? WANT_ENGINES_LENGTHS : WANT_ENGINES_SET | (alone ? 0 : others);
    d->flags &= ~(uint32_t)DM_FILL_FULL_ROWS;
    d->pool_size = lengths ? 1 : pools[rng_between(r, 0, LENGTH(pools) - 1)];
    d->page_size = pages[rng_between(r, 0, LENGTH(pages) - 1)];
    if (!d->topk)
        d->topk = 2048;
}

/* Caches that are compressed, or shared by ranks. */
static void draw_context(maker *m, dm_fill_desc *d)
{
    static const int32_t divisors[] = {0, 1, 2, 3, 4, 4, 7, 64, 128, INT32_MAX};
    static const int32_t worlds[] = {0, 1, 2, 2, 3, 4, 8, 16, 1000, INT32_MAX};
    static const int32_t parts[] = {0, 0, 1, 2, 3, 16, 64, 64, 256, 1000, 1 << 20, INT32_MAX};
    rng *r = &m->context;
    if (rng_chance(r, 80) || m->like_an_engine)
        return;
    if (rng_chance(r, 60))
        d->context_divisor = divisors[rng_between(r, 0, LENGTH(divisors) - 1)];
    if (rng_chance(r, 30))
        return;
    d->dcp_world = worlds[rng_between(r, 0, LENGTH(worlds) - 1)];
    d->dcp_rank = (int32_t)rng_between(r, 0, max64(d->dcp_world, 1) - 1);
    if (rng_chance(r, 50))
        d->dcp_rank = (int32_t)min64(d->dcp_rank, rng_between(r, 0, 3)); /* those of large worlds hold something */
    d->dcp_interleave = parts[rng_between(r, 0, LENGTH(parts) - 1)];
}

/* The step, and with it where the query lengths come from. */
static void draw_step(maker *m, plan *p, dm_fill_desc *d)
{
    p->hostile = draw_hostile(m);
    p->step = (enum step)between(m, 0, NUM_STEPS - 1);
    p->q_type = pick_type(m);
    if (m->like_an_engine) {
        p->step = p->step == STEP_START_LOC ? STEP_EXTEND : p->step;
        p->q_type = DM_INT32;
    }
    p->max_q = chance(m, 10) ? 0 : between(m, 1, 8);
    d->num_requests = draw_requests(m);
    if (p->step >= STEP_UNIFORM)
        d->extend_len = (int32_t)max64(p->max_q, 1);
    if (p->step == STEP_DECODE)
        d->extend_len = 1;
    else if (d->extend_len && chance(m, 2))
        d->extend_len = chance(m, 50) ? INT32_MAX : (int32_t)between(m, 9, 5000);
    d->seq_len_bias = p->step == STEP_VERIFY ? d->extend_len : 0;
    if (chance(m, 5))
        d->seq_len_bias = chance(m, 50) ? INT32_MAX : (int32_t)between(m, 1, 100);
    p->budget = m->limits.max_tokens ? m->limits.max_tokens : max64(8192, 2ll * d->num_requests);
}

/* ---- Query lengths ---- */

/* Usual query lengths, some zero, now and then one of thousands. */
static void draw_queries(maker *m, const plan *p, int64_t *q, int64_t count)
{
    bool same = chance(m, 25);
    for (int64_t r = 0; r < count; r++)
        q[r] = same ? p->max_q : between(m, 0, p->max_q);
    if (count > 0 && chance(m, 4)) {
        int64_t at = between(m, 0, count - 1);
        q[at] = between(m, 1000, 6000);
    }
}

/* Tokens of a request from first to end, as the contract clamps them. */
static int64_t clamp_query(int64_t first, int64_t end)
{
    if (end <= first)
        return 0;
    uint64_t q = (uint64_t)end - (uint64_t)first;
    return q > INT32_MAX ? INT32_MAX : (int64_t)q;
}

static void make_extend_lens(maker *m, plan *p, dm_fill_desc *d)
{
    int64_t count = d->num_requests, *q = harness_alloc((size_t)count * sizeof *q);
    draw_queries(m, p, q, count);
    if (p->hostile & HOSTILE_Q)
        make_hostile(m, q, count, p->q_type);
    for (int64_t r = 0; r < count; r++)
        p->tokens += clamp_query(0, q[r]);
    add_input(m, &d->extend_lens, "extend_lens", p->q_type, q, count);
    free(q);
}

/* Only differences count, so a prefix may start anywhere. */
static void make_start_loc(maker *m, plan *p, dm_fill_desc *d)
{
    int64_t count = d->num_requests, *loc = harness_alloc((size_t)(count + 1) * sizeof *loc);
    draw_queries(m, p, loc + 1, count);
    loc[0] = chance(m, 70) ? 0 : between(m, -1000000, 1000000);
    for (int64_t r = 0; r < count; r++)
        loc[r + 1] += loc[r];
    if (p->hostile & HOSTILE_Q)
        make_hostile(m, loc, count + 1, p->q_type);
    for (int64_t r = 0; r < count; r++)
        p->tokens += clamp_query(loc[r], loc[r + 1]);
    add_input(m, &d->query_start_loc, "query_start_loc", p->q_type, loc, count + 1);
    free(loc);
}

static void make_queries(maker *m, plan *p, dm_fill_desc *d)
{
    if (d->extend_len)
        p->tokens = (int64_t)d->num_requests * d->extend_len;
    else if (d->num_requests == 0 && chance(m, 50))
        p->tokens = 0; /* inputs may be left out */
    else if (p->step == STEP_EXTEND)
        make_extend_lens(m, p, d);
    else
        make_start_loc(m, p, d);
}

/* ---- KV lengths ---- */

static int64_t draw_longest(maker *m, const plan *p, const dm_fill_desc *d)
{
    if (p->wants & WANT_TABLES && chance(m, 70))
        return p->context + p->context / 4 + 1;
    const int64_t scales[] = {0, 1, 16, 300, 3ll * d->topk, 3000, 1000000, INT32_MAX};
    return min64(scales[between(m, 0, LENGTH(scales) - 1)], INT32_MAX);
}

static void make_lengths(maker *m, const plan *p, dm_fill_desc *d)
{
    int64_t count = d->num_requests, *kv = harness_alloc((size_t)count * sizeof *kv);
    int64_t longest = draw_longest(m, p, d);
    bool counts_queries = chance(m, 70); /* as an engine has it: the context includes the new tokens */
    dm_type type = pick_type(m);
    for (int64_t r = 0; r < count; r++) {
        kv[r] = between(m, longest == INT32_MAX ? longest / 2 : 0, longest);
        if (counts_queries && longest > 0)
            kv[r] = min64(kv[r] + p->max_q, INT32_MAX);
    }
    if (p->hostile & HOSTILE_KV)
        make_hostile(m, kv, count, type);
    if (count > 0 || chance(m, 50))
        add_input(m, &d->seq_lens, "seq_lens", type, kv, count);
    free(kv);
}

/* ---- Page table sources ---- */

/* How many columns a table of so many rows may have. */
static int64_t draw_columns(maker *m, int64_t rows)
{
    enum { CELLS = 1 << 14 };
    int64_t most = min64(max64(CELLS / max64(rows, 1), 3), m->limits.max_columns);
    if (chance(m, 1))
        return 0;
    return between(m, 1, chance(m, 5) ? most : min64(most, 80));
}

/* Slots as an engine hands them out: runs that fill pages which lie anywhere. */
static void draw_slots(maker *m, int32_t *row, int64_t cols, int64_t page)
{
    int64_t first = 0;
    for (int64_t c = 0; c < cols; c++) {
        if (c % page == 0)
            first = between(m, 0, 1 << 20) * page;
        row[c] = (int32_t)(first + c % page);
    }
}

static void make_req_to_token(maker *m, plan *p, dm_fill_desc *d, int64_t pool)
{
    int64_t cols = draw_columns(m, pool);
    if (p->wants & WANT_TABLE && chance(m, 70)) /* some pages of it */
        cols = min64(cols * min64(d->page_size, 128), min64(8192, 65536 / max64(pool, 1) + 4));
    int64_t page = d->page_size > 0 ? min64(d->page_size, 128) : 64;
    p->context = cols;
    d->req_to_token = (dm_table){.rows = pool, .cols = cols};
    int32_t *slots = add_table(m, &d->req_to_token, "req_to_token", false);
    int64_t stride = d->req_to_token.row_stride ? d->req_to_token.row_stride : cols;
    for (int64_t r = 0; r < pool; r++) {
        int32_t *row = slots + r * stride;
        draw_slots(m, row, cols, page);
        for (int64_t c = 0; p->hostile & HOSTILE_SLOTS && c < cols; c++)
            if (chance(m, 20))
                row[c] = (int32_t)extreme(m, DM_INT32);
    }
}

static void make_pool_indices(maker *m, const plan *p, dm_fill_desc *d, int64_t pool)
{
    int64_t count = d->num_requests, *index = harness_alloc((size_t)count * sizeof *index);
    dm_type type = pick_type(m);
    for (int64_t r = 0; r < count; r++)
        index[r] = pool > 0 ? between(m, 0, pool - 1) : 0;
    if (p->hostile & HOSTILE_POOL) {
        make_hostile(m, index, count, type);
        if (count > 0)
            index[between(m, 0, count - 1)] = pool;
    }
    add_input(m, &d->req_pool_indices, "req_pool_indices", type, index, count);
    free(index);
}

/* A pool has any number of rows where indices lead to them; without, one for each request, or a few are missing. */
static void make_pool(maker *m, plan *p, dm_fill_desc *d)
{
    bool indexed = chance(m, 70);
    int64_t rows = d->num_requests, pool;
    if (indexed)
        pool = between(m, 1, min64(rows + 4, 512));
    else
        pool = p->hostile & HOSTILE_POOL ? between(m, 0, rows) : rows + between(m, 0, 3);
    make_req_to_token(m, p, d, pool);
    if (indexed)
        make_pool_indices(m, p, d, pool);
}

static void make_block_table(maker *m, plan *p, dm_fill_desc *d)
{
    int64_t rows = d->num_requests, missing = p->hostile & HOSTILE_POOL ? between(m, 0, rows) : 0;
    d->block_table = (dm_table){.rows = rows - missing, .cols = draw_columns(m, rows)};
    int32_t *pages = add_table(m, &d->block_table, "block_table", false);
    size_t elements = last_part(m)->bytes / sizeof *pages;
    for (size_t i = 0; i < elements; i++)
        pages[i] = (int32_t)(p->hostile & HOSTILE_SLOTS ? extreme(m, DM_INT32) : between(m, 0, 1 << 22));
    p->context = min64(d->block_table.cols * d->page_size, INT32_MAX / 2);
}

/* The source of the wanted page tables; a sibling's is taken as it is. */
static void make_source(maker *m, plan *p, dm_fill_desc *d)
{
    if (d->req_to_token.data)
        return;
    if ((p->wants & WANT_TABLES) == WANT_TABLE && chance(m, 40))
        make_block_table(m, p, d);
    else if (p->wants & WANT_TABLES || chance(m, 5))
        make_pool(m, p, d);
}

/* ---- Sizes ---- */

static void draw_schedule_kinds(maker *m, const plan *p, dm_fill_desc *d)
{
    static const int32_t slots[] = {1, 2, 3, 64, 78, 108, 132, 148, 300};
    static const int32_t divisors[] = {0, 1, 4, 64, 3};
    for (int i = 0; i < 2; i++)
        if (p->wants & (unsigned)WANT_SCHEDULE_0 << i) {
            d->schedules[i].variant = (dm_schedule_variant)between(m, DM_SCHEDULE_SMXX, DM_SCHEDULE_SM100);
            d->schedules[i].unit = d->extend_len && chance(m, 50) ? DM_UNIT_REQUEST : DM_UNIT_TOKEN;
            d->schedules[i].slots = chance(m, 40) ? (int32_t)between(m, 1, 300) : pick(m, slots, LENGTH(slots));
            d->schedules[i].divisor = pick(m, divisors, LENGTH(divisors));
        }
}

static bool has_token_schedule(const dm_fill_desc *d)
{
    return d->schedules[0].unit == DM_UNIT_TOKEN || d->schedules[1].unit == DM_UNIT_TOKEN;
}

/* Padding and capacity: exact, with room, or too small. Where the inputs ask for more tokens than the budget has, only
 * a per-token output bounds the work. */
static void draw_sizes(maker *m, plan *p, dm_fill_desc *d)
{
    if (p->tokens > p->budget && has_token_schedule(d) && !(p->wants & WANT_PER_TOKEN))
        p->wants |= WANT_EXPANDED;
    int64_t tokens = min64(p->tokens, p->budget);
    if (chance(m, 25))
        d->padded_tokens = between(m, 1, tokens + 1);
    else if (chance(m, 35))
        d->padded_tokens = tokens + between(m, 1, 64);
    if (p->wants & WANT_PER_TOKEN && chance(m, 1))
        d->padded_tokens = 1ll << 40;
    if (has_token_schedule(d) && !(p->wants & WANT_PER_TOKEN))
        d->padded_tokens = max64(d->padded_tokens, 1);
    if (chance(m, 25))
        d->padded_requests = (int32_t)between(m, 1, d->num_requests + 1);
    else if (chance(m, 35))
        d->padded_requests = d->num_requests + (int32_t)between(m, 1, 40);

    int64_t all = min64(max64(p->tokens, d->padded_tokens), p->budget);
    p->capacity = chance(m, 30) ? between(m, 0, all) : all;
    if (chance(m, 20))
        p->capacity = min64(all + between(m, 1, 40), p->budget);
}

/* ---- Outputs ---- */

/* How many elements more than needed a buffer has: usually none. */
static int64_t slack(maker *m)
{
    return chance(m, 75) ? 0 : between(m, 1, 20);
}

static int64_t padded_requests(const dm_fill_desc *d)
{
    return max64(d->num_requests, d->padded_requests);
}

/* The one buffer that these three may share when each request has one token. */
static void make_shared_lengths(maker *m, plan *p, dm_fill_desc *d)
{
    unsigned sharing = p->wants & (WANT_EXPANDED | WANT_CONTEXT | WANT_CACHE);
    if (d->context_divisor > 1 || d->dcp_world > 1)
        sharing &= ~(unsigned)WANT_CONTEXT;
    if ((sharing & (sharing - 1)) == 0)
        return; /* fewer than two */
    dm_vec shared;
    add_output(m, &shared, "seqlens_expanded", max64(p->capacity, padded_requests(d)) + slack(m));
    if (sharing & WANT_EXPANDED)
        d->seqlens_expanded = shared;
    if (sharing & WANT_CONTEXT)
        d->context_lens = shared;
    if (sharing & WANT_CACHE)
        d->cache_seqlens = shared;
    p->wants &= ~sharing;
}

static void make_token_vecs(maker *m, const plan *p, dm_fill_desc *d)
{
    if (p->wants & WANT_EXPANDED)
        add_output(m, &d->seqlens_expanded, "seqlens_expanded", p->capacity + slack(m));
    if (p->wants & WANT_DSA)
        add_output(m, &d->dsa_cache_seqlens, "dsa_cache_seqlens", p->capacity + slack(m));
    if (p->wants & WANT_DSA_PREFIX)
        add_output(m, &d->dsa_cu_seqlens_k, "dsa_cu_seqlens_k", p->capacity + 1 + slack(m));
    if (p->wants & WANT_TOKEN_TO_REQ)
        add_output(m, &d->token_to_req, "token_to_req", p->capacity + slack(m));
    if (p->wants & WANT_CONTEXT)
        add_output(m, &d->context_lens, "context_lens", p->capacity + slack(m));
}

static void make_page_table(maker *m, const plan *p, dm_table *table, const char *field)
{
    int64_t rows = p->capacity + slack(m);
    *table = (dm_table){.rows = rows, .cols = draw_columns(m, rows)};
    add_table(m, table, field, true);
}

static void make_request_vecs(maker *m, const plan *p, dm_fill_desc *d)
{
    int64_t requests = padded_requests(d);
    if (p->wants & WANT_CACHE)
        add_output(m, &d->cache_seqlens, "cache_seqlens", requests + slack(m));
    if (p->wants & WANT_CU_Q)
        add_output(m, &d->cu_seqlens_q, "cu_seqlens_q", requests + 1 + slack(m));
    if (p->wants & WANT_CU_K)
        add_output(m, &d->cu_seqlens_k, "cu_seqlens_k", requests + 1 + slack(m));
}

static void make_outputs(maker *m, plan *p, dm_fill_desc *d)
{
    if (d->extend_len == 1 && chance(m, 40))
        make_shared_lengths(m, p, d);
    make_token_vecs(m, p, d);
    if (p->wants & WANT_TABLE_1)
        make_page_table(m, p, &d->page_table_1, "page_table_1");
    if (p->wants & WANT_TABLE)
        make_page_table(m, p, &d->page_table, "page_table");
    make_request_vecs(m, p, d);
    if (p->wants & WANT_NUM_TOKENS)
        add_output(m, &d->num_tokens, "num_tokens", 1 + slack(m));
    static const char *const names[2] = {"schedules[0]", "schedules[1]"};
    for (int i = 0; i < 2; i++)
        if (p->wants & (unsigned)WANT_SCHEDULE_0 << i) {
            dm_vec *table = &d->schedules[i].table;
            add_output(m, table, names[i], 2 * (d->schedules[i].slots + 1ll) + slack(m));
            last_part(m)->row = 2;
        }
}

/* None, one of its own, or that of an earlier descriptor; new ones are often not empty. */
static void make_report(maker *m, dm_fill_desc *d)
{
    d->report = NULL;
    if (chance(m, 15) || m->like_an_engine)
        return;
    dm_report *earlier = m->desc > 0 ? m->img->descs[between(m, 0, m->desc - 1)].report : NULL;
    if (earlier && chance(m, 60)) {
        d->report = earlier;
        return;
    }
    void *pointer;
    image_part part = {.field = "report", .output = true, .sticky = true, .bytes = sizeof(dm_report), .elem = 8};
    dm_report *report = add_part(m, part, &pointer);
    if (chance(m, 30)) {
        report->flags = (uint32_t)between(m, 0, 31);
        report->bad_request = (uint32_t)between(m, 0, chance(m, 50) ? 4 : 1 << 20);
        report->tokens_wanted = (uint64_t)between(m, 0, chance(m, 50) ? 40 : 1ll << 48);
    }
    d->report = pointer;
}

/* ---- Descriptors and cases ---- */

/* Starts from the inputs of first, as sibling drafts do, with outputs of its own. */
static void copy_inputs(dm_fill_desc *d, const dm_fill_desc *first)
{
    d->num_requests = first->num_requests;
    d->seq_lens = first->seq_lens;
    d->extend_lens = first->extend_lens;
    d->query_start_loc = first->query_start_loc;
    d->extend_len = first->extend_len;
    d->req_to_token = first->req_to_token;
    d->req_pool_indices = first->req_pool_indices;
}

static void make_desc(maker *m, plan *p, const dm_fill_desc *first)
{
    dm_fill_desc *d = &m->img->descs[m->desc];
    *d = (dm_fill_desc){.size = sizeof *d};
    if (first) {
        copy_inputs(d, first);
        d->seq_len_bias = first->seq_len_bias < INT32_MAX - 8 ? first->seq_len_bias + m->desc : 0;
    } else {
        *p = (plan){0};
        draw_step(m, p, d);
    }
    draw_scalars(m, p, d);
    if (m->like_an_engine)
        draw_engines_set(m, p, d);
    draw_context(m, d);
    make_source(m, p, d);
    if (!first) {
        make_queries(m, p, d);
        make_lengths(m, p, d);
    }
    draw_schedule_kinds(m, p, d);
    draw_sizes(m, p, d);
    make_outputs(m, p, d);
    make_report(m, d);
}

static void write_title(image *img, const plan *first)
{
    const dm_fill_desc *d = &img->descs[0];
    snprintf(img->title, sizeof img->title, "%s %s R=%d kpool=%d page=%d x%zu%s", step_names[first->step],
             d->seq_lens.type == DM_INT64 ? "int64" : "int32", (int)d->num_requests, (int)d->pool_size,
             (int)d->page_size, img->count, first->hostile ? " hostile" : "");
}

static case_limits limits_or_own(const case_limits *limits)
{
    case_limits l = limits ? *limits : (case_limits){0};
    if (l.max_requests == 0)
        l.max_requests = 65536;
    if (l.max_columns == 0)
        l.max_columns = 8192;
    return l;
}

image *case_make(uint64_t seed, uint64_t index, const case_limits *limits)
{
    const uint64_t other_stream = 0x646370, third_stream = 0x656e67; /* far from any index */
    maker m = {.r = rng_seeded(seed, index),
               .context = rng_seeded(seed, index ^ other_stream << 40),
               .engine = rng_seeded(seed, index ^ third_stream << 40),
               .img = image_new(),
               .limits = limits_or_own(limits)};
    m.like_an_engine = rng_chance(&m.engine, 12);
    int count = chance(&m, 80) ? 1 : (int)between(&m, 2, chance(&m, 30) ? IMAGE_MAX_DESCS : 3);
    bool siblings = chance(&m, 50);
    plan first = {0}, p;
    for (m.desc = 0; m.desc < count; m.desc++) {
        make_desc(&m, &p, siblings && m.desc > 0 ? &m.img->descs[0] : NULL);
        if (m.desc == 0)
            first = p;
    }
    m.img->count = (size_t)count;
    image_finish(m.img);
    write_title(m.img, &first);
    return m.img;
}

const char *case_title(const image *img)
{
    return img->title;
}

void case_free(image *img)
{
    image_free(img);
}
