/* CUPTI's activity records without a GPU: of the kernels that a test driver runs, or of those that a test adds. They
 * come three to a buffer, the last buffer first, between records of another kind. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED(type, name, ...)                                                                                      \
    __attribute__((visibility("default"))) type name(__VA_ARGS__);                                                     \
    type name(__VA_ARGS__)

enum { KERNEL = 10, MEMCPY = 1, FAILED = 1, NO_MORE = 12, RECORD_BYTES = 216, PER_BUFFER = 3, MOST = 1 << 16 };

/* The part of CUpti_ActivityKernel10 that is read, by its places there. */
typedef union record {
    unsigned char bytes[RECORD_BYTES];
    uint32_t kind;
    struct {
        unsigned char before[16];
        uint64_t start, end;
    } times;
    struct {
        unsigned char before[104];
        const char *name;
    } names;
} record;

typedef void request_callback(uint8_t **buffer, size_t *size, size_t *max_records);
typedef void complete_callback(void *context, uint32_t stream, uint8_t *buffer, size_t size, size_t valid);

static request_callback *request;
static complete_callback *complete;
static record *records;
static int count;
static uint64_t now = 1000000;

EXPORTED(void, fake_cupti_add, uint32_t kind, uint64_t start, uint64_t end, const char *name)
{
    if (count == MOST)
        abort();
    record *r = &records[count++];
    memset(r, 0xa5, sizeof *r);
    r->kind = kind;
    r->times.start = start;
    r->times.end = end;
    r->names.name = name;
}

/* A kernel of the test driver's: FAKE_CUPTI_NS long, and every seventh is lost on request. */
static void on_launch(const char *name)
{
    const char *ns = getenv("FAKE_CUPTI_NS");
    if (getenv("FAKE_CUPTI_LOSES") && now % 7000000 == 0)
        name = "lost";
    fake_cupti_add(MEMCPY, now, now + 1, NULL);
    fake_cupti_add(KERNEL, now, now + (ns ? strtoull(ns, NULL, 10) : 1000), name);
    now += 1000000;
}

static void watch(void (*watcher)(const char *name))
{
    const char *path = getenv("DRAFTMETA_CUDA_LIBRARY");
    void *driver = path ? dlopen(path, RTLD_NOW | RTLD_NOLOAD) : NULL;
    void (*set)(void (*)(const char *)) = NULL;
    if (driver)
        *(void **)&set = dlsym(driver, "simt_watch");
    if (set)
        set(watcher);
}

EXPORTED(int, cuptiActivityRegisterCallbacks, request_callback *on_request, complete_callback *on_complete)
{
    request = on_request;
    complete = on_complete;
    return 0;
}

EXPORTED(int, cuptiActivityEnable, int kind)
{
    if (kind != KERNEL || getenv("FAKE_CUPTI_FAILS"))
        return FAILED;
    if (!records)
        records = calloc(MOST, sizeof *records);
    watch(on_launch);
    return 0;
}

EXPORTED(int, cuptiActivityDisable, int kind)
{
    watch(NULL);
    return kind == KERNEL ? 0 : FAILED;
}

EXPORTED(int, cuptiActivityFlushAll, uint32_t flags)
{
    (void)flags;
    while (count > 0) {
        const int first = (count - 1) / PER_BUFFER * PER_BUFFER;
        uint8_t *buffer = NULL;
        size_t size = 0, most = 1;
        request(&buffer, &size, &most);
        if (!buffer || size < PER_BUFFER * sizeof *records || most || (uintptr_t)buffer % 8)
            return FAILED;
        const size_t valid = (size_t)(count - first) * sizeof *records;
        memcpy(buffer, &records[first], valid);
        count = first;
        complete(NULL, 0, buffer, size, valid);
    }
    return 0;
}

EXPORTED(int, cuptiActivityGetNextRecord, uint8_t *buffer, size_t valid, void **next)
{
    uint8_t *at = *next ? (uint8_t *)*next + RECORD_BYTES : buffer;
    if (at + RECORD_BYTES > buffer + valid)
        return NO_MORE;
    *next = at;
    return 0;
}
