/* The oracle against numbers worked out by hand from the text of include/draftmeta.h. */
#include <stdlib.h>

#include "harness.h"
#include "suite.h"

enum { UNTOUCHED = -77 };

/* An int32 output of len elements, all UNTOUCHED. */
static dm_vec wanted(int32_t *data, int64_t len)
{
    for (int64_t i = 0; i < len; i++)
        data[i] = UNTOUCHED;
    return (dm_vec){data, len, DM_INT32};
}

static dm_table wanted_table(int32_t *data, int64_t rows, int64_t cols)
{
    wanted(data, rows * cols);
    return (dm_table){.data = data, .rows = rows, .cols = cols, .type = DM_INT32};
}

static dm_vec ints(const int32_t *data, int64_t len)
{
    return (dm_vec){(void *)(uintptr_t)data, len, DM_INT32};
}

static dm_vec longs(const int64_t *data, int64_t len)
{
    return (dm_vec){(void *)(uintptr_t)data, len, DM_INT64};
}

static void expect(const char *name, const int32_t *got, const int32_t *want, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(got[i] == want[i], "%s[%zu]: expected %d, got %d", name, i, (int)want[i], (int)got[i]);
}

/* EXPECT(array, first, second, ...) */
#define EXPECT(got, ...)                                                                                               \
    expect(#got, got, (const int32_t[]){__VA_ARGS__}, sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static dm_fill_desc desc_of(int32_t requests, dm_vec seq_lens)
{
    return (dm_fill_desc){.size = sizeof(dm_fill_desc), .num_requests = requests, .seq_lens = seq_lens};
}

/* ---- Lengths ---- */

START_TEST(draft_extend)
{
    int32_t expanded[10], dsa[10], prefix[11], req[10], context[10], cache[3], cu_q[4], cu_k[4], num[1];
    dm_fill_desc d = desc_of(3, ints((const int32_t[]){10, 15, 20}, 3));
    d.extend_lens = ints((const int32_t[]){2, 3, 5}, 3);
    d.topk = 16;
    d.seqlens_expanded = wanted(expanded, 10);
    d.dsa_cache_seqlens = wanted(dsa, 10);
    d.dsa_cu_seqlens_k = wanted(prefix, 11);
    d.token_to_req = wanted(req, 10);
    d.context_lens = wanted(context, 10);
    d.cache_seqlens = wanted(cache, 3);
    d.cu_seqlens_q = wanted(cu_q, 4);
    d.cu_seqlens_k = wanted(cu_k, 4);
    d.num_tokens = wanted(num, 1);
    oracle_fill(&d);
    EXPECT(expanded, 9, 10, 13, 14, 15, 16, 17, 18, 19, 20);
    EXPECT(dsa, 9, 10, 13, 14, 15, 16, 16, 16, 16, 16);
    EXPECT(prefix, 0, 9, 19, 32, 46, 61, 77, 93, 109, 125, 141);
    EXPECT(req, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2);
    EXPECT(context, 9, 10, 13, 14, 15, 16, 17, 18, 19, 20);
    EXPECT(cache, 10, 15, 20);
    EXPECT(cu_q, 0, 2, 5, 10);
    EXPECT(cu_k, 0, 10, 25, 45);
    EXPECT(num, 10);
}
END_TEST

START_TEST(target_verify_counts_the_draft_tokens)
{
    int32_t expanded[6], cache[2], cu_q[3];
    dm_fill_desc d = desc_of(2, longs((const int64_t[]){7, 0}, 2));
    d.extend_len = d.seq_len_bias = 3;
    d.seqlens_expanded = wanted(expanded, 6);
    d.cache_seqlens = wanted(cache, 2);
    d.cu_seqlens_q = wanted(cu_q, 3);
    oracle_fill(&d);
    EXPECT(expanded, 8, 9, 10, 1, 2, 3);
    EXPECT(cache, 10, 3);
    EXPECT(cu_q, 0, 3, 6);
}
END_TEST

START_TEST(lengths_are_never_negative)
{
    int32_t expanded[6];
    dm_fill_desc d = desc_of(2, ints((const int32_t[]){2, 0}, 2));
    d.extend_lens = longs((const int64_t[]){4, 2}, 2);
    d.seqlens_expanded = wanted(expanded, 6);
    oracle_fill(&d);
    EXPECT(expanded, 0, 0, 1, 2, 0, 0);
}
END_TEST

START_TEST(query_start_loc_may_start_anywhere)
{
    int32_t expanded[5], cu_q[4];
    dm_fill_desc d = desc_of(3, longs((const int64_t[]){5, 9, 4}, 3));
    d.query_start_loc = ints((const int32_t[]){100, 102, 102, 105}, 4);
    d.seqlens_expanded = wanted(expanded, 5);
    d.cu_seqlens_q = wanted(cu_q, 4);
    oracle_fill(&d);
    EXPECT(expanded, 4, 5, 2, 3, 4);
    EXPECT(cu_q, 0, 2, 2, 5);
}
END_TEST

START_TEST(pooled_keys)
{
    int32_t dsa[7], prefix[8];
    dm_fill_desc d = desc_of(7, ints((const int32_t[]){3, 8, 11, 12, 14, 15, 16}, 7));
    d.extend_len = 1;
    d.topk = 8;
    d.pool_size = 4;
    d.dsa_cache_seqlens = wanted(dsa, 7);
    d.dsa_cu_seqlens_k = wanted(prefix, 8);
    oracle_fill(&d);
    EXPECT(dsa, 3, 8, 11, 8, 10, 11, 8);
    EXPECT(prefix, 0, 3, 11, 22, 30, 40, 51, 59);
    d.pool_size = 3; /* does not divide topk */
    oracle_fill(&d);
    EXPECT(dsa, 3, 8, 10, 8, 10, 8, 9);
}
END_TEST

START_TEST(context_per_request)
{
    int32_t expanded[5], context[5];
    dm_fill_desc d = desc_of(2, ints((const int32_t[]){5, 1}, 2));
    d.flags = DM_FILL_CONTEXT_PER_REQUEST;
    d.extend_len = 2;
    d.padded_tokens = 5;
    d.seqlens_expanded = wanted(expanded, 5);
    d.context_lens = wanted(context, 5);
    oracle_fill(&d);
    EXPECT(expanded, 4, 5, 0, 1, 0);
    EXPECT(context, 5, 5, 1, 1, 0);
}
END_TEST

/* Rank k of w has every w-th run of i tokens: of 8, 9 and 10 the odd ones are 4, 4 and 5. */
START_TEST(context_of_a_rank)
{
    static const int32_t local[][6] = {
        /* w, k, i, then what is held of 8, 9, 10 */
        {1, 0, 0, 8, 9, 10}, {2, 0, 0, 4, 5, 5}, {2, 1, 1, 4, 4, 5}, {3, 1, 1, 3, 3, 3}, {2, 0, 4, 4, 5, 6},
        {2, 1, 4, 4, 4, 4},  {3, 2, 4, 0, 1, 2}, {4, 3, 4, 0, 0, 0}, {2, 0, 9, 8, 9, 9}, {2, 1, 9, 0, 0, 1},
    };
    for (size_t i = 0; i < sizeof local / sizeof *local; i++) {
        int32_t expanded[4], dsa[4], context[4], cache[1];
        dm_fill_desc d = desc_of(1, ints((const int32_t[]){10}, 1));
        d.extend_len = 3;
        d.padded_tokens = 4;
        d.topk = 9;
        d.dcp_world = local[i][0];
        d.dcp_rank = local[i][1];
        d.dcp_interleave = local[i][2];
        d.seqlens_expanded = wanted(expanded, 4);
        d.dsa_cache_seqlens = wanted(dsa, 4);
        d.context_lens = wanted(context, 4);
        d.cache_seqlens = wanted(cache, 1);
        oracle_fill(&d);
        EXPECT(context, local[i][3], local[i][4], local[i][5], 0);
        EXPECT(expanded, 8, 9, 10, 0);
        EXPECT(dsa, 8, 9, 9, 0);
        EXPECT(cache, 10);
        d.flags = DM_FILL_CONTEXT_PER_REQUEST;
        oracle_fill(&d);
        EXPECT(context, local[i][5], local[i][5], local[i][5], 0);
    }
}
END_TEST

START_TEST(context_of_a_compressed_cache)
{
    int32_t expanded[5], context[5];
    dm_fill_desc d = desc_of(1, ints((const int32_t[]){12}, 1));
    d.extend_len = 5;
    d.context_divisor = 4;
    d.seqlens_expanded = wanted(expanded, 5);
    d.context_lens = wanted(context, 5);
    oracle_fill(&d);
    EXPECT(expanded, 8, 9, 10, 11, 12);
    EXPECT(context, 2, 2, 2, 2, 3);
    d.dcp_world = 2;
    d.dcp_interleave = 8;
    d.dcp_rank = 1; /* 0, 1, 2, 3, 4 */
    oracle_fill(&d);
    EXPECT(context, 0, 0, 0, 0, 1);
    d.dcp_rank = 0; /* 8 each */
    oracle_fill(&d);
    EXPECT(context, 2, 2, 2, 2, 2);
}
END_TEST

START_TEST(one_buffer_for_three_lengths)
{
    int32_t lens[4];
    dm_fill_desc d = desc_of(2, ints((const int32_t[]){6, 9}, 2));
    d.extend_len = 1;
    d.padded_tokens = 3;
    d.seqlens_expanded = d.context_lens = d.cache_seqlens = wanted(lens, 4);
    oracle_fill(&d);
    EXPECT(lens, 6, 9, 0, UNTOUCHED);
}
END_TEST

/* ---- Page tables ---- */

/* Two rows of ten slots, twelve apart. */
static const int32_t slots[24] = {40, 41, 42, 43, 84, 85, 86, 87, 120, 121, -1, -1,
                                  -5, -6, 9,  10, 7,  8,  9,  10, 11,  12,  -1, -1};

static dm_table slot_table(void)
{
    return (dm_table){.data = (void *)(uintptr_t)slots, .rows = 2, .cols = 10, .row_stride = 12, .type = DM_INT32};
}

START_TEST(page_tables)
{
    int32_t pages[6], tokens[12];
    dm_fill_desc d = desc_of(2, ints((const int32_t[]){5, 9}, 2));
    d.extend_len = 1;
    d.page_size = 4;
    d.req_to_token = slot_table();
    d.req_pool_indices = longs((const int64_t[]){1, 0}, 2);
    d.page_table = wanted_table(pages, 2, 3);
    d.page_table_1 = wanted_table(tokens, 2, 6);
    oracle_fill(&d);
    EXPECT(pages, -1, 1, UNTOUCHED, 10, 21, 30); /* -5 / 4 is -1 */
    EXPECT(tokens, -5, -6, 9, 10, 7, UNTOUCHED, 40, 41, 42, 43, 84, 85);
    d.flags = DM_FILL_FULL_ROWS;
    oracle_fill(&d);
    EXPECT(pages, -1, 1, 0, 10, 21, 30);
    EXPECT(tokens, -5, -6, 9, 10, 7, 0, 40, 41, 42, 43, 84, 85);
}
END_TEST

START_TEST(the_source_bounds_the_columns)
{
    int32_t pages[10];
    dm_fill_desc d = desc_of(2, ints((const int32_t[]){100, 100}, 2));
    d.extend_len = 1;
    d.page_size = 4;
    d.req_to_token = slot_table();
    d.page_table = (dm_table){.data = wanted(pages, 10).data, .rows = 2, .cols = 4, .row_stride = 5, .type = DM_INT32};
    oracle_fill(&d);
    EXPECT(pages, 10, 21, 30, UNTOUCHED, UNTOUCHED, -1, 1, 2, UNTOUCHED, UNTOUCHED);
}
END_TEST

START_TEST(block_tables_hold_pages)
{
    const int32_t blocks[4] = {70, 71, 72, 73};
    int32_t pages[9];
    dm_report report = {0};
    dm_fill_desc d = desc_of(3, ints((const int32_t[]){65, 64, 64}, 3)); /* request 2 has no row */
    d.extend_len = 1;
    d.page_size = 64;
    d.block_table = (dm_table){.data = (void *)(uintptr_t)blocks, .rows = 2, .cols = 2, .type = DM_INT32};
    d.page_table = wanted_table(pages, 3, 3);
    d.report = &report;
    oracle_fill(&d);
    EXPECT(pages, 70, 71, UNTOUCHED, 72, UNTOUCHED, UNTOUCHED, UNTOUCHED, UNTOUCHED, UNTOUCHED);
    ck_assert_uint_eq(report.flags, DM_REPORT_BAD_POOL);
    ck_assert_uint_eq(report.bad_request, 3);
}
END_TEST

START_TEST(bad_pool_indices)
{
    int32_t tokens[4], expanded[4];
    dm_report report = {0};
    dm_fill_desc d = desc_of(4, ints((const int32_t[]){3, 4, 5, 6}, 4));
    d.extend_len = 1;
    d.flags = DM_FILL_FULL_ROWS;
    d.req_to_token = slot_table();
    d.req_pool_indices = longs((const int64_t[]){-1, (1ll << 32) + 1, 2, 1}, 4);
    d.seqlens_expanded = wanted(expanded, 4);
    d.page_table_1 = wanted_table(tokens, 4, 1);
    d.report = &report;
    oracle_fill(&d);
    EXPECT(tokens, 0, 0, 0, -5);
    EXPECT(expanded, 3, 4, 5, 6);
    ck_assert_uint_eq(report.flags, DM_REPORT_BAD_POOL);
    ck_assert_uint_eq(report.bad_request, 3);
    ck_assert_uint_eq(report.tokens_wanted, 4);
}
END_TEST

/* ---- Sizes ---- */

START_TEST(padding)
{
    int32_t expanded[8], prefix[9], req[8], cache[5], cu_q[6], cu_k[6], num[1];
    dm_fill_desc d = desc_of(2, ints((const int32_t[]){4, 6}, 2));
    d.extend_lens = ints((const int32_t[]){1, 2}, 2);
    d.topk = 5;
    d.padded_tokens = 6;
    d.padded_requests = 4;
    d.seqlens_expanded = wanted(expanded, 8);
    d.dsa_cu_seqlens_k = wanted(prefix, 9);
    d.token_to_req = wanted(req, 8);
    d.cache_seqlens = wanted(cache, 5);
    d.cu_seqlens_q = wanted(cu_q, 6);
    d.cu_seqlens_k = wanted(cu_k, 6);
    d.num_tokens = wanted(num, 1);
    oracle_fill(&d);
    EXPECT(expanded, 4, 5, 6, 0, 0, 0, UNTOUCHED, UNTOUCHED);
    EXPECT(prefix, 0, 4, 9, 14, 14, 14, 14, UNTOUCHED, UNTOUCHED);
    EXPECT(req, 0, 1, 1, 2, 3, 4, UNTOUCHED, UNTOUCHED);
    EXPECT(cache, 4, 6, 0, 0, UNTOUCHED);
    EXPECT(cu_q, 0, 1, 3, 3, 3, UNTOUCHED);
    EXPECT(cu_k, 0, 4, 10, 10, 10, UNTOUCHED);
    EXPECT(num, 3);
}
END_TEST

START_TEST(too_small_buffers_drop_tokens)
{
    int32_t expanded[6], req[4], cu_q[4], num[1];
    dm_report report = {.flags = DM_REPORT_NARROW, .bad_request = 9, .tokens_wanted = 5};
    dm_fill_desc d = desc_of(3, ints((const int32_t[]){10, 20, 30}, 3));
    d.extend_lens = ints((const int32_t[]){2, 3, 4}, 3);
    d.padded_tokens = 100;
    d.seqlens_expanded = wanted(expanded, 6);
    d.token_to_req = wanted(req, 4); /* the smallest counts */
    d.cu_seqlens_q = wanted(cu_q, 4);
    d.num_tokens = wanted(num, 1);
    d.report = &report;
    oracle_fill(&d);
    EXPECT(expanded, 9, 10, 18, 19, UNTOUCHED, UNTOUCHED);
    EXPECT(req, 0, 0, 1, 1);
    EXPECT(cu_q, 0, 2, 4, 4);
    EXPECT(num, 4);
    ck_assert_uint_eq(report.flags, DM_REPORT_NARROW | DM_REPORT_TOKENS_DROPPED);
    ck_assert_uint_eq(report.bad_request, 9);
    ck_assert_uint_eq(report.tokens_wanted, 9);
}
END_TEST

START_TEST(no_requests)
{
    int32_t expanded[2], prefix[4], req[2], cache[1], cu_q[2], cu_k[2], num[1], schedule[6];
    dm_fill_desc d = desc_of(0, (dm_vec){0});
    d.topk = 1;
    d.padded_tokens = 2;
    d.seqlens_expanded = wanted(expanded, 2);
    d.dsa_cu_seqlens_k = wanted(prefix, 4);
    d.token_to_req = wanted(req, 2);
    d.cache_seqlens = wanted(cache, 1);
    d.cu_seqlens_q = wanted(cu_q, 2);
    d.cu_seqlens_k = wanted(cu_k, 2);
    d.num_tokens = wanted(num, 1);
    d.schedules[0] = (dm_schedule){wanted(schedule, 6), DM_SCHEDULE_SM90, DM_UNIT_TOKEN, 2, 0};
    oracle_fill(&d);
    EXPECT(expanded, 0, 0);
    EXPECT(prefix, 0, 0, 0, UNTOUCHED);
    EXPECT(req, 0, 1);
    EXPECT(cache, UNTOUCHED);
    EXPECT(cu_q, 0, UNTOUCHED);
    EXPECT(cu_k, 0, UNTOUCHED);
    EXPECT(num, 0);
    EXPECT(schedule, 2, 0, 2, 0, 2, 0);
}
END_TEST

/* ---- What the report says ---- */

START_TEST(narrow_sums)
{
    int32_t cu_k[4], cu_q[4], num[1];
    dm_report report = {0};
    dm_fill_desc d = desc_of(3, ints((const int32_t[]){INT32_MAX, INT32_MAX, INT32_MAX}, 3));
    d.extend_len = 1;
    d.report = &report;
    d.num_tokens = wanted(num, 1);
    oracle_fill(&d); /* the sum is not stored */
    ck_assert_uint_eq(report.flags, 0);
    d.cu_seqlens_k = wanted(cu_k, 4);
    oracle_fill(&d);
    EXPECT(cu_k, 0, INT32_MAX, -2, INT32_MAX - 2);
    ck_assert_uint_eq(report.flags, DM_REPORT_NARROW);
    report.flags = 0;
    d.cu_seqlens_k = (dm_vec){0};
    d.extend_len = 1 << 30; /* 3 * 2^30 tokens, and nothing that bounds them */
    d.cu_seqlens_q = wanted(cu_q, 4);
    oracle_fill(&d);
    EXPECT(cu_q, 0, 1 << 30, INT32_MIN, -(1 << 30));
    EXPECT(num, -(1 << 30));
    ck_assert_uint_eq(report.flags, DM_REPORT_NARROW);
    ck_assert_uint_eq(report.tokens_wanted, 3ull << 30);
}
END_TEST

START_TEST(clamped_lengths)
{
    int32_t expanded[4], cache[3];
    dm_report report = {0};
    dm_fill_desc d = desc_of(3, longs((const int64_t[]){INT64_MAX, -5, INT32_MAX - 1}, 3));
    d.seq_len_bias = 1;
    d.extend_lens = longs((const int64_t[]){-1, 1ll << 31, 0}, 3);
    d.seqlens_expanded = wanted(expanded, 4);
    d.cache_seqlens = wanted(cache, 3);
    d.report = &report;
    oracle_fill(&d);
    EXPECT(expanded, 0, 0, 0, 0);
    EXPECT(cache, INT32_MAX, 0, INT32_MAX);
    ck_assert_uint_eq(report.flags, DM_REPORT_KV_CLAMPED | DM_REPORT_Q_CLAMPED | DM_REPORT_TOKENS_DROPPED);
    ck_assert_uint_eq(report.bad_request, 2);
    ck_assert_uint_eq(report.tokens_wanted, INT32_MAX);
}
END_TEST

START_TEST(decreasing_query_start_loc)
{
    int32_t cu_q[5];
    dm_report report = {0};
    dm_fill_desc d = desc_of(4, ints((const int32_t[]){1, 1, 1, 1}, 4));
    d.query_start_loc = longs((const int64_t[]){5, 3, INT64_MIN, INT64_MAX, INT64_MAX}, 5);
    d.cu_seqlens_q = wanted(cu_q, 5);
    d.report = &report;
    oracle_fill(&d);
    EXPECT(cu_q, 0, 0, 0, INT32_MAX, INT32_MAX);
    ck_assert_uint_eq(report.flags, DM_REPORT_Q_CLAMPED);
    ck_assert_uint_eq(report.bad_request, 3);
    ck_assert_uint_eq(report.tokens_wanted, INT32_MAX);
}
END_TEST

/* ---- Schedules ---- */

/* The schedule of d, which it leaves in out. */
static void schedule(dm_fill_desc *d, int32_t *out, dm_schedule_variant variant, dm_schedule_unit unit, int32_t count)
{
    d->schedules[0] = (dm_schedule){wanted(out, 2 * (count + 1)), variant, unit, count, d->schedules[0].divisor};
    oracle_fill(d);
}

START_TEST(schedules_by_token)
{
    int32_t out[8], lens[4];
    dm_fill_desc d = desc_of(4, ints((const int32_t[]){300, 0, 1000, 256}, 4)); /* 2, 0, 4 and 1 segments */
    d.extend_len = 1;
    d.seqlens_expanded = wanted(lens, 4);
    schedule(&d, out, DM_SCHEDULE_SMXX, DM_UNIT_TOKEN, 3); /* starts 0, 3, 5 */
    EXPECT(out, 0, 0, 2, 1, 2, 3, 4, 0);
    schedule(&d, out, DM_SCHEDULE_SM90, DM_UNIT_TOKEN, 3); /* starts 0, 2, 4 */
    EXPECT(out, 0, 0, 2, 0, 2, 2, 4, 0);
    schedule(&d, out, DM_SCHEDULE_SM100, DM_UNIT_TOKEN, 3); /* starts 0, 3, 5 */
    EXPECT(out, 0, 0, 2, 1, 2, 3, 4, 0);
}
END_TEST

START_TEST(schedules_by_request)
{
    int32_t out[8];
    dm_fill_desc d = desc_of(2, ints((const int32_t[]){600, 100}, 2)); /* 3 and 1 segments */
    d.extend_len = 3;
    schedule(&d, out, DM_SCHEDULE_SMXX, DM_UNIT_REQUEST, 3); /* a = 2: starts 0, 3, 6 of 8 */
    EXPECT(out, 0, 0, 1, 0, 2, 0, 4, 0);
    schedule(&d, out, DM_SCHEDULE_SM90, DM_UNIT_REQUEST, 3); /* starts 0, 2, 5 */
    EXPECT(out, 0, 0, 0, 2, 1, 2, 4, 0);
    schedule(&d, out, DM_SCHEDULE_SM100, DM_UNIT_REQUEST, 3); /* a = 3: starts 0, 4, 8 of 12 */
    EXPECT(out, 0, 0, 0, 1, 0, 2, 6, 0);
    d.padded_tokens = 11; /* three whole requests */
    schedule(&d, out, DM_SCHEDULE_SMXX, DM_UNIT_REQUEST, 3);
    EXPECT(out, 0, 0, 1, 0, 2, 0, 6, 0);
}
END_TEST

START_TEST(schedules_of_little)
{
    int32_t out[10], lens[3];
    dm_fill_desc d = desc_of(3, ints((const int32_t[]){0, 257, 0}, 3)); /* two segments for four slots */
    d.extend_len = 1;
    d.seqlens_expanded = wanted(lens, 3);
    schedule(&d, out, DM_SCHEDULE_SMXX, DM_UNIT_TOKEN, 4); /* starts 0, 1, 2, 2 */
    EXPECT(out, 1, 0, 1, 1, 3, 0, 3, 0, 3, 0);
    schedule(&d, out, DM_SCHEDULE_SM90, DM_UNIT_TOKEN, 4); /* starts 0, 0, 0, 1 */
    EXPECT(out, 1, 0, 1, 0, 1, 0, 1, 1, 3, 0);
    d.schedules[0].divisor = 258;
    schedule(&d, out, DM_SCHEDULE_SM100, DM_UNIT_TOKEN, 4); /* floor(257 / 258) is nothing */
    EXPECT(out, 3, 0, 3, 0, 3, 0, 3, 0, 3, 0);
}
END_TEST

START_TEST(schedule_divisor)
{
    int32_t out[6], lens[3];
    dm_fill_desc d = desc_of(3, ints((const int32_t[]){300, 16447, 16448}, 3)); /* 4, 256, 257: 1, 1, 2 segments */
    d.extend_len = 1;
    d.schedules[0].divisor = 64;
    d.seqlens_expanded = wanted(lens, 3);
    schedule(&d, out, DM_SCHEDULE_SMXX, DM_UNIT_TOKEN, 2); /* starts 0, 2 of 4 */
    EXPECT(out, 0, 0, 2, 0, 3, 0);
}
END_TEST

START_TEST(schedules_of_a_rank)
{
    int32_t out[6], lens[3];
    dm_fill_desc d = desc_of(3, ints((const int32_t[]){1024, 513, 2048}, 3));
    d.extend_len = 1;
    d.dcp_world = 2;
    d.context_divisor = 1000; /* not for schedules */
    d.seqlens_expanded = wanted(lens, 3);
    schedule(&d, out, DM_SCHEDULE_SMXX, DM_UNIT_TOKEN, 2); /* 512, 257, 1024: 2, 2, 4 segments, starts 0, 4 */
    EXPECT(out, 0, 0, 2, 0, 3, 0);
    d.dcp_rank = 1;
    schedule(&d, out, DM_SCHEDULE_SMXX, DM_UNIT_REQUEST, 2); /* 512, 256, 1024: 2, 1, 4 segments, starts 0, 4 */
    EXPECT(out, 0, 0, 2, 1, 3, 0);
    d.dcp_interleave = 1024;
    d.schedules[0].divisor = 4;
    schedule(&d, out, DM_SCHEDULE_SMXX, DM_UNIT_TOKEN, 2); /* 0, 0, 1024: one segment of 256 */
    EXPECT(out, 2, 0, 3, 0, 3, 0);
    EXPECT(lens, 1024, 513, 2048);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {draft_extend,
                            target_verify_counts_the_draft_tokens,
                            lengths_are_never_negative,
                            query_start_loc_may_start_anywhere,
                            pooled_keys,
                            context_per_request,
                            context_of_a_rank,
                            context_of_a_compressed_cache,
                            one_buffer_for_three_lengths,
                            page_tables,
                            the_source_bounds_the_columns,
                            block_tables_hold_pages,
                            bad_pool_indices,
                            padding,
                            too_small_buffers_drop_tokens,
                            no_requests,
                            narrow_sums,
                            clamped_lengths,
                            decreasing_query_start_loc,
                            schedules_by_token,
                            schedules_by_request,
                            schedules_of_little,
                            schedule_divisor,
                            schedules_of_a_rank};
    TCase *tcase = tcase_create("by hand");
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    Suite *suite = suite_create("oracle");
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
