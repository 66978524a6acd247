/* The table of backends, the environment, and the choice between them. The only file that reads the environment. */
#include "registry.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

/* In the order of preference. */
static const dm_backend *const backends[] = {&dm_backend_cuda, &dm_backend_hip, &dm_backend_cpu};
enum { NUM_BACKENDS = sizeof backends / sizeof *backends };

static const char *const variables[] = {
    "DRAFTMETA_BACKEND",
    "DRAFTMETA_CHECK",
    "DRAFTMETA_CUDA_LIBRARY",
    "DRAFTMETA_GRAPHS",
    "DRAFTMETA_HIP_LIBRARY",
    "DRAFTMETA_LOG",
    /* Read by the test suites, and by the Python package. */
    "DRAFTMETA_COMMAND",
    "DRAFTMETA_REQUIRE",
    "DRAFTMETA_VERBOSE",
};

void dm_warn(const char *format, ...)
{
    const char *level = secure_getenv("DRAFTMETA_LOG");
    if (level && strcmp(level, "0") == 0)
        return;
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    fprintf(stderr, "draftmeta: %s\n", line);
}

static bool is_known_variable(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        if (strlen(variables[i]) == length && strncmp(name, variables[i], length) == 0)
            return true;
    return false;
}

static void warn_unless_0_or_1(const char *name)
{
    const char *value = secure_getenv(name);
    if (value && *value && strcmp(value, "0") != 0 && strcmp(value, "1") != 0)
        dm_warn("%s is \"%s\"; it takes 0 or 1, and is taken as 1", name, value);
}

static void warn_about_variables_once(void)
{
    static atomic_flag done = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&done))
        return;
    for (char **entry = environ; entry && *entry; entry++) {
        const size_t length = strcspn(*entry, "=");
        if (strncmp(*entry, "DRAFTMETA_", 10) == 0 && !is_known_variable(*entry, length))
            dm_warn("unknown variable %.*s is ignored", (int)length, *entry);
    }
    warn_unless_0_or_1("DRAFTMETA_CHECK");
    warn_unless_0_or_1("DRAFTMETA_GRAPHS");
    warn_unless_0_or_1("DRAFTMETA_LOG");
}

/* A variable's value; empty counts as not set. */
static const char *variable(const char *name)
{
    const char *value = name ? secure_getenv(name) : NULL;
    return value && *value ? value : NULL;
}

static bool is_on(const char *name, bool unless_set)
{
    const char *value = variable(name);
    return value ? strcmp(value, "0") != 0 : unless_set;
}

static dm_status check_library_variables(void)
{
    for (int i = 0; i < NUM_BACKENDS; i++) {
        const char *library = variable(backends[i]->library_variable);
        if (library && library[0] != '/')
            return dm_fail(DM_ERR_CONFIG, "%s is \"%s\": it takes an absolute path", backends[i]->library_variable,
                           library);
    }
    return DM_OK;
}

static const dm_backend *find(const char *name)
{
    for (int i = 0; i < NUM_BACKENDS; i++)
        if (strcmp(backends[i]->name, name) == 0)
            return backends[i];
    return NULL;
}

static void probe(const dm_backend *backend, dm_backend_info *info)
{
    *info = (dm_backend_info){.size = sizeof *info};
    snprintf(info->name, sizeof info->name, "%s", backend->name);
    backend->probe(variable(backend->library_variable), info);
}

static dm_status use(const dm_backend *backend, const dm_backend_info *info, dm_choice *choice)
{
    if (choice->args.device >= info->device_count)
        return dm_fail(DM_ERR_RANGE, "options.device is %d, but %s has %d device(s): pass 0 .. %d", choice->args.device,
                       backend->name, info->device_count, info->device_count - 1);
    choice->args.library = variable(backend->library_variable);
    choice->backend = backend;
    choice->info = *info;
    return DM_OK;
}

static dm_status choose_named(const dm_backend *backend, dm_choice *choice)
{
    dm_backend_info info;
    probe(backend, &info);
    if (info.state != DM_BACKEND_READY)
        return dm_fail(DM_ERR_NO_BACKEND, "backend %s cannot be used: %s", backend->name, info.reason);
    return use(backend, &info, choice);
}

static dm_status choose_first(dm_choice *choice)
{
    for (int i = 0; i < NUM_BACKENDS; i++) {
        dm_backend_info info;
        probe(backends[i], &info);
        switch (info.state) {
        case DM_BACKEND_READY:
            return use(backends[i], &info, choice);
        case DM_BACKEND_NO_DRIVER:
        case DM_BACKEND_NO_DEVICE:
            break;
        case DM_BACKEND_NO_DEVICE_CODE:
            dm_warn("%s has devices but is not used: %s", backends[i]->name, info.reason);
            break;
        case DM_BACKEND_DRIVER_TOO_OLD:
        case DM_BACKEND_DRIVER_FAILED:
            return dm_fail(DM_ERR_NO_BACKEND, "backend %s: %s; mend it, or name another backend", backends[i]->name,
                           info.reason);
        }
    }
    return dm_fail(DM_ERR_NO_BACKEND, "no backend works here");
}

dm_status dm_registry_choose(const char *name, dm_choice *choice)
{
    warn_about_variables_once();
    const dm_status status = check_library_variables();
    if (status != DM_OK)
        return status;
    choice->check = is_on("DRAFTMETA_CHECK", false);
    choice->args.graphs = is_on("DRAFTMETA_GRAPHS", false);
    if (name) {
        const dm_backend *found = find(name);
        if (!found)
            return dm_fail(DM_ERR_ARGUMENT, "options.backend is \"%s\": pass cuda, hip or cpu", name);
        return choose_named(found, choice);
    }
    const char *wanted = variable("DRAFTMETA_BACKEND");
    if (!wanted)
        return choose_first(choice);
    const dm_backend *found = find(wanted);
    if (!found)
        return dm_fail(DM_ERR_CONFIG, "DRAFTMETA_BACKEND is \"%s\": it takes cuda, hip or cpu", wanted);
    return choose_named(found, choice);
}

int32_t dm_backend_count(void)
{
    return NUM_BACKENDS;
}

dm_status dm_backend_query(int32_t index, dm_backend_info *info)
{
    warn_about_variables_once();
    if (!info)
        return dm_fail(DM_ERR_ARGUMENT, "info is NULL");
    if (info->size != sizeof *info)
        return dm_fail(DM_ERR_STRUCT_SIZE, "info->size is %zu: set it to sizeof(dm_backend_info), %zu", info->size,
                       sizeof *info);
    if (index < 0 || index >= NUM_BACKENDS)
        return dm_fail(DM_ERR_ARGUMENT, "index is %d: pass 0 .. %d", index, NUM_BACKENDS - 1);
    const dm_status status = check_library_variables();
    if (status != DM_OK)
        return status;
    probe(backends[index], info);
    return DM_OK;
}
