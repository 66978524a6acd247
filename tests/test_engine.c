/* The simulated serving engine and the trace parser of `draftmeta replay`.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L /* fmemopen */

#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "suite.h"
#include "trace.h"

/* ---- Engines that run to the end ------------------------------------------------------------------------------ */

enum { NUM_REQUESTS = 200 };

static trace_request requests[NUM_REQUESTS];
static const trace busy = {requests, NUM_REQUESTS};

/* Requests of 1 to 300 + 1 to 60 tokens, in bursts: about ten wait at any time. */
static void make_requests(void)
{
    rng r = rng_seeded(1, 0);
    int64_t arrival = 0;
    for (int i = 0; i < NUM_REQUESTS; i++) {
        arrival += rng_chance(&r, 20) ? rng_between(&r, 0, 2000) : 0;
        requests[i] = (trace_request){arrival, (int32_t)rng_between(&r, 1, 300), (int32_t)rng_between(&r, 1, 60)};
    }
}

/* 60 pages of 16 tokens for up to 8 requests of up to 23: pages run out all the time. */
static engine_config crowded(void)
{
    return (engine_config){.max_requests = 8,
                           .draft_tokens = 4,
                           .accept_rate = 0.7,
                           .page_size = 16,
                           .pages = 60,
                           .max_context = 400,
                           .step_us = 30000,
                           .prefill_ns = 20000,
                           .seed = 7};
}

static engine *start(const engine_config *config, const trace *t)
{
    engine *e = engine_new(config, t);
    ck_assert_ptr_nonnull(e);
    return e;
}

static const int32_t *row_of(const engine *e, const engine_request *r)
{
    return e->table + (size_t)r->row * (size_t)e->columns;
}

static void finish(engine *e)
{
    while (engine_begin_step(e))
        engine_end_step(e);
}

/* ---- Pages and rows ------------------------------------------------------------------------------------------- */

static void claim(unsigned char *owned, int32_t thing, int32_t most)
{
    ck_assert_int_ge(thing, 1);
    ck_assert_int_le(thing, most);
    ck_assert_msg(!owned[thing], "page or row %d is owned twice", thing);
    owned[thing] = 1;
}

/* Every page and every row belongs to one request or to the free stack. */
static void check_owners(const engine *e)
{
    unsigned char pages[1024] = {0}, rows[64] = {0};
    int32_t num_pages = e->num_free_pages;
    for (int32_t i = 0; i < e->num_free_pages; i++)
        claim(pages, e->free_pages[i], e->config.pages);
    for (int32_t i = 0; i < e->num_free_rows; i++)
        claim(rows, e->free_rows[i], e->config.max_requests);
    for (int32_t i = 0; i < e->batch_size; i++) {
        const engine_request *r = &e->batch[i];
        claim(rows, r->row, e->config.max_requests);
        for (int32_t p = 0; p < r->pages; p++)
            claim(pages, row_of(e, r)[p * e->config.page_size] / e->config.page_size, e->config.pages);
        num_pages += r->pages;
    }
    ck_assert_int_eq(num_pages, e->config.pages);
    ck_assert_int_eq(e->num_free_rows + e->batch_size, e->config.max_requests);
}

START_TEST(pages_and_rows_have_one_owner)
{
    const engine_config config = crowded();
    engine *e = start(&config, &busy);
    check_owners(e);
    while (engine_begin_step(e)) {
        check_owners(e);
        engine_end_step(e);
        check_owners(e);
    }
    engine_free(e);
}
END_TEST

START_TEST(pages_and_rows_come_back)
{
    const engine_config config = crowded();
    engine *e = start(&config, &busy);
    finish(e);
    ck_assert_int_eq(e->num_free_pages, config.pages);
    ck_assert_int_eq(e->num_free_rows, config.max_requests);
    engine_free(e);
}
END_TEST

START_TEST(slots_are_those_of_whole_pages)
{
    const engine_config config = crowded();
    engine *e = start(&config, &busy);
    while (engine_begin_step(e)) {
        for (int32_t i = 0; i < e->batch_size; i++) {
            const int32_t *row = row_of(e, &e->batch[i]);
            ck_assert_int_eq(e->batch[i].pages, engine_pages_of(&config, e->batch[i].context));
            for (int32_t c = 0; c < e->batch[i].pages * config.page_size; c++)
                ck_assert_int_eq(row[c], row[c - c % config.page_size] + c % config.page_size);
        }
        engine_end_step(e);
    }
    engine_free(e);
}
END_TEST

START_TEST(changes_are_all_that_changed)
{
    const engine_config config = crowded();
    engine *e = start(&config, &busy);
    const size_t bytes = (size_t)e->rows * (size_t)e->columns * sizeof *e->table;
    int32_t *mirror = calloc(1, bytes);
    ck_assert_ptr_nonnull(mirror);
    while (engine_begin_step(e)) {
        ck_assert_int_le(e->num_changes, config.max_requests);
        for (int32_t i = 0; i < e->num_changes; i++) {
            const engine_change *c = &e->changes[i];
            const size_t first = (size_t)c->row * (size_t)e->columns + (size_t)c->first;
            memcpy(mirror + first, e->table + first, (size_t)c->count * sizeof *mirror);
        }
        ck_assert_mem_eq(mirror, e->table, bytes);
        engine_end_step(e);
    }
    free(mirror);
    engine_free(e);
}
END_TEST

START_TEST(tables_are_not_contiguous)
{
    const engine_config config = crowded();
    engine *e = start(&config, &busy);
    int64_t jumps = 0, rows_elsewhere = 0;
    while (engine_begin_step(e)) {
        for (int32_t i = 0; i < e->batch_size; i++) {
            const int32_t *row = row_of(e, &e->batch[i]);
            rows_elsewhere += e->batch[i].row != i;
            for (int32_t p = 1; p < e->batch[i].pages; p++)
                jumps += row[p * config.page_size] != row[p * config.page_size - 1] + 1;
        }
        engine_end_step(e);
    }
    ck_assert_int_gt(jumps, 100);
    ck_assert_int_gt(rows_elsewhere, 100);
    engine_free(e);
}
END_TEST

START_TEST(padding_row_and_page_stay_unused)
{
    const engine_config config = crowded();
    engine *e = start(&config, &busy);
    finish(e);
    for (int32_t c = 0; c < e->columns; c++)
        ck_assert_int_eq(e->table[c], 0);
    engine_free(e);
}
END_TEST

/* ---- Requests ------------------------------------------------------------------------------------------------- */

START_TEST(requests_get_exactly_their_tokens)
{
    const engine_config config = crowded();
    engine *e = start(&config, &busy);
    finish(e);
    int64_t tokens = 0;
    for (int i = 0; i < NUM_REQUESTS; i++) {
        ck_assert_int_eq(e->produced[i], requests[i].output_tokens);
        tokens += requests[i].output_tokens;
    }
    ck_assert_int_eq(e->counts.tokens, tokens);
    ck_assert_int_eq(e->counts.admitted, NUM_REQUESTS);
    ck_assert_int_eq(e->counts.finished, NUM_REQUESTS);
    engine_free(e);
}
END_TEST

START_TEST(contexts_are_prompt_and_output)
{
    const engine_config config = crowded();
    engine *e = start(&config, &busy);
    while (engine_begin_step(e)) {
        ck_assert_int_ge(e->batch_size, 1);
        ck_assert_int_le(e->batch_size, config.max_requests);
        for (int32_t i = 0; i < e->batch_size; i++) {
            const engine_request *r = &e->batch[i];
            ck_assert_int_eq(r->context, requests[r->id].input_tokens + e->produced[r->id]);
            ck_assert_int_ge(r->accepted, 0);
            ck_assert_int_le(r->accepted, config.draft_tokens);
        }
        engine_end_step(e);
        for (int32_t i = 0; i < e->batch_size; i++)
            ck_assert_int_ge(e->batch[i].accepted, 1);
    }
    engine_free(e);
}
END_TEST

/* Runs one request of 10 output tokens; returns the steps it took. */
static int64_t steps_at(double accept_rate)
{
    trace_request one = {0, 5, 10};
    const trace t = {&one, 1};
    engine_config config = crowded();
    config.accept_rate = accept_rate;
    engine *e = start(&config, &t);
    finish(e);
    const int64_t steps = e->counts.steps;
    engine_free(e);
    return steps;
}

START_TEST(accept_rate_sets_the_pace)
{
    ck_assert_int_eq(steps_at(0), 10);
    ck_assert_int_eq(steps_at(1), 3); /* 4 + 4 + 2 */
}
END_TEST

START_TEST(requests_are_served_in_order)
{
    const engine_config config = crowded();
    engine *e = start(&config, &busy);
    while (engine_begin_step(e)) {
        for (int32_t i = 1; i < e->batch_size; i++)
            ck_assert_int_gt(e->batch[i].id, e->batch[i - 1].id);
        for (int32_t i = 0; i < e->num_preempted; i++)
            ck_assert_int_gt(e->preempted[i], e->batch[e->batch_size - 1].id);
        engine_end_step(e);
    }
    engine_free(e);
}
END_TEST

START_TEST(nobody_is_served_before_arriving)
{
    trace_request late[] = {{0, 5, 3}, {5000, 5, 3}, {9000, 5, 3}};
    const trace t = {late, 3};
    const engine_config config = crowded();
    engine *e = start(&config, &t);
    while (engine_begin_step(e)) {
        ck_assert_int_eq(e->batch_size, 1);
        ck_assert_int_ge(e->now_us, late[e->batch[0].id].arrival_ms * 1000);
        engine_end_step(e);
    }
    ck_assert_int_eq(e->counts.finished, 3);
    ck_assert_int_le(e->counts.steps, 9); /* idle time takes no steps */
    engine_free(e);
}
END_TEST

START_TEST(seeds_decide_everything)
{
    engine_config config = crowded();
    engine *a = start(&config, &busy), *b = start(&config, &busy);
    config.seed++;
    engine *other = start(&config, &busy);
    const size_t table_bytes = (size_t)a->rows * (size_t)a->columns * sizeof *a->table;
    while (engine_begin_step(a)) {
        ck_assert(engine_begin_step(b));
        ck_assert_int_eq(a->batch_size, b->batch_size);
        ck_assert_mem_eq(a->batch, b->batch, (size_t)a->batch_size * sizeof *a->batch);
        ck_assert_mem_eq(a->table, b->table, table_bytes);
        engine_end_step(a);
        engine_end_step(b);
    }
    finish(other);
    ck_assert(memcmp(a->table, other->table, table_bytes) != 0);
    engine_free(a);
    engine_free(b);
    engine_free(other);
}
END_TEST

/* ---- Preemption ----------------------------------------------------------------------------------------------- */

START_TEST(a_small_pool_preempts_and_finishes)
{
    const engine_config config = crowded();
    engine *e = start(&config, &busy);
    finish(e);
    ck_assert_int_gt(e->counts.preempted, 5);
    ck_assert_int_eq(e->counts.finished, NUM_REQUESTS);
    engine_free(e);
}
END_TEST

START_TEST(a_large_pool_never_preempts)
{
    engine_config config = crowded();
    config.pages = 8 * 23;
    engine *e = start(&config, &busy);
    finish(e);
    ck_assert_int_eq(e->counts.preempted, 0);
    engine_free(e);
}
END_TEST

/* Two requests that grow until only one fits: the newer one waits, and comes back with what it had. */
START_TEST(the_newest_is_preempted_and_resumes)
{
    trace_request two[] = {{0, 60, 80}, {0, 60, 80}};
    const trace t = {two, 2};
    engine_config config = crowded();
    config.pages = 12;
    engine *e = start(&config, &t);
    int32_t produced = 0;
    while (engine_begin_step(e)) {
        if (e->num_preempted > 0) {
            ck_assert_int_eq(e->preempted[0], 1);
            ck_assert_int_eq(e->batch[0].id, 0);
            produced = e->produced[1];
        } else if (e->batch[0].id == 1 && e->batch[0].accepted == 0) {
            ck_assert_int_eq(e->batch[0].context, 60 + produced);
        }
        engine_end_step(e);
    }
    ck_assert_int_ge(e->counts.preempted, 1);
    ck_assert_int_gt(produced, 0);
    ck_assert_int_eq(e->counts.finished, 2);
    engine_free(e);
}
END_TEST

/* ---- Traces --------------------------------------------------------------------------------------------------- */

#define HEADER "arrival_ms,input_tokens,output_tokens"
#define LINE_EXPECTED "expected " HEADER ": three non-negative integers, got "

static bool read_bytes(const char *bytes, size_t count, trace *t, char *error, size_t error_bytes)
{
    FILE *in = fmemopen((void *)(uintptr_t)bytes, count, "r");
    ck_assert_ptr_nonnull(in);
    const bool good = trace_read(in, "t.csv", 1000, t, error, error_bytes);
    fclose(in);
    return good;
}

static void check_good(const char *text)
{
    trace t;
    char error[256] = "";
    ck_assert_msg(read_bytes(text, strlen(text), &t, error, sizeof error), "%s", error);
    ck_assert_uint_eq(t.count, 2);
    ck_assert_int_eq(t.requests[0].arrival_ms, 0);
    ck_assert_int_eq(t.requests[0].input_tokens, 10);
    ck_assert_int_eq(t.requests[0].output_tokens, 1);
    ck_assert_int_eq(t.requests[1].arrival_ms, 5);
    ck_assert_int_eq(t.requests[1].input_tokens, 300);
    ck_assert_int_eq(t.requests[1].output_tokens, 700);
    trace_free(&t);
}

START_TEST(good_traces_are_read)
{
    check_good(HEADER "\n0,10,1\n5,300,700\n");
    check_good(HEADER "\n0,10,1\n5,300,700"); /* no newline at the end */
    check_good(HEADER "\r\n0,10,1\r\n5,300,700\r\n");
}
END_TEST

START_TEST(many_requests_are_read)
{
    FILE *in = tmpfile();
    ck_assert_ptr_nonnull(in);
    fputs(HEADER "\n", in);
    for (int i = 0; i < 5000; i++)
        fprintf(in, "%d,%d,%d\n", i, i % 500 + 1, i % 7 + 1);
    rewind(in);
    trace t;
    char error[256] = "";
    ck_assert_msg(trace_read(in, "t.csv", 1000, &t, error, sizeof error), "%s", error);
    ck_assert_uint_eq(t.count, 5000);
    ck_assert_int_eq(t.requests[4999].arrival_ms, 4999);
    ck_assert_int_eq(t.requests[4999].input_tokens, 500);
    trace_free(&t);
    fclose(in);
}
END_TEST

typedef struct bad_trace {
    const char *text, *error;
} bad_trace;

static const bad_trace bad_traces[] = {
    {"\n", "t.csv:1: expected the header " HEADER ", got \"\""},
    {"0,10,1\n", "t.csv:1: expected the header " HEADER ", got \"0,10,1\""},
    {HEADER ",x\n", "t.csv:1: expected the header " HEADER ", got \"" HEADER ",x\""},
    {HEADER "\n", "t.csv:2: " LINE_EXPECTED "the end of the file"},
    {HEADER "\n\n", "t.csv:2: " LINE_EXPECTED "\"\""},
    {HEADER "\n0,10,1\n1,2\n", "t.csv:3: " LINE_EXPECTED "\"1,2\""},
    {HEADER "\n0,10,1,4\n", "t.csv:2: " LINE_EXPECTED "\"0,10,1,4\""},
    {HEADER "\n0,10,\n", "t.csv:2: " LINE_EXPECTED "\"0,10,\""},
    {HEADER "\n0,-10,1\n", "t.csv:2: " LINE_EXPECTED "\"0,-10,1\""},
    {HEADER "\n0,+10,1\n", "t.csv:2: " LINE_EXPECTED "\"0,+10,1\""},
    {HEADER "\n0, 10,1\n", "t.csv:2: " LINE_EXPECTED "\"0, 10,1\""},
    {HEADER "\n0,10,1 \n", "t.csv:2: " LINE_EXPECTED "\"0,10,1 \""},
    {HEADER "\n0.5,10,1\n", "t.csv:2: " LINE_EXPECTED "\"0.5,10,1\""},
    {HEADER "\n0,0x10,1\n", "t.csv:2: " LINE_EXPECTED "\"0,0x10,1\""},
    {HEADER "\n0,1\x1b[2J,1\n", "t.csv:2: " LINE_EXPECTED "\"0,1?[2J,1\""},
    {HEADER "\n7,10,1\n6,10,1\n", "t.csv:3: expected an arrival_ms of at least 7, that of the line before, got 6"},
    {HEADER "\n1000000000001,1,1\n",
     "t.csv:2: expected an arrival_ms of at most 1000000000000, got \"1000000000001,1,1\""},
    {HEADER "\n99999999999999999999,1,1\n",
     "t.csv:2: expected an arrival_ms of at most 1000000000000, got \"99999999999999999999,1,1\""},
    {HEADER "\n0,0,1\n", "t.csv:2: expected at least one input token and one output token, got \"0,0,1\""},
    {HEADER "\n0,1,0\n", "t.csv:2: expected at least one input token and one output token, got \"0,1,0\""},
    {HEADER "\n0,1000,1\n", "t.csv:2: expected at most 1000 input and output tokens together, got \"0,1000,1\""},
    {HEADER "\n0,1,99999999999999999999\n",
     "t.csv:2: expected at most 1000 input and output tokens together, got \"0,1,99999999999999999999\""},
};

START_TEST(bad_traces_are_refused)
{
    const bad_trace *bad = &bad_traces[_i];
    trace t;
    char error[256] = "";
    ck_assert(!read_bytes(bad->text, strlen(bad->text), &t, error, sizeof error));
    ck_assert_str_eq(error, bad->error);
    ck_assert_ptr_null(t.requests);
    ck_assert_uint_eq(t.count, 0);
}
END_TEST

#define OVERLONG "t.csv:2: " LINE_EXPECTED "a line of more than 126 bytes, or with a NUL"

START_TEST(long_lines_are_refused)
{
    char text[4096];
    const size_t header = (size_t)snprintf(text, sizeof text, "%s\n", HEADER);
    memset(text + header, '1', sizeof text - header);
    trace t;
    char error[256] = "";
    ck_assert(!read_bytes(text, sizeof text, &t, error, sizeof error));
    ck_assert_str_eq(error, OVERLONG);
}
END_TEST

START_TEST(nul_bytes_are_refused)
{
    static const char text[] = HEADER "\n0,10,1\0junk\n";
    trace t;
    char error[256] = "";
    ck_assert(!read_bytes(text, sizeof text - 1, &t, error, sizeof error));
    ck_assert_str_eq(error, OVERLONG);
}
END_TEST

START_TEST(files_that_are_none_are_refused)
{
    trace t;
    char error[256] = "";
    ck_assert(!trace_load("/nonexistent.csv", 1000, &t, error, sizeof error));
    ck_assert_str_eq(error, "/nonexistent.csv: cannot open: No such file or directory");
    ck_assert(!trace_load("/", 1000, &t, error, sizeof error));
    ck_assert_str_eq(error, "/:1: cannot read: Is a directory");
    ck_assert(!trace_load("/dev/null", 1000, &t, error, sizeof error));
    ck_assert_str_eq(error, "/dev/null:1: expected the header " HEADER ", got an empty file");
}
END_TEST

START_TEST(messages_fit_their_buffer)
{
    static const char text[] = HEADER "\n0,10\n";
    trace t;
    char error[16] = "";
    ck_assert(!read_bytes(text, sizeof text - 1, &t, error, sizeof error));
    ck_assert_str_eq(error, "t.csv:2: expect");
}
END_TEST

/* ---- The suite ------------------------------------------------------------------------------------------------ */

static TCase *engine_case(void)
{
    TCase *c = tcase_create("engine");
    tcase_add_checked_fixture(c, make_requests, NULL);
    tcase_add_test(c, pages_and_rows_have_one_owner);
    tcase_add_test(c, pages_and_rows_come_back);
    tcase_add_test(c, slots_are_those_of_whole_pages);
    tcase_add_test(c, changes_are_all_that_changed);
    tcase_add_test(c, tables_are_not_contiguous);
    tcase_add_test(c, padding_row_and_page_stay_unused);
    tcase_add_test(c, requests_get_exactly_their_tokens);
    tcase_add_test(c, contexts_are_prompt_and_output);
    tcase_add_test(c, accept_rate_sets_the_pace);
    tcase_add_test(c, requests_are_served_in_order);
    tcase_add_test(c, nobody_is_served_before_arriving);
    tcase_add_test(c, seeds_decide_everything);
    tcase_add_test(c, a_small_pool_preempts_and_finishes);
    tcase_add_test(c, a_large_pool_never_preempts);
    tcase_add_test(c, the_newest_is_preempted_and_resumes);
    return c;
}

static TCase *trace_case(void)
{
    TCase *c = tcase_create("trace");
    tcase_add_test(c, good_traces_are_read);
    tcase_add_test(c, many_requests_are_read);
    tcase_add_loop_test(c, bad_traces_are_refused, 0, (int)(sizeof bad_traces / sizeof bad_traces[0]));
    tcase_add_test(c, long_lines_are_refused);
    tcase_add_test(c, nul_bytes_are_refused);
    tcase_add_test(c, files_that_are_none_are_refused);
    tcase_add_test(c, messages_fit_their_buffer);
    return c;
}

int main(void)
{
    Suite *suite = suite_create("engine");
    suite_add_tcase(suite, engine_case());
    suite_add_tcase(suite, trace_case());
    return run_suite(suite);
}
