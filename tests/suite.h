/* The end of every suite's main. */
#ifndef DRAFTMETA_SUITE_H
#define DRAFTMETA_SUITE_H

#include <check.h>
#include <stdlib.h>

/* Runs the suite, frees it and returns main's exit status. */
static inline int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
