/* The choice of a backend, over fake drivers that each have one fault, and the environment that steers it. */
#include <check.h>
#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "draftmeta.h"

extern char **environ;

enum { CUDA, HIP, CPU, BACKENDS };
static const char *const names[BACKENDS] = {"cuda", "hip", "cpu"};
static const char *const library_variables[] = {"DRAFTMETA_CUDA_LIBRARY", "DRAFTMETA_HIP_LIBRARY"};

/* ---- The environment ---- */

static void set(const char *variable, const char *value)
{
    ck_assert_int_eq(setenv(variable, value, 1), 0);
}

/* Gives a vendor the fake driver with that fault. They lie beside this program, so that a build folder can move. */
static void set_driver(int vendor, const char *fault)
{
    char self[PATH_MAX] = "", path[PATH_MAX + 64];
    ck_assert_int_gt(readlink("/proc/self/exe", self, sizeof self - 1), 0);
    snprintf(path, sizeof path, "%s/drivers/%s_%s.so", dirname(self), names[vendor], fault);
    set(library_variables[vendor], path);
}

/* Every test begins with no variables but those that hide this machine's own drivers. */
static void hide_machine(void)
{
    for (char **entry = environ; *entry;) {
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(*entry, "="), *entry);
        if (strncmp(name, "DRAFTMETA_", 10) == 0 && unsetenv(name) == 0)
            entry = environ;
        else
            entry++;
    }
    set_driver(CUDA, "zero_devices");
    set_driver(HIP, "zero_devices");
}

/* ---- Looking at what happens ---- */

static dm_backend_info query(int index)
{
    dm_backend_info info = {.size = sizeof info};
    ck_assert_int_eq(dm_backend_query(index, &info), DM_OK);
    return info;
}

/* What dm_open did: which backend it opened, and every byte that it wrote to stderr. */
typedef struct outcome {
    dm_status status;
    char backend[16];
    char printed[2048];
} outcome;

static FILE *begin_capture(int *saved)
{
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    fflush(stderr);
    *saved = dup(STDERR_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    return file;
}

static void end_capture(FILE *file, int saved, char *text, size_t size)
{
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(saved);
    rewind(file);
    text[fread(text, 1, size - 1, file)] = '\0';
    fclose(file);
}

static outcome open_backend(const char *backend)
{
    const dm_options options = {.size = sizeof options, .backend = backend};
    outcome o = {0};
    dm_backend_info info = {.size = sizeof info};
    dm_context *ctx = (dm_context *)&info;
    int saved;
    FILE *file = begin_capture(&saved);
    o.status = dm_open(&options, &ctx);
    end_capture(file, saved, o.printed, sizeof o.printed);
    if (o.status != DM_OK) {
        ck_assert_ptr_null(ctx);
        return o;
    }
    ck_assert_int_eq(dm_context_info(ctx, &info), DM_OK);
    memcpy(o.backend, info.name, sizeof o.backend);
    dm_close(ctx);
    return o;
}

static int count_of(const char *text, const char *word)
{
    int count = 0;
    for (; (text = strstr(text, word)); text += strlen(word))
        count++;
    return count;
}

static void expect_contains(const char *what, const char *text, const char *word)
{
    ck_assert_msg(strstr(text, word), "%s: expected \"%s\" in \"%s\"", what, word, text);
}

static void expect_opened(const char *what, const outcome *o, const char *backend)
{
    ck_assert_msg(o->status == DM_OK, "%s: %s: %s", what, dm_status_string(o->status), dm_last_error());
    ck_assert_msg(strcmp(o->backend, backend) == 0, "%s: opened %s", what, o->backend);
}

static void expect_refused(const char *what, const outcome *o, dm_status status, const char *word)
{
    ck_assert_msg(o->status == status, "%s: %s", what, dm_status_string(o->status));
    expect_contains(what, dm_last_error(), word);
    ck_assert_msg(!*o->printed, "%s: printed \"%s\"", what, o->printed);
}

static void expect_silent_cpu(const char *what, const outcome *o)
{
    expect_opened(what, o, "cpu");
    ck_assert_msg(!*o->printed, "%s: printed \"%s\"", what, o->printed);
}

/* ---- Drivers ---- */

/* A faulty driver, and what is said of it. */
typedef struct faulty {
    const char *fault;
    dm_backend_state state;
    const char *reasons[2]; /* of CUDA and of HIP */
} faulty;

#define BOTH(reason)                                                                                                   \
    {                                                                                                                  \
        reason, reason                                                                                                 \
    }
static const faulty faults[] = {
    {"init_fails", DM_BACKEND_DRIVER_FAILED, BOTH("initialisation fails with error 999: these are its words")},
    {"version_fails", DM_BACKEND_DRIVER_FAILED, BOTH("version query fails with error 7: unknown to the driver")},
    {"count_fails", DM_BACKEND_DRIVER_FAILED, BOTH("device count fails with error 999: these are its words")},
    {"incomplete",
     DM_BACKEND_DRIVER_FAILED,
     {"has no entry point cuLaunchKernel", "has no entry point hipModuleLaunchKernel"}},
    {"too_old",
     DM_BACKEND_DRIVER_TOO_OLD,
     {"driver CUDA 11.0 is too old: CUDA 1", "driver HIP 0.0.11000 is too old: HIP 6.0.0 or later"}},
    {"init_no_device", DM_BACKEND_NO_DEVICE, BOTH("no device")},
    {"count_no_device", DM_BACKEND_NO_DEVICE, BOTH("no device")},
    {"zero_devices", DM_BACKEND_NO_DEVICE, BOTH("no device")},
    {"missing", DM_BACKEND_DRIVER_FAILED, BOTH("driver cannot be opened: ")}, /* there is no such file */
};
enum { FAULTS = sizeof faults / sizeof *faults };

/* Calls look for every fault, with the other vendor without devices. */
static void for_every_fault(void (*look)(int vendor, const faulty *f, const char *what))
{
    for (int vendor = CUDA; vendor <= HIP; vendor++)
        for (int i = 0; i < FAULTS; i++) {
            char what[64];
            snprintf(what, sizeof what, "%s %s", names[vendor], faults[i].fault);
            hide_machine();
            set_driver(vendor, faults[i].fault);
            look(vendor, &faults[i], what);
        }
}

static void look_at_query(int vendor, const faulty *f, const char *what)
{
    const dm_backend_info info = query(vendor);
    ck_assert_msg(info.state == f->state, "%s: state %d: %s", what, (int)info.state, info.reason);
    expect_contains(what, info.reason, f->reasons[vendor]);
    ck_assert_str_eq(info.name, names[vendor]);
    expect_contains(what, info.oldest_driver, vendor == CUDA ? "CUDA 1" : "HIP 6.0.0");
    ck_assert_int_eq(info.device_count, f->state == DM_BACKEND_DRIVER_TOO_OLD ? 2 : 0);
}

START_TEST(queries_say_what_is_wrong)
{
    for_every_fault(look_at_query);
}
END_TEST

/* No device is no reason to stop. A driver that is there and fails is: its user has a GPU. */
static void look_at_default(int vendor, const faulty *f, const char *what)
{
    const outcome o = open_backend(NULL);
    if (f->state == DM_BACKEND_NO_DEVICE)
        expect_silent_cpu(what, &o);
    else
        expect_refused(what, &o, DM_ERR_NO_BACKEND, f->reasons[vendor]);
}

START_TEST(the_default_passes_over_no_device_only)
{
    for_every_fault(look_at_default);
}
END_TEST

static void look_at_named(int vendor, const faulty *f, const char *what)
{
    outcome o = open_backend(names[vendor]);
    expect_refused(what, &o, DM_ERR_NO_BACKEND, f->reasons[vendor]);
    expect_contains(what, dm_last_error(), names[vendor]);
    set("DRAFTMETA_BACKEND", names[vendor]);
    o = open_backend(NULL);
    expect_refused(what, &o, DM_ERR_NO_BACKEND, f->reasons[vendor]);
    o = open_backend("cpu");
    expect_silent_cpu(what, &o);
}

START_TEST(a_named_backend_is_never_replaced)
{
    for_every_fault(look_at_named);
}
END_TEST

START_TEST(a_driver_must_be_a_library)
{
    dm_backend_info info[2];
    outcome opened[2];
    char errors[2][512], path[] = P_tmpdir "/draftmeta-test-XXXXXX";
    const int file = mkstemp(path);
    ck_assert_int_ge(file, 0);
    dprintf(file, "%512s\n", "this is text"); /* longer than an ELF header */
    close(file);
    for (int vendor = CUDA; vendor <= HIP; vendor++) {
        hide_machine();
        set(library_variables[vendor], path);
        info[vendor] = query(vendor);
        opened[vendor] = open_backend(NULL);
        snprintf(errors[vendor], sizeof errors[vendor], "%s", dm_last_error());
    }
    unlink(path);
    for (int vendor = CUDA; vendor <= HIP; vendor++) {
        ck_assert_int_eq(info[vendor].state, DM_BACKEND_DRIVER_FAILED);
        expect_contains(names[vendor], info[vendor].reason, path);
        expect_contains(names[vendor], info[vendor].reason, "invalid ELF header");
        ck_assert_int_eq(opened[vendor].status, DM_ERR_NO_BACKEND);
        expect_contains(names[vendor], errors[vendor], path);
    }
}
END_TEST

START_TEST(a_driver_path_must_be_absolute)
{
    for (int vendor = CUDA; vendor <= HIP; vendor++) {
        hide_machine();
        set(library_variables[vendor], "lib/libcuda.so.1");
        outcome o = open_backend(NULL);
        expect_refused(names[vendor], &o, DM_ERR_CONFIG, library_variables[vendor]);
        o = open_backend("cpu"); /* an error in any case, not only where it would matter */
        expect_refused(names[vendor], &o, DM_ERR_CONFIG, "\"lib/libcuda.so.1\": it takes an absolute path");
        for (int i = 0; i < BACKENDS; i++) {
            dm_backend_info info = {.size = sizeof info};
            ck_assert_int_eq(dm_backend_query(i, &info), DM_ERR_CONFIG);
            expect_contains(names[i], dm_last_error(), library_variables[vendor]);
        }
    }
}
END_TEST

/* Whether dlopen says that there is no such file; it may also lack what it depends on. */
static bool is_missing(const char *library)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return strncmp(dlerror(), library, strlen(library)) == 0;
    dlclose(handle);
    return false;
}

/* Says nothing of a vendor whose driver this machine has: only the machine can have none. */
START_TEST(without_a_driver)
{
    static const char *const libraries[] = {"libcuda.so.1", "libamdhip64.so"};
    for (int vendor = CUDA; vendor <= HIP; vendor++) {
        if (!is_missing(libraries[vendor]))
            continue;
        hide_machine();
        unsetenv(library_variables[vendor]);
        const dm_backend_info info = query(vendor);
        char reason[64];
        snprintf(reason, sizeof reason, "no driver: %s is not installed", libraries[vendor]);
        ck_assert_str_eq(info.reason, reason);
        ck_assert_int_eq(info.state, DM_BACKEND_NO_DRIVER);
        ck_assert_str_eq(info.driver_version, "");
        outcome o = open_backend(NULL);
        expect_silent_cpu(reason, &o);
        o = open_backend(names[vendor]);
        expect_refused(reason, &o, DM_ERR_NO_BACKEND, reason);
    }
}
END_TEST

/* ---- A good driver ---- */

/* Whether this build has device code for the vendor. Then a good driver is ready, and its device cannot be opened: the
 * fake has none. */
static bool has_device_code(int vendor)
{
    set_driver(vendor, "good");
    const dm_backend_info info = query(vendor);
    ck_assert_int_eq(info.device_count, 2);
    ck_assert_str_eq(info.device_name, "Pretender 0");
    ck_assert_str_eq(info.driver_version, vendor == CUDA ? "CUDA 13.0" : "HIP 6.3.42133");
    if (info.state == DM_BACKEND_READY) {
        ck_assert_str_eq(info.reason, "");
        return true;
    }
    ck_assert_int_eq(info.state, DM_BACKEND_NO_DEVICE_CODE);
    expect_contains(names[vendor], info.reason, "built without device code");
    expect_contains(names[vendor], info.reason, vendor == CUDA ? "nvcc" : "clang-19");
    return false;
}

START_TEST(without_device_code_the_default_warns)
{
    for (int vendor = CUDA; vendor <= HIP; vendor++) {
        hide_machine();
        if (has_device_code(vendor))
            continue;
        const outcome o = open_backend(NULL);
        expect_opened(names[vendor], &o, "cpu");
        ck_assert_int_eq(count_of(o.printed, "\n"), 1);
        expect_contains(names[vendor], o.printed, names[vendor]);
        expect_contains(names[vendor], o.printed, "built without device code");
    }
}
END_TEST

START_TEST(without_device_code_a_named_backend_is_refused)
{
    for (int vendor = CUDA; vendor <= HIP; vendor++) {
        hide_machine();
        if (has_device_code(vendor))
            continue;
        const outcome o = open_backend(names[vendor]);
        expect_refused(names[vendor], &o, DM_ERR_NO_BACKEND, "built without device code");
    }
}
END_TEST

/* The driver's failure while it opens a device is an error like any other, not a reason to take the CPU. */
START_TEST(with_device_code_the_driver_is_used)
{
    for (int vendor = CUDA; vendor <= HIP; vendor++) {
        hide_machine();
        if (!has_device_code(vendor))
            continue;
        outcome o = open_backend(NULL);
        expect_refused(names[vendor], &o, DM_ERR_DRIVER, "error 801");
        o = open_backend(names[vendor]);
        expect_refused(names[vendor], &o, DM_ERR_DRIVER, "error 801");
        const dm_options options = {.size = sizeof options, .backend = names[vendor], .device = 2};
        dm_context *ctx;
        ck_assert_int_eq(dm_open(&options, &ctx), DM_ERR_RANGE);
        expect_contains(names[vendor], dm_last_error(), "options.device is 2");
    }
}
END_TEST

/* ---- Variables ---- */

START_TEST(the_option_beats_the_variable)
{
    set("DRAFTMETA_BACKEND", "cpu");
    outcome o = open_backend(NULL);
    expect_silent_cpu("variable", &o);
    o = open_backend("cuda");
    expect_refused("option", &o, DM_ERR_NO_BACKEND, "no device");
    set_driver(CUDA, "init_fails"); /* and the variable beats the order of preference */
    o = open_backend(NULL);
    expect_silent_cpu("variable", &o);
}
END_TEST

START_TEST(a_bad_backend_variable)
{
    static const char *const bad[] = {"banana", "CPU", "cpu ", "cpu,cuda"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        set("DRAFTMETA_BACKEND", bad[i]);
        const outcome o = open_backend(NULL);
        expect_refused(bad[i], &o, DM_ERR_CONFIG, "DRAFTMETA_BACKEND");
        expect_contains(bad[i], dm_last_error(), bad[i]);
    }
    outcome o = open_backend("cpu");
    expect_silent_cpu("not needed", &o);
    set("DRAFTMETA_BACKEND", "");
    o = open_backend(NULL);
    expect_silent_cpu("empty is not set", &o);
}
END_TEST

static outcome warnings(void)
{
    outcome all = {0};
    int saved;
    FILE *file = begin_capture(&saved);
    for (int i = 0; i < 3; i++) {
        dm_backend_info info = {.size = sizeof info};
        dm_context *ctx = NULL;
        dm_backend_query(CPU, &info);
        all.status = dm_open(NULL, &ctx);
        dm_close(ctx);
    }
    end_capture(file, saved, all.printed, sizeof all.printed);
    ck_assert_int_eq(all.status, DM_OK);
    return all;
}

START_TEST(doubtful_variables_warn_once)
{
    set("DRAFTMETA_FOO", "1");
    set("DRAFTMETA_CHECK", "banana");
    set("DRAFTMETA_GRAPHS", "off");
    set("DRAFTMETA_LOG", "yes");
    set("DRAFTMETA_VERBOSE", "1");
    set("DRAFTMETA_COMMAND", "build/ci/bin/draftmeta");
    const outcome o = warnings();
    ck_assert_int_eq(count_of(o.printed, "\n"), 4);
    ck_assert_int_eq(count_of(o.printed, "unknown variable DRAFTMETA_FOO"), 1);
    ck_assert_int_eq(count_of(o.printed, "DRAFTMETA_CHECK is \"banana\""), 1);
    ck_assert_int_eq(count_of(o.printed, "DRAFTMETA_GRAPHS is \"off\""), 1);
    ck_assert_int_eq(count_of(o.printed, "DRAFTMETA_LOG is \"yes\""), 1);
}
END_TEST

START_TEST(good_variables_do_not_warn)
{
    set("DRAFTMETA_BACKEND", "cpu");
    set("DRAFTMETA_CHECK", "1");
    set("DRAFTMETA_GRAPHS", "0");
    set("DRAFTMETA_LOG", "1");
    set("DRAFTMETALS", "1"); /* somebody else's */
    const outcome o = warnings();
    ck_assert_str_eq(o.printed, "");
}
END_TEST

START_TEST(the_log_can_be_silenced)
{
    set("DRAFTMETA_FOO", "1");
    set("DRAFTMETA_CHECK", "banana");
    set("DRAFTMETA_LOG", "0");
    outcome o = warnings();
    ck_assert_str_eq(o.printed, "");
    if (!has_device_code(HIP)) {
        o = open_backend(NULL);
        expect_silent_cpu("hip", &o);
    }
}
END_TEST

/* ---- Descriptions ---- */

START_TEST(backends_are_listed_in_order)
{
    ck_assert_int_eq(dm_backend_count(), BACKENDS);
    for (int i = 0; i < BACKENDS; i++)
        ck_assert_str_eq(query(i).name, names[i]);
}
END_TEST

START_TEST(a_query_writes_every_field)
{
    for (int i = 0; i < BACKENDS; i++) {
        dm_backend_info info;
        memset(&info, 0x5a, sizeof info);
        info.size = sizeof info;
        ck_assert_int_eq(dm_backend_query(i, &info), DM_OK);
        const dm_backend_info clean = query(i);
        ck_assert_mem_eq(&info, &clean, sizeof info);
    }
}
END_TEST

START_TEST(a_context_describes_itself)
{
    const dm_options options = {.size = sizeof options, .threads = 3};
    dm_context *ctx;
    dm_backend_info info = {.size = sizeof info};
    ck_assert_int_eq(dm_open(&options, &ctx), DM_OK);
    ck_assert_int_eq(dm_context_info(ctx, &info), DM_OK);
    dm_close(ctx);
    ck_assert_uint_eq(info.size, sizeof info);
    ck_assert_str_eq(info.name, "cpu");
    ck_assert_int_eq(info.state, DM_BACKEND_READY);
    ck_assert_int_eq(info.device_count, 1);
    ck_assert_int_eq(info.device, 0);
    expect_contains("device name", info.device_name, "3");
    ck_assert_str_eq(info.driver_version, "");
    ck_assert_str_eq(info.oldest_driver, "");
    ck_assert_str_eq(info.reason, "");
}
END_TEST

int main(void)
{
    const TTest *tests[] = {queries_say_what_is_wrong,
                            the_default_passes_over_no_device_only,
                            a_named_backend_is_never_replaced,
                            a_driver_must_be_a_library,
                            a_driver_path_must_be_absolute,
                            without_a_driver,
                            without_device_code_the_default_warns,
                            without_device_code_a_named_backend_is_refused,
                            with_device_code_the_driver_is_used,
                            the_option_beats_the_variable,
                            a_bad_backend_variable,
                            doubtful_variables_warn_once,
                            good_variables_do_not_warn,
                            the_log_can_be_silenced,
                            backends_are_listed_in_order,
                            a_query_writes_every_field,
                            a_context_describes_itself};
    TCase *tcase = tcase_create("fake drivers");
    tcase_add_checked_fixture(tcase, hide_machine, NULL);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    Suite *suite = suite_create("dispatch");
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK); /* warnings come once per process */
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
