/* Every way to call the library wrongly: what it returns, which field it names, and that it writes nothing. */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "draftmeta.h"
#include "suite.h"

#define LENGTH(list) (sizeof(list) / sizeof *(list))

/* Tests ask for more memory than there is; a sanitizer then is to return NULL as malloc does. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__tsan_default_options(void);

const char *__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

/* ---- What is expected of a failure ---- */

static void expect_message(const char *what, const char *word)
{
    ck_assert_msg(strstr(dm_last_error(), word), "%s: expected \"%s\" in \"%s\"", what, word, dm_last_error());
}

static void expect_status(const char *what, dm_status got, dm_status want)
{
    ck_assert_msg(got == want, "%s: expected %s, got %s: %s", what, dm_status_string(want), dm_status_string(got),
                  dm_last_error());
}

static void rejects(const char *call, dm_status got, dm_status want, const char *word)
{
    expect_status(call, got, want);
    expect_message(call, word);
}

/* REJECTS(status, word of the message, call) */
#define REJECTS(status, word, call) rejects(#call, call, status, word)
#define ACCEPTS(call) expect_status(#call, call, DM_OK)

/* Every test begins without it. */
static void unset_check(void)
{
    unsetenv("DRAFTMETA_CHECK");
}

static dm_context *open_cpu(void)
{
    const dm_options options = {.size = sizeof options, .backend = "cpu"};
    dm_context *ctx;
    ck_assert_msg(dm_open(&options, &ctx) == DM_OK, "%s", dm_last_error());
    return ctx;
}

/* ---- Good descriptors, which the tests then break ---- */

enum { R = 3, N = 2, PADDED = 4, TOKENS = 8, SLOTS = 2, POISON = 0xa5 };

/* The arrays of a fill, back to back. What is not set is poison. */
typedef struct memory {
    int64_t seq_lens[R], req_pool_indices[R], extend_lens[R];
    int32_t query_start_loc[R + 1], req_to_token[R][16], block_table[R][4];

    int32_t seqlens_expanded[TOKENS], dsa_cache_seqlens[TOKENS], dsa_cu_seqlens_k[TOKENS + 1], token_to_req[TOKENS];
    int32_t context_lens[TOKENS], page_table_1[TOKENS][16], page_table[TOKENS][4];
    int32_t cache_seqlens[PADDED], cu_seqlens_q[PADDED + 1], cu_seqlens_k[PADDED + 1], num_tokens[1];
    int32_t schedules[2][2 * (SLOTS + 1)];
    dm_report report;
    int64_t spare;
} memory;

static void prepare(memory *m)
{
    memset(m, POISON, sizeof *m);
    memset(m->req_to_token, 0, sizeof m->req_to_token);
    memset(m->block_table, 0, sizeof m->block_table);
    memset(&m->report, 0, sizeof m->report);
    for (int r = 0; r <= R; r++)
        m->query_start_loc[r] = N * r;
    for (int r = 0; r < R; r++) {
        m->seq_lens[r] = 5 + r;
        m->extend_lens[r] = N;
        m->req_pool_indices[r] = R - 1 - r;
    }
}

#define ARRAY(array, element) ((dm_vec){(array), sizeof(array) / sizeof *(array), (element)})
#define MATRIX(array) ((dm_table){.data = (array), .rows = LENGTH(array), .cols = LENGTH(*(array)), .type = DM_INT32})

/* Everything that can be given at once, with query lengths by extend_len and tables by req_to_token. */
static dm_fill_desc by_slots(memory *m)
{
    return (dm_fill_desc){
        .size = sizeof(dm_fill_desc),
        .flags = DM_FILL_FULL_ROWS | DM_FILL_CONTEXT_PER_REQUEST,
        .num_requests = R,
        .seq_lens = ARRAY(m->seq_lens, DM_INT64),
        .extend_len = N,
        .seq_len_bias = 1,
        .req_to_token = MATRIX(m->req_to_token),
        .req_pool_indices = ARRAY(m->req_pool_indices, DM_INT64),
        .topk = 4,
        .pool_size = 2,
        .page_size = 4,
        .padded_requests = PADDED,
        .padded_tokens = TOKENS,
        .seqlens_expanded = ARRAY(m->seqlens_expanded, DM_INT32),
        .dsa_cache_seqlens = ARRAY(m->dsa_cache_seqlens, DM_INT32),
        .dsa_cu_seqlens_k = ARRAY(m->dsa_cu_seqlens_k, DM_INT32),
        .token_to_req = ARRAY(m->token_to_req, DM_INT32),
        .context_lens = ARRAY(m->context_lens, DM_INT32),
        .page_table_1 = MATRIX(m->page_table_1),
        .page_table = MATRIX(m->page_table),
        .cache_seqlens = ARRAY(m->cache_seqlens, DM_INT32),
        .cu_seqlens_q = ARRAY(m->cu_seqlens_q, DM_INT32),
        .cu_seqlens_k = ARRAY(m->cu_seqlens_k, DM_INT32),
        .num_tokens = ARRAY(m->num_tokens, DM_INT32),
        .schedules = {{ARRAY(m->schedules[0], DM_INT32), DM_SCHEDULE_SM90, DM_UNIT_REQUEST, SLOTS, 0},
                      {ARRAY(m->schedules[1], DM_INT32), DM_SCHEDULE_SM100, DM_UNIT_TOKEN, SLOTS, 64}},
        .report = &m->report,
    };
}

static dm_fill_desc without_extend_len(memory *m)
{
    dm_fill_desc d = by_slots(m);
    d.extend_len = 0;
    d.flags = DM_FILL_FULL_ROWS;
    d.schedules[0].unit = DM_UNIT_TOKEN;
    return d;
}

static dm_fill_desc by_extend_lens(memory *m)
{
    dm_fill_desc d = without_extend_len(m);
    d.extend_lens = ARRAY(m->extend_lens, DM_INT64);
    return d;
}

static dm_fill_desc by_query_start_loc(memory *m)
{
    dm_fill_desc d = without_extend_len(m);
    d.query_start_loc = ARRAY(m->query_start_loc, DM_INT32);
    return d;
}

static dm_fill_desc by_blocks(memory *m)
{
    dm_fill_desc d = by_slots(m);
    d.req_to_token = d.page_table_1 = (dm_table){0};
    d.req_pool_indices = (dm_vec){0};
    d.block_table = MATRIX(m->block_table);
    return d;
}

/* One schedule, and nothing that says how many tokens it covers. */
static dm_fill_desc boundless(memory *m)
{
    const dm_fill_desc all = by_slots(m);
    dm_fill_desc d = {.size = sizeof d, .num_requests = R, .seq_lens = all.seq_lens, .extend_len = N};
    d.cache_seqlens = all.cache_seqlens;
    d.schedules[1] = all.schedules[1];
    return d;
}

/* What each field can be given, all at once. */
static dm_fill_desc everything(memory *m)
{
    dm_fill_desc d = by_slots(m);
    d.extend_lens = by_extend_lens(m).extend_lens;
    d.query_start_loc = by_query_start_loc(m).query_start_loc;
    d.block_table = by_blocks(m).block_table;
    return d;
}

typedef dm_fill_desc (*maker)(memory *m);
static const maker makers[] = {by_slots, by_extend_lens, by_query_start_loc, by_blocks};

/* ---- Changes to a struct, as data ---- */

enum operation { NONE, ASSIGN, ZERO, TAKE, OFFSET };

typedef struct change {
    enum operation operation;
    size_t offset, size; /* of the member */
    size_t from;         /* OFFSET: of a pointer */
    int64_t value;
} change;

#define CHANGE(operation, type, member, ...)                                                                           \
    {                                                                                                                  \
        operation, offsetof(type, member), sizeof(((type *)0)->member), __VA_ARGS__                                    \
    }
#define SET(member, value) CHANGE(ASSIGN, dm_fill_desc, member, 0, value)
#define DROP(member) CHANGE(ZERO, dm_fill_desc, member, 0, 0)
/* The same member of source, and another member's pointer in source, bytes further. */
#define GIVE(member) CHANGE(TAKE, dm_fill_desc, member, 0, 0)
#define AT(member, other, bytes) CHANGE(OFFSET, dm_fill_desc, member, offsetof(dm_fill_desc, other), bytes)

static void apply(void *target, const void *source, const change *c)
{
    char *member = (char *)target + c->offset;
    const int32_t narrow = (int32_t)c->value;
    const char *pointer;
    switch (c->operation) {
    case NONE:
        break;
    case ASSIGN:
        memcpy(member, c->size == sizeof narrow ? (const void *)&narrow : &c->value, c->size);
        break;
    case ZERO:
        memset(member, 0, c->size);
        break;
    case TAKE:
        memcpy(member, (const char *)source + c->offset, c->size);
        break;
    case OFFSET:
        memcpy(&pointer, (const char *)source + c->from, sizeof pointer);
        pointer += c->value;
        memcpy(member, &pointer, sizeof pointer);
        break;
    }
}

static void apply_all(void *target, const void *source, const change *changes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        apply(target, source, &changes[i]);
}

/* ---- Fills that must fail ---- */

static void expect_untouched(const char *what, const memory *m, const memory *before)
{
    ck_assert_msg(memcmp(m, before, sizeof *m) == 0, "%s: something was written", what);
}

enum { MANY = 12, BAD = 9 };

/* Alone, and behind a first launch's worth of good ones: neither may write. */
static void expect_refused(dm_context *ctx, const char *what, const memory *m, const dm_fill_desc *good,
                           const dm_fill_desc *bad, dm_status status, const char *word)
{
    const memory before = *m;
    const dm_fill_desc *descs[MANY];
    for (int i = 0; i < MANY; i++)
        descs[i] = i == BAD ? bad : good;
    dm_sync(NULL, NULL); /* so that no earlier message is taken for this one's */
    rejects(what, dm_fill(ctx, bad, NULL), status, word);
    ck_assert_msg(!strstr(dm_last_error(), "descs["), "%s: \"%s\"", what, dm_last_error());
    expect_untouched(what, m, &before);
    dm_sync(NULL, NULL);
    rejects(what, dm_fill_check(ctx, bad), status, word);
    dm_sync(NULL, NULL);
    rejects(what, dm_fill_many(ctx, descs, MANY, NULL), status, word);
    expect_message(what, "descs[9]->");
    expect_untouched(what, m, &before);
}

START_TEST(the_good_descriptors_are_good)
{
    dm_context *ctx = open_cpu();
    for (size_t i = 0; i < LENGTH(makers); i++) {
        memory m, before;
        prepare(&m);
        before = m;
        const dm_fill_desc d = makers[i](&m);
        ACCEPTS(dm_fill_check(ctx, &d));
        ck_assert_int_eq(memcmp(&m, &before, sizeof m), 0);
        ACCEPTS(dm_fill(ctx, &d, NULL));
        ck_assert_int_ne(memcmp(&m, &before, sizeof m), 0);
        ck_assert_mem_eq(&m, &before, offsetof(memory, seqlens_expanded)); /* the inputs */
        ck_assert_int_eq(m.num_tokens[0], R * N);
    }
    dm_close(ctx);
}
END_TEST

/* DM_OK rows stand beside those that are wrong, to show where the border is. */
static const struct {
    const char *what;
    maker make;
    dm_status status;
    const char *word;
    change changes[4]; /* taken from everything() */
} bad_fields[] = {
    {"num_requests < 0", by_slots, DM_ERR_RANGE, "num_requests is -1", {SET(num_requests, -1)}},
    {"extend_len < 0", by_slots, DM_ERR_RANGE, "extend_len is -1", {SET(extend_len, -1)}},
    {"seq_len_bias < 0", by_slots, DM_ERR_RANGE, "seq_len_bias is -1", {SET(seq_len_bias, -1)}},
    {"topk < 0", by_slots, DM_ERR_RANGE, "topk is -1", {SET(topk, -1)}},
    {"pool_size < 0", by_slots, DM_ERR_RANGE, "pool_size is -1", {SET(pool_size, -1)}},
    {"page_size < 0", by_slots, DM_ERR_RANGE, "page_size is -1", {SET(page_size, -1)}},
    {"padded_requests < 0", by_slots, DM_ERR_RANGE, "padded_requests is -1", {SET(padded_requests, -1)}},
    {"padded_tokens < 0", by_slots, DM_ERR_RANGE, "padded_tokens is -1", {SET(padded_tokens, -1)}},
    {"context_divisor < 0", by_slots, DM_ERR_RANGE, "context_divisor is -1", {SET(context_divisor, -1)}},
    {"dcp_world < 0", by_slots, DM_ERR_RANGE, "dcp_world is -1", {SET(dcp_world, -1)}},
    {"dcp_rank < 0", by_slots, DM_ERR_RANGE, "dcp_rank is -1", {SET(dcp_world, 2), SET(dcp_rank, -1)}},
    {"dcp_interleave < 0", by_slots, DM_ERR_RANGE, "dcp_interleave is -1", {SET(dcp_interleave, -1)}},
    {"slots < 0", by_slots, DM_ERR_RANGE, "schedules[1].slots is -1", {SET(schedules[1].slots, -1)}},
    {"divisor < 0", by_slots, DM_ERR_RANGE, "schedules[0].divisor is -1", {SET(schedules[0].divisor, -1)}},

    {"topk 0", by_slots, DM_ERR_RANGE, "topk is 0", {SET(topk, 0)}},
    {"topk 0, lengths", by_slots, DM_ERR_RANGE, "topk is 0", {SET(topk, 0), DROP(dsa_cu_seqlens_k)}},
    {"topk 0, prefix", by_slots, DM_ERR_RANGE, "topk is 0", {SET(topk, 0), DROP(dsa_cache_seqlens)}},
    {"topk 0, unused", by_slots, DM_OK, "", {SET(topk, 0), DROP(dsa_cache_seqlens), DROP(dsa_cu_seqlens_k)}},
    {"page_size 0", by_slots, DM_ERR_RANGE, "page_size is 0", {SET(page_size, 0)}},
    {"page_size 0, blocks", by_blocks, DM_ERR_RANGE, "page_size is 0", {SET(page_size, 0)}},
    {"page_size 0, unused", by_slots, DM_OK, "", {SET(page_size, 0), DROP(page_table)}},
    {"slots 0", by_slots, DM_ERR_RANGE, "schedules[0].slots is 0", {SET(schedules[0].slots, 0)}},
    {"slots 0, unused", by_slots, DM_OK, "", {DROP(schedules[0])}},
    {"dcp_rank 2 of 2", by_slots, DM_ERR_RANGE, "dcp_rank is 2: it must be", {SET(dcp_world, 2), SET(dcp_rank, 2)}},
    {"dcp_rank 1 of 2", by_slots, DM_OK, "", {SET(dcp_world, 2), SET(dcp_rank, 1), SET(dcp_interleave, 64)}},
    {"dcp_rank 1 of none", by_slots, DM_ERR_RANGE, "dcp_rank is 1: it must be", {SET(dcp_rank, 1)}},
    {"dcp_rank 1 of 1", by_slots, DM_ERR_RANGE, "dcp_rank is 1: it must be", {SET(dcp_world, 1), SET(dcp_rank, 1)}},
    {"pool_size and divisor 0", by_slots, DM_OK, "", {SET(pool_size, 0), SET(schedules[1].divisor, 0)}},

    {"flag", by_slots, DM_ERR_ARGUMENT, "flags is 0x4", {SET(flags, 4)}},
    {"high flag", by_slots, DM_ERR_ARGUMENT, "flags is 0x80000001", {SET(flags, 0x80000001)}},
    {"variant 0", by_slots, DM_ERR_ARGUMENT, "schedules[0].variant is 0", {SET(schedules[0].variant, 0)}},
    {"variant 4", by_slots, DM_ERR_ARGUMENT, "schedules[1].variant is 4", {SET(schedules[1].variant, 4)}},
    {"variant -1", by_slots, DM_ERR_ARGUMENT, "schedules[1].variant is -1", {SET(schedules[1].variant, -1)}},
    {"unit 0", by_slots, DM_ERR_ARGUMENT, "schedules[0].unit is 0", {SET(schedules[0].unit, 0)}},
    {"unit 3", by_slots, DM_ERR_ARGUMENT, "schedules[1].unit is 3", {SET(schedules[1].unit, 3)}},
    {"misaligned report", by_slots, DM_ERR_ALIGNMENT, "report is ", {AT(report, report, 4)}},

    {"no seq_lens", by_slots, DM_ERR_MISSING, "seq_lens must be given", {DROP(seq_lens)}},
    {"no query lengths", without_extend_len, DM_ERR_MISSING, "extend_lens, query_start_loc or extend_len", {{0}}},
    {"no inputs", without_extend_len, DM_OK, "", {SET(num_requests, 0), DROP(seq_lens), DROP(req_pool_indices)}},
    {"no slots", by_slots, DM_ERR_MISSING, "page_table_1 needs req", {DROP(req_to_token), DROP(page_table)}},
    {"no pages", by_slots, DM_ERR_MISSING, "page_table needs req", {DROP(req_to_token), DROP(page_table_1)}},
    {"unit REQUEST",
     by_extend_lens,
     DM_ERR_MISSING,
     "schedules[1].unit is DM_UNIT_REQUEST",
     {SET(schedules[1].unit, 2)}},
    {"context", by_query_start_loc, DM_ERR_MISSING, "flags has DM_FILL_CONTEXT_PER_REQUEST", {SET(flags, 2)}},
    {"unit TOKEN", boundless, DM_ERR_MISSING, "schedules[1].unit is DM_UNIT_TOKEN", {{0}}},
    {"unit TOKEN, padded_tokens", boundless, DM_OK, "", {SET(padded_tokens, 1)}},

    {"lengths and length", by_extend_lens, DM_ERR_CONFLICT, "query_start_loc and extend_len", {GIVE(extend_len)}},
    {"prefix and length", by_query_start_loc, DM_ERR_CONFLICT, "query_start_loc and extend_len", {GIVE(extend_len)}},
    {"lengths and prefix", by_query_start_loc, DM_ERR_CONFLICT, "extend_lens, query", {GIVE(extend_lens)}},
    {"slots and blocks", by_slots, DM_ERR_CONFLICT, "req_to_token and block_table", {GIVE(block_table)}},
    {"pool and blocks", by_blocks, DM_ERR_CONFLICT, "req_pool_indices goes with", {GIVE(req_pool_indices)}},
    {"blocks for slots", by_blocks, DM_ERR_CONFLICT, "page_table_1 needs slots", {GIVE(page_table_1)}},
};

START_TEST(fields)
{
    dm_context *ctx = open_cpu();
    for (size_t i = 0; i < LENGTH(bad_fields); i++) {
        memory m;
        prepare(&m);
        const dm_fill_desc good = by_slots(&m), all = everything(&m);
        dm_fill_desc d = bad_fields[i].make(&m);
        apply_all(&d, &all, bad_fields[i].changes, LENGTH(bad_fields[i].changes));
        if (bad_fields[i].status == DM_OK)
            expect_status(bad_fields[i].what, dm_fill(ctx, &d, NULL), DM_OK);
        else
            expect_refused(ctx, bad_fields[i].what, &m, &good, &d, bad_fields[i].status, bad_fields[i].word);
    }
    dm_close(ctx);
}
END_TEST

/* ---- Arrays and tables ---- */

typedef struct array_field {
    const char *name;
    size_t offset;
    maker make;
    int64_t least; /* elements that it must have */
    bool input;    /* then it may be int64 */
} array_field;

#define FIELD(name) #name, offsetof(dm_fill_desc, name)
static const array_field arrays[] = {
    {FIELD(seq_lens), by_slots, R, true},
    {FIELD(extend_lens), by_extend_lens, R, true},
    {FIELD(query_start_loc), by_query_start_loc, R + 1, true},
    {FIELD(req_pool_indices), by_slots, R, true},
    {FIELD(seqlens_expanded), by_slots, 0, false},
    {FIELD(dsa_cache_seqlens), by_slots, 0, false},
    {FIELD(dsa_cu_seqlens_k), by_slots, 1, false},
    {FIELD(token_to_req), by_slots, 0, false},
    {FIELD(context_lens), by_slots, 0, false},
    {FIELD(cache_seqlens), by_slots, PADDED, false},
    {FIELD(cu_seqlens_q), by_slots, PADDED + 1, false},
    {FIELD(cu_seqlens_k), by_slots, PADDED + 1, false},
    {FIELD(num_tokens), by_slots, 1, false},
    {FIELD(schedules[0].table), by_slots, 2 * (SLOTS + 1), false},
    {FIELD(schedules[1].table), by_slots, 2 * (SLOTS + 1), false},
};
static const array_field tables[] = {
    {FIELD(req_to_token), by_slots, 0, true},
    {FIELD(block_table), by_blocks, 0, true},
    {FIELD(page_table_1), by_slots, 0, false},
    {FIELD(page_table), by_slots, 0, false},
};

/* word follows the field's name. */
typedef struct bad_array {
    const char *what;
    dm_status status;
    const char *word;
    change changes[2];
} bad_array;

#define VEC(member, value) CHANGE(ASSIGN, dm_vec, member, 0, value)
#define VEC_MOVE(bytes) CHANGE(OFFSET, dm_vec, data, offsetof(dm_vec, data), bytes)
static const bad_array bad_arrays[] = {
    {"no type", DM_ERR_TYPE, ".type is 0", {VEC(type, 0)}},
    {"unknown type", DM_ERR_TYPE, ".type is 3", {VEC(type, 3)}},
    {"negative length", DM_ERR_SHAPE, ".len is -9223372036854775808", {VEC(len, INT64_MIN)}},
    {"too long", DM_ERR_SHAPE, ".len is 1152921504606846976", {VEC(len, 1LL << 60)}},
    {"longest", DM_ERR_SHAPE, ".len is 9223372036854775807", {VEC(len, INT64_MAX)}},
    {"misaligned", DM_ERR_ALIGNMENT, ".data is ", {VEC_MOVE(2)}},
    {"NULL with a length", DM_ERR_ARGUMENT, ".data is NULL", {VEC(data, 0), VEC(len, 1)}},
    {"NULL with a negative length", DM_ERR_ARGUMENT, ".data is NULL", {VEC(data, 0), VEC(len, -1)}},
};
static const bad_array wide_output = {"int64", DM_ERR_TYPE, ".type is 2", {VEC(type, DM_INT64)}};
static const bad_array misaligned_int64 = {
    "half aligned", DM_ERR_ALIGNMENT, ".data is ", {VEC(type, DM_INT64), VEC_MOVE(4)}};

#define TABLE(member, value) CHANGE(ASSIGN, dm_table, member, 0, value)
#define TABLE_MOVE(bytes) CHANGE(OFFSET, dm_table, data, offsetof(dm_table, data), bytes)
static const bad_array bad_tables[] = {
    {"no type", DM_ERR_TYPE, ".type is 0", {TABLE(type, 0)}},
    {"int64", DM_ERR_TYPE, ".type is 2", {TABLE(type, DM_INT64)}},
    {"unknown type", DM_ERR_TYPE, ".type is 3", {TABLE(type, 3)}},
    {"rows < 0", DM_ERR_SHAPE, " is -1 x ", {TABLE(rows, -1)}},
    {"cols < 0", DM_ERR_SHAPE, " is 0 x -1", {TABLE(rows, 0), TABLE(cols, -1)}},
    {"both < 0", DM_ERR_SHAPE, " is -2 x -3", {TABLE(rows, -2), TABLE(cols, -3)}},
    {"row_stride < cols", DM_ERR_SHAPE, ".row_stride is 3, ", {TABLE(cols, 4), TABLE(row_stride, 3)}},
    {"row_stride < 0", DM_ERR_SHAPE, ".row_stride is -16, ", {TABLE(row_stride, -16)}},
    {"row_stride < 0, no columns", DM_ERR_SHAPE, ".row_stride is -1, ", {TABLE(cols, 0), TABLE(row_stride, -1)}},
    {"too many rows", DM_ERR_SHAPE, " has 9223372036854775807 rows", {TABLE(rows, INT64_MAX)}},
    {"too many columns", DM_ERR_SHAPE, " has 2 rows of stride 922", {TABLE(rows, 2), TABLE(cols, INT64_MAX)}},
    {"no rows of too many", DM_ERR_SHAPE, " has 0 rows of stride 922", {TABLE(rows, 0), TABLE(cols, INT64_MAX)}},
    {"too far apart", DM_ERR_SHAPE, " has 2 rows of stride 576", {TABLE(rows, 2), TABLE(row_stride, 1LL << 59)}},
    {"misaligned", DM_ERR_ALIGNMENT, ".data is ", {TABLE_MOVE(2)}},
    {"NULL with a size", DM_ERR_ARGUMENT, ".data is NULL", {TABLE(data, 0)}},
};

static void expect_array_refused(dm_context *ctx, const array_field *f, const bad_array *bad)
{
    char what[96], word[96];
    memory m;
    prepare(&m);
    const dm_fill_desc good = f->make(&m);
    dm_fill_desc d = good;
    void *array = (char *)&d + f->offset;
    apply_all(array, array, bad->changes, LENGTH(bad->changes));
    snprintf(what, sizeof what, "%s: %s", f->name, bad->what);
    snprintf(word, sizeof word, "%s%s", f->name, bad->word);
    expect_refused(ctx, what, &m, &good, &d, bad->status, word);
}

START_TEST(every_array)
{
    dm_context *ctx = open_cpu();
    for (size_t i = 0; i < LENGTH(arrays); i++) {
        for (size_t k = 0; k < LENGTH(bad_arrays); k++)
            expect_array_refused(ctx, &arrays[i], &bad_arrays[k]);
        expect_array_refused(ctx, &arrays[i], arrays[i].input ? &misaligned_int64 : &wide_output);
    }
    dm_close(ctx);
}
END_TEST

START_TEST(every_table)
{
    dm_context *ctx = open_cpu();
    for (size_t i = 0; i < LENGTH(tables); i++)
        for (size_t k = 0; k < LENGTH(bad_tables); k++)
            expect_array_refused(ctx, &tables[i], &bad_tables[k]);
    dm_close(ctx);
}
END_TEST

/* As short as may be is good, and one less is not. */
START_TEST(lengths_of_arrays)
{
    dm_context *ctx = open_cpu();
    for (size_t i = 0; i < LENGTH(arrays); i++) {
        const bad_array too_short = {"too short", DM_ERR_SHAPE, ".len is ", {VEC(len, arrays[i].least - 1)}};
        expect_array_refused(ctx, &arrays[i], &too_short);
        memory m;
        prepare(&m);
        dm_fill_desc d = arrays[i].make(&m);
        dm_vec *v = (dm_vec *)((char *)&d + arrays[i].offset);
        v->len = arrays[i].least;
        v->type = DM_INT32;
        expect_status(arrays[i].name, dm_fill(ctx, &d, NULL), DM_OK);
    }
    dm_close(ctx);
}
END_TEST

/* With data or, of the sources, without: then no page table may be wanted. */
START_TEST(tables_may_be_empty)
{
    dm_context *ctx = open_cpu();
    for (size_t i = 0; i < LENGTH(tables); i++)
        for (int transposed = 0; transposed < 2; transposed++) {
            memory m;
            prepare(&m);
            dm_fill_desc d = tables[i].make(&m);
            dm_table *t = (dm_table *)((char *)&d + tables[i].offset);
            *(transposed ? &t->rows : &t->cols) = 0;
            expect_status(tables[i].name, dm_fill(ctx, &d, NULL), DM_OK);
            t->data = NULL;
            if (tables[i].input)
                d.page_table_1 = d.page_table = (dm_table){0};
            expect_status(tables[i].name, dm_fill(ctx, &d, NULL), DM_OK);
        }
    dm_close(ctx);
}
END_TEST

/* A TOKEN schedule beside one more field, which is copied from a full descriptor. */
static void expect_bounded(dm_context *ctx, const char *name, size_t offset, size_t size, bool bounded)
{
    memory m;
    prepare(&m);
    const dm_fill_desc all = by_slots(&m);
    dm_fill_desc d = boundless(&m);
    d.topk = d.page_size = 1;
    d.req_to_token = all.req_to_token;
    d.schedules[0].slots = SLOTS;
    d.schedules[0].variant = DM_SCHEDULE_SMXX;
    d.schedules[0].unit = DM_UNIT_REQUEST;
    memcpy((char *)&d + offset, (const char *)&all + offset, size);
    expect_status(name, dm_fill(ctx, &d, NULL), bounded ? DM_OK : DM_ERR_MISSING);
}

START_TEST(outputs_per_token_bound_a_schedule)
{
    dm_context *ctx = open_cpu();
    for (const array_field *f = arrays; f < arrays + LENGTH(arrays); f++) {
        const bool per_token =
            f->offset >= offsetof(dm_fill_desc, seqlens_expanded) && f->offset <= offsetof(dm_fill_desc, context_lens);
        expect_bounded(ctx, f->name, f->offset, sizeof(dm_vec), per_token);
    }
    for (const array_field *f = tables; f < tables + LENGTH(tables); f++)
        if (f->make == by_slots)
            expect_bounded(ctx, f->name, f->offset, sizeof(dm_table), !f->input);
    dm_close(ctx);
}
END_TEST

/* ---- Structs and calls ---- */

/* A struct of a later version, which has more members. */
typedef struct later_desc {
    dm_fill_desc known;
    uint64_t unknown[3];
} later_desc;

START_TEST(sizes_of_descriptors)
{
    dm_context *ctx = open_cpu();
    memory m;
    prepare(&m);
    const dm_fill_desc good = by_slots(&m);
    later_desc d = {.known = good};
    const size_t bad_sizes[] = {0, 1, sizeof good - 1};
    for (size_t i = 0; i < LENGTH(bad_sizes); i++) {
        d.known.size = bad_sizes[i];
        expect_refused(ctx, "too small", &m, &good, &d.known, DM_ERR_STRUCT_SIZE, "->size is ");
    }
    d.known.size = sizeof d;
    for (int i = 0; i < 3; i++) {
        d.unknown[i] = 1ULL << 63;
        expect_refused(ctx, "tail", &m, &good, &d.known, DM_ERR_STRUCT_SIZE, "is not zero");
        expect_message("tail", "->size is ");
        d.unknown[i] = 0;
    }
    ACCEPTS(dm_fill(ctx, &d.known, NULL));
    ck_assert_int_eq(m.num_tokens[0], R * N);
    d.known.size = sizeof d.known + 1; /* as far as its size goes */
    d.unknown[1] = 1;
    ACCEPTS(dm_fill(ctx, &d.known, NULL));
    dm_close(ctx);
}
END_TEST

/* Zeros follow, as far as a size says; still nobody reads that far. */
START_TEST(garbled_sizes)
{
    static union {
        dm_fill_desc desc;
        dm_options options;
        char all[1 << 20];
    } large;
    const size_t bad_sizes[] = {65537, sizeof large, SIZE_MAX};
    dm_context *ctx = open_cpu(), *none;
    memory m;
    prepare(&m);
    const dm_fill_desc good = by_slots(&m);
    for (size_t i = 0; i < LENGTH(bad_sizes); i++) {
        large.desc = good;
        large.desc.size = bad_sizes[i];
        expect_refused(ctx, "too large", &m, &good, &large.desc, DM_ERR_STRUCT_SIZE, "->size is ");
        memset(&large, 0, sizeof large);
        large.options = (dm_options){bad_sizes[i], "cpu", 0, 0};
        REJECTS(DM_ERR_STRUCT_SIZE, "options->size is ", dm_open(&large.options, &none));
        memset(&large, 0, sizeof large);
    }
    dm_close(ctx);
}
END_TEST

START_TEST(bad_fill_arguments)
{
    dm_context *ctx = open_cpu();
    memory m;
    prepare(&m);
    const memory before = m;
    const dm_fill_desc good = by_slots(&m);
    const dm_fill_desc *descs[MANY] = {&good, &good, &good, NULL, &good};
    REJECTS(DM_ERR_ARGUMENT, "ctx is NULL", dm_fill(NULL, &good, NULL));
    REJECTS(DM_ERR_ARGUMENT, "desc is NULL", dm_fill(ctx, NULL, NULL));
    REJECTS(DM_ERR_ARGUMENT, "ctx is NULL", dm_fill_many(NULL, descs, 3, NULL));
    REJECTS(DM_ERR_ARGUMENT, "ctx is NULL", dm_fill_many(NULL, descs, 0, NULL));
    REJECTS(DM_ERR_ARGUMENT, "descs is NULL", dm_fill_many(ctx, NULL, 1, NULL));
    REJECTS(DM_ERR_ARGUMENT, "descs[3] is NULL", dm_fill_many(ctx, descs, 5, NULL));
    ACCEPTS(dm_fill_many(ctx, descs, 0, NULL));
    ACCEPTS(dm_fill_many(ctx, NULL, 0, NULL));
    REJECTS(DM_ERR_ARGUMENT, "ctx is NULL", dm_fill_check(NULL, descs[0]));
    REJECTS(DM_ERR_ARGUMENT, "desc is NULL", dm_fill_check(ctx, NULL));
    dm_fill_desc bad = good;
    bad.topk = -3;
    descs[3] = &bad;
    REJECTS(DM_ERR_RANGE, "descs[3]->topk is -3", dm_fill_many(ctx, descs, 5, NULL));
    expect_untouched("bad arguments", &m, &before);
    ACCEPTS(dm_fill_many(ctx, descs, 3, NULL));
    dm_close(ctx);
}
END_TEST

/* Each descriptor with outputs of its own: the first launch's worth must not have run either. */
START_TEST(a_late_error_writes_nothing)
{
    dm_context *ctx = open_cpu();
    memory m[MANY], before[MANY];
    dm_fill_desc d[MANY];
    const dm_fill_desc *descs[MANY];
    for (int i = 0; i < MANY; i++) {
        prepare(&m[i]);
        d[i] = by_slots(&m[i]);
        descs[i] = &d[i];
    }
    memcpy(before, m, sizeof m);
    d[BAD].cu_seqlens_k.len = 2;
    REJECTS(DM_ERR_SHAPE, "descs[9]->cu_seqlens_k.len is 2", dm_fill_many(ctx, descs, MANY, NULL));
    ck_assert_mem_eq(m, before, sizeof m);
    descs[BAD] = NULL;
    REJECTS(DM_ERR_ARGUMENT, "descs[9] is NULL", dm_fill_many(ctx, descs, MANY, NULL));
    ck_assert_mem_eq(m, before, sizeof m);
    d[BAD].cu_seqlens_k.len = PADDED + 1;
    descs[BAD] = &d[BAD];
    ACCEPTS(dm_fill_many(ctx, descs, MANY, NULL));
    for (int i = 0; i < MANY; i++)
        ck_assert_int_eq(m[i].num_tokens[0], R * N);
    dm_close(ctx);
}
END_TEST

START_TEST(bad_memory_arguments)
{
    dm_context *ctx = open_cpu();
    int32_t host[2] = {1, 2}, copy[2] = {3, 4};
    void *ptr = host;
    REJECTS(DM_ERR_ARGUMENT, "ctx is NULL", dm_malloc(NULL, 4, &ptr));
    ck_assert_ptr_null(ptr);
    REJECTS(DM_ERR_ARGUMENT, "ptr is NULL", dm_malloc(ctx, 4, NULL));
    ptr = host;
    REJECTS(DM_ERR_OUT_OF_MEMORY, "bytes", dm_malloc(ctx, SIZE_MAX / 4, &ptr));
    ck_assert_ptr_null(ptr);
    REJECTS(DM_ERR_ARGUMENT, "ctx is NULL", dm_free(NULL, NULL));
    REJECTS(DM_ERR_ARGUMENT, "ctx is NULL", dm_upload(NULL, copy, host, sizeof host, NULL));
    REJECTS(DM_ERR_ARGUMENT, "dst is NULL", dm_upload(ctx, NULL, host, sizeof host, NULL));
    REJECTS(DM_ERR_ARGUMENT, "src is NULL", dm_upload(ctx, copy, NULL, sizeof host, NULL));
    REJECTS(DM_ERR_ARGUMENT, "ctx is NULL", dm_download(NULL, copy, host, sizeof host, NULL));
    REJECTS(DM_ERR_ARGUMENT, "dst is NULL", dm_download(ctx, NULL, host, sizeof host, NULL));
    REJECTS(DM_ERR_ARGUMENT, "src is NULL", dm_download(ctx, copy, NULL, sizeof host, NULL));
    REJECTS(DM_ERR_ARGUMENT, "ctx is NULL", dm_sync(NULL, NULL));
    ck_assert(copy[0] == 3 && copy[1] == 4);
    ACCEPTS(dm_free(ctx, NULL));
    ACCEPTS(dm_upload(ctx, NULL, NULL, 0, NULL));
    ACCEPTS(dm_download(ctx, NULL, NULL, 0, NULL));
    ACCEPTS(dm_malloc(ctx, 0, &ptr));
    ck_assert_ptr_nonnull(ptr);
    ACCEPTS(dm_free(ctx, ptr));
    dm_close(ctx);
    dm_close(NULL);
}
END_TEST

START_TEST(bad_info_arguments)
{
    dm_context *ctx = open_cpu();
    const size_t size = sizeof(dm_backend_info);
    dm_backend_info good = {.size = size}, small = {.size = size - 1}, large = {.size = size + 1}, none = {0};
    REJECTS(DM_ERR_ARGUMENT, "info is NULL", dm_backend_query(0, NULL));
    REJECTS(DM_ERR_ARGUMENT, "index is -1", dm_backend_query(-1, &good));
    REJECTS(DM_ERR_ARGUMENT, "index is 3", dm_backend_query(dm_backend_count(), &good));
    REJECTS(DM_ERR_STRUCT_SIZE, "info->size is 0", dm_backend_query(2, &none));
    REJECTS(DM_ERR_STRUCT_SIZE, "info->size is ", dm_backend_query(2, &small));
    REJECTS(DM_ERR_STRUCT_SIZE, "info->size is ", dm_backend_query(2, &large));
    REJECTS(DM_ERR_ARGUMENT, "ctx is NULL", dm_context_info(NULL, &good));
    REJECTS(DM_ERR_ARGUMENT, "info is NULL", dm_context_info(ctx, NULL));
    REJECTS(DM_ERR_STRUCT_SIZE, "info->size is 0", dm_context_info(ctx, &none));
    REJECTS(DM_ERR_STRUCT_SIZE, "info->size is ", dm_context_info(ctx, &small));
    REJECTS(DM_ERR_STRUCT_SIZE, "info->size is ", dm_context_info(ctx, &large));
    const dm_backend_info untouched = {.size = size};
    ck_assert_mem_eq(&good, &untouched, size);
    ACCEPTS(dm_context_info(ctx, &good));
    dm_close(ctx);
}
END_TEST

static dm_status open_with(dm_options options)
{
    dm_context *ctx = (dm_context *)&options; /* must be overwritten */
    const dm_status status = dm_open(&options, &ctx);
    ck_assert_int_eq(status == DM_OK, ctx != NULL);
    dm_close(ctx);
    return status;
}

START_TEST(bad_options)
{
    enum { SIZE = sizeof(dm_options) };
    const dm_options good = {.size = SIZE, .backend = "cpu"};
    REJECTS(DM_ERR_ARGUMENT, "ctx is NULL", dm_open(&good, NULL));
    REJECTS(DM_ERR_STRUCT_SIZE, "options->size is 0", open_with((dm_options){.backend = "cpu"}));
    REJECTS(DM_ERR_STRUCT_SIZE, "options->size is ", open_with((dm_options){SIZE - 1, "cpu", 0, 0}));
    REJECTS(DM_ERR_ARGUMENT, "options.backend is \"tpu\"", open_with((dm_options){SIZE, "tpu", 0, 0}));
    REJECTS(DM_ERR_ARGUMENT, "options.backend is \"\"", open_with((dm_options){SIZE, "", 0, 0}));
    REJECTS(DM_ERR_ARGUMENT, "options.backend is \"CPU\"", open_with((dm_options){SIZE, "CPU", 0, 0}));
    REJECTS(DM_ERR_RANGE, "options.device is -1", open_with((dm_options){SIZE, "cpu", -1, 0}));
    REJECTS(DM_ERR_RANGE, "options.device is 1", open_with((dm_options){SIZE, "cpu", 1, 0}));
    REJECTS(DM_ERR_RANGE, "options.device is 2147483647", open_with((dm_options){SIZE, "cpu", INT32_MAX, 0}));
    REJECTS(DM_ERR_RANGE, "options.threads is -1", open_with((dm_options){SIZE, "cpu", 0, -1}));
    ACCEPTS(open_with(good));
    ACCEPTS(open_with((dm_options){SIZE, "cpu", 0, 1}));
}
END_TEST

START_TEST(options_of_a_later_version)
{
    struct {
        dm_options known;
        uint64_t unknown;
    } options = {.known = {.size = sizeof options, .backend = "cpu"}, .unknown = 1};
    dm_context *ctx;
    REJECTS(DM_ERR_STRUCT_SIZE, "options->size is ", dm_open(&options.known, &ctx));
    ck_assert_ptr_null(ctx);
    options.unknown = 0;
    ACCEPTS(dm_open(&options.known, &ctx));
    dm_close(ctx);
}
END_TEST

/* ---- dm_fill_draft_extend ---- */

/* Its arguments. */
typedef struct draft_extend {
    dm_context *ctx;
    const int32_t *extend, *seq;
    int32_t requests, topk;
    int32_t *expanded, *dsa;
    int64_t capacity;
    int64_t *tokens;
} draft_extend;

/* Memory for them; T is 6. */
typedef struct draft_memory {
    int32_t extend[R], seq[R], expanded[TOKENS], dsa[TOKENS];
    int64_t tokens;
} draft_memory;

static draft_extend good_draft(dm_context *ctx, draft_memory *m)
{
    memset(m, POISON, sizeof *m);
    memcpy(m->extend, (const int32_t[]){2, 1, 3}, sizeof m->extend);
    memcpy(m->seq, (const int32_t[]){10, 4, 7}, sizeof m->seq);
    return (draft_extend){ctx, m->extend, m->seq, R, 6, m->expanded, m->dsa, TOKENS, &m->tokens};
}

static dm_status call_draft(const draft_extend *c)
{
    return dm_fill_draft_extend(c->ctx, c->extend, c->seq, c->requests, c->topk, c->expanded, c->dsa, c->capacity,
                                c->tokens, NULL);
}

#define DRAFT(member, value) CHANGE(ASSIGN, draft_extend, member, 0, value)
#define DRAFT_MOVE(member) CHANGE(OFFSET, draft_extend, member, offsetof(draft_extend, member), 2)

static const struct {
    dm_status status;
    const char *word;
    change changes[2];
} bad_drafts[] = {
    {DM_ERR_ARGUMENT, "ctx is NULL", {DRAFT(ctx, 0)}},
    {DM_ERR_ARGUMENT, "extend_seq_lens is NULL", {DRAFT(extend, 0)}},
    {DM_ERR_ARGUMENT, "seq_lens is NULL", {DRAFT(seq, 0)}},
    {DM_ERR_RANGE, "num_requests is -1", {DRAFT(requests, -1)}},
    {DM_ERR_RANGE, "topk is 0", {DRAFT(topk, 0)}},
    {DM_ERR_RANGE, "topk is 0", {DRAFT(topk, 0), DRAFT(dsa, 0)}},
    {DM_ERR_RANGE, "topk is -2147483648", {DRAFT(topk, INT32_MIN)}},
    {DM_ERR_RANGE, "token_capacity is -1", {DRAFT(capacity, -1)}},
    {DM_ERR_SHAPE, "token_capacity is 9223372036854775807", {DRAFT(capacity, INT64_MAX)}},
    {DM_ERR_ALIGNMENT, "extend_seq_lens is ", {DRAFT_MOVE(extend)}},
    {DM_ERR_ALIGNMENT, "seq_lens is ", {DRAFT_MOVE(seq)}},
    {DM_ERR_ALIGNMENT, "out_seqlens_expanded is ", {DRAFT_MOVE(expanded)}},
    {DM_ERR_ALIGNMENT, "out_dsa_cache_seqlens is ", {DRAFT_MOVE(dsa)}},
};

START_TEST(bad_draft_arguments)
{
    dm_context *ctx = open_cpu();
    for (size_t i = 0; i < LENGTH(bad_drafts); i++)
        for (int waiting = 0; waiting < 2; waiting++) {
            draft_memory m;
            draft_extend c = good_draft(ctx, &m);
            const draft_memory before = m;
            c.tokens = waiting ? &m.tokens : NULL;
            apply_all(&c, &c, bad_drafts[i].changes, LENGTH(bad_drafts[i].changes));
            dm_free(NULL, NULL);
            rejects(bad_drafts[i].word, call_draft(&c), bad_drafts[i].status, bad_drafts[i].word);
            ck_assert_mem_eq(&m, &before, sizeof m);
        }
    dm_close(ctx);
}
END_TEST

static const int32_t expanded[] = {9, 10, 4, 5, 6, 7}, dsa[] = {6, 6, 4, 5, 6, 6};

/* The first count elements of each output that is given; the rest must be as before. */
static void expect_drafted(const draft_extend *c, const draft_memory *m, size_t count, int64_t tokens)
{
    draft_memory want;
    good_draft(c->ctx, &want);
    if (c->expanded)
        memcpy(want.expanded, expanded, count * sizeof *expanded);
    if (c->dsa)
        memcpy(want.dsa, dsa, count * sizeof *dsa);
    if (c->tokens)
        want.tokens = tokens;
    ck_assert_mem_eq(m, &want, sizeof want);
}

START_TEST(draft_buffers_too_small)
{
    dm_context *ctx = open_cpu();
    for (int64_t capacity = 0; capacity <= TOKENS; capacity++)
        for (int waiting = 0; waiting < 2; waiting++) {
            draft_memory m;
            draft_extend c = good_draft(ctx, &m);
            c.capacity = capacity;
            c.tokens = waiting ? &m.tokens : NULL;
            if (waiting && capacity < 6)
                REJECTS(DM_ERR_CAPACITY, "token_capacity is ", call_draft(&c));
            else
                ACCEPTS(call_draft(&c));
            expect_drafted(&c, &m, capacity < 6 ? (size_t)capacity : 6, 6);
        }
    dm_close(ctx);
}
END_TEST

START_TEST(draft_outputs_may_be_left_out)
{
    dm_context *ctx = open_cpu();
    for (int outputs = 0; outputs < 4; outputs++) {
        draft_memory m;
        draft_extend c = good_draft(ctx, &m);
        c.expanded = outputs & 1 ? c.expanded : NULL;
        c.dsa = outputs & 2 ? c.dsa : NULL;
        ACCEPTS(call_draft(&c));
        expect_drafted(&c, &m, 6, 6);
        c.tokens = NULL;
        ACCEPTS(call_draft(&c));
    }
    draft_memory m;
    draft_extend c = good_draft(ctx, &m);
    c.requests = 0;
    c.extend = c.seq = NULL;
    ACCEPTS(call_draft(&c));
    expect_drafted(&c, &m, 0, 0);
    dm_close(ctx);
}
END_TEST

/* ---- DRAFTMETA_CHECK ---- */

/* Fields of descs[count - 1] that are moved to those of descs[0]. first and second, named in either order, then
 * overlap; NULL: nothing that may not. */
typedef struct sharing {
    const char *what;
    size_t count;
    const char *first, *second;
    change changes[3];
} sharing;

#define SAME(member, other) AT(member.data, other.data, 0)

static const sharing sharings[] = {
    {"nothing", 1, NULL, NULL, {{0}}},
    {"outputs", 1, ">cu_seqlens_q ", ">cu_seqlens_k ", {SAME(cu_seqlens_q, cu_seqlens_k)}},
    {"one element", 1, ">cu_seqlens_q ", ">cache_seqlens ", {AT(cu_seqlens_q.data, cu_seqlens_q.data, -4)}},
    {"input", 1, ">token_to_req ", ">req_pool_indices ", {SAME(token_to_req, req_pool_indices)}},
    {"end of a table", 1, ">num_tokens ", ">page_table_1 ", {AT(num_tokens.data, page_table_1.data, 508)}},
    {"end of a schedule",
     1,
     ">num_tokens ",
     ">schedules[1].table ",
     {AT(num_tokens.data, schedules[1].table.data, 20)}},
    {"strides", 1, ">req_to_token ", ">seqlens_expanded ", {SET(req_to_token.row_stride, 32)}},
    {"tables", 1, ">page_table ", ">page_table_1 ", {SAME(page_table, page_table_1)}},
    {"schedule", 1, ">schedules[0].table ", ">cu_seqlens_k ", {SAME(schedules[0].table, cu_seqlens_k)}},
    {"report", 1, ">report ", ">req_pool_indices ", {AT(report, req_pool_indices.data, 0)}},
    {"inputs", 1, NULL, NULL, {SAME(seq_lens, req_pool_indices)}},
    {"nothing of it", 1, NULL, NULL, {AT(num_tokens.data, cu_seqlens_k.data, 4), DROP(cu_seqlens_k)}},

    {"lengths of one token each",
     1,
     NULL,
     NULL,
     {SET(extend_len, 1), SAME(seqlens_expanded, context_lens), SAME(cache_seqlens, context_lens)}},
    {"those of a rank",
     1,
     ">cache_seqlens ",
     ">context_lens ",
     {SET(extend_len, 1), SET(dcp_world, 2), SAME(cache_seqlens, context_lens)}},
    {"compressed",
     1,
     ">seqlens_expanded ",
     ">context_lens ",
     {SET(extend_len, 1), SET(context_divisor, 2), SAME(seqlens_expanded, context_lens)}},
    {"others, compressed",
     1,
     NULL,
     NULL,
     {SET(extend_len, 1), SET(context_divisor, 2), SAME(cache_seqlens, seqlens_expanded)}},
    {"of many", 1, ">seqlens_expanded ", ">context_lens ", {SAME(seqlens_expanded, context_lens)}},
    {"askew",
     1,
     ">seqlens_expanded ",
     ">context_lens ",
     {SET(extend_len, 1), AT(seqlens_expanded.data, context_lens.data, 4)}},
    {"another", 1, ">token_to_req ", ">context_lens ", {SET(extend_len, 1), SAME(token_to_req, context_lens)}},

    {"two", 2, NULL, NULL, {{0}}},
    {"two outputs", 2, "[1]->cache_seqlens ", "[0]->cache_seqlens ", {SAME(cache_seqlens, cache_seqlens)}},
    {"output, input", 2, "[1]->page_table ", "[0]->req_to_token ", {SAME(page_table, req_to_token)}},
    {"input, output",
     2,
     "[1]->req_pool_indices ",
     "[0]->page_table_1 ",
     {SAME(req_pool_indices, page_table_1), SET(req_pool_indices.type, DM_INT32)}},
    {"lengths of two",
     2,
     "[1]->context_lens ",
     "[0]->seqlens_expanded ",
     {SET(extend_len, 1), SAME(context_lens, seqlens_expanded)}},
    {"two inputs", 2, NULL, NULL, {SAME(seq_lens, seq_lens), SAME(req_to_token, req_to_token)}},
    {"one report", 2, NULL, NULL, {GIVE(report)}},
    {"half a report", 2, "[1]->report ", "[0]->report ", {AT(report, report, 8)}},
};

START_TEST(overlaps)
{
    setenv("DRAFTMETA_CHECK", "1", 1);
    dm_context *ctx = open_cpu();
    for (size_t i = 0; i < LENGTH(sharings); i++) {
        const sharing *row = &sharings[i];
        memory m[2], before[2];
        prepare(&m[0]);
        prepare(&m[1]);
        memcpy(before, m, sizeof m);
        dm_fill_desc d[2] = {by_slots(&m[0]), by_slots(&m[1])};
        const dm_fill_desc *descs[] = {&d[0], &d[1]};
        apply_all(&d[row->count - 1], &d[0], row->changes, LENGTH(row->changes));
        d[0].extend_len = d[row->count - 1].extend_len;
        const dm_status status = dm_fill_many(ctx, descs, row->count, NULL);
        expect_status(row->what, status, row->first ? DM_ERR_OVERLAP : DM_OK);
        if (row->count == 1)
            expect_status(row->what, dm_fill_check(ctx, &d[0]), status);
        if (!row->first)
            continue;
        expect_message(row->what, row->first);
        expect_message(row->what, row->second);
        ck_assert_msg(memcmp(m, before, sizeof m) == 0, "%s: something was written", row->what);
    }
    dm_close(ctx);
}
END_TEST

/* Over more descriptors than a launch takes. */
START_TEST(overlaps_between_launches)
{
    setenv("DRAFTMETA_CHECK", "1", 1);
    dm_context *ctx = open_cpu();
    memory m[MANY], before[MANY];
    dm_fill_desc d[MANY];
    const dm_fill_desc *descs[MANY];
    for (int i = 0; i < MANY; i++) {
        prepare(&m[i]);
        d[i] = by_slots(&m[i]);
        d[i].report = &m[0].report;
        descs[i] = &d[i];
    }
    memcpy(before, m, sizeof m);
    d[MANY - 1].cu_seqlens_q.data = &m[2].cu_seqlens_k[PADDED];
    REJECTS(DM_ERR_OVERLAP, "descs[11]->cu_seqlens_q ", dm_fill_many(ctx, descs, MANY, NULL));
    expect_message("other end", "descs[2]->");
    ck_assert_mem_eq(m, before, sizeof m);
    d[MANY - 1].cu_seqlens_q.data = m[MANY - 1].cu_seqlens_q;
    ACCEPTS(dm_fill_many(ctx, descs, MANY, NULL));
    dm_close(ctx);
}
END_TEST

START_TEST(draft_overlaps)
{
    setenv("DRAFTMETA_CHECK", "1", 1);
    dm_context *ctx = open_cpu();
    draft_memory m;
    draft_extend c = good_draft(ctx, &m);
    const draft_memory before = m;
    c.dsa = c.expanded;
    REJECTS(DM_ERR_OVERLAP, "dsa_cache_seqlens", call_draft(&c));
    expect_message("other end", "seqlens_expanded");
    ck_assert_mem_eq(&m, &before, sizeof m);
    c.dsa = m.dsa;
    ACCEPTS(call_draft(&c));
    expect_drafted(&c, &m, 6, 6);
    dm_close(ctx);
}
END_TEST

START_TEST(overlaps_are_not_looked_for_unasked)
{
    static const char *const values[] = {NULL, "0", ""};
    for (size_t i = 0; i < LENGTH(values); i++) {
        if (values[i])
            setenv("DRAFTMETA_CHECK", values[i], 1);
        dm_context *ctx = open_cpu();
        memory m;
        prepare(&m);
        dm_fill_desc d = by_slots(&m);
        d.num_tokens.data = m.token_to_req;
        ACCEPTS(dm_fill(ctx, &d, NULL));
        dm_close(ctx);
    }
}
END_TEST

/* ---- Statuses and messages ---- */

START_TEST(statuses_have_names)
{
#define NAMED(status)                                                                                                  \
    {                                                                                                                  \
        status, #status                                                                                                \
    }
    static const struct {
        dm_status status;
        const char *name;
    } statuses[] = {
        NAMED(DM_OK),
        NAMED(DM_ERR_ARGUMENT),
        NAMED(DM_ERR_STRUCT_SIZE),
        NAMED(DM_ERR_TYPE),
        NAMED(DM_ERR_SHAPE),
        NAMED(DM_ERR_RANGE),
        NAMED(DM_ERR_MISSING),
        NAMED(DM_ERR_CONFLICT),
        NAMED(DM_ERR_ALIGNMENT),
        NAMED(DM_ERR_OVERLAP),
        NAMED(DM_ERR_POINTER),
        NAMED(DM_ERR_CAPACITY),
        NAMED(DM_ERR_CAPTURE),
        NAMED(DM_ERR_NO_BACKEND),
        NAMED(DM_ERR_DRIVER),
        NAMED(DM_ERR_OUT_OF_MEMORY),
        NAMED(DM_ERR_CONFIG),
    };
    for (size_t i = 0; i < LENGTH(statuses); i++) {
        ck_assert_uint_eq(statuses[i].status, i); /* the values are pinned */
        ck_assert_str_eq(dm_status_string(statuses[i].status), statuses[i].name);
    }
    ck_assert_str_eq(dm_status_string((dm_status)LENGTH(statuses)), "unknown status");
    ck_assert_str_eq(dm_status_string((dm_status)-1), "unknown status");
}
END_TEST

/* Returns what this thread's message was before its first failure and after it. */
static void *fail_in_a_thread(void *messages)
{
    char(*text)[64] = messages;
    snprintf(text[0], sizeof text[0], "%s", dm_last_error());
    dm_malloc(NULL, 1, NULL);
    snprintf(text[1], sizeof text[1], "%s", dm_last_error());
    return NULL;
}

START_TEST(messages_are_per_thread)
{
    char text[2][64] = {"not run", "not run"};
    pthread_t thread;
    dm_context *ctx = open_cpu();
    REJECTS(DM_ERR_ARGUMENT, "desc is NULL", dm_fill(ctx, NULL, NULL));
    ck_assert_int_eq(pthread_create(&thread, NULL, fail_in_a_thread, text), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_str_eq(text[0], "");
    ck_assert_str_eq(text[1], "ctx is NULL");
    ACCEPTS(dm_sync(ctx, NULL)); /* a success leaves the message */
    ck_assert_str_eq(dm_last_error(), "desc is NULL");
    dm_close(ctx);
}
END_TEST

/* The extents of tables that are not given may be anything. The sanitizers see what overflows. */
START_TEST(extents_of_absent_tables)
{
    setenv("DRAFTMETA_CHECK", "1", 1);
    dm_context *ctx = open_cpu();
    int32_t num_tokens = -1;
    dm_fill_desc d = {.size = sizeof d, .page_size = 2, .num_tokens = {&num_tokens, 1, DM_INT32}};
    d.req_to_token = (dm_table){NULL, 0, INT64_MAX, 0, DM_INT32};
    ACCEPTS(dm_fill(ctx, &d, NULL));
    ck_assert_int_eq(num_tokens, 0);
    d.req_to_token = (dm_table){NULL, 0, 0, 0, DM_INT32};
    d.page_table = (dm_table){NULL, INT64_MIN, 0, 5, DM_INT32};
    ACCEPTS(dm_fill(ctx, &d, NULL));
    dm_close(ctx);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {the_good_descriptors_are_good,
                            fields,
                            every_array,
                            every_table,
                            lengths_of_arrays,
                            tables_may_be_empty,
                            outputs_per_token_bound_a_schedule,
                            sizes_of_descriptors,
                            garbled_sizes,
                            extents_of_absent_tables,
                            bad_fill_arguments,
                            a_late_error_writes_nothing,
                            bad_memory_arguments,
                            bad_info_arguments,
                            bad_options,
                            options_of_a_later_version,
                            bad_draft_arguments,
                            draft_buffers_too_small,
                            draft_outputs_may_be_left_out,
                            overlaps,
                            overlaps_between_launches,
                            draft_overlaps,
                            overlaps_are_not_looked_for_unasked,
                            statuses_have_names,
                            messages_are_per_thread};
    TCase *tcase = tcase_create("wrong calls");
    tcase_add_checked_fixture(tcase, unset_check, NULL);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    Suite *suite = suite_create("errors");
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
