/* Fills of the shapes that engines have, which generated cases never are: the kernels for common kinds of jobs run
 * here. DRAFTMETA_BACKEND names the backend, else it is the one that dm_open picks; one that cannot be had is SKIP,
 * unless DRAFTMETA_REQUIRE is set. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"

#define LENGTH(list) (sizeof(list) / sizeof *(list))

enum { SKIPPED = 77, SET_AND_SCHEDULE = WORKLOAD_SGLANG | WORKLOAD_SCHEDULE };

typedef struct shape {
    workload w;
    int fills; /* in one call */
} shape;

static dm_context *ctx;

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

static Suite *shapes_suite(void)
{
    Suite *suite = suite_create("shapes");
    TCase *of_64 = tcase_create("64"), *others = tcase_create("others");
    tcase_add_loop_test(of_64, a_shape, 0, SHAPES_OF_64);
    tcase_add_loop_test(others, a_shape, SHAPES_OF_64, (int)LENGTH(shapes));
    suite_add_tcase(suite, of_64);
    suite_add_tcase(suite, others);
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
    SRunner *runner = srunner_create(shapes_suite());
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    dm_close(ctx);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
