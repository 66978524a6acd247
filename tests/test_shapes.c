/* Fills of the shapes that engines have, which generated cases never are: the kernels for common kinds of jobs run
 * here. DRAFTMETA_BACKEND names the backend, else it is the one that dm_open picks; one that cannot be had is SKIP,
 * unless DRAFTMETA_REQUIRE is set. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "spec.h"

#define LENGTH(list) (sizeof(list) / sizeof *(list))

enum { SKIPPED = 77, SET_AND_SCHEDULE = WORKLOAD_SGLANG | WORKLOAD_SCHEDULE };

typedef struct shape {
    workload w;
    int fills; /* in one call */
} shape;

static dm_context *ctx;
static checker *against_oracle;

/* First those of docs/amd.md's table, which have a test case of their own. */
enum { SHAPES_OF_64 = 4 };
static const shape shapes[] = {
    {{"lengths", 64, 4, true, 8192, 0, 0, WORKLOAD_LENGTHS}, 1},
    {{"set", 64, 4, false, 8192, 0, 64, WORKLOAD_SGLANG}, 1},
    {{"set", 64, 4, true, 8192, 0, 64, WORKLOAD_SGLANG}, 1},
    {{"set+schedule", 64, 4, true, 8192, 0, 64, SET_AND_SCHEDULE}, 1},
    {{"expanded", 1, 1, false, 100, 0, 0, WORKLOAD_EXPANDED}, 1},
    {{"lengths", 3, 4, true, 1000, 0, 0, WORKLOAD_LENGTHS}, 1},
    {{"lengths", 300, 4, true, 1000, 0, 0, WORKLOAD_LENGTHS}, 1},
    {{"lengths", 3000, 40, true, 1000, 0, 0, WORKLOAD_LENGTHS}, 1},
    {{"set", 1, 4, false, 3000, 0, 64, WORKLOAD_SGLANG}, 1},
    {{"set", 2, 600, true, 300, 0, 64, WORKLOAD_SGLANG}, 1},
    {{"set", 8, 40, true, 3000, 0, 64, WORKLOAD_SGLANG}, 1},
    {{"set+schedule", 32, 4, true, 3000, 5000, 64, SET_AND_SCHEDULE}, 1},
    {{"set", 300, 4, true, 1000, 0, 64, WORKLOAD_SGLANG}, 1},
    {{"set", 1500, 2, true, 300, 0, 64, WORKLOAD_SGLANG}, 1},
    {{"set+schedule", 300, 4, true, 1000, 0, 64, SET_AND_SCHEDULE}, 1},
    {{"pools", 1, 4, false, 8192, 0, 64, WORKLOAD_SGLANG | WORKLOAD_POOLS}, 1},
    {{"pools", 5, 20, true, 3000, 0, 64, WORKLOAD_SGLANG | WORKLOAD_POOLS}, 1},
    {{"pools", 64, 4, true, 8192, 0, 64, WORKLOAD_SGLANG | WORKLOAD_POOLS}, 1},
    {{"pools+schedule", 300, 4, true, 1000, 0, 64, SET_AND_SCHEDULE | WORKLOAD_POOLS}, 1},
    {{"sets", 64, 4, true, 1000, 0, 64, WORKLOAD_SGLANG}, 8},
    {{"sets", 3, 40, true, 1000, 0, 64, WORKLOAD_SGLANG}, 5},
    {{"sets, pools", 50, 4, true, 1000, 0, 64, WORKLOAD_SGLANG | WORKLOAD_POOLS}, 2},
    {{"sets+schedules", 40, 4, true, 1000, 0, 16, SET_AND_SCHEDULE}, 3},
};

START_TEST(a_shape)
{
    const shape *s = &shapes[_i];
    image *img = workload_image(&s->w, s->fills, (uint64_t)_i + 1);
    const int status = bench_check(ctx, &s->w, img);
    image_free(img);
    ck_assert_msg(status == TOOL_GOOD, "shape %d, %s of %d requests", _i, s->w.name, s->w.requests);
}
END_TEST

/* ---- Sets of outputs, drawn within what the kernels for engines take -------------------------------------------- */

enum { MOST_REQUESTS = 1000, MOST_TOKENS = 4500, MOST_SCHEDULED = 511, SETS = 160, LOTS = 16 };

/* The batch of a set, and the arrays that it points to. */
typedef struct batch {
    fill_spec spec;
    int64_t seq[MOST_REQUESTS], extend[MOST_REQUESTS + 1], pool[MOST_REQUESTS];
} batch;

static int32_t one_of(rng *r, const int32_t *list, size_t count)
{
    return list[rng_between(r, 0, (int64_t)count - 1)];
}

#define ONE_OF(r, ...) one_of(r, (const int32_t[]){__VA_ARGS__}, LENGTH(((const int32_t[]){__VA_ARGS__})))

/* Around the sizes of warps, blocks and tiles. */
static void draw_requests(batch *b, rng *r, bool scheduled)
{
    fill_spec *s = &b->spec;
    const int32_t most = scheduled ? MOST_SCHEDULED : MOST_TOKENS;
    const int32_t n = ONE_OF(r, 1, 1, 2, 3, 4, 4, 5, 8, 60, 200, 256);
    s->requests = ONE_OF(r, 1, 2, 5, 8, 30, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 257, 511, 512, 1000);
    if (s->requests > most / n)
        s->requests = most / n;
    s->seq_type = rng_chance(r, 50) ? DM_INT64 : DM_INT32;
    s->query_type = rng_chance(r, 50) ? DM_INT64 : DM_INT32;
    s->seq_len_bias = rng_chance(r, 50) ? n : 0;
    if (rng_chance(r, 50)) {
        s->extend_len = n;
        return;
    }
    for (int32_t i = 0; i < s->requests; i++)
        b->extend[i] = rng_between(r, 0, n);
    s->extend_lens = b->extend;
    if (!rng_chance(r, 40))
        return;
    int64_t start = rng_between(r, 0, 9);
    for (int32_t i = 0; i <= s->requests; i++) {
        const int64_t q = b->extend[i];
        b->extend[i] = start;
        start += q;
    }
    s->query_start_loc = b->extend;
    s->extend_lens = NULL;
}

/* Lengths that a request can have, and some that none should. */
static void draw_lengths(batch *b, rng *r)
{
    static const int64_t wrong[] = {-1,        INT32_MAX, INT32_MIN, INT32_MAX - 3,
                                    1ll << 31, INT64_MIN, INT64_MAX, 1ll << 32};
    fill_spec *s = &b->spec;
    const bool hostile = rng_chance(r, 15);
    for (int32_t i = 0; i < s->requests; i++) {
        b->seq[i] = rng_between(r, 0, s->context + 20);
        if (hostile && rng_chance(r, 30))
            b->seq[i] = wrong[rng_between(r, 0, s->seq_type == DM_INT64 ? 7 : 3)];
        if (hostile && s->extend_lens && rng_chance(r, 10))
            b->extend[i] = wrong[rng_between(r, 0, s->query_type == DM_INT64 ? 7 : 3)];
    }
    s->seq_lens = b->seq;
}

static void draw_tables(batch *b, rng *r)
{
    fill_spec *s = &b->spec;
    s->context = ONE_OF(r, 1, 63, 130, 300);
    s->page_size = ONE_OF(r, 1, 16, 64);
    s->columns = rng_chance(r, 30) ? rng_between(r, 1, 2 * s->context) : 0;
    s->gap = rng_chance(r, 30) ? 5 : 0;
    s->negative_slots = rng_chance(r, 30);
    s->pool_rows = s->requests + 2;
    s->blocks = rng_chance(r, 15);
    if (s->blocks || rng_chance(r, 20))
        return;
    const bool hostile = rng_chance(r, 20);
    s->pool_type = rng_chance(r, 50) ? DM_INT64 : DM_INT32;
    for (int32_t i = 0; i < s->requests; i++) {
        b->pool[i] = rng_between(r, hostile ? -1 : 0, s->pool_rows - !hostile);
        if (hostile && s->pool_type == DM_INT64 && rng_chance(r, 10))
            b->pool[i] += 1ll << 32;
    }
    s->pool_indices = b->pool;
}

static void draw_schedules(fill_spec *s, rng *r)
{
    for (int i = 0; i < 2; i++)
        s->schedules[i] = (dm_schedule){
            .variant = (dm_schedule_variant)rng_between(r, DM_SCHEDULE_SMXX, DM_SCHEDULE_SM100),
            .unit = s->extend_len && rng_chance(r, 50) ? DM_UNIT_REQUEST : DM_UNIT_TOKEN,
            .slots = ONE_OF(r, 1, 13, 132, 600),
            .divisor = ONE_OF(r, 0, 1, 3, 4, 64),
        };
}

/* Of ragged requests with a schedule, at most as many tokens as a tile's units. */
static void draw_padding(fill_spec *s, rng *r, bool scheduled)
{
    const int64_t tokens = spec_tokens(s), most = scheduled ? MOST_SCHEDULED : MOST_TOKENS;
    const int64_t kept = tokens < most ? tokens : most;
    if (rng_chance(r, 40))
        s->padded_tokens = kept + rng_between(r, -2, 90);
    if (s->padded_tokens < 0 || s->padded_tokens > most)
        s->padded_tokens = 0;
    if (rng_chance(r, 40) && s->requests < (scheduled ? 480 : 940))
        s->padded_requests = s->requests + (int32_t)rng_between(r, -1, 30);
    if (tokens > most || rng_chance(r, 20)) {
        s->capacity = rng_chance(r, 50) || kept < 2 ? most : rng_between(r, s->extend_len ? kept : 1, kept + 5);
        s->capacity = s->capacity < 1 ? 1 : s->capacity > most ? most : s->capacity;
    }
    if (!s->capacity && !kept && !s->padded_tokens)
        s->capacity = 1;
}

static void draw_batch(batch *b, rng *r)
{
    fill_spec *s = &b->spec;
    const bool scheduled = rng_chance(r, 40);
    *s = (fill_spec){0};
    draw_requests(b, r, scheduled);
    draw_tables(b, r);
    draw_lengths(b, r);
    s->topk = ONE_OF(r, 5, 64, 2048);
    s->pool_size = ONE_OF(r, 1, 1, 4, 8);
    s->flags = rng_chance(r, 40) ? DM_FILL_FULL_ROWS : 0;
    s->wants = (unsigned)rng_between(r, 1, WANT_ALL) | (rng_chance(r, 60) ? WANT_LENGTHS : WANT_EXPANDED);
    if (s->extend_len && rng_chance(r, 30))
        s->flags |= DM_FILL_CONTEXT_PER_REQUEST;
    if (rng_chance(r, 20)) {
        s->dcp_world = 3;
        s->dcp_rank = (int32_t)rng_between(r, 0, 2);
        s->dcp_interleave = ONE_OF(r, 1, 16);
    }
    s->context_divisor = ONE_OF(r, 0, 0, 0, 4);
    s->no_report = rng_chance(r, 60);
    if (scheduled)
        draw_schedules(s, r);
    else
        s->wants &= ~(unsigned)WANT_SCHEDULES;
    draw_padding(s, r, scheduled);
}

static void check_image(image *img, const char *what, int index)
{
    mismatch m = {0};
    const dm_status status = checker_run(against_oracle, img, NULL, &m, NULL);
    image_free(img);
    ck_assert_msg(status == DM_OK && !m.found, "%s %d: %s", what, index, m.text);
}

/* One of the tables is narrower than the other in KV tokens, by a page or by a part of it. */
static void narrow_a_table(image *img, rng *r)
{
    dm_fill_desc *d = &img->descs[0];
    dm_table *table = rng_chance(r, 50) ? &d->page_table_1 : &d->page_table;
    if (!table->rows || !rng_chance(r, 30))
        return;
    table->row_stride = table->row_stride ? table->row_stride : table->cols;
    table->cols = rng_between(r, 0, table->cols);
}

/* Loops over lots, so that a failure's is soon run again. */
START_TEST(a_drawn_set)
{
    static batch b;
    for (int i = _i * SETS / LOTS; i < (_i + 1) * SETS / LOTS; i++) {
        rng r = rng_seeded(29, (uint64_t)i);
        draw_batch(&b, &r);
        image *img = image_new();
        spec_add(img, &b.spec);
        narrow_a_table(img, &r);
        image_finish(img);
        check_image(img, "drawn set", i);
    }
}
END_TEST

/* As many of them as a call takes: of steps alone, which have a kernel, or of any. */
START_TEST(drawn_sets_in_one_call)
{
    static batch b[DM_FILL_MANY_MAX];
    const int count = 2 + _i % (DM_FILL_MANY_MAX - 1);
    rng r = rng_seeded(31, (uint64_t)_i);
    image *img = image_new();
    for (int i = 0; i < count; i++) {
        do
            draw_batch(&b[i], &r);
        while (_i % 3 && !b[i].spec.extend_len);
        spec_add(img, &b[i].spec);
    }
    image_finish(img);
    check_image(img, "drawn sets of lot", _i);
}
END_TEST

/* Every number of requests around the sizes of tiles, with all outputs that need no schedule. */
START_TEST(a_set_of_any_size)
{
    static const int32_t requests[] = {1, 31, 32, 33, 255, 256, 511, 512, 1000};
    static batch b;
    rng r = rng_seeded(37, (uint64_t)_i);
    b.spec = (fill_spec){.requests = requests[_i], .context = 90, .topk = 40, .pool_size = 4, .no_report = true};
    b.spec.wants = WANT_ALL & ~WANT_SCHEDULES;
    draw_lengths(&b, &r);
    for (int32_t i = 0; i < b.spec.requests; i++)
        b.extend[i] = rng_between(&r, 0, 4);
    for (int32_t n = 0; n <= 4; n++) {
        b.spec.extend_lens = n ? NULL : b.extend;
        b.spec.extend_len = n;
        check_image(spec_image(&b.spec), "tokens", n);
    }
}
END_TEST

/* Prefixes that int32 just holds, and such that it does not: of KV tokens, and of those that are kept. */
START_TEST(narrow_sums_of_a_step)
{
    static const int64_t half[] = {1 << 30, 1 << 30, 0}, most[] = {INT32_MAX, INT32_MAX, INT32_MAX};
    static const int64_t quarters[] = {1 << 29, 1 << 29, (1 << 29) - 1}, just[] = {INT32_MAX - 2, 1, 1};
    static const int64_t *const lengths[] = {half, most, quarters, just};
    static const unsigned wants[] = {WANT_CU_K | WANT_EXPANDED, WANT_DSA_PREFIX};
    for (size_t i = 0; i < LENGTH(lengths) * LENGTH(wants); i++)
        for (int32_t n = 1; n <= 4; n += 3)
            for (int64_t capacity = 0; capacity <= 2; capacity++) { /* 0: of all tokens */
                fill_spec s = {.requests = 3, .extend_len = n, .topk = INT32_MAX, .context = 1, .capacity = capacity};
                s.seq_lens = lengths[i / LENGTH(wants)];
                s.wants = wants[i % LENGTH(wants)];
                check_image(spec_image(&s), "narrow sums", (int)i);
            }
}
END_TEST

/* Lengths alone of as many tokens for each request, which have a kernel: long runs, capacities that cut tokens off and
 * such that have room. */
START_TEST(static_lengths_alone)
{
    static const int32_t requests[] = {1, 31, 64, 65, 300}, tokens[] = {1, 3, 16, 17, 70};
    static batch b;
    rng r = rng_seeded(41, (uint64_t)_i);
    for (size_t i = 0; i < LENGTH(tokens); i++)
        for (int64_t room = -5; room <= 90; room += 95 / 2) {
            fill_spec *s = &b.spec;
            const int64_t wanted = (int64_t)requests[_i] * tokens[i];
            *s = (fill_spec){.requests = requests[_i], .extend_len = tokens[i], .context = 80, .topk = 50};
            s->seq_type = rng_chance(&r, 50) ? DM_INT64 : DM_INT32;
            s->seq_len_bias = rng_chance(&r, 50) ? tokens[i] : 0;
            s->wants = rng_chance(&r, 50) ? WANT_EXPANDED | WANT_DSA : rng_chance(&r, 50) ? WANT_EXPANDED : WANT_DSA;
            s->capacity = wanted + room > 0 ? wanted + room : 1;
            s->no_report = true;
            draw_lengths(&b, &r);
            check_image(spec_image(s), "tokens", tokens[i]);
        }
}
END_TEST

enum { HUGE_REQUESTS = 16600, HUGE_CAPACITY = (1 << 18) - 1 };

/* Sums of tokens stop at one more than the capacity: at 2^32 they would begin again. Loops over lengths alone, a set,
 * and that with a report. */
START_TEST(requests_of_more_tokens_than_32_bits_count)
{
    static int64_t seq[HUGE_REQUESTS], extend[HUGE_REQUESTS];
    for (int32_t i = 0; i < HUGE_REQUESTS; i++) {
        seq[i] = i % 7;
        extend[i] = INT32_MAX;
    }
    fill_spec s = {.requests = HUGE_REQUESTS, .seq_lens = seq, .extend_lens = extend, .capacity = HUGE_CAPACITY};
    s.wants = _i == 0 ? WANT_EXPANDED : WANT_EXPANDED | WANT_CU_Q | WANT_TABLE;
    s.context = 1;
    s.no_report = _i < 2;
    s.aligned = true;
    check_image(spec_image(&s), "huge requests", _i);
}
END_TEST

enum { SIZES = 9, CALLS = 18, ALONE = 5 };

static Suite *shapes_suite(void)
{
    Suite *suite = suite_create("shapes");
    TCase *of_64 = tcase_create("64"), *others = tcase_create("others");
    tcase_add_loop_test(of_64, a_shape, 0, SHAPES_OF_64);
    tcase_add_loop_test(others, a_shape, SHAPES_OF_64, (int)LENGTH(shapes));
    suite_add_tcase(suite, of_64);
    suite_add_tcase(suite, others);
    TCase *sets = tcase_create("sets");
    tcase_set_tags(sets, "drawn");
    tcase_add_loop_test(sets, a_set_of_any_size, 0, SIZES);
    tcase_add_loop_test(sets, a_drawn_set, 0, LOTS);
    tcase_add_loop_test(sets, drawn_sets_in_one_call, 0, CALLS);
    tcase_add_loop_test(sets, static_lengths_alone, 0, ALONE);
    tcase_add_test(sets, narrow_sums_of_a_step);
    suite_add_tcase(suite, sets);
    TCase *huge = tcase_create("huge");
    tcase_set_tags(huge, "drawn");
    tcase_add_loop_test(huge, requests_of_more_tokens_than_32_bits_count, 0, 3);
    suite_add_tcase(suite, huge);
    return suite;
}

/* A GPU's context does not survive a fork. */
int main(void)
{
    const dm_status status = dm_open(NULL, &ctx);
    if (status != DM_OK) {
        const char *required = getenv("DRAFTMETA_REQUIRE");
        const bool skip = status == DM_ERR_NO_BACKEND && !(required && *required);
        printf("%s: %s\n", skip ? "SKIP" : "FAIL", dm_last_error());
        return skip ? SKIPPED : EXIT_FAILURE;
    }
    against_oracle = checker_new(ctx);
    SRunner *runner = srunner_create(shapes_suite());
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    checker_free(against_oracle);
    dm_close(ctx);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
