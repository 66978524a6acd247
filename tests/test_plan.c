/* How the GPU backends lower jobs for the device (backends/gpu/plan.c): which kernel a fill gets, and that its blocks
 * reach everything. Nothing here is read or written: addresses are made up. */
#include <string.h>

#include "plan.h"
#include "suite.h"
#include "validate.h"

#define LENGTH(list) (sizeof(list) / sizeof *(list))

enum { MULTIPROCESSORS = 132, MADE_UP = 4096 };

static dm_vec vec(int64_t len)
{
    return (dm_vec){(void *)(uintptr_t)MADE_UP, len, DM_INT32};
}

static dm_table table(int64_t rows, int64_t cols)
{
    return (dm_table){(void *)(uintptr_t)MADE_UP, rows, cols, 0, DM_INT32};
}

/* What SGLang asks for: n tokens for each request, 0 for query lengths of their own; outputs of as many tokens as that
 * makes, or capacity. */
static dm_fill_desc set(int32_t requests, int32_t n, int64_t capacity)
{
    const int64_t tokens = capacity ? capacity : (int64_t)requests * n;
    dm_fill_desc d = {.size = sizeof d, .num_requests = requests, .extend_len = n, .topk = 2048, .page_size = 64};
    d.seq_lens = vec(requests);
    if (!n)
        d.extend_lens = vec(requests);
    d.req_to_token = table(requests, 8192);
    d.seqlens_expanded = d.dsa_cache_seqlens = vec(tokens);
    d.dsa_cu_seqlens_k = vec(tokens + 1);
    d.cu_seqlens_k = vec(requests + 1);
    d.page_table = table(tokens, 128);
    d.page_table_1 = table(tokens, 8192);
    return d;
}

static dm_fill_desc scheduled(dm_fill_desc d)
{
    d.schedules[0] = (dm_schedule){vec(2 * 133), DM_SCHEDULE_SM90, DM_UNIT_TOKEN, 132, 0};
    return d;
}

static dm_fill_desc reported(dm_fill_desc d)
{
    d.report = (dm_report *)(uintptr_t)MADE_UP;
    return d;
}

static dm_job job_of(const dm_fill_desc *d)
{
    dm_job job;
    ck_assert_int_eq(dm_validate(d, "", &job), DM_OK);
    return job;
}

static void expect_kind(const char *what, const dm_fill_desc *d, gpu_kind want)
{
    const dm_job job = job_of(d);
    const gpu_kind got = gpu_kind_of(&job);
    ck_assert_msg(got == want, "%s: kind %d, not %d", what, (int)got, (int)want);
}

/* ---- Kinds ------------------------------------------------------------------------------------------------------ */

START_TEST(what_engines_ask_for)
{
    dm_fill_desc d = set(64, 4, 0);
    expect_kind("static", &d, GPU_STEP);
    d = reported(d);
    expect_kind("with a report", &d, GPU_STEP);
    d = scheduled(d);
    expect_kind("and a schedule", &d, GPU_STEP);
    d.schedules[1] = (dm_schedule){vec(2 * 133), DM_SCHEDULE_SM100, DM_UNIT_REQUEST, 132, 3};
    expect_kind("of a divisor that is no power of two", &d, GPU_STEP);
    d.dcp_world = 2;
    expect_kind("of a rank", &d, GPU_STEP);
    d = set(64, 0, 320);
    expect_kind("extend_lens", &d, GPU_RAGGED);
    d.query_start_loc = (dm_vec){d.extend_lens.data, 65, DM_INT64};
    d.extend_lens = (dm_vec){0};
    expect_kind("query_start_loc", &d, GPU_RAGGED);
    d = scheduled(d);
    expect_kind("with a schedule", &d, GPU_RAGGED);
    d = reported(set(64, 0, 320));
    expect_kind("extend_lens with a report", &d, GPU_RAGGED);
    d = set(0, 4, 8);
    d.cu_seqlens_k = vec(4);
    d.padded_requests = 3;
    d.padded_tokens = 8;
    expect_kind("padding alone: no request to load", &d, GPU_ANY);
}
END_TEST

/* The last that a kernel for engines takes, and the first that it does not. */
START_TEST(bounds)
{
    const struct {
        const char *name;
        dm_fill_desc last, first;
        gpu_kind kind;
    } pairs[] = {
        {"requests", set(GPU_STEP_REQUESTS, 1, 0), set(GPU_STEP_REQUESTS + 1, 1, 0), GPU_STEP},
        {"ragged requests", set(GPU_STEP_REQUESTS, 0, 9), set(GPU_STEP_REQUESTS + 1, 0, 9), GPU_RAGGED},
        {"capacity", set(9, 1, GPU_STEP_CAPACITY), set(9, 1, GPU_STEP_CAPACITY + 1), GPU_STEP},
        {"ragged capacity", set(9, 0, GPU_STEP_CAPACITY), set(9, 0, GPU_STEP_CAPACITY + 1), GPU_RAGGED},
        {"tokens", set(52428, 5, 9), set(52429, 5, 9), GPU_STEP}, /* and one thread for what follows the last */
        {"tokens of a request", set(2, 256, 0), set(2, 257, 0), GPU_STEP},
        {"report", reported(set(1024, 4, 0)), reported(set(1025, 4, 0)), GPU_STEP},
        {"scheduled requests", scheduled(set(511, 1, 0)), scheduled(set(512, 1, 0)), GPU_STEP},
        {"scheduled ragged requests", scheduled(set(511, 0, 9)), scheduled(set(512, 0, 9)), GPU_RAGGED},
        {"scheduled tokens", scheduled(set(73, 7, 0)), scheduled(set(128, 4, 0)), GPU_STEP},
        {"scheduled capacity", scheduled(set(9, 0, 511)), scheduled(set(9, 0, 512)), GPU_RAGGED},
        {"dropped tokens of a schedule", scheduled(set(9, 4, 36)), scheduled(set(9, 4, 35)), GPU_STEP},
    };
    for (size_t i = 0; i < LENGTH(pairs); i++) {
        expect_kind(pairs[i].name, &pairs[i].last, pairs[i].kind);
        expect_kind(pairs[i].name, &pairs[i].first, GPU_ANY);
    }
}
END_TEST

START_TEST(bounds_of_padding)
{
    dm_fill_desc d = set(9, 1, 9);
    d.cu_seqlens_k = vec(1 << 20);
    d.padded_requests = GPU_STEP_REQUESTS;
    expect_kind("padded requests", &d, GPU_STEP);
    d.padded_requests++;
    expect_kind("padded requests", &d, GPU_ANY);
    d.extend_len = 65; /* GPU_STEP_CAPACITY / 65 is 64527.7 */
    d.padded_requests = 64527;
    expect_kind("tokens of padded requests", &d, GPU_STEP);
    d.padded_requests++;
    expect_kind("tokens of padded requests", &d, GPU_ANY);
    d = set(9, 1, 1 << 20);
    d.padded_tokens = GPU_STEP_TOKENS - 1;
    expect_kind("padded tokens", &d, GPU_STEP);
    d.padded_tokens++;
    expect_kind("padded tokens", &d, GPU_ANY);
    d = scheduled(set(9, 1, 9));
    d.cu_seqlens_k = vec(1000);
    d.padded_requests = GPU_MAX_THREADS - 1;
    expect_kind("padded requests beside a schedule", &d, GPU_STEP);
    d.padded_requests++;
    expect_kind("padded requests beside a schedule", &d, GPU_ANY);
}
END_TEST

/* What is not there has no bounds. */
START_TEST(bounds_of_tables)
{
    for (int i = 0; i < 3; i++) {
        dm_fill_desc d = set(2, 1, 0);
        dm_table *tables[] = {&d.page_table, &d.page_table_1, &d.req_to_token};
        tables[i]->row_stride = GPU_STEP_STRIDE;
        expect_kind("a stride", &d, GPU_STEP);
        tables[i]->row_stride++;
        expect_kind("a stride", &d, GPU_ANY);
    }
    dm_fill_desc d = set(2, 1, 0);
    d.req_to_token.rows = INT32_MAX;
    expect_kind("rows of the source", &d, GPU_STEP);
    d.req_to_token.rows++;
    expect_kind("rows of the source", &d, GPU_ANY);
    d = set(2, 1, 0);
    d.page_size = 48;
    expect_kind("pages that are no power of two", &d, GPU_ANY);
    d.page_table = (dm_table){0};
    expect_kind("no pages", &d, GPU_STEP);
    d.pool_size = 4;
    expect_kind("pools", &d, GPU_STEP);
    d.pool_size = 6;
    expect_kind("pools that are no power of two", &d, GPU_ANY);
}
END_TEST

static dm_fill_desc lengths(int32_t requests, int32_t n)
{
    dm_fill_desc d = {.size = sizeof d, .num_requests = requests, .extend_len = n, .topk = 64};
    d.seq_lens = vec(requests);
    if (!n)
        d.extend_lens = vec(requests);
    d.seqlens_expanded = d.dsa_cache_seqlens = vec(4 * (int64_t)requests);
    return d;
}

static bool are_alone(const dm_fill_desc *d)
{
    const dm_job job = job_of(d);
    return gpu_is_lengths(&job);
}

START_TEST(lengths_alone_are_nothing_else)
{
    for (int32_t n = 0; n <= 3; n += 3) {
        const dm_fill_desc good = lengths(100, n);
        ck_assert(are_alone(&good));
        dm_fill_desc wide = good, clipped = good, expanded = good;
        wide.seq_lens.type = DM_INT64;
        clipped.seqlens_expanded = expanded.dsa_cache_seqlens = (dm_vec){0};
        ck_assert(are_alone(&wide) && are_alone(&clipped) && are_alone(&expanded));
        dm_fill_desc pooled = good, padded = good, prefixed = good, counted = good;
        pooled.pool_size = 2;
        padded.padded_tokens = 1;
        prefixed.cu_seqlens_k = vec(101);
        counted.num_tokens = vec(1);
        ck_assert(!are_alone(&pooled) && !are_alone(&padded) && !are_alone(&prefixed) && !are_alone(&counted));
        dm_fill_desc with_report = reported(good), with_schedule = scheduled(good), large = good;
        large.seqlens_expanded = large.dsa_cache_seqlens = vec(GPU_STEP_CAPACITY + 1);
        ck_assert(!are_alone(&with_report) && !are_alone(&with_schedule) && !are_alone(&large));
    }
    dm_fill_desc most = lengths(16383, 256), more = lengths(16384, 256); /* tokens: 2^22 - 256, and 2^22 */
    ck_assert(are_alone(&most) && !are_alone(&more));
    dm_fill_desc wide = lengths(100, 0), starts = wide;
    wide.extend_lens.type = DM_INT64;
    starts.query_start_loc = vec(101);
    starts.extend_lens = (dm_vec){0};
    ck_assert(!are_alone(&wide) && !are_alone(&starts));
}
END_TEST

START_TEST(blocks_of_lengths_alone)
{
    static const int32_t requests[] = {1, 64, 65, 1024, 1025, 5000};
    for (size_t i = 0; i < LENGTH(requests); i++)
        for (int32_t n = 0; n <= 3; n += 3) {
            const dm_fill_desc d = lengths(requests[i], n);
            const dm_job job = job_of(&d);
            gpu_lengths out;
            unsigned threads;
            const unsigned blocks = gpu_plan_lengths(&job, &out, &threads);
            ck_assert_uint_eq(threads % 64, 0);
            ck_assert_uint_le(threads, GPU_MAX_THREADS);
            ck_assert_int_ge((int64_t)blocks * threads, requests[i]);
            ck_assert_int_eq(out.by_block && n, 0); /* nothing is summed then */
            ck_assert(!out.extend == !!n);
        }
}
END_TEST

/* ---- Blocks ----------------------------------------------------------------------------------------------------- */

/* Each request, with one more for what follows them, is some thread's, or a warp has lanes for them all. */
static void expect_requests(const dm_job *job, gpu_kind kind, unsigned threads, const gpu_job *out)
{
    const int64_t requests = (int64_t)job->padded_requests + 1, tiles = out->length_blocks >> out->slice_shift;
    ck_assert_int_eq(out->length_blocks, tiles << out->slice_shift);
    if (!out->tile) {
        ck_assert_int_le(requests, 32);
        ck_assert_int_eq(tiles, 1);
        return;
    }
    ck_assert_int_ge(tiles * out->tile, requests);
    ck_assert_int_lt((tiles - 1) * out->tile, requests);
    ck_assert_int_eq(out->tile % (int32_t)threads, 0);
    if (kind == GPU_RAGGED)
        ck_assert_int_eq(out->tile, threads); /* it writes one tile */
}

/* Each token, padding and padded requests too, and one for what follows, in blocks of whole requests. */
static void expect_tokens(const dm_job *job, unsigned threads, const gpu_job *out)
{
    const int64_t tokens = (int64_t)job->num_requests * job->extend_len, written = out->tokens_written - tokens;
    const int64_t padding = job->padded_requests - job->num_requests;
    const int64_t all = tokens + (written > padding ? written : padding) + 1;
    if (!out->tile) {
        ck_assert_int_le(all, 32);
        ck_assert_int_eq(out->length_blocks, 1);
        return;
    }
    ck_assert_int_le(out->tile, threads);
    ck_assert_int_eq(out->tile, out->tile_requests * (job->extend_len ? job->extend_len : 1));
    ck_assert_int_ge((int64_t)out->length_blocks * out->tile, all);
    ck_assert_int_lt((int64_t)(out->length_blocks - 1) * out->tile, all);
}

static void expect_tables(const dm_job *job, unsigned threads, unsigned blocks, const gpu_job *out)
{
    const uint32_t team = (out->column_mask + 1) * (out->row_mask + 1);
    ck_assert_uint_eq(team, 1u << out->request_shift);
    ck_assert_uint_eq(out->column_mask + 1, 1u << out->column_shift);
    ck_assert_int_ge(out->request_shift, GPU_LEAST_TEAM_SHIFT);
    ck_assert_int_ge(blocks * (int64_t)threads, ((int64_t)job->num_requests + out->padding_teams) * team);
    ck_assert_int_eq(out->padding_teams > 0, job->flags & DM_JOB_FULL_ROWS && job->padded_tokens > 0);
}

static void expect_plan(const dm_fill_desc *d, int multiprocessors)
{
    const dm_job job = job_of(d);
    const gpu_kind kind = gpu_kind_of(&job);
    const unsigned threads = gpu_plan_threads(&job, 1, kind);
    gpu_job out;
    const unsigned blocks = gpu_plan(&job, kind, multiprocessors, threads, &out);
    ck_assert_uint_eq(threads % 64, 0);
    ck_assert(threads >= 64 && threads <= GPU_MAX_THREADS);
    const int schedules = !!job.schedules[0].table + !!job.schedules[1].table;
    ck_assert_int_eq(out.schedule_blocks, schedules << out.slots_shift);
    for (int i = 0; i < schedules; i++)
        ck_assert_ptr_nonnull(out.schedules[i].table);
    if (schedules && kind != GPU_ANY) /* these have a tile of requests */
        ck_assert_int_le(job.num_requests, threads);
    const int64_t requests = (int64_t)job.padded_requests + 1;
    if (!(job.flags & DM_JOB_REPORT))
        ck_assert_int_eq(out.report_blocks, 0);
    else if (kind == GPU_STEP)
        ck_assert_int_eq(out.report_blocks, 1);
    else
        ck_assert_int_ge((int64_t)out.report_blocks * out.report_tile, requests);
    if (kind == GPU_STEP)
        expect_tokens(&job, threads, &out);
    else
        expect_requests(&job, kind, threads, &out);
    const int64_t others = (int64_t)out.schedule_blocks + out.length_blocks + out.report_blocks;
    ck_assert_int_ge(blocks, others);
    expect_tables(&job, threads, blocks - (unsigned)others, &out);
}

START_TEST(blocks_reach_everything)
{
    static const int32_t requests[] = {0, 1, 7, 31, 32, 64, 255, 256, 511, 512, 1000, 65536, 70000};
    static const int32_t tokens[] = {0, 1, 3, 4, 60, 256, 300};
    for (size_t i = 0; i < LENGTH(requests); i++)
        for (size_t k = 0; k < LENGTH(tokens); k++)
            for (int with = 0; with < 16; with++) {
                const int64_t capacity = (int64_t)requests[i] * (tokens[k] ? tokens[k] : 2) + 40;
                dm_fill_desc d = set(requests[i], tokens[k], capacity);
                d.flags = with & 1 ? DM_FILL_FULL_ROWS : 0;
                d.cu_seqlens_k = vec(requests[i] + 101);
                d.padded_requests = with & 2 ? requests[i] + 100 : 0;
                d.padded_tokens = with & 2 ? capacity - 5 : 0;
                d = with & 4 ? reported(d) : d;
                d = with & 8 ? scheduled(d) : d;
                expect_plan(&d, with & 1 ? MULTIPROCESSORS : 1);
            }
}
END_TEST

/* One block has a warp with lanes for all. */
START_TEST(few_requests_take_a_warp)
{
    const struct {
        dm_fill_desc d;
        bool in_a_warp;
    } cases[] = {{set(31, 1, 0), true}, {set(32, 1, 0), false}, {set(7, 4, 0), true},
                 {set(8, 4, 0), false}, {set(31, 0, 9), true},  {set(32, 0, 9), false}};
    for (size_t i = 0; i < LENGTH(cases); i++) {
        const dm_job job = job_of(&cases[i].d);
        const gpu_kind kind = gpu_kind_of(&job);
        gpu_job out;
        gpu_plan(&job, kind, MULTIPROCESSORS, gpu_plan_threads(&job, 1, kind), &out);
        ck_assert_msg(!out.tile == cases[i].in_a_warp, "case %zu", i);
    }
}
END_TEST

/* All jobs of a call have blocks of the size that one of them needs. */
START_TEST(threads_of_several_jobs)
{
    const dm_fill_desc small = set(2, 4, 0), large = scheduled(set(511, 1, 0));
    const dm_job jobs[] = {job_of(&small), job_of(&large)};
    ck_assert_uint_eq(gpu_plan_threads(jobs, 2, GPU_STEP), GPU_MAX_THREADS);
    ck_assert_uint_lt(gpu_plan_threads(jobs, 1, GPU_STEP), GPU_MAX_THREADS);
}
END_TEST

/* The device finds where each table's columns come from. */
START_TEST(what_tables_read)
{
    dm_fill_desc d = set(4, 1, 0);
    gpu_job out;
    dm_job job = job_of(&d);
    gpu_plan(&job, GPU_STEP, MULTIPROCESSORS, 256, &out);
    ck_assert(out.read_size == 1 && out.step_size == 1 && out.entry_size == 64 && out.entry_shift == 6);
    ck_assert_uint_eq(out.read_bound, 8192); /* page_table_1 needs all slots */
    d.page_table_1.row_stride = 8192;
    d.page_table_1.cols = 100;
    job = job_of(&d);
    gpu_plan(&job, GPU_STEP, MULTIPROCESSORS, 256, &out);
    ck_assert_uint_eq(out.read_bound, 127 * 64 + 1); /* and page_table the first of its last page */
    d.page_table_1 = (dm_table){0};
    job = job_of(&d);
    gpu_plan(&job, GPU_STEP, MULTIPROCESSORS, 256, &out);
    ck_assert(out.read_size == 64 && out.step_size == 64 && out.read_bound == 128 && out.slot_bound == 0);
    d.block_table = table(4, 128);
    d.req_to_token = (dm_table){0};
    job = job_of(&d);
    gpu_plan(&job, GPU_STEP, MULTIPROCESSORS, 256, &out);
    ck_assert(out.read_size == 64 && out.step_size == 1 && out.entry_size == 1 && out.entry_shift == 0);
    d.page_table = (dm_table){0};
    job = job_of(&d);
    ck_assert_uint_eq(gpu_plan(&job, GPU_STEP, MULTIPROCESSORS, 256, &out), (unsigned)out.length_blocks);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("plan");
    TCase *tcase = tcase_create("plan");
    tcase_add_test(tcase, what_engines_ask_for);
    tcase_add_test(tcase, bounds);
    tcase_add_test(tcase, bounds_of_padding);
    tcase_add_test(tcase, bounds_of_tables);
    tcase_add_test(tcase, lengths_alone_are_nothing_else);
    tcase_add_test(tcase, blocks_of_lengths_alone);
    tcase_add_test(tcase, blocks_reach_everything);
    tcase_add_test(tcase, few_requests_take_a_warp);
    tcase_add_test(tcase, threads_of_several_jobs);
    tcase_add_test(tcase, what_tables_read);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
