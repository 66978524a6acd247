/* draftmeta bench: CUPTI's records, over a fake of it, the rows, and the bars. */
#include <dlfcn.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "bench_rows.h"
#include "bench_time.h"
#include "cupti.h"
#include "suite.h"

/* ---- CUPTI ---------------------------------------------------------------------------------------------------- */

enum { KERNEL = 10, SYNCHRONIZATION = 38 };

static const char *fake(const char *name)
{
    static char path[4200];
    char self[4096] = {0};
    ck_assert_int_gt(readlink("/proc/self/exe", self, sizeof self - 1), 0);
    snprintf(path, sizeof path, "%s/drivers/%s.so", dirname(self), name);
    return path;
}

static cupti *start(void)
{
    const char *why = NULL;
    cupti *c = cupti_load(fake("cupti"), &why);
    ck_assert_msg(c, "%s", why);
    ck_assert_ptr_null(cupti_start(c, bench_time_wants));
    return c;
}

static void add(uint32_t kind, uint64_t begin, uint64_t end, const char *name)
{
    void (*fake_add)(uint32_t, uint64_t, uint64_t, const char *);
    void *library = dlopen(fake("cupti"), RTLD_NOW | RTLD_NOLOAD);
    *(void **)&fake_add = dlsym(library, "fake_cupti_add");
    fake_add(kind, begin, end, name);
    dlclose(library);
}

START_TEST(records_come_in_order)
{
    cupti *c = start();
    cupti_kernel kernels[4] = {{0}};
    add(KERNEL, 300, 340, "draftmeta_fill_step");
    add(KERNEL, 100, 132, "draftmeta_fill");
    add(KERNEL, 150, 250, "draftmeta_foreign_3");
    add(SYNCHRONIZATION, 10, 20, "draftmeta_fill");
    add(KERNEL, 260, 261, "draftmeta_empty");
    add(KERNEL, 0, 0, "draftmeta_fill"); /* could not be timed */
    ck_assert_uint_eq(cupti_take(c, kernels, 4), 3);
    ck_assert_uint_eq(kernels[0].start, 100);
    ck_assert_uint_eq(kernels[0].end, 132);
    ck_assert_uint_eq(kernels[1].start, 260);
    ck_assert_uint_eq(kernels[2].end, 340);
    ck_assert_uint_eq(cupti_take(c, kernels, 4), 0);
    cupti_close(c);
}
END_TEST

START_TEST(more_records_than_asked_for)
{
    enum { MANY = 10000 };
    cupti *c = start();
    cupti_kernel kernels[2];
    for (int i = 0; i < MANY; i++)
        add(KERNEL, (uint64_t)(2 * MANY - i), (uint64_t)(3 * MANY), "draftmeta_fill");
    ck_assert_uint_eq(cupti_take(c, kernels, 2), MANY);
    ck_assert_uint_eq(kernels[0].start, MANY + 1);
    ck_assert_uint_eq(kernels[1].start, MANY + 2);
    cupti_close(c);
}
END_TEST

START_TEST(no_cupti)
{
    const char *why = NULL;
    ck_assert_ptr_null(cupti_load("/nowhere/libcupti.so", &why));
    ck_assert_str_eq(why, "the library cannot be opened");
    ck_assert_ptr_null(cupti_load(fake("cuda_good"), &why));
    ck_assert_str_eq(why, "the library lacks entry points of CUPTI's");
    cupti *c = cupti_load(fake("cupti"), &why);
    ck_assert_ptr_nonnull(c);
    setenv("FAKE_CUPTI_FAILS", "1", 1);
    ck_assert_str_eq(cupti_start(c, bench_time_wants), "cuptiActivityEnable fails");
    cupti_close(c);
    cupti_close(NULL);
}
END_TEST

/* ---- Rows ----------------------------------------------------------------------------------------------------- */

static int find(const bench_row *rows, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(rows[i].name, name) == 0)
            return i;
    ck_abort_msg("there is no row %s", name);
}

START_TEST(rows_have_names_of_their_own)
{
    int count, peers = 0;
    bench_row *rows = bench_rows(&count);
    for (int i = 0; i < count; i++) {
        ck_assert_int_le(strlen(rows[i].name), 33); /* the table's column */
        ck_assert_ptr_eq(rows[i].work.name, rows[i].name);
        ck_assert_int_eq(find(rows, count, rows[i].name), i);
        ck_assert_int_lt(rows[i].base, i);
        peers += !!rows[i].peer;
    }
    ck_assert_int_eq(peers, 8);
    free(rows);
}
END_TEST

/* What engines ask for, on the host. */
START_TEST(engine_rows_equal_the_oracle)
{
    int count;
    dm_context *ctx;
    bench_row *rows = bench_rows(&count);
    const dm_options options = {.size = sizeof options, .backend = "cpu"};
    ck_assert_int_eq(dm_open(&options, &ctx), DM_OK);
    for (int i = 0; i < count; i++) {
        if (rows[i].work.requests > 48 || rows[i].work.context > 3000)
            continue;
        image *img = workload_image(&rows[i].work, rows[i].fills, 1);
        ck_assert_msg(bench_check(ctx, &rows[i].work, img) == TOOL_GOOD, "%s", rows[i].name);
        const workload_traffic traffic = workload_traffic_of(img);
        ck_assert_int_gt(traffic.bytes_written, traffic.table_bytes);
        image_free(img);
    }
    dm_close(ctx);
    free(rows);
}
END_TEST

/* ---- Bars ----------------------------------------------------------------------------------------------------- */

static bench_result results[BENCH_MOST_ROWS];

static void set_times(int row, double warm, double cold)
{
    results[row].selected = true;
    results[row].columns[BENCH_WARM].median = warm;
    results[row].columns[BENCH_COLD].median = cold;
}

/* The states of the row's bars, a letter each. */
static const char *judged(const bench_row *rows, int row, bool durations, double copy_rate)
{
    static char letters[BENCH_MOST_BARS + 1];
    bench_verdict verdicts[BENCH_MOST_BARS];
    const int count = bench_judge(rows, results, row, durations, copy_rate, verdicts);
    for (int k = 0; k < count; k++)
        letters[k] = verdicts[k].state == BENCH_MET ? 'm' : verdicts[k].state == BENCH_MISSED ? 'M' : '?';
    letters[count] = 0;
    return letters;
}

START_TEST(bars_beside_sglang)
{
    int count;
    bench_row *rows = bench_rows(&count);
    const int verify = find(rows, count, "verify 48x3000 +pt1"), one = find(rows, count, "decode 1x300 +pt1");
    set_times(verify, 8.67 / 2 * 1.049, 4.0); /* cold against SGLang, warm against SGLang, cold at most 4 us */
    ck_assert_str_eq(judged(rows, verify, true, 0), "mmm");
    set_times(verify, 8.67 / 2 * 1.051, 4.01);
    ck_assert_str_eq(judged(rows, verify, true, 0), "mMM");
    set_times(verify, 0, 4.7);
    ck_assert_str_eq(judged(rows, verify, true, 0), "M?M");
    ck_assert_str_eq(judged(rows, verify, false, 0), "???");
    set_times(one, 1.15 * 1.1 * 1.049, 1.63 * 1.1 * 1.051);
    ck_assert_str_eq(judged(rows, one, true, 0), "Mmm");
    free(rows);
}
END_TEST

START_TEST(bars_beside_our_own)
{
    int count;
    bench_row *rows = bench_rows(&count);
    const int base = find(rows, count, "vllm decode 8x300"), more = find(rows, count, "vllm decode 8x300 +schedule");
    set_times(more, 2.0, 3.0);
    ck_assert_str_eq(judged(rows, more, true, 0), "m"); /* the base was not selected */
    set_times(base, 1.0, 2.0);
    ck_assert_str_eq(judged(rows, more, true, 0), "mMm");
    set_times(base, 0, 2.0);
    ck_assert_str_eq(judged(rows, more, true, 0), "m?m");
    free(rows);
}
END_TEST

START_TEST(bars_beside_a_copy)
{
    int count;
    bench_row *rows = bench_rows(&count);
    const int row = find(rows, count, "page-table-1 256x4 128k");
    set_times(row, 100, 1000);
    results[row].bytes = 84e6;
    ck_assert_str_eq(judged(rows, row, true, 1e6), "M");
    ck_assert_str_eq(judged(rows, row, true, 0.98e6), "m");
    ck_assert_str_eq(judged(rows, row, true, 0), "?");
    free(rows);
}
END_TEST

START_TEST(bars_of_lengths)
{
    int count;
    bench_row *rows = bench_rows(&count);
    const int few = find(rows, count, "lengths 256x1..5"), many = find(rows, count, "lengths int64 1024x1..5");
    set_times(few, 100, 2.2);
    ck_assert_str_eq(judged(rows, few, true, 0), "m");
    set_times(few, 1, 2.21);
    ck_assert_str_eq(judged(rows, few, true, 0), "M");
    set_times(many, 100, 100);
    ck_assert_str_eq(judged(rows, many, true, 0), "");
    free(rows);
}
END_TEST

int main(void)
{
    const TTest *tests[] = {records_come_in_order,        more_records_than_asked_for,  no_cupti,
                            rows_have_names_of_their_own, engine_rows_equal_the_oracle, bars_beside_sglang,
                            bars_beside_our_own,          bars_beside_a_copy,           bars_of_lengths};
    Suite *suite = suite_create("bench");
    TCase *tcase = tcase_create("bench");
    tcase_set_timeout(tcase, 120);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
