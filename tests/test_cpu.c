/* What is special to the CPU backend: thread counts, instruction sets, and rows that lie gigabytes apart. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rows.h"
#include "spec.h"
#include "suite.h"

#define LENGTH(list) (sizeof(list) / sizeof *(list))

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static dm_context *open_cpu(int32_t threads)
{
    const dm_options options = {.size = sizeof options, .backend = "cpu", .threads = threads};
    dm_context *ctx;
    ck_assert_msg(dm_open(&options, &ctx) == DM_OK, "%s", dm_last_error());
    return ctx;
}

/* ---- Thread counts --------------------------------------------------------------------------------------------- */

static const int32_t thread_counts[] = {1, 2, 7};

enum { COUNTS = LENGTH(thread_counts), MANY = 65536 };

typedef struct contexts {
    dm_context *ctx[COUNTS];
    checker *c[COUNTS];
} contexts;

static contexts open_contexts(void)
{
    contexts all;
    for (int i = 0; i < COUNTS; i++) {
        all.ctx[i] = open_cpu(thread_counts[i]);
        all.c[i] = checker_new(all.ctx[i]);
    }
    return all;
}

static void close_contexts(contexts *all)
{
    for (int i = 0; i < COUNTS; i++) {
        checker_free(all->c[i]);
        dm_close(all->ctx[i]);
    }
}

/* The oracle's bytes with any number of threads. Frees the image. */
static void check_threads(const contexts *all, image *img, const char *what)
{
    for (int i = 0; i < COUNTS; i++) {
        mismatch m;
        const dm_status status = checker_run(all->c[i], img, NULL, &m, NULL);
        ck_assert_msg(status == DM_OK && !m.found, "%s, %d threads: %s", what, thread_counts[i], m.text);
    }
    image_free(img);
}

static int64_t seq_lens[MANY], extend_lens[MANY], pool_indices[MANY];

/* Some requests for a pool of 16 rows. */
static fill_spec batch(int32_t requests, int64_t longest, int64_t most_queries)
{
    rng r = rng_seeded(9, (uint64_t)requests);
    for (int32_t i = 0; i < requests; i++) {
        seq_lens[i] = rng_between(&r, 0, longest);
        extend_lens[i] = rng_between(&r, 0, most_queries);
        pool_indices[i] = rng_between(&r, 0, 15);
    }
    return (fill_spec){.requests = requests,
                       .seq_lens = seq_lens,
                       .extend_lens = extend_lens,
                       .pool_indices = pool_indices,
                       .pool_rows = 16};
}

START_TEST(small_fills_on_any_threads)
{
    contexts all = open_contexts();
    for (uint64_t i = 0; i < 300; i++) {
        image *img = case_make(21, i, &(case_limits){.max_requests = 1000, .max_tokens = 4000, .max_columns = 300});
        check_threads(&all, img, case_title(img));
    }
    close_contexts(&all);
}
END_TEST

/* From 8192 requests on, they are walked in parallel. */
START_TEST(many_requests_on_any_threads)
{
    static const int32_t requests[] = {255, 8191, 8192, 8193, 20000, MANY};
    contexts all = open_contexts();
    for (size_t i = 0; i < 3 * LENGTH(requests); i++) {
        fill_spec s = batch(requests[i / 3], 100000, 3);
        s.wants = WANT_ALL & ~(unsigned)WANT_TABLES;
        s.padded_requests = i % 3 == 1 ? s.requests + 300 : 0;
        s.padded_tokens = i % 3 == 1 ? 3ll * s.requests + 5 : 0;
        s.capacity = i % 3 == 2 ? s.requests + 1 : 0;
        seq_lens[s.requests / 2] = -1; /* the report comes from the middle */
        check_threads(&all, spec_image(&s), "many requests");
    }
    close_contexts(&all);
}
END_TEST

/* From 256 KiB on, tokens are written in parallel; a walk may leave the first ones or only the last. */
START_TEST(many_tokens_on_any_threads)
{
    contexts all = open_contexts();
    for (int32_t requests = 100; requests <= 12800; requests *= 2)
        for (int long_one = 0; long_one < 3; long_one++) {
            fill_spec s = batch(requests, 300, 6);
            if (long_one) /* the first or the last */
                extend_lens[long_one == 1 ? 0 : requests - 1] = 20000;
            s.wants = WANT_ALL & ~(unsigned)WANT_TABLES;
            s.pool_size = long_one;
            check_threads(&all, spec_image(&s), "many tokens");
        }
    close_contexts(&all);
}
END_TEST

/* Tables of more than 256 KiB, and widths around those of strips (4096 columns) and tiles (65,536). */
START_TEST(page_tables_on_any_threads)
{
    static const struct {
        int64_t context;
        int32_t requests;
    } shapes[] = {{250, 40},  {300, 300}, {4095, 9},  {4096, 9},  {4097, 9},
                  {65535, 2}, {65536, 2}, {65537, 2}, {140000, 3}};
    contexts all = open_contexts();
    for (size_t i = 0; i < 2 * LENGTH(shapes); i++) {
        fill_spec s = batch(shapes[i / 2].requests, shapes[i / 2].context + 100, 5);
        s.context = shapes[i / 2].context;
        s.flags = i % 2 ? DM_FILL_FULL_ROWS : 0;
        s.padded_tokens = i % 2 ? 5ll * s.requests + 3 : 0;
        s.gap = i % 2;
        pool_indices[0] = 3 - (int64_t)(i % 2) * 4; /* also out of range */
        check_threads(&all, spec_image(&s), "page tables");
        s.blocks = true;
        s.pool_indices = NULL;
        check_threads(&all, spec_image(&s), "block tables");
    }
    close_contexts(&all);
}
END_TEST

/* ---- Instruction sets ------------------------------------------------------------------------------------------ */

enum { MOST = 100, PAGE_ROWS = 3, LONGEST = PAGE_ROWS * (MOST + 4), AROUND = 32, PLACES = 17, POISON = -77 };

static const dm_rows *tables[3];
static int num_tables;

/* The tables that this processor can run. */
static void find_tables(void)
{
    tables[num_tables++] = &dm_rows_base;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        tables[num_tables++] = &dm_rows_avx2;
    else
        printf("SKIP avx2: this processor lacks it\n");
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
        tables[num_tables++] = &dm_rows_avx512;
    else
        printf("SKIP avx512: this processor lacks it\n");
#endif
    printf("instruction sets:");
    for (int i = 0; i < num_tables; i++)
        printf(" %s", tables[i]->isa);
    printf("\n");
    fflush(stdout);
}

/* A run of up to LONGEST elements, place elements behind an aligned one, in poison; want is what it should hold. */
typedef struct run {
    _Alignas(64) int32_t got[AROUND + PLACES + LONGEST + AROUND];
    int32_t want[LONGEST];
    int64_t n, place;
} run;

static int32_t *start_run(run *w, int64_t n, int64_t place)
{
    for (size_t i = 0; i < LENGTH(w->got); i++)
        w->got[i] = POISON;
    w->n = n;
    w->place = AROUND + place;
    return w->got + w->place;
}

static void check_run(const run *w, const char *what)
{
    for (int64_t i = 0; i < (int64_t)LENGTH(w->got); i++) {
        const bool inside = i >= w->place && i < w->place + w->n;
        const int32_t want = inside ? w->want[i - w->place] : POISON;
        if (w->got[i] != want) /* asserting each would take seconds */
            ck_abort_msg("%s of %" PRId64 ", element %" PRId64 ": expected %d, got %d", what, w->n, i - w->place, want,
                         w->got[i]);
    }
}

static int32_t ramp_at(int32_t first, int64_t i, int32_t top)
{
    const int64_t e = first + i > 0 ? first + i : 0;
    return (int32_t)min64(e, top);
}

static void check_ramps(const dm_rows *rows, int64_t n, int64_t place)
{
    static const int32_t firsts[] = {-1000, -50, -7, -1, 0, 1, 90, INT32_MAX - MOST, INT32_MIN};
    static const int32_t tops[] = {INT32_MAX, 1, 20, 64, INT32_MAX - 40};
    run w;
    for (size_t f = 0; f < LENGTH(firsts); f++)
        for (size_t k = 0; k < LENGTH(tops); k++) {
            for (int64_t i = 0; i < n; i++)
                w.want[i] = ramp_at(firsts[f], i, tops[k]);
            rows->clipped_ramp(start_run(&w, n, place), n, firsts[f], tops[k]);
            check_run(&w, "clipped_ramp");
            if (tops[k] != INT32_MAX)
                continue;
            rows->ramp(start_run(&w, n, place), n, firsts[f]);
            check_run(&w, "ramp");
        }
}

static void check_set(const dm_rows *rows, int64_t n, int64_t place)
{
    static const int32_t values[] = {0, 5, -1, INT32_MAX, INT32_MIN};
    run w;
    for (size_t v = 0; v < LENGTH(values); v++) {
        for (int64_t i = 0; i < n; i++)
            w.want[i] = values[v];
        rows->set(start_run(&w, n, place), n, values[v]);
        check_run(&w, "set");
    }
}

/* Loops over the instruction sets. */
START_TEST(rows_of_lengths)
{
    for (int64_t n = 0; n <= MOST; n++)
        for (int64_t place = 0; place < PLACES; place++) {
            check_ramps(tables[_i], n, place);
            check_set(tables[_i], n, place);
        }
}
END_TEST

/* Slots that end where the last page's first one does, so that a sanitizer sees reads beyond, at any alignment. */
static int32_t *make_slots(int64_t n, int32_t page_size, int64_t place, int32_t **memory)
{
    static const int32_t odd[] = {INT32_MIN, INT32_MAX, -1, 0, 1, INT32_MIN + 1};
    const int64_t count = n ? (n - 1) * page_size + 1 : 0;
    rng r = rng_seeded(4, (uint64_t)n);
    *memory = harness_alloc((size_t)(place + count) * sizeof **memory);
    int32_t *slots = *memory + place;
    for (int64_t i = 0; i < n; i++)
        slots[i * page_size] = rng_chance(&r, 30) ? odd[rng_between(&r, 0, LENGTH(odd) - 1)] : (int32_t)rng_next(&r);
    for (int64_t i = 0; i < min64(n, 7); i++) /* multiples of the page and their neighbours */
        slots[i * page_size] = (int32_t)(i < 4 ? -page_size - 1 + i : page_size - 5 + i);
    return slots;
}

/* One to PAGE_ROWS rows of a table, and what is between them. */
static void check_pages(const dm_rows *rows, int64_t n, int32_t page_size, int64_t place)
{
    run w;
    int32_t *memory;
    const int32_t *slots = make_slots(n, page_size, place % 5, &memory);
    const int64_t count = 1 + place % PAGE_ROWS, stride = n + place % 4, all = (count - 1) * stride + n;
    for (int64_t i = 0; i < all; i++)
        w.want[i] = i % stride < n ? slots[i % stride * page_size] / page_size : POISON;
    rows->pages(start_run(&w, all, place), count, stride, n, slots, page_size);
    check_run(&w, "pages");
    free(memory);
}

START_TEST(rows_of_pages)
{
    static const int32_t sizes[] = {1, 2, 3, 4, 7, 16, 48, 64, 100, 128, 256};
    for (size_t k = 0; k < LENGTH(sizes); k++)
        for (int64_t n = 0; n <= MOST; n++)
            for (int64_t place = 0; place < PLACES; place += 1 + n / 20)
                check_pages(tables[_i], n, sizes[k], place);
}
END_TEST

START_TEST(rows_of_huge_pages)
{
    static const int32_t sizes[] = {1 << 20, 1000003, 1 << 30, INT32_MAX, INT32_MAX - 1};
    for (size_t k = 0; k < LENGTH(sizes); k++)
        for (int64_t n = 0; n <= (sizes[k] < 1 << 21 ? 3 : 1); n++)
            check_pages(tables[_i], n, sizes[k], 1);
}
END_TEST

/* ---- Rows beyond 2^31 elements --------------------------------------------------------------------------------- */

/* A table of 2^20 columns, of which only the touched pages take memory. Its last rows lie beyond 2^32 elements. */
enum { STRIDE = 1 << 20, LAST_ROW = 4100, ROWS = LAST_ROW + 3, TOKENS = 1000000, PAGE_SIZE = 64 };

static const size_t table_bytes = (size_t)ROWS * STRIDE * sizeof(int32_t);

/* NULL, and a note, where the system does not give away that many addresses. */
static int32_t *map_table(void)
{
    void *table = mmap(NULL, table_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (table == MAP_FAILED) {
        perror("SKIP rows beyond 2^31 elements: mmap");
        return NULL;
    }
    madvise(table, table_bytes, MADV_NOHUGEPAGE);
    return table;
}

/* Which pages of the table are in memory, a byte each, 1 or 0. */
static unsigned char *list_pages(int32_t *table, size_t *count)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *count = table_bytes / page;
    unsigned char *resident = harness_alloc(*count);
    ck_assert_int_eq(mincore(table, table_bytes, resident), 0);
    for (size_t i = 0; i < *count; i++)
        resident[i] &= 1;
    return resident;
}

/* Some systems say of all pages that they are in memory. */
static bool pages_can_be_told(int32_t *table)
{
    size_t count;
    unsigned char *resident = list_pages(table, &count);
    const bool told = !resident[count / 2];
    if (!told)
        printf("SKIP touched pages: mincore does not tell them\n");
    free(resident);
    return told;
}

/* Of the whole table, only the first columns of some rows have been touched. */
static void expect_touched(int32_t *table, int64_t row, int64_t rows, int64_t columns)
{
    const int64_t ints = sysconf(_SC_PAGESIZE) / (int64_t)sizeof *table;
    size_t count;
    unsigned char *resident = list_pages(table, &count);
    for (int64_t i = 0; i < (int64_t)count; i++) {
        const int64_t r = i * ints / STRIDE, c = i * ints % STRIDE;
        const int want = r >= row && r < row + rows && c < columns;
        if (resident[i] != want)
            ck_abort_msg("row %" PRId64 ", columns from %" PRId64 ": %s", r, c, want ? "not written" : "touched");
    }
    free(resident);
}

static int64_t count_touched(int32_t *table)
{
    size_t count;
    int64_t touched = 0;
    unsigned char *resident = list_pages(table, &count);
    for (size_t i = 0; i < count; i++)
        touched += resident[i];
    free(resident);
    return touched;
}

static int32_t slot_at(int64_t column)
{
    return (int32_t)(column * 3 + 1000);
}

static void write_slots(int32_t *row)
{
    for (int64_t c = 0; c < TOKENS; c++)
        row[c] = slot_at(c);
}

static void expect_row(const int32_t *row, int64_t columns, int64_t page_size)
{
    for (int64_t c = 0; c < columns; c++)
        if (row[c] != slot_at(c * page_size) / page_size)
            ck_abort_msg("column %" PRId64 ": expected %d, got %d", c, (int)(slot_at(c * page_size) / page_size),
                         row[c]);
}

static dm_vec vec(int32_t *values, int64_t len)
{
    return (dm_vec){values, len, DM_INT32};
}

static void fill_on(int32_t threads, const dm_fill_desc *d)
{
    dm_context *ctx = open_cpu(threads);
    ck_assert_msg(dm_fill(ctx, d, NULL) == DM_OK, "%s", dm_last_error());
    dm_close(ctx);
}

/* LAST_ROW tokens without KV, whose rows stay untouched, and then some whose request has a million. */
static void check_far_output(bool pages, int32_t threads)
{
    const int64_t columns = pages ? (TOKENS + PAGE_SIZE - 1) / PAGE_SIZE : TOKENS;
    int32_t *table = map_table();
    if (!table)
        return;
    int32_t *slots = harness_alloc(TOKENS * sizeof *slots);
    const bool told = pages_can_be_told(table);
    write_slots(slots);
    dm_fill_desc d = {.size = sizeof d, .num_requests = 2, .page_size = PAGE_SIZE};
    d.seq_lens = vec((int32_t[]){0, TOKENS}, 2);
    d.extend_lens = vec((int32_t[]){LAST_ROW, ROWS - LAST_ROW}, 2);
    d.req_pool_indices = vec((int32_t[]){0, 0}, 2);
    d.req_to_token = (dm_table){slots, 1, TOKENS, 0, DM_INT32};
    *(pages ? &d.page_table : &d.page_table_1) = (dm_table){table, ROWS, STRIDE, 0, DM_INT32};
    fill_on(threads, &d);
    if (told)
        expect_touched(table, LAST_ROW, ROWS - LAST_ROW, columns);
    for (int64_t row = LAST_ROW; row < ROWS; row++) {
        expect_row(table + row * STRIDE, columns, pages ? PAGE_SIZE : 1);
        ck_assert_int_eq(table[row * STRIDE + columns], 0);
    }
    munmap(table, table_bytes);
    free(slots);
}

START_TEST(slots_are_written_beyond_2_31_elements)
{
    check_far_output(false, thread_counts[_i]);
}
END_TEST

START_TEST(pages_are_written_beyond_2_31_elements)
{
    check_far_output(true, thread_counts[_i]);
}
END_TEST

/* All rows are one request's, of a single live column. */
START_TEST(one_request_reaches_beyond_2_31_elements)
{
    int32_t *table = map_table(), slot = 7 * PAGE_SIZE;
    if (!table)
        return;
    const bool told = pages_can_be_told(table);
    dm_fill_desc d = {.size = sizeof d, .num_requests = 1, .extend_len = ROWS, .page_size = PAGE_SIZE};
    d.seq_lens = vec((int32_t[]){TOKENS}, 1);
    d.req_to_token = (dm_table){&slot, 1, 1, 0, DM_INT32};
    d.page_table_1 = (dm_table){table, ROWS, STRIDE, 0, DM_INT32};
    d.page_table = (dm_table){table + STRIDE / 2, ROWS, STRIDE / 2, STRIDE, DM_INT32}; /* in the rows' other half */
    fill_on(thread_counts[_i], &d);
    for (int64_t row = 0; row < ROWS; row++) {
        ck_assert_int_eq(table[row * STRIDE], slot);
        ck_assert_int_eq(table[row * STRIDE + STRIDE / 2], 7);
    }
    if (told)
        ck_assert_int_eq(count_touched(table), 2 * ROWS);
    munmap(table, table_bytes);
}
END_TEST

START_TEST(slots_are_read_beyond_2_31_elements)
{
    enum { PAGES = TOKENS / PAGE_SIZE };
    int32_t *table = map_table();
    if (!table)
        return;
    int32_t *slots = harness_alloc(TOKENS * sizeof *slots), *pages = harness_alloc(PAGES * sizeof *pages);
    const bool told = pages_can_be_told(table);
    write_slots(table + (int64_t)LAST_ROW * STRIDE);
    dm_fill_desc d = {.size = sizeof d, .num_requests = 1, .extend_len = 1, .page_size = PAGE_SIZE};
    d.seq_lens = vec((int32_t[]){TOKENS}, 1);
    d.req_pool_indices = vec((int32_t[]){LAST_ROW}, 1);
    d.req_to_token = (dm_table){table, ROWS, STRIDE, 0, DM_INT32};
    d.page_table_1 = (dm_table){slots, 1, TOKENS, 0, DM_INT32};
    d.page_table = (dm_table){pages, 1, PAGES, 0, DM_INT32};
    fill_on(thread_counts[_i], &d);
    if (told)
        expect_touched(table, LAST_ROW, 1, TOKENS); /* looking at other rows would show as well */
    expect_row(slots, TOKENS, 1);
    expect_row(pages, PAGES, PAGE_SIZE);
    munmap(table, table_bytes);
    free(slots);
    free(pages);
}
END_TEST

/* ---- The suite ------------------------------------------------------------------------------------------------- */

static void add_loops(Suite *suite, const char *name, const TTest *const *tests, size_t count, int loops)
{
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 120);
    for (size_t i = 0; i < count; i++)
        tcase_add_loop_test(tcase, tests[i], 0, loops);
    suite_add_tcase(suite, tcase);
}

#define ADD_LOOPS(suite, name, loops, ...)                                                                             \
    add_loops(suite, name, (const TTest *const[]){__VA_ARGS__}, LENGTH(((const TTest *const[]){__VA_ARGS__})), loops)

int main(void)
{
    find_tables();
    Suite *suite = suite_create("cpu");
    ADD_LOOPS(suite, "threads", 1, small_fills_on_any_threads, many_requests_on_any_threads, many_tokens_on_any_threads,
              page_tables_on_any_threads);
    ADD_LOOPS(suite, "instruction sets", num_tables, rows_of_lengths, rows_of_pages, rows_of_huge_pages);
    ADD_LOOPS(suite, "far rows", COUNTS, slots_are_written_beyond_2_31_elements, pages_are_written_beyond_2_31_elements,
              one_request_reaches_beyond_2_31_elements, slots_are_read_beyond_2_31_elements);
    return run_suite(suite);
}
