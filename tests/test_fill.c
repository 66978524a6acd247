/* Every backend's fills against the oracle and against numbers by hand. DRAFTMETA_BACKEND names the backend, else it is
 * the one that dm_open picks; one that cannot be had is SKIP, unless DRAFTMETA_REQUIRE names it. */
#include <check.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "spec.h"

#define LENGTH(list) (sizeof(list) / sizeof *(list))
#define LIST(...) ((const int64_t[]){__VA_ARGS__})
#define INTS(...) (const int32_t[]){__VA_ARGS__}, LENGTH(((const int32_t[]){__VA_ARGS__}))

enum { ARENA_BYTES = 1 << 16, PADDING_BYTES = 64, SKIPPED = 77, MANY = 65536 };

static dm_context *ctx;
static checker *against_oracle;

/* ---- Specs and images against the oracle ----------------------------------------------------------------------- */

/* Checks and frees the image; returns the digest of its outputs. */
static uint64_t check_image(image *img, const char *what)
{
    mismatch m;
    uint64_t digest = 0;
    const dm_status status = checker_run(against_oracle, img, NULL, &m, &digest);
    image_free(img);
    ck_assert_msg(status == DM_OK && !m.found, "%s: %s", what, m.text);
    return digest;
}

static void expect_bytes(const unsigned char *got, const unsigned char *want, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (got[i] != want[i])
            ck_abort_msg("byte %zu of %zu: expected 0x%02x, got 0x%02x", i, bytes, want[i], got[i]);
}

static void describe(const fill_spec *s, char *text, size_t room)
{
    snprintf(text, room,
             "R=%d T=%" PRId64 " extend_len=%d bias=%d topk=%d kpool=%d page=%d flags=%u wants=%#x capacity=%" PRId64
             " padded=%d, %" PRId64 " context=%" PRId64 " columns=%" PRId64 " gap=%" PRId64
             "%s divisor=%d rank=%d/%d part=%d",
             s->requests, spec_tokens(s), s->extend_len, s->seq_len_bias, s->topk, s->pool_size, s->page_size, s->flags,
             s->wants, s->capacity, s->padded_requests, s->padded_tokens, s->context, s->columns, s->gap,
             s->blocks ? " blocks" : "", s->context_divisor, s->dcp_rank, s->dcp_world, s->dcp_interleave);
}

static uint64_t check_spec(const fill_spec *s)
{
    char text[512];
    describe(s, text, sizeof text);
    return check_image(spec_image(s), text);
}

static void draw(int64_t *values, int64_t count, int64_t lo, int64_t hi)
{
    rng r = rng_seeded(3, (uint64_t)count);
    for (int64_t i = 0; i < count; i++)
        values[i] = rng_between(&r, lo, hi);
}

/* Ten requests with a bit of everything: 31 tokens. */
enum { MIXED_REQUESTS = 10, MIXED_TOKENS = 31 };
static const int64_t mixed_seq[MIXED_REQUESTS] = {10, 15, 20, 0, 300, 64, 65, 128, 1, 2};
static const int64_t mixed_extend[MIXED_REQUESTS] = {2, 3, 5, 0, 4, 1, 1, 8, 1, 6};

static fill_spec mixed(void)
{
    return (fill_spec){.requests = MIXED_REQUESTS, .seq_lens = mixed_seq, .extend_lens = mixed_extend, .topk = 16};
}

/* The same with n tokens for each request. */
static fill_spec uniform(int32_t n)
{
    return (fill_spec){.requests = MIXED_REQUESTS, .seq_lens = mixed_seq, .extend_len = n, .topk = 16};
}

/* ---- An arena of the context's memory, for numbers by hand ------------------------------------------------------
 * Poisoned before each test; mirror holds what it should hold. */

static unsigned char *arena, mirror[ARENA_BYTES];
static size_t arena_used;

static void reset_arena(void)
{
    memset(mirror, IMAGE_POISON, sizeof mirror);
    ck_assert_int_eq(dm_upload(ctx, arena, mirror, sizeof mirror, NULL), DM_OK);
    arena_used = PADDING_BYTES;
}

/* Room for some bytes, and a guard after it. */
static void *room_for(size_t bytes)
{
    void *p = arena + arena_used;
    arena_used += (bytes + 63) / 64 * 64 + PADDING_BYTES;
    ck_assert_uint_le(arena_used, sizeof mirror);
    return p;
}

static void *put_bytes(const void *values, size_t bytes)
{
    unsigned char *p = room_for(bytes);
    memcpy(mirror + (p - arena), values, bytes);
    ck_assert_int_eq(dm_upload(ctx, p, values, bytes, NULL), DM_OK);
    return p;
}

/* put(INTS(1, 2, 3)) */
static int32_t *put(const int32_t *values, size_t count)
{
    return put_bytes(values, count * sizeof *values);
}

static dm_vec input(const int32_t *values, size_t count)
{
    return (dm_vec){put(values, count), (int64_t)count, DM_INT32};
}

static dm_vec output(int64_t len)
{
    return (dm_vec){room_for((size_t)len * 4), len, DM_INT32};
}

/* expect("name", array, INTS(1, 2, 3)): the array begins so. */
static void expect(const char *name, const void *array, const int32_t *want, size_t count)
{
    int32_t got[256];
    ck_assert_uint_le(count, LENGTH(got));
    ck_assert_int_eq(dm_download(ctx, got, array, count * sizeof *got, NULL), DM_OK);
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(got[i] == want[i], "%s[%zu]: expected %d, got %d", name, i, (int)want[i], (int)got[i]);
    memcpy(mirror + ((const unsigned char *)array - arena), want, count * sizeof *want);
}

static void expect_nothing_else(void)
{
    static unsigned char got[ARENA_BYTES];
    ck_assert_int_eq(dm_download(ctx, got, arena, sizeof got, NULL), DM_OK);
    expect_bytes(got, mirror, sizeof got);
}

static void fill_by_hand(const dm_fill_desc *d)
{
    ck_assert_msg(dm_fill(ctx, d, NULL) == DM_OK, "%s", dm_last_error());
}

/* ---- The seed's example and its edges -------------------------------------------------------------------------- */

static dm_fill_desc seed_example(void)
{
    dm_fill_desc d = {.size = sizeof d, .num_requests = 3, .topk = 16, .page_size = 4};
    d.extend_lens = input(INTS(2, 3, 5));
    d.seq_lens = input(INTS(10, 15, 20));
    return d;
}

START_TEST(the_seeds_example_lengths)
{
    dm_fill_desc d = seed_example();
    d.seqlens_expanded = output(10);
    d.dsa_cache_seqlens = output(10);
    d.dsa_cu_seqlens_k = output(11);
    d.token_to_req = output(10);
    d.context_lens = output(10);
    d.cache_seqlens = output(3);
    d.cu_seqlens_q = output(4);
    d.cu_seqlens_k = output(4);
    d.num_tokens = output(1);
    fill_by_hand(&d);
    expect("seqlens_expanded", d.seqlens_expanded.data, INTS(9, 10, 13, 14, 15, 16, 17, 18, 19, 20));
    expect("dsa_cache_seqlens", d.dsa_cache_seqlens.data, INTS(9, 10, 13, 14, 15, 16, 16, 16, 16, 16));
    expect("dsa_cu_seqlens_k", d.dsa_cu_seqlens_k.data, INTS(0, 9, 19, 32, 46, 61, 77, 93, 109, 125, 141));
    expect("token_to_req", d.token_to_req.data, INTS(0, 0, 1, 1, 1, 2, 2, 2, 2, 2));
    expect("context_lens", d.context_lens.data, INTS(9, 10, 13, 14, 15, 16, 17, 18, 19, 20));
    expect("cache_seqlens", d.cache_seqlens.data, INTS(10, 15, 20));
    expect("cu_seqlens_q", d.cu_seqlens_q.data, INTS(0, 2, 5, 10));
    expect("cu_seqlens_k", d.cu_seqlens_k.data, INTS(0, 10, 25, 45));
    expect("num_tokens", d.num_tokens.data, INTS(10));
    expect_nothing_else();
}
END_TEST

START_TEST(the_seeds_example_tables)
{
    const int32_t x = (int32_t)0xa5a5a5a5; /* untouched */
    dm_fill_desc d = seed_example();
    d.req_to_token = (dm_table){put(INTS(40, 41, 42, 43, 8, 9, 10, 11, 12, 13, /* request 2's row */
                                         80, 81, 82, 83, 20, 21, 22, 23, 24, 25, 4, 5, 6, 7, 60, 61, 62, 63, 64, 65)),
                                3, 10, 0, DM_INT32};
    d.req_pool_indices = input(INTS(1, 2, 0));
    d.page_table = (dm_table){output(40).data, 10, 3, 4, DM_INT32};
    d.schedules[0] = (dm_schedule){output(6), DM_SCHEDULE_SM90, DM_UNIT_TOKEN, 2, 0};
    fill_by_hand(&d);
    expect("page_table", d.page_table.data,
           INTS(20, 5, 6, x, 20, 5, 6, x, 1, 15, 16, x, 1, 15, 16, x, 1, 15, 16, x, /* requests 0 and 1 */
                10, 2, 3, x, 10, 2, 3, x, 10, 2, 3, x, 10, 2, 3, x, 10, 2, 3));
    expect("schedules[0].table", d.schedules[0].table.data, INTS(0, 0, 5, 0, 10, 0)); /* a segment each */
    expect_nothing_else();
}
END_TEST

START_TEST(an_empty_batch)
{
    dm_fill_desc d = {.size = sizeof d, .topk = 4};
    d.seqlens_expanded = output(2);
    d.dsa_cu_seqlens_k = output(3);
    d.cache_seqlens = output(1);
    d.cu_seqlens_q = output(1);
    d.cu_seqlens_k = output(1);
    d.num_tokens = output(1);
    d.schedules[0] = (dm_schedule){output(6), DM_SCHEDULE_SMXX, DM_UNIT_TOKEN, 2, 0};
    fill_by_hand(&d);
    expect("dsa_cu_seqlens_k", d.dsa_cu_seqlens_k.data, INTS(0));
    expect("cu_seqlens_q", d.cu_seqlens_q.data, INTS(0));
    expect("cu_seqlens_k", d.cu_seqlens_k.data, INTS(0));
    expect("num_tokens", d.num_tokens.data, INTS(0));
    expect("schedules[0].table", d.schedules[0].table.data, INTS(0, 0, 0, 0, 0, 0));
    expect_nothing_else();
    check_spec(&(fill_spec){0});
    check_spec(&(fill_spec){.padded_requests = 3, .padded_tokens = 5, .capacity = 7});
    check_spec(&(fill_spec){.extend_len = 4, .padded_tokens = 11, .flags = DM_FILL_FULL_ROWS});
}
END_TEST

START_TEST(a_single_token)
{
    for (int64_t kv = 0; kv < 4; kv++) {
        check_spec(&(fill_spec){.requests = 1, .seq_lens = &kv, .extend_lens = LIST(1)});
        check_spec(&(fill_spec){.requests = 1, .seq_lens = &kv, .query_start_loc = LIST(6, 7)});
        check_spec(&(fill_spec){.requests = 1, .seq_lens = &kv, .extend_len = 1, .seq_len_bias = 1});
    }
}
END_TEST

/* ---- Bugs of other implementations ----------------------------------------------------------------------------- */

/* SGLang 30378, 30427: rows of requests that only pad a graph had negative lengths, read as 4 billion. */
START_TEST(padded_requests_have_no_negative_lengths)
{
    dm_fill_desc d = {.size = sizeof d, .num_requests = 3, .extend_len = 4, .topk = 16};
    d.seq_lens = input(INTS(6, 0, 2)); /* request 1 pads */
    d.seqlens_expanded = output(12);
    d.dsa_cache_seqlens = output(12);
    d.dsa_cu_seqlens_k = output(13);
    fill_by_hand(&d);
    expect("seqlens_expanded", d.seqlens_expanded.data, INTS(3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 1, 2));
    expect("dsa_cache_seqlens", d.dsa_cache_seqlens.data, INTS(3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 1, 2));
    expect("dsa_cu_seqlens_k", d.dsa_cu_seqlens_k.data, INTS(0, 3, 7, 12, 18, 18, 18, 18, 18, 18, 18, 19, 21));
    expect_nothing_else();
    for (int32_t pool_size = 1; pool_size <= 4; pool_size++)
        check_spec(&(fill_spec){.requests = 5,
                                .seq_lens = LIST(0, 0, 3, 0, 0),
                                .extend_len = 6,
                                .pool_size = pool_size,
                                .padded_requests = 9,
                                .padded_tokens = 54});
}
END_TEST

/* SGLang 21987: a graph's cu_seqlens_q was laid out for one batch size at capture and for another at replay. */
START_TEST(prefixes_are_laid_out_alike_at_capture_and_replay)
{
    const unsigned wants = WANT_CU_Q | WANT_CU_K | WANT_CACHE | WANT_EXPANDED | WANT_DSA_PREFIX;
    const fill_spec capture = {.requests = 8,
                               .seq_lens = LIST(10, 15, 20, 0, 0, 0, 0, 0),
                               .extend_lens = LIST(2, 3, 5, 0, 0, 0, 0, 0),
                               .wants = wants,
                               .padded_tokens = 16,
                               .no_report = true};
    fill_spec replay = capture;
    replay.requests = 3;
    replay.padded_requests = 8;
    ck_assert_uint_eq(check_spec(&capture), check_spec(&replay));

    dm_fill_desc d = {.size = sizeof d, .num_requests = 4, .extend_len = 3};
    d.seq_lens = input(INTS(9, 0, 0, 0));
    d.cu_seqlens_q = output(5);
    fill_by_hand(&d); /* the same for all, live or not */
    expect("cu_seqlens_q", d.cu_seqlens_q.data, INTS(0, 3, 6, 9, 12));
    d.num_requests = 1;
    d.padded_requests = 4;
    fill_by_hand(&d);
    expect("cu_seqlens_q", d.cu_seqlens_q.data, INTS(0, 3, 3, 3, 3));
    expect_nothing_else();
}
END_TEST

/* SGLang 19016: page tables were overrun by requests near the maximum context. */
START_TEST(page_tables_are_not_overrun_near_the_maximum_context)
{
    static const int64_t contexts[] = {1, 63, 64, 65, 127, 128, 129, 200}, columns[] = {1, 2, 3, 4, 64, 129};
    for (size_t i = 0; i < LENGTH(contexts); i++)
        for (size_t k = 0; k < 2 * LENGTH(columns); k++) {
            const int64_t c = contexts[i], w = columns[k / 2];
            fill_spec s = {.requests = 9,
                           .seq_lens = LIST(c - 1, c, c + 1, w * 64 - 1, w * 64, w * 64 + 1, 1000, 20000, w),
                           .extend_len = 1,
                           .context = c,
                           .columns = w,
                           .flags = k % 2 ? DM_FILL_FULL_ROWS : 0,
                           .wants = WANT_TABLES | WANT_EXPANDED};
            check_spec(&s);
            s.blocks = true;
            check_spec(&s);
        }
}
END_TEST

START_TEST(page_tables_without_columns)
{
    for (int i = 0; i < 4; i++) {
        const fill_spec s = mixed();
        image *img = image_new();
        spec_add(img, &s);
        dm_fill_desc *d = &img->descs[0];
        dm_table *tables[] = {&d->page_table, &d->page_table_1, &d->req_to_token, &d->req_to_token};
        tables[i]->row_stride = i < 3 ? tables[i]->cols : 0;
        tables[i]->cols = 0;
        image_finish(img);
        check_image(img, "no columns");
    }
}
END_TEST

/* SGLang's HIP kernels once wrote a different number of rows than its CUDA kernels. */
START_TEST(all_rows_are_written_whatever_the_width_of_a_warp)
{
    static const int64_t rows[] = {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257};
    int64_t seq[257];
    draw(seq, LENGTH(seq), 0, 100);
    for (size_t i = 0; i < LENGTH(rows); i++)
        for (int64_t padding = 0; padding < 4; padding += 3) {
            fill_spec s = {.requests = (int32_t)rows[i], .seq_lens = seq, .extend_len = 1, .context = 66, .columns = 3};
            s.padded_tokens = rows[i] + padding;
            s.padded_requests = (int32_t)(rows[i] + padding);
            s.flags = DM_FILL_FULL_ROWS;
            check_spec(&s);
            s = (fill_spec){.requests = 1, .seq_lens = LIST(100), .extend_lens = &rows[i], .columns = 3};
            s.padded_tokens = rows[i] + padding;
            check_spec(&s);
        }
}
END_TEST

/* SGLang 29371, 29413: lengths were read by the host. Here each fill's lengths are the last one's output. */
START_TEST(lengths_are_read_when_the_stream_gets_there)
{
    dm_fill_desc d = {.size = sizeof d, .num_requests = 3, .extend_len = 1, .seq_len_bias = 1};
    dm_vec lens = input(INTS(10, 0, 20));
    for (int i = 0; i < 20; i++) {
        d.seq_lens = lens;
        d.cache_seqlens = lens = output(3);
        fill_by_hand(&d);
    }
    expect("cache_seqlens", lens.data, INTS(30, 20, 40));
}
END_TEST

/* DeepGEMM's older schedule read past its prefix where all lengths are zero; stale ones made kernels wait forever
 * (vLLM 54790). Every entry is written by every fill, and here each is the sentinel. */
START_TEST(schedules_of_no_work_are_sentinels)
{
    for (int variant = DM_SCHEDULE_SMXX; variant <= DM_SCHEDULE_SM100; variant++) {
        reset_arena();
        dm_fill_desc d = {.size = sizeof d, .num_requests = 2, .extend_len = 4, .padded_tokens = 9};
        d.seq_lens = input(INTS(0, 0));
        d.schedules[0] = (dm_schedule){output(8), (dm_schedule_variant)variant, DM_UNIT_TOKEN, 3, 0};
        d.schedules[1] = (dm_schedule){output(8), (dm_schedule_variant)variant, DM_UNIT_REQUEST, 3, 0};
        fill_by_hand(&d);
        expect("schedules[0].table", d.schedules[0].table.data, INTS(9, 0, 9, 0, 9, 0, 9, 0));
        const int32_t end = variant == DM_SCHEDULE_SM100 ? 8 : 4;
        expect("schedules[1].table", d.schedules[1].table.data, INTS(end, 0, end, 0, end, 0, end, 0));
        expect_nothing_else();
    }
}
END_TEST

/* vLLM's ROCm path: the prefix's tail repeats its last value; padding tokens have requests of their own. */
START_TEST(padding_repeats_prefixes_and_has_requests_of_its_own)
{
    dm_fill_desc d = {.size = sizeof d, .num_requests = 2, .topk = 5, .padded_tokens = 6, .padded_requests = 4};
    d.seq_lens = input(INTS(4, 6));
    d.query_start_loc = input(INTS(7, 8, 10));
    d.seqlens_expanded = output(8);
    d.dsa_cu_seqlens_k = output(9);
    d.token_to_req = output(8);
    d.cache_seqlens = output(5);
    d.cu_seqlens_k = output(6);
    fill_by_hand(&d);
    expect("seqlens_expanded", d.seqlens_expanded.data, INTS(4, 5, 6, 0, 0, 0));
    expect("dsa_cu_seqlens_k", d.dsa_cu_seqlens_k.data, INTS(0, 4, 9, 14, 14, 14, 14));
    expect("token_to_req", d.token_to_req.data, INTS(0, 1, 1, 2, 3, 4));
    expect("cache_seqlens", d.cache_seqlens.data, INTS(4, 6, 0, 0));
    expect("cu_seqlens_k", d.cu_seqlens_k.data, INTS(0, 4, 10, 10, 10));
    expect_nothing_else();
}
END_TEST

/* ---- Lengths --------------------------------------------------------------------------------------------------- */

START_TEST(lengths_of_both_types)
{
    int64_t start[MIXED_REQUESTS + 1] = {1000};
    for (int r = 0; r < MIXED_REQUESTS; r++)
        start[r + 1] = start[r] + mixed_extend[r];
    for (int i = 0; i < 16; i++) {
        fill_spec s = mixed();
        s.pool_indices = LIST(3, 3, 0, 11, 1, 2, 9, 8, 4, 5);
        s.pool_rows = 12;
        s.seq_type = i & 1 ? DM_INT64 : DM_INT32;
        s.query_type = i & 2 ? DM_INT64 : DM_INT32;
        s.pool_type = i & 4 ? DM_INT64 : DM_INT32;
        if (i & 8) {
            s.extend_lens = NULL;
            s.query_start_loc = start;
        }
        check_spec(&s);
    }
}
END_TEST

enum { MOST_ALONE = 3000 };
static int64_t alone_seq[MOST_ALONE], alone_extend[MOST_ALONE];

/* Loops over kinds of batches. GPUs have a kernel for this, whose warps work together from some size on. */
START_TEST(lengths_alone)
{
    static const int32_t requests[] = {1, 31, 32, 33, 63, 64, 65, 130, 1024, 1025, MOST_ALONE};
    draw(alone_seq, MOST_ALONE, 0, 5000);
    draw(alone_extend, MOST_ALONE, _i == 1 ? -2 : 0, 5);
    for (int r = 0; r < MOST_ALONE && _i == 2; r += 40)
        alone_extend[r] = 100;
    for (size_t i = 0; i < LENGTH(requests); i++) {
        fill_spec s = {.requests = requests[i], .seq_lens = alone_seq, .extend_lens = alone_extend, .no_report = true};
        s.aligned = true; /* as that kernel needs it */
        s.wants = _i == 0 ? WANT_EXPANDED : WANT_EXPANDED | WANT_DSA;
        s.seq_type = _i == 1 ? DM_INT64 : DM_INT32;
        s.seq_len_bias = _i;
        if (_i == 2) /* some are cut off */
            s.capacity = spec_tokens(&s) * 3 / 4 + 1;
        check_spec(&s);
    }
}
END_TEST

/* What engines ask for, for which GPUs have kernels with sums of 32 bits: cut off at every token of a batch's
 * beginning. */
START_TEST(sets_that_are_cut_off)
{
    static const int32_t requests[] = {3, 40, 300};
    draw(alone_seq, MOST_ALONE, 0, 200);
    draw(alone_extend, MOST_ALONE, 0, 5);
    for (size_t i = 0; i < LENGTH(requests); i++) {
        fill_spec s = {.requests = requests[i], .seq_lens = alone_seq, .extend_lens = alone_extend, .no_report = true};
        s.wants = WANT_EXPANDED | WANT_DSA | WANT_DSA_PREFIX | WANT_CACHE | WANT_CU_K | WANT_TABLE;
        const int64_t tokens = spec_tokens(&s);
        for (s.capacity = 1; s.capacity <= tokens; s.capacity += 1 + s.capacity / 4)
            for (s.pool_size = 1; s.pool_size <= 3; s.pool_size += 2)
                check_spec(&s);
    }
}
END_TEST

START_TEST(fewer_kv_tokens_than_queries)
{
    fill_spec s = {.requests = 7, .seq_lens = LIST(0, 1, 2, 5, 0, 9, 3), .topk = 3};
    s.extend_lens = LIST(3, 3, 5, 6, 20, 10, 3);
    for (s.pool_size = 1; s.pool_size <= 4; s.pool_size++)
        check_spec(&s);
    s.extend_lens = NULL;
    for (s.extend_len = 1; s.extend_len <= 16; s.extend_len++)
        check_spec(&s);
}
END_TEST

START_TEST(requests_without_queries)
{
    fill_spec s = {.requests = 6, .seq_lens = LIST(5, 6, 7, 0, 9, 70)};
    const int64_t queries[][6] = {
        {1, 0, 0, 2, 3, 1}, {0, 0, 4, 0, 0, 0}, {0, 2, 3, 1, 1, 1}, {3, 2, 1, 1, 0, 0}, {0, 0, 0, 0, 0, 0}};
    for (size_t i = 0; i < LENGTH(queries); i++) {
        s.extend_lens = queries[i];
        s.padded_tokens = 0;
        check_spec(&s);
        s.padded_tokens = 12;
        check_spec(&s);
    }
}
END_TEST

START_TEST(pooled_keys)
{
    static const int32_t pools[] = {1, 3, 4, 64}, topks[] = {1, 8, 64, 100, 2048, INT32_MAX};
    for (size_t i = 0; i < LENGTH(pools); i++)
        for (size_t k = 0; k < LENGTH(topks); k++)
            check_spec(&(fill_spec){.requests = 4,
                                    .seq_lens = LIST(300, 0, 40, 100000),
                                    .extend_lens = LIST(300, 2, 50, 130), /* all residues, below and above topk */
                                    .topk = topks[k],
                                    .pool_size = pools[i],
                                    .wants = WANT_LENGTHS});
}
END_TEST

START_TEST(context_per_request)
{
    for (int32_t n = 1; n <= 5; n++) {
        fill_spec s = uniform(n);
        s.flags = DM_FILL_CONTEXT_PER_REQUEST;
        s.seq_len_bias = n;
        s.padded_tokens = MIXED_REQUESTS * n + 3;
        check_spec(&s);
    }
}
END_TEST

/* A group of w ranks that have i tokens in turn, and caches of one entry for d tokens. */
static void set_context(fill_spec *s, int32_t w, int32_t i, int32_t d)
{
    s->dcp_world = w;
    s->dcp_interleave = i;
    s->context_divisor = d;
}

/* Short runs, long ones and padding; the ranks of a group. */
START_TEST(context_of_ranks_and_compressed_caches)
{
    static const int32_t parts[] = {0, 1, 3, 64, INT32_MAX}, divisors[] = {0, 1, 4, 7, INT32_MAX};
    for (size_t i = 0; i < LENGTH(parts); i++)
        for (int32_t n = 1; n <= 40; n += n < 10 ? 3 : 15) {
            fill_spec s = uniform(n);
            s.padded_tokens = MIXED_REQUESTS * n + 3;
            s.flags = n % 2 ? 0 : DM_FILL_CONTEXT_PER_REQUEST;
            set_context(&s, 1 + n % 4, parts[i], divisors[(i + (size_t)n) % LENGTH(divisors)]);
            for (s.dcp_rank = 0; s.dcp_rank < s.dcp_world; s.dcp_rank++)
                check_spec(&s);
            s.dcp_rank = 0;
            s.padded_tokens = 0; /* what the GPUs have a kernel for, if all tokens counted */
            s.flags = 0;
            s.wants = WANT_ALL & ~(WANT_TABLE_1 | WANT_SCHEDULES);
            s.no_report = true;
            check_spec(&s);
        }
}
END_TEST

/* vLLM's example: of the tokens before 8, 9 and 10 rank 1 of 2 has 4, 4 and 5. */
START_TEST(ranks_count_their_own_tokens)
{
    dm_fill_desc d = {.size = sizeof d, .num_requests = 2, .extend_len = 3, .dcp_world = 2, .dcp_rank = 1};
    d.seq_lens = input(INTS(10, 1));
    d.seqlens_expanded = output(6);
    d.context_lens = output(6);
    ck_assert_int_eq(dm_fill(ctx, &d, NULL), DM_OK);
    expect("seqlens_expanded", d.seqlens_expanded.data, INTS(8, 9, 10, 0, 0, 1));
    expect("context_lens", d.context_lens.data, INTS(4, 4, 5, 0, 0, 0));
    d.dcp_interleave = d.context_divisor = 4; /* 4 of each, the second four */
    ck_assert_int_eq(dm_fill(ctx, &d, NULL), DM_OK);
    expect("context_lens", d.context_lens.data, INTS(1, 1, 1, 0, 0, 0));
}
END_TEST

START_TEST(one_buffer_for_three_lengths)
{
    fill_spec s = uniform(1);
    s.wants = WANT_CONTEXT | WANT_NUM_TOKENS;
    s.padded_tokens = s.padded_requests = 14;
    for (int with = 1; with < 4; with++) {
        image *img = image_new();
        spec_add(img, &s);
        dm_fill_desc *d = &img->descs[0];
        if (with & 1)
            d->seqlens_expanded = d->context_lens;
        if (with & 2)
            d->cache_seqlens = d->context_lens;
        image_finish(img);
        check_image(img, "shared lengths");
    }
}
END_TEST

/* ---- Page tables ----------------------------------------------------------------------------------------------- */

START_TEST(page_sizes)
{
    static const int32_t pages[] = {1, 16, 64, 128, 3, 1 << 20};
    for (size_t i = 0; i < 4 * LENGTH(pages); i++) {
        fill_spec s = mixed();
        s.page_size = pages[i / 4];
        s.negative_slots = i & 1;
        s.flags = i & 2 ? DM_FILL_FULL_ROWS : 0;
        check_spec(&s);
        s.blocks = true;
        s.context = 20;
        check_spec(&s);
    }
}
END_TEST

START_TEST(strided_tables)
{
    static const int64_t gaps[] = {1, 3, 16, 1000};
    for (size_t i = 0; i < 2 * LENGTH(gaps); i++) {
        fill_spec s = mixed();
        s.gap = gaps[i / 2];
        s.flags = i & 1 ? DM_FILL_FULL_ROWS : 0;
        s.pool_indices = LIST(3, 3, 0, 11, 1, 2, 9, 8, 4, 5);
        s.pool_rows = 12;
        check_spec(&s);
        s.pool_indices = NULL;
        s.blocks = true;
        check_spec(&s);
    }
}
END_TEST

/* ---- Sizes ----------------------------------------------------------------------------------------------------- */

START_TEST(each_output_alone)
{
    const fill_spec specs[] = {mixed(), uniform(1), uniform(4)};
    for (size_t i = 0; i < LENGTH(specs); i++)
        for (int want = 0; want < NUM_WANTS; want++) {
            fill_spec s = specs[i];
            s.wants = 1u << want;
            s.padded_tokens = 1; /* what a schedule alone needs */
            check_spec(&s);
            s.wants = WANT_ALL & ~s.wants;
            check_spec(&s);
        }
}
END_TEST

START_TEST(nothing_but_the_report)
{
    fill_spec s = mixed();
    image *img = image_new();
    s.wants = WANT_NUM_TOKENS;
    spec_add(img, &s);
    img->descs[0].num_tokens = (dm_vec){0};
    image_finish(img);
    check_image(img, "no output");
}
END_TEST

START_TEST(padded_tails)
{
    static const int64_t more[] = {-MIXED_TOKENS, -1, 0, 1, 2, 33, 200};
    for (size_t i = 0; i < LENGTH(more); i++)
        for (size_t k = 0; k < LENGTH(more); k++) {
            fill_spec s = mixed();
            s.padded_tokens = MIXED_TOKENS + more[i];
            s.padded_requests = (int32_t)(more[k] < -1 ? 0 : MIXED_REQUESTS + more[k]);
            s.context = s.columns = 70;
            s.flags = i & 1 ? DM_FILL_FULL_ROWS : 0;
            s.capacity = k & 1 ? MIXED_TOKENS + 5 : 0; /* larger, or less than the padding */
            check_spec(&s);
        }
}
END_TEST

/* A buffer that is too small by any number of tokens, in the middle of a request too. */
START_TEST(small_buffers)
{
    for (int64_t capacity = 1; capacity <= MIXED_TOKENS + 1; capacity++) {
        fill_spec s = mixed();
        s.capacity = capacity > MIXED_TOKENS ? NO_TOKENS : capacity;
        s.padded_tokens = capacity % 2 ? 100 : 0;
        check_spec(&s);
        s = uniform(3);
        s.capacity = capacity;
        check_spec(&s);
    }
}
END_TEST

/* Of one request with 3 KV tokens, what the kernels for engines' fills are for; tables apart. */
static dm_fill_desc engine_fill(int32_t tokens)
{
    dm_fill_desc d = {.size = sizeof d, .num_requests = 1, .extend_len = tokens, .topk = 2, .page_size = 1};
    d.seq_lens = input(INTS(3));
    d.seqlens_expanded = output(tokens), d.dsa_cache_seqlens = output(tokens), d.dsa_cu_seqlens_k = output(tokens + 1);
    d.cache_seqlens = output(1), d.cu_seqlens_k = output(2);
    return d;
}

static void expect_engine_fill(const dm_fill_desc *d)
{
    const bool two = d->extend_len == 2;
    expect("seqlens_expanded", d->seqlens_expanded.data, two ? (int32_t[]){2, 3} : (int32_t[]){3}, two ? 2 : 1);
    expect("dsa_cache_seqlens", d->dsa_cache_seqlens.data, (int32_t[]){2, 2}, two ? 2 : 1);
    expect("dsa_cu_seqlens_k", d->dsa_cu_seqlens_k.data, (int32_t[]){0, 2, 4}, two ? 3 : 2);
    expect("cache_seqlens", d->cache_seqlens.data, INTS(3));
    expect("cu_seqlens_k", d->cu_seqlens_k.data, INTS(0, 3));
    expect_nothing_else();
}

/* Rows and columns that are declared beyond 2^32, and of which few are touched. */
START_TEST(more_rows_and_columns_than_32_bits_count)
{
    const int64_t many = ((int64_t)1 << 32) + 1;
    dm_fill_desc d = engine_fill(1);
    d.req_to_token = (dm_table){input(INTS(1, 2, 3, 4, 7, 8, 9, 10)).data, many, 4, 0, DM_INT32};
    d.req_pool_indices = input(INTS(1));
    d.page_table = (dm_table){output(3).data, 1, 3, 0, DM_INT32};
    fill_by_hand(&d);
    expect("page_table", d.page_table.data, INTS(7, 8, 9));
    expect_engine_fill(&d);
    d = engine_fill(1);
    d.req_to_token = (dm_table){input(INTS(7, 8, 9, 10)).data, 1, many, 0, DM_INT32};
    d.page_table = (dm_table){output(3).data, 1, many, 0, DM_INT32};
    fill_by_hand(&d);
    expect("page_table", d.page_table.data, INTS(7, 8, 9));
    expect_engine_fill(&d);
}
END_TEST

/* Whichever output is the smallest bounds all of them. */
START_TEST(the_smallest_output_counts)
{
    for (int i = 0; i < 14; i++) {
        const fill_spec s = i % 2 ? uniform(3) : mixed();
        image *img = image_new();
        spec_add(img, &s);
        dm_fill_desc *d = &img->descs[0];
        int64_t *lengths[] = {&d->seqlens_expanded.len, &d->dsa_cache_seqlens.len, &d->dsa_cu_seqlens_k.len,
                              &d->token_to_req.len,     &d->context_lens.len,      &d->page_table_1.rows,
                              &d->page_table.rows};
        *lengths[i / 2] -= 1 + i % 3;
        image_finish(img);
        check_image(img, "a shorter output");
    }
}
END_TEST

/* ---- Hostile inputs -------------------------------------------------------------------------------------------- */

static const int64_t extremes[] = {7,  INT32_MAX, -1,        0,         INT32_MIN,       INT64_MAX,
                                   40, INT64_MIN, 1ll << 31, 1ll << 32, (1ll << 32) + 5, INT32_MAX - 1};

enum { NUM_EXTREMES = LENGTH(extremes) };

/* Meets every extreme with every other. */
START_TEST(extreme_lengths)
{
    for (int shift = 0; shift < NUM_EXTREMES; shift++)
        for (int i = 0; i < 4; i++) {
            int64_t extend[NUM_EXTREMES];
            for (int r = 0; r < NUM_EXTREMES; r++)
                extend[r] = extremes[(r + shift) % NUM_EXTREMES];
            fill_spec s = {.requests = NUM_EXTREMES, .seq_lens = extremes, .extend_lens = extend, .capacity = 60};
            s.seq_type = i & 1 ? DM_INT64 : DM_INT32;
            s.query_type = i & 2 ? DM_INT64 : DM_INT32;
            s.seq_len_bias = shift % 3 == 2 ? INT32_MAX : shift % 3;
            s.context = s.columns = 70;
            check_spec(&s);
        }
}
END_TEST

START_TEST(extreme_start_locations)
{
    for (int first = 0; first + 1 < NUM_EXTREMES; first++)
        for (int wide = 0; wide < 2; wide++)
            check_spec(&(fill_spec){.requests = NUM_EXTREMES - 1 - first,
                                    .seq_lens = extremes,
                                    .query_start_loc = extremes + first,
                                    .query_type = wide ? DM_INT64 : DM_INT32,
                                    .capacity = 50});
}
END_TEST

START_TEST(extreme_constants)
{
    static const int32_t lens[] = {INT32_MAX, INT32_MAX - 1, 1 << 30, 65536};
    for (size_t i = 0; i < LENGTH(lens); i++) {
        fill_spec s = uniform(lens[i]);
        s.capacity = 70;
        check_spec(&s);
        s.seq_len_bias = lens[i];
        check_spec(&s);
        s.wants = WANT_CU_Q | WANT_CU_K | WANT_NUM_TOKENS; /* nothing bounds the tokens */
        check_spec(&s);
    }
}
END_TEST

START_TEST(pool_indices_out_of_range)
{
    const int64_t bad[MIXED_REQUESTS] = {-1, 12, 3, INT32_MAX, INT32_MIN, 11, 1ll << 32, INT64_MIN, (1ll << 32) + 2, 0};
    for (int i = 0; i < 8; i++) {
        fill_spec s = i & 4 ? uniform(2) : mixed();
        s.flags = i & 1 ? DM_FILL_FULL_ROWS : 0;
        s.pool_indices = bad;
        s.pool_rows = 12;
        s.pool_type = i & 2 ? DM_INT64 : DM_INT32;
        check_spec(&s);
        s.pool_indices = NULL;
        s.pool_rows = 6; /* the rows of four requests are missing */
        check_spec(&s);
        s.blocks = true;
        check_spec(&s);
    }
}
END_TEST

/* Prefixes that an int32 just holds, and those that it does not. */
START_TEST(sums_beyond_int32)
{
    for (int64_t last = 0; last < 3; last++) {
        fill_spec s = {.requests = 3, .seq_lens = LIST(INT32_MAX - 1, 0, last), .extend_len = 1, .topk = INT32_MAX};
        s.context = 8;
        check_spec(&s);
    }
    fill_spec s = {.requests = 3, .seq_lens = LIST(INT32_MAX, INT32_MAX, INT32_MAX), .topk = INT32_MAX, .context = 8};
    s.extend_lens = LIST(3, 40, 2);
    check_spec(&s);
    s.padded_tokens = 60;
    s.padded_requests = 5;
    check_spec(&s);
    s.capacity = 1; /* what is not stored is not narrow */
    s.wants = WANT_DSA_PREFIX;
    check_spec(&s);
    s.capacity = 2;
    check_spec(&s);

    int64_t seq[20]; /* each of them is far from 2^31, their sums go beyond 2^32 */
    draw(seq, LENGTH(seq), 1 << 28, 1 << 29);
    for (int32_t r = 1; r <= (int32_t)LENGTH(seq); r++)
        check_spec(&(fill_spec){
            .requests = r, .seq_lens = seq, .extend_len = 1, .wants = WANT_CU_K | WANT_EXPANDED | WANT_SCHEDULES});
}
END_TEST

/* ---- Schedules ------------------------------------------------------------------------------------------------- */

static void check_schedules(fill_spec *s, dm_schedule first)
{
    static const int32_t divisors[] = {0, 1, 3, 64, 1000000};
    for (size_t i = 0; i < LENGTH(divisors); i++) {
        first.divisor = divisors[i];
        s->schedules[0] = s->schedules[1] = first;
        s->schedules[1].variant = first.variant % 3 + 1; /* another */
        s->schedules[1].divisor = divisors[(i + 1) % LENGTH(divisors)];
        check_spec(s);
    }
}

/* Loops over the variant. */
START_TEST(schedules)
{
    static const int32_t slots[] = {1, 2, 78, 132, 1000};
    fill_spec s = {.requests = 9, .seq_lens = LIST(0, 1, 255, 256, 257, 0, 5000, 70000, 0), .context = 8};
    for (size_t i = 0; i < LENGTH(slots); i++) {
        const dm_schedule_variant variant = (dm_schedule_variant)_i;
        s.wants = WANT_SCHEDULES | WANT_EXPANDED;
        s.extend_lens = LIST(1, 0, 3, 300, 1, 2, 7, 5, 0);
        s.extend_len = 0;
        check_schedules(&s, (dm_schedule){.variant = variant, .unit = DM_UNIT_TOKEN, .slots = slots[i]});
        s.extend_lens = NULL;
        for (s.extend_len = 1; s.extend_len <= 6; s.extend_len++) {
            s.padded_tokens = 9 * s.extend_len + (s.extend_len % 2 ? 2 : 2 * s.extend_len);
            s.wants = s.extend_len % 2 ? WANT_SCHEDULES : WANT_ALL & ~WANT_TABLES;
            check_schedules(&s, (dm_schedule){.variant = variant, .unit = DM_UNIT_REQUEST, .slots = slots[i]});
            check_schedules(&s, (dm_schedule){.variant = variant, .unit = DM_UNIT_TOKEN, .slots = slots[i]});
        }
        s.padded_tokens = 0;
    }
}
END_TEST

/* Lengths of which some ranks hold nothing, whole segments or parts; divisors that do not divide the ranks' parts. The
 * batch with thousands of tokens takes long: it runs with one rank of each world, another for every part. */
START_TEST(schedules_of_ranks)
{
    static const int32_t parts[] = {1, 3, 64, 256, 1000, 1 << 20, INT32_MAX}, worlds[] = {2, 3, 8, INT32_MAX};
    fill_spec s = {.requests = 6, .seq_lens = LIST(600, 1, 5000, 70000, 0, INT32_MAX), .context = 8};
    s.wants = WANT_SCHEDULES | WANT_CONTEXT;
    for (size_t i = 0; i < LENGTH(parts) * LENGTH(worlds); i++) {
        set_context(&s, worlds[i % LENGTH(worlds)], parts[i / LENGTH(worlds)], 0);
        const int32_t ranks = s.dcp_world < 3 ? s.dcp_world : 3;
        s.dcp_rank = (int32_t)(i / LENGTH(worlds)) % ranks;
        s.extend_lens = LIST(3, 2, 4000, 1, 5, 700);
        s.extend_len = 0;
        check_schedules(&s, (dm_schedule){.variant = DM_SCHEDULE_SMXX, .unit = DM_UNIT_TOKEN, .slots = 132});
        s.extend_lens = NULL;
        s.extend_len = 4;
        for (s.dcp_rank = 0; s.dcp_rank < ranks; s.dcp_rank++)
            check_schedules(&s, (dm_schedule){.variant = DM_SCHEDULE_SM90, .unit = DM_UNIT_REQUEST, .slots = 7});
    }
}
END_TEST

/* Units that are dropped are not scheduled, in the middle of a request too. */
START_TEST(schedules_of_dropped_tokens)
{
    for (int64_t capacity = 1; capacity < 40; capacity += 3) {
        fill_spec s = {.requests = 4, .seq_lens = LIST(1000, 3000, 0, 700), .capacity = capacity, .context = 8};
        s.extend_lens = LIST(5, 20, 3, 7);
        check_spec(&s);
        s.extend_lens = NULL;
        s.extend_len = 9;
        check_spec(&s);
    }
}
END_TEST

START_TEST(schedules_of_huge_lengths)
{
    for (int i = 0; i < 3; i++) {
        fill_spec s = {.requests = 3, .seq_lens = LIST(INT32_MAX, 0, INT32_MAX), .context = 8};
        s.extend_len = i == 1 ? 40 : 0;
        s.extend_lens = i == 1 ? NULL : LIST(90, 1, 3);
        s.capacity = i == 2 ? 50 : 0;
        s.schedules[0] = (dm_schedule){.variant = (dm_schedule_variant)(i + 1), .slots = 148};
        check_spec(&s);
    }
}
END_TEST

/* ---- Many fills ------------------------------------------------------------------------------------------------ */

/* Sibling drafts: the same batch, one more KV token each. All share the first's report. */
static image *siblings(size_t count, bool reports)
{
    image *img = image_new();
    for (size_t i = 0; i < count; i++) {
        fill_spec s = i % 3 == 1 ? uniform(1 + (int32_t)i) : mixed();
        s.seq_len_bias = (int32_t)i;
        s.capacity = i == 2 ? 20 : 0;
        s.topk = 1 + (int32_t)i * 5;
        s.context = s.columns = 70;
        s.no_report = !reports;
        s.shares_report = reports && i > 0;
        spec_add(img, &s);
    }
    image_finish(img);
    return img;
}

START_TEST(eight_fills_in_one_call)
{
    check_image(siblings(DM_FILL_MANY_MAX, true), "eight fills");
    check_image(siblings(2, true), "two fills");
}
END_TEST

/* Uploads an image; its descriptors over the device's copy go to descs. */
static void *upload_image(const image *img, dm_fill_desc *descs)
{
    void *device;
    ck_assert_int_eq(dm_malloc(ctx, img->bytes, &device), DM_OK);
    ck_assert_int_eq(dm_upload(ctx, device, img->block, img->bytes, NULL), DM_OK);
    for (size_t i = 0; i < img->count; i++) {
        descs[i] = img->descs[i];
        image_rebase(&descs[i], img->block, device);
    }
    return device;
}

/* Lets the oracle do its part in the image and frees both. */
static void expect_image(image *img, void *device)
{
    unsigned char *got = harness_alloc(img->bytes);
    for (size_t i = 0; i < img->count; i++)
        oracle_fill(&img->descs[i]);
    ck_assert_int_eq(dm_download(ctx, got, device, img->bytes, NULL), DM_OK);
    ck_assert_int_eq(dm_free(ctx, device), DM_OK);
    expect_bytes(got, img->block, img->bytes);
    free(got);
    image_free(img);
}

START_TEST(twelve_fills_in_one_call)
{
    image *first = siblings(8, true), *second = siblings(4, false);
    dm_fill_desc descs[12];
    const dm_fill_desc *list[12];
    void *devices[] = {upload_image(first, descs), upload_image(second, descs + 8)};
    for (int i = 0; i < 4; i++) {
        second->descs[i].report = first->descs[0].report;
        descs[8 + i].report = descs[0].report;
    }
    for (int i = 0; i < 12; i++)
        list[i] = &descs[i];
    ck_assert_msg(dm_fill_many(ctx, list, 12, NULL) == DM_OK, "%s", dm_last_error());
    expect_image(second, devices[1]);
    expect_image(first, devices[0]); /* last: the report is in it */
}
END_TEST

START_TEST(no_fills)
{
    ck_assert_int_eq(dm_fill_many(ctx, NULL, 0, NULL), DM_OK);
    const dm_fill_desc d = seed_example();
    ck_assert_int_eq(dm_fill_many(ctx, &(const dm_fill_desc *){&d}, 0, NULL), DM_OK);
    expect_nothing_else();
}
END_TEST

/* ---- The report ------------------------------------------------------------------------------------------------ */

static void expect_report(const dm_report *device, uint32_t flags, uint32_t bad_request, uint64_t tokens_wanted)
{
    dm_report got;
    ck_assert_int_eq(dm_download(ctx, &got, device, sizeof got, NULL), DM_OK);
    ck_assert_uint_eq(got.flags, flags);
    ck_assert_uint_eq(got.bad_request, bad_request);
    ck_assert_uint_eq(got.tokens_wanted, tokens_wanted);
}

START_TEST(a_report_is_sticky)
{
    dm_fill_desc d = seed_example();
    const dm_vec good_lens = d.seq_lens, good_extend = d.extend_lens;
    d.report = put_bytes(&(dm_report){0}, sizeof(dm_report));
    d.cu_seqlens_k = output(4);
    d.seqlens_expanded = output(12);
    fill_by_hand(&d);
    expect_report(d.report, 0, 0, 10);
    d.seq_lens = input(INTS(5, -1, 5));
    fill_by_hand(&d);
    expect_report(d.report, DM_REPORT_KV_CLAMPED, 2, 10);
    d.seq_lens = good_lens;
    d.extend_lens = input(INTS(-1, 3, 1)); /* an earlier request, fewer tokens */
    fill_by_hand(&d);
    expect_report(d.report, DM_REPORT_KV_CLAMPED | DM_REPORT_Q_CLAMPED, 2, 10);
    d.extend_lens = input(INTS(9, 3, 1));
    fill_by_hand(&d);
    expect_report(d.report, DM_REPORT_KV_CLAMPED | DM_REPORT_Q_CLAMPED | DM_REPORT_TOKENS_DROPPED, 2, 13);
    d.extend_lens = good_extend;
    d.seq_lens = input(INTS(INT32_MAX, INT32_MAX, 0));
    fill_by_hand(&d);
    d.seq_lens = good_lens;
    fill_by_hand(&d);
    const uint32_t four = DM_REPORT_KV_CLAMPED | DM_REPORT_Q_CLAMPED | DM_REPORT_TOKENS_DROPPED | DM_REPORT_NARROW;
    expect_report(d.report, four, 2, 13);
}
END_TEST

START_TEST(a_report_keeps_what_the_caller_put_there)
{
    fill_spec s = mixed();
    const dm_report befores[] = {{.flags = DM_REPORT_NARROW, .bad_request = 1, .tokens_wanted = MIXED_TOKENS - 1},
                                 {.flags = 0x80000000u, .bad_request = UINT32_MAX, .tokens_wanted = UINT64_MAX},
                                 {.flags = 0, .bad_request = 3, .tokens_wanted = 1ull << 40}};
    s.pool_indices = LIST(0, 1, 99, 3, 4, -1, 6, 7, 8, 9);
    for (size_t i = 0; i < LENGTH(befores); i++) {
        s.report = befores[i];
        check_spec(&s);
    }
}
END_TEST

/* ---- The seed's operation -------------------------------------------------------------------------------------- */

typedef struct draft_extend {
    int32_t *extend, *seq, *expanded, *sparse;
    int32_t requests;
} draft_extend;

/* The seed's example; outputs of ten tokens. */
static draft_extend example_call(void)
{
    return (draft_extend){put(INTS(2, 3, 5)), put(INTS(10, 15, 20)), output(10).data, output(10).data, 3};
}

static dm_status call(const draft_extend *x, int64_t capacity, int64_t *written)
{
    return dm_fill_draft_extend(ctx, x->extend, x->seq, x->requests, 16, x->expanded, x->sparse, capacity, written,
                                NULL);
}

START_TEST(draft_extend_writes_the_example)
{
    for (int waits = 0; waits < 2; waits++) {
        reset_arena();
        const draft_extend x = example_call();
        int64_t written = -1;
        ck_assert_int_eq(call(&x, 10, waits ? &written : NULL), DM_OK);
        ck_assert_int_eq(written, waits ? 10 : -1);
        expect("out_seqlens_expanded", x.expanded, INTS(9, 10, 13, 14, 15, 16, 17, 18, 19, 20));
        expect("out_dsa_cache_seqlens", x.sparse, INTS(9, 10, 13, 14, 15, 16, 16, 16, 16, 16));
        expect_nothing_else();
    }
}
END_TEST

START_TEST(draft_extend_writes_the_prefix_that_fits)
{
    static const int32_t all[] = {9, 10, 13, 14, 15, 16, 17, 18, 19, 20};
    for (int64_t capacity = 0; capacity < 12; capacity++) {
        reset_arena();
        draft_extend x = example_call();
        x.sparse = NULL;
        int64_t written = -1;
        ck_assert_int_eq(call(&x, capacity, &written), capacity < 10 ? DM_ERR_CAPACITY : DM_OK);
        ck_assert_int_eq(written, 10);
        expect("out_seqlens_expanded", x.expanded, all, (size_t)(capacity < 10 ? capacity : 10));
        expect_nothing_else();
        ck_assert_int_eq(call(&x, capacity, NULL), DM_OK); /* nobody waits to find out */
        expect_nothing_else();
    }
}
END_TEST

START_TEST(draft_extend_without_outputs_counts)
{
    draft_extend x = example_call();
    int64_t written = -1;
    x.expanded = NULL;
    ck_assert_int_eq(call(&x, 10, &written), DM_OK);
    expect("out_dsa_cache_seqlens", x.sparse, INTS(9, 10, 13, 14, 15, 16, 16, 16, 16, 16));
    x.sparse = NULL;
    written = -1;
    ck_assert_int_eq(call(&x, 10, &written), DM_OK);
    ck_assert_int_eq(written, 10);
    ck_assert_int_eq(call(&x, 9, &written), DM_ERR_CAPACITY);
    ck_assert_int_eq(written, 10);
    expect_nothing_else();
}
END_TEST

START_TEST(draft_extend_of_nothing)
{
    draft_extend x = example_call();
    int64_t written = -1;
    x.requests = 0;
    ck_assert_int_eq(call(&x, 10, &written), DM_OK);
    ck_assert_int_eq(written, 0);
    x.extend = x.seq = NULL;
    written = -1;
    ck_assert_int_eq(call(&x, 0, &written), DM_OK);
    ck_assert_int_eq(written, 0);
    expect_nothing_else();
}
END_TEST

START_TEST(draft_extend_of_hostile_lengths)
{
    draft_extend x = {put(INTS(2, -7, INT32_MAX, INT32_MAX)), put(INTS(-1, 5, INT32_MAX, 3)), output(5).data, NULL, 4};
    int64_t written = -1;
    ck_assert_int_eq(call(&x, 5, &written), DM_ERR_CAPACITY);
    ck_assert_int_eq(written, 2ll + 2ll * INT32_MAX);
    expect("out_seqlens_expanded", x.expanded, INTS(0, 0, 1, 2, 3));
    expect_nothing_else();
}
END_TEST

/* ---- Threads --------------------------------------------------------------------------------------------------- */

enum { THREADS = 8, CASES_PER_THREAD = 25, CALLS_PER_CASE = 4, CALL_REQUESTS = 2000 };

static const case_limits small_cases = {.max_requests = 300, .max_tokens = 2000, .max_columns = 200};

typedef struct worker {
    pthread_t thread;
    int index;
    char text[600]; /* what went wrong, or "" */
} worker;

static void check_case_of(worker *w, checker *c, uint64_t index)
{
    mismatch m;
    image *img = case_make(11, index, &small_cases);
    const dm_status status = checker_run(c, img, NULL, &m, NULL);
    if (status != DM_OK || m.found)
        snprintf(w->text, sizeof w->text, "case %" PRIu64 ": %s", index, m.text);
    image_free(img);
}

/* As long as it takes to lose a race: many requests, of a number of tokens each that no other thread has. */
static int32_t *requests_of(worker *w)
{
    int32_t lens[CALL_REQUESTS];
    void *memory;
    dm_status status = dm_malloc(ctx, sizeof lens, &memory);
    for (int r = 0; r < CALL_REQUESTS; r++)
        lens[r] = w->index + 1;
    if (status == DM_OK)
        status = dm_upload(ctx, memory, lens, sizeof lens, NULL);
    if (status != DM_OK)
        snprintf(w->text, sizeof w->text, "%s", dm_last_error());
    return memory;
}

/* A call that waits: it counts its own tokens, and not another's. */
static void check_waiting_call_of(worker *w, const int32_t *lens)
{
    const int64_t tokens = (int64_t)CALL_REQUESTS * (w->index + 1);
    int64_t written = 0;
    const dm_status status =
        dm_fill_draft_extend(ctx, lens, lens, CALL_REQUESTS, 1, NULL, NULL, tokens, &written, NULL);
    if (status != DM_OK || written != tokens)
        snprintf(w->text, sizeof w->text, "dm_fill_draft_extend: status %d, %" PRId64 " tokens", (int)status, written);
}

static void *work(void *argument)
{
    worker *w = argument;
    checker *c = checker_new(ctx);
    int32_t *lens = requests_of(w);
    for (uint64_t i = 0; i < CASES_PER_THREAD && !w->text[0]; i++) {
        check_case_of(w, c, (uint64_t)w->index * 1000 + i);
        for (int k = 0; k < CALLS_PER_CASE && !w->text[0]; k++)
            check_waiting_call_of(w, lens);
    }
    dm_free(ctx, lens);
    checker_free(c);
    return NULL;
}

START_TEST(threads_share_a_context)
{
    worker workers[THREADS] = {0};
    for (int i = 0; i < THREADS; i++) {
        workers[i].index = i;
        ck_assert_int_eq(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_join(workers[i].thread, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        ck_assert_msg(!workers[i].text[0], "thread %d: %s", i, workers[i].text);
}
END_TEST

/* ---- Generated cases ------------------------------------------------------------------------------------------- */

START_TEST(generated_cases)
{
    for (uint64_t i = 0; i < 300; i++) {
        char text[160];
        image *img = case_make(5, i, &small_cases);
        snprintf(text, sizeof text, "seed 5, case %" PRIu64 ", %s", i, case_title(img));
        check_image(img, text);
    }
}
END_TEST

/* ---- Large fills ----------------------------------------------------------------------------------------------- */

START_TEST(a_large_batch)
{
    int64_t seq[3000], extend[3000], pool[3000];
    draw(seq, 3000, 0, 400);
    draw(extend, 3000, 0, 8);
    draw(pool, 3000, 0, 9);
    fill_spec s = {.requests = 3000, .seq_lens = seq, .extend_lens = extend, .pool_indices = pool, .pool_rows = 10};
    s.columns = 5;
    s.padded_requests = 3100;
    s.padded_tokens = 13000;
    check_spec(&s);
}
END_TEST

static int64_t many_seq[MANY], many_extend[MANY + 1];

/* Loops over where the query lengths come from; the last has long ones, and a top-k that no small path of a GPU takes.
 */
START_TEST(requests_by_the_ten_thousands)
{
    fill_spec s = {.requests = MANY, .seq_lens = many_seq, .wants = WANT_LENGTHS | WANT_SCHEDULES};
    draw(many_seq, MANY, 0, 1 << 20);
    draw(many_extend, MANY + 1, 0, 3);
    if (_i == 0)
        s.extend_len = s.seq_len_bias = 2;
    if (_i == 1 || _i == 3)
        s.extend_lens = many_extend;
    for (int r = 0; _i == 3 && r < MANY; r += 200)
        many_extend[r] = 20;
    if (_i == 3)
        s.topk = 1 << 20;
    if (_i == 2)
        s.query_start_loc = many_extend;
    for (int r = 0; _i == 2 && r < MANY; r++)
        many_extend[r + 1] += many_extend[r];
    s.query_type = s.seq_type = _i == 2 ? DM_INT64 : DM_INT32;
    s.capacity = _i == 1 ? 50001 : 0; /* one is cut off */
    check_spec(&s);
}
END_TEST

/* Just more requests than fill the row blocks' first tiles: the next tiles are not for all of the blocks. */
START_TEST(requests_that_leave_row_blocks_over)
{
    fill_spec s = {.requests = 33000, .seq_lens = many_seq, .wants = WANT_CU_Q | WANT_CU_K | WANT_NUM_TOKENS};
    draw(many_seq, MANY, 0, 1 << 20);
    draw(many_extend, MANY, 0, 3);
    s.extend_lens = many_extend;
    s.padded_requests = 33005;
    check_spec(&s);
}
END_TEST

START_TEST(a_prefill_among_decodes)
{
    int64_t seq[21], extend[21], pool[21];
    draw(seq, 21, 1, 300);
    draw(pool, 21, 0, 3);
    for (int r = 0; r < 21; r++)
        extend[r] = 1 + r % 2;
    seq[9] = 120000;
    extend[9] = 100000;
    fill_spec s = {.requests = 21, .seq_lens = seq, .extend_lens = extend, .pool_indices = pool, .pool_rows = 4};
    s.columns = 3;
    s.pool_size = 4;
    check_spec(&s);
}
END_TEST

START_TEST(wide_page_tables)
{
    for (int i = 0; i < 2; i++) {
        fill_spec s = {.requests = 3, .seq_lens = LIST(70000, 66000, 100), .extend_len = 2, .context = 70000};
        s.page_size = i ? 64 : 1;
        s.wants = i ? WANT_TABLE : WANT_TABLES;
        s.flags = i ? DM_FILL_FULL_ROWS : 0;
        check_spec(&s);
    }
}
END_TEST

/* ---- Rows beyond 2^31 elements --------------------------------------------------------------------------------- */

/* Page tables whose rows lie 2^20 elements apart: the last ones beyond 2^32 elements or, in less memory, beyond 2^31.
 */
enum { FAR_STRIDE = 1 << 20, FAR_LIVE = 4, FAR_KV = 200, FAR_PROBE = 256 };

/* Returns its rows; 0, and a note, where the device has no memory for it. */
static int64_t far_table(int32_t **table)
{
    static const int64_t rows[] = {4160, 2080};
    for (size_t i = 0; i < LENGTH(rows); i++) {
        void *memory;
        const dm_status status = dm_malloc(ctx, (size_t)rows[i] * FAR_STRIDE * sizeof **table, &memory);
        *table = memory;
        if (status == DM_OK)
            return rows[i];
        ck_assert_msg(status == DM_ERR_OUT_OF_MEMORY, "%s", dm_last_error());
    }
    printf("SKIP rows beyond 2^31 elements: %s\n", dm_last_error());
    return 0;
}

/* Row r of the far table begins with values if they are given, else with poison. */
static void load_far_row(int32_t *table, int64_t row, const int32_t *values)
{
    int32_t poison[FAR_PROBE];
    memset(poison, IMAGE_POISON, sizeof poison);
    ck_assert_int_eq(dm_upload(ctx, table + row * FAR_STRIDE, values ? values : poison, sizeof poison, NULL), DM_OK);
}

/* Row r begins with first, first + 1, ..., live of them, and then poison. */
static void expect_far_row(const int32_t *table, int64_t row, int64_t live, int32_t first)
{
    int32_t got[FAR_PROBE];
    ck_assert_int_eq(dm_download(ctx, got, table + row * FAR_STRIDE, sizeof got, NULL), DM_OK);
    for (int32_t c = 0; c < FAR_PROBE; c++) {
        const int32_t want = c < live ? first + c : (int32_t)0xa5a5a5a5;
        if (got[c] != want)
            ck_abort_msg("row %d, column %d: expected %d, got %d", (int)row, (int)c, (int)want, (int)got[c]);
    }
}

/* Two requests, of slots 128, 129, ... */
static dm_fill_desc far_fill(void)
{
    int32_t slots[FAR_PROBE];
    for (int32_t c = 0; c < FAR_PROBE; c++)
        slots[c] = 128 + c;
    dm_fill_desc d = {.size = sizeof d, .num_requests = 2, .page_size = 64};
    d.req_to_token = (dm_table){put(slots, FAR_PROBE), 1, FAR_PROBE, 0, DM_INT32};
    d.req_pool_indices = input(INTS(0, 0));
    return d;
}

/* SGLang: row offsets in 32 bits broke at a context of a million. The first request has most of the rows, with KV
 * tokens or without. Loops over that and the two tables. */
START_TEST(rows_are_written_beyond_2_31_elements)
{
    const bool pages = _i & 1, all = _i & 2;
    int32_t *table;
    const int64_t rows = far_table(&table), live = pages ? (FAR_KV + 63) / 64 : FAR_KV;
    dm_fill_desc d = far_fill();
    d.seq_lens = input(INTS(all ? FAR_KV : 0, FAR_KV));
    d.extend_lens = input(INTS((int32_t)rows - FAR_LIVE, FAR_LIVE));
    *(pages ? &d.page_table : &d.page_table_1) = (dm_table){table, rows, FAR_STRIDE, 0, DM_INT32};
    for (int64_t row = 0; row < rows; row++)
        load_far_row(table, row, NULL);
    if (rows)
        fill_by_hand(&d);
    for (int64_t row = 0; row < rows; row++) /* page 2 begins with slot 128 */
        expect_far_row(table, row, all || row >= rows - FAR_LIVE ? live : 0, pages ? 2 : 128);
    ck_assert_int_eq(dm_free(ctx, table), DM_OK);
}
END_TEST

static void load_far_slots(int32_t *table, int64_t row)
{
    int32_t slots[FAR_PROBE];
    for (int32_t c = 0; c < FAR_PROBE; c++)
        slots[c] = 1000000 + c;
    load_far_row(table, row, slots);
}

START_TEST(rows_are_read_beyond_2_31_elements)
{
    const int32_t x = (int32_t)0xa5a5a5a5; /* untouched */
    int32_t *table;
    const int64_t rows = far_table(&table);
    if (!rows)
        return;
    load_far_slots(table, rows - 1);
    dm_fill_desc d = {.size = sizeof d, .num_requests = 1, .extend_len = 1}, e = engine_fill(1);
    d.seq_lens = input(INTS(3));
    d.req_to_token = e.req_to_token = (dm_table){table, rows, FAR_STRIDE, 0, DM_INT32};
    d.req_pool_indices = e.req_pool_indices = input(INTS((int32_t)rows - 1));
    d.page_table_1 = (dm_table){output(4).data, 1, 4, 0, DM_INT32};
    fill_by_hand(&d);
    expect("page_table_1", d.page_table_1.data, INTS(1000000, 1000001, 1000002, x));
    expect_nothing_else();
    e.page_table = (dm_table){output(4).data, 1, 4, 0, DM_INT32};
    fill_by_hand(&e);
    expect("page_table", e.page_table.data, INTS(1000000, 1000001, 1000002, x));
    expect_engine_fill(&e);
    ck_assert_int_eq(dm_free(ctx, table), DM_OK);
}
END_TEST

/* Strides that 32 bits do not hold: engines' fills, but for no kernel that has strides in 32 bits. */
enum { FAR_ROW = 4097 };
static const int64_t far_stride = (int64_t)FAR_ROW * FAR_STRIDE;

/* Whether the second row is in memory; if not, says so. */
static bool has_far_row(int32_t **table)
{
    if (far_table(table) > FAR_ROW)
        return true;
    printf("SKIP a stride beyond 2^32 elements: there is no memory for the second row\n");
    ck_assert_int_eq(dm_free(ctx, *table), DM_OK);
    return false;
}

START_TEST(an_outputs_stride_beyond_2_32)
{
    int32_t *table;
    if (!has_far_row(&table))
        return;
    load_far_row(table, 0, NULL);
    load_far_row(table, FAR_ROW, NULL);
    dm_fill_desc d = engine_fill(2);
    d.req_to_token = (dm_table){input(INTS(7, 8, 9, 10)).data, 1, 4, 0, DM_INT32};
    d.page_table = (dm_table){table, 2, FAR_PROBE, far_stride, DM_INT32};
    fill_by_hand(&d);
    expect_far_row(table, 0, 3, 7);
    expect_far_row(table, FAR_ROW, 3, 7);
    expect_engine_fill(&d);
    ck_assert_int_eq(dm_free(ctx, table), DM_OK);
}
END_TEST

START_TEST(a_sources_stride_beyond_2_32)
{
    int32_t *table;
    if (!has_far_row(&table))
        return;
    load_far_slots(table, FAR_ROW);
    dm_fill_desc d = engine_fill(1);
    d.req_to_token = (dm_table){table, 2, FAR_PROBE, far_stride, DM_INT32};
    d.req_pool_indices = input(INTS(1));
    d.page_table = (dm_table){output(3).data, 1, 3, 0, DM_INT32};
    fill_by_hand(&d);
    expect("page_table", d.page_table.data, INTS(1000000, 1000001, 1000002));
    expect_engine_fill(&d);
    ck_assert_int_eq(dm_free(ctx, table), DM_OK);
}
END_TEST

/* ---- Streams of a GPU ------------------------------------------------------------------------------------------ */

typedef struct two_streams {
    gpu_queue *captured, *beside;
    draft_extend calls[2]; /* in the capture, and repeated beside it */
} two_streams;

static dm_status enqueue_on(const gpu_queue *q, const draft_extend *x)
{
    return dm_fill_draft_extend(ctx, x->extend, x->seq, x->requests, 16, x->expanded, x->sparse, 10, NULL,
                                gpu_queue_stream(q));
}

static void fill_and_repeat(void *arg)
{
    const two_streams *s = arg;
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(enqueue_on(s->beside, &s->calls[1]), DM_OK);
    ck_assert_int_eq(enqueue_on(s->captured, &s->calls[0]), DM_OK);
}

START_TEST(fills_repeat_beside_a_capture)
{
    two_streams s = {gpu_queue_open(ctx), gpu_queue_open(ctx), {example_call(), example_call()}};
    gpu_graph *graph = gpu_graph_capture(s.captured, fill_and_repeat, &s);
    gpu_queue_wait(s.beside);
    gpu_graph_launch(graph);
    gpu_queue_wait(s.captured);
    for (int i = 0; i < 2; i++) {
        const draft_extend *x = &s.calls[i];
        expect("out_seqlens_expanded", x->expanded, INTS(9, 10, 13, 14, 15, 16, 17, 18, 19, 20));
        expect("out_dsa_cache_seqlens", x->sparse, INTS(9, 10, 13, 14, 15, 16, 16, 16, 16, 16));
    }
    expect_nothing_else();
    gpu_graph_free(graph);
    gpu_queue_close(s.captured);
    gpu_queue_close(s.beside);
}
END_TEST

/* ---- The suite ------------------------------------------------------------------------------------------------- */

static void add_tests(Suite *suite, const char *name, const TTest *const *tests, size_t count)
{
    TCase *tcase = tcase_create(name);
    tcase_add_checked_fixture(tcase, reset_arena, NULL);
    for (size_t i = 0; i < count; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
}

#define ADD_TESTS(suite, name, ...)                                                                                    \
    add_tests(suite, name, (const TTest *const[]){__VA_ARGS__}, LENGTH(((const TTest *const[]){__VA_ARGS__})))

static void add_lengths_alone(Suite *suite)
{
    TCase *tcase = tcase_create("lengths alone");
    tcase_add_loop_test(tcase, lengths_alone, 0, 3);
    suite_add_tcase(suite, tcase);
}

static void add_schedules(Suite *suite)
{
    TCase *tcase = tcase_create("schedules");
    tcase_add_loop_test(tcase, schedules, DM_SCHEDULE_SMXX, DM_SCHEDULE_SM100 + 1);
    tcase_add_test(tcase, schedules_of_dropped_tokens);
    tcase_add_test(tcase, schedules_of_huge_lengths);
    suite_add_tcase(suite, tcase);
}

/* The most of the suite's time over the test drivers. */
static void add_slow(Suite *suite)
{
    TCase *tcase = tcase_create("slow");
    tcase_set_tags(tcase, "slow");
    tcase_add_test(tcase, threads_share_a_context);
    tcase_add_test(tcase, schedules_of_ranks);
    suite_add_tcase(suite, tcase);
}

static void add_large(Suite *suite)
{
    TCase *tcase = tcase_create("large");
    tcase_set_tags(tcase, "large");
    tcase_add_checked_fixture(tcase, reset_arena, NULL);
    tcase_add_test(tcase, a_large_batch);
    tcase_add_loop_test(tcase, requests_by_the_ten_thousands, 0, 4);
    tcase_add_test(tcase, requests_that_leave_row_blocks_over);
    tcase_add_test(tcase, a_prefill_among_decodes);
    tcase_add_test(tcase, wide_page_tables);
    suite_add_tcase(suite, tcase);
}

/* The host has this in test_cpu, where it takes little memory. */
static void add_far_rows(Suite *suite)
{
    TCase *tcase = tcase_create("far rows");
    tcase_set_tags(tcase, "large");
    tcase_add_checked_fixture(tcase, reset_arena, NULL);
    tcase_add_loop_test(tcase, rows_are_written_beyond_2_31_elements, 0, 4);
    tcase_add_test(tcase, rows_are_read_beyond_2_31_elements);
    tcase_add_test(tcase, an_outputs_stride_beyond_2_32);
    tcase_add_test(tcase, a_sources_stride_beyond_2_32);
    suite_add_tcase(suite, tcase);
}

static Suite *fill_suite(bool on_device)
{
    Suite *suite = suite_create("fill");
    ADD_TESTS(suite, "example", the_seeds_example_lengths, the_seeds_example_tables, an_empty_batch, a_single_token);
    ADD_TESTS(suite, "bugs of others", padded_requests_have_no_negative_lengths,
              prefixes_are_laid_out_alike_at_capture_and_replay, page_tables_are_not_overrun_near_the_maximum_context,
              page_tables_without_columns, all_rows_are_written_whatever_the_width_of_a_warp,
              lengths_are_read_when_the_stream_gets_there, schedules_of_no_work_are_sentinels,
              padding_repeats_prefixes_and_has_requests_of_its_own);
    ADD_TESTS(suite, "lengths", lengths_of_both_types, fewer_kv_tokens_than_queries, requests_without_queries,
              pooled_keys, context_per_request, context_of_ranks_and_compressed_caches, ranks_count_their_own_tokens,
              one_buffer_for_three_lengths);
    add_lengths_alone(suite);
    ADD_TESTS(suite, "page tables", page_sizes, strided_tables);
    ADD_TESTS(suite, "sizes", sets_that_are_cut_off, each_output_alone, nothing_but_the_report, padded_tails,
              small_buffers, more_rows_and_columns_than_32_bits_count, the_smallest_output_counts);
    ADD_TESTS(suite, "hostile", extreme_lengths, extreme_start_locations, extreme_constants, pool_indices_out_of_range,
              sums_beyond_int32);
    add_schedules(suite);
    ADD_TESTS(suite, "many", eight_fills_in_one_call, twelve_fills_in_one_call, no_fills);
    ADD_TESTS(suite, "report", a_report_is_sticky, a_report_keeps_what_the_caller_put_there);
    ADD_TESTS(suite, "draft extend", draft_extend_writes_the_example, draft_extend_writes_the_prefix_that_fits,
              draft_extend_without_outputs_counts, draft_extend_of_nothing, draft_extend_of_hostile_lengths);
    add_slow(suite);
    ADD_TESTS(suite, "generated", generated_cases);
    add_large(suite);
    if (on_device) {
        ADD_TESTS(suite, "streams", fills_repeat_beside_a_capture);
        add_far_rows(suite);
    }
    return suite;
}

/* ---- The backend ----------------------------------------------------------------------------------------------- */

/* EXIT_SUCCESS with ctx open, else the status to exit with: 77 where the backend is only missing and may be. */
static int open_backend(void)
{
    const char *wanted = getenv("DRAFTMETA_BACKEND"), *required = getenv("DRAFTMETA_REQUIRE");
    if (required && !*required)
        required = NULL;
    const dm_options options = {.size = sizeof options, .backend = wanted && *wanted ? NULL : required};
    const dm_status status = dm_open(&options, &ctx);
    if (status == DM_OK)
        return EXIT_SUCCESS;
    const bool must = required && (options.backend || !strcmp(wanted, required));
    const bool skip = status == DM_ERR_NO_BACKEND && !must;
    printf("%s: %s\n", skip ? "SKIP" : "FAIL", dm_last_error());
    return skip ? SKIPPED : EXIT_FAILURE;
}

/* Tells which backend it is; returns whether its memory is not the host's. */
static bool tell_backend(void)
{
    dm_backend_info info = {.size = sizeof info};
    if (dm_context_info(ctx, &info) != DM_OK)
        return false;
    printf("backend %s, device %s\n", info.name, info.device_name);
    fflush(stdout);
    return strcmp(info.name, "cpu") != 0;
}

/* A GPU's context does not survive a fork. */
static int run_suite(bool on_device)
{
    SRunner *runner = srunner_create(fill_suite(on_device));
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(void)
{
    const int opened = open_backend();
    if (opened != EXIT_SUCCESS)
        return opened;
    const bool on_device = tell_backend();
    void *memory;
    if (dm_malloc(ctx, ARENA_BYTES, &memory) != DM_OK) {
        printf("FAIL: %s\n", dm_last_error());
        return EXIT_FAILURE;
    }
    arena = memory;
    against_oracle = checker_new(ctx);
    const int result = run_suite(on_device);
    checker_free(against_oracle);
    dm_free(ctx, arena);
    dm_close(ctx);
    return result;
}
