/* The GPU backends over drivers that run device code on the host (tests/simt): every driver call fails once, captures
 * are replayed, devices and threads share the library. SKIP without those drivers. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "simt/control.h"
#include "spec.h"
#include "suite.h"

#define LENGTH(list) (sizeof(list) / sizeof *(list))

enum { CUDA, HIP, VENDORS, SKIPPED = 77, OUT_OF_MEMORY = 2, CAPTURE_UNSUPPORTED = 900, UNKNOWN = 999 };
enum { GLOBAL_MODE, THREAD_LOCAL_MODE, RELAXED_MODE, NON_BLOCKING = 1 };

static const char *const backends[VENDORS] = {"cuda", "hip"};
static const char *const variables[VENDORS] = {"DRAFTMETA_CUDA_LIBRARY", "DRAFTMETA_HIP_LIBRARY"};

/* ---- The driver, as a caller of the library uses it ------------------------------------------------------------- */

typedef struct entry_points {
    int (*context_retain)(void **context, int device);
    int (*context_release)(int device);
    int (*context_get)(void **context);
    int (*context_set)(void *context);
    int (*ordinal_get)(int *ordinal);
    int (*ordinal_set)(int ordinal);
    int (*stream_create)(void **stream, unsigned flags);
    int (*stream_create_urgent)(void **stream, unsigned flags, int priority);
    int (*stream_destroy)(void *stream);
    int (*begin_capture)(void *stream, int mode);
    int (*end_capture)(void *stream, void **graph);
    int (*instantiate)(void **exec, void *graph, unsigned long long flags);
    int (*graph_launch)(void *exec, void *stream);
    int (*exec_destroy)(void *exec);
    int (*graph_destroy)(void *graph);
    void (*fail_call)(const char *entry_point, int nth, int error);
    int (*calls)(const char *entry_point);
    int (*launches)(void);
    int (*live_objects)(void);
} entry_points;

#define AT(member) offsetof(entry_points, member)
static const struct {
    const char *names[VENDORS];
    size_t offset;
} entries[] = {
    {{"cuDevicePrimaryCtxRetain"}, AT(context_retain)},
    {{"cuDevicePrimaryCtxRelease_v2"}, AT(context_release)},
    {{"cuCtxGetCurrent"}, AT(context_get)},
    {{"cuCtxSetCurrent"}, AT(context_set)},
    {{NULL, "hipGetDevice"}, AT(ordinal_get)},
    {{NULL, "hipSetDevice"}, AT(ordinal_set)},
    {{"cuStreamCreate", "hipStreamCreateWithFlags"}, AT(stream_create)},
    {{"cuStreamCreateWithPriority"}, AT(stream_create_urgent)},
    {{"cuStreamDestroy_v2", "hipStreamDestroy"}, AT(stream_destroy)},
    {{"cuStreamBeginCapture_v2", "hipStreamBeginCapture"}, AT(begin_capture)},
    {{"cuStreamEndCapture", "hipStreamEndCapture"}, AT(end_capture)},
    {{"cuGraphInstantiateWithFlags", "hipGraphInstantiateWithFlags"}, AT(instantiate)},
    {{"cuGraphLaunch", "hipGraphLaunch"}, AT(graph_launch)},
    {{"cuGraphExecDestroy", "hipGraphExecDestroy"}, AT(exec_destroy)},
    {{"cuGraphDestroy", "hipGraphDestroy"}, AT(graph_destroy)},
    {{"simt_fail", "simt_fail"}, AT(fail_call)},
    {{"simt_calls", "simt_calls"}, AT(calls)},
    {{"simt_launches", "simt_launches"}, AT(launches)},
    {{"simt_live_objects", "simt_live_objects"}, AT(live_objects)},
};
#undef AT

/* What a test works with; each runs in a process of its own. */
static int vendor;
static entry_points driver;
static dm_context *ctx;

static void use_vendor(int which)
{
    vendor = which;
    void *library = dlopen(getenv(variables[which]), RTLD_NOW | RTLD_LOCAL);
    ck_assert_msg(library, "%s", dlerror());
    for (size_t i = 0; i < LENGTH(entries); i++) {
        const char *name = entries[i].names[which];
        void *entry = name ? dlsym(library, name) : NULL;
        ck_assert_msg(entry || !name, "no %s", name);
        memcpy((char *)&driver + entries[i].offset, &entry, sizeof entry);
    }
}

static dm_status open_device(int device, dm_context **opened)
{
    const dm_options options = {.size = sizeof options, .backend = backends[vendor], .device = device};
    return dm_open(&options, opened);
}

static void good(dm_status status)
{
    ck_assert_msg(status == DM_OK, "%s: %s", dm_status_string(status), dm_last_error());
}

static void open_vendor(int which)
{
    use_vendor(which);
    good(open_device(0, &ctx));
}

/* Nothing is left when the context is gone. */
static void close_vendor(void)
{
    dm_close(ctx);
    ck_assert_int_eq(driver.live_objects(), 0);
}

/* ---- The calling thread's current device ------------------------------------------------------------------------ */

enum { NO_DEVICE = -1, DEVICES = 2 };
static void *contexts[DEVICES]; /* retained by the test */

static void retain_contexts(void)
{
    for (int i = 0; vendor == CUDA && i < DEVICES; i++)
        ck_assert_int_eq(driver.context_retain(&contexts[i], i), 0);
}

static void release_contexts(void)
{
    for (int i = 0; vendor == CUDA && i < DEVICES; i++)
        ck_assert_int_eq(driver.context_release(i), 0);
}

/* HIP has no thread without a device: there it is the last one. */
static void set_current(int device)
{
    if (vendor == CUDA)
        ck_assert_int_eq(driver.context_set(device == NO_DEVICE ? NULL : contexts[device]), 0);
    else
        ck_assert_int_eq(driver.ordinal_set(device == NO_DEVICE ? DEVICES - 1 : device), 0);
}

/* A context, or an ordinal. */
static uintptr_t get_current(void)
{
    void *context = NULL;
    int ordinal = 0;
    ck_assert_int_eq(vendor == CUDA ? driver.context_get(&context) : driver.ordinal_get(&ordinal), 0);
    return vendor == CUDA ? (uintptr_t)context : (uintptr_t)ordinal;
}

/* ---- Fills ------------------------------------------------------------------------------------------------------- */

enum { REQUESTS = 24, MOST_EXTEND = 5, POOL_ROWS = 40, CONTEXT = 300, TOKENS = REQUESTS * MOST_EXTEND - 20 };

/* A batch of the same shape whatever the seed, up to hostile inputs and more tokens than there is room for. */
static image *make_batch(uint64_t seed, int fills)
{
    image *img = image_new();
    for (int i = 0; i < fills; i++) {
        rng r = rng_seeded(seed, (uint64_t)i);
        int64_t seq[REQUESTS], extend[REQUESTS], pool[REQUESTS];
        for (int k = 0; k < REQUESTS; k++) {
            const bool absent = seed % 3 == 1 && k > 5; /* a small batch in a large graph */
            seq[k] = absent ? 0 : rng_between(&r, -1, CONTEXT + 20);
            extend[k] = absent ? 0 : rng_between(&r, 0, MOST_EXTEND);
            pool[k] = rng_between(&r, 0, rng_chance(&r, 5) ? POOL_ROWS : POOL_ROWS - 1);
        }
        spec_add(img, &(fill_spec){.requests = REQUESTS,
                                   .seq_lens = seq,
                                   .extend_lens = extend,
                                   .pool_indices = pool,
                                   .topk = 64,
                                   .page_size = 16,
                                   .pool_rows = POOL_ROWS,
                                   .context = CONTEXT,
                                   .capacity = TOKENS,
                                   .padded_tokens = TOKENS / 2,
                                   .flags = i % 2 ? DM_FILL_FULL_ROWS : 0});
    }
    image_finish(img);
    return img;
}

static void *upload_block(dm_context *to, const image *img)
{
    void *block;
    good(dm_malloc(to, img->bytes, &block));
    good(dm_upload(to, block, img->block, img->bytes, NULL));
    return block;
}

/* Enqueues the fills of the image over the block, where its bytes are. */
static dm_status fill_block(dm_context *with, const image *img, void *block, dm_stream stream)
{
    dm_fill_desc descs[IMAGE_MAX_DESCS];
    const dm_fill_desc *list[IMAGE_MAX_DESCS];
    for (size_t i = 0; i < img->count; i++) {
        descs[i] = img->descs[i];
        image_rebase(&descs[i], img->block, block);
        list[i] = &descs[i];
    }
    return dm_fill_many(with, list, img->count, stream);
}

/* The block holds what the oracle makes of the image, whose own block is changed to that. */
static void expect_filled(dm_context *in, image *img, const void *block)
{
    unsigned char *got = harness_alloc(img->bytes);
    good(dm_download(in, got, block, img->bytes, NULL));
    for (size_t i = 0; i < img->count; i++)
        oracle_fill(&img->descs[i]);
    ck_assert_mem_eq(got, img->block, img->bytes);
    free(got);
}

static void check_fill(dm_context *with, uint64_t seed, int fills, dm_stream stream)
{
    image *img = make_batch(seed, fills);
    void *block = upload_block(with, img);
    good(fill_block(with, img, block, stream));
    good(dm_sync(with, stream));
    expect_filled(with, img, block);
    good(dm_free(with, block));
    image_free(img);
}

/* ---- Every driver call fails once -------------------------------------------------------------------------------- */

static const char *const called[][VENDORS] = {
    {"cuInit", "hipInit"},
    {"cuDriverGetVersion", "hipDriverGetVersion"},
    {"cuDeviceGetCount", "hipGetDeviceCount"},
    {"cuDeviceGet", "hipDeviceGet"},
    {"cuDeviceGetName", "hipDeviceGetName"},
    {"cuDeviceGetAttribute", "hipDeviceGetAttribute"},
    {"cuDevicePrimaryCtxRetain"},
    {"cuDevicePrimaryCtxRelease_v2"},
    {"cuCtxGetCurrent", "hipGetDevice"},
    {"cuCtxSetCurrent", "hipSetDevice"},
    {"cuModuleLoadData", "hipModuleLoadData"},
    {"cuModuleUnload", "hipModuleUnload"},
    {"cuModuleGetFunction", "hipModuleGetFunction"},
    {"cuMemAlloc_v2", "hipMalloc"},
    {"cuMemFree_v2", "hipFree"},
    {"cuMemcpyHtoDAsync_v2", "hipMemcpyHtoDAsync"},
    {"cuMemcpyDtoHAsync_v2", "hipMemcpyDtoHAsync"},
    {"cuStreamSynchronize", "hipStreamSynchronize"},
    {"cuStreamIsCapturing", "hipStreamIsCapturing"},
    {"cuLaunchKernel", "hipModuleLaunchKernel"},
    {"cuStreamGetId"},
    {"cuStreamGetPriority"},
    {"cuStreamGetCtx"},
    {"cuStreamCreate"},
    {"cuGraphCreate"},
    {"cuGraphAddKernelNode_v2"},
    {"cuGraphInstantiateWithFlags"},
    {"cuGraphUpload"},
    {"cuGraphDestroy"},
    {"cuGraphExecDestroy"},
};
enum { CALLED = LENGTH(called), PROBE_CALLS = 5, GET_CURRENT = 8, SET_CURRENT = 9, IS_CAPTURING = 18, GET_ID = 20 };

/* What the acts below work on. */
static void *block, *extra;
static image *one_fill, *eight_fills;

static dm_status open_again(void)
{
    return open_device(0, &ctx);
}

static void close_again(void)
{
    dm_close(ctx);
}

static dm_status allocate(void)
{
    extra = &extra;
    const dm_status status = dm_malloc(ctx, 4096, &extra);
    ck_assert_msg(status == DM_OK || !extra, "a failed dm_malloc gives a pointer");
    return status;
}

static void free_extra(void)
{
    good(dm_free(ctx, extra));
}

static void allocate_extra(void)
{
    good(allocate());
}

static dm_status release(void)
{
    return dm_free(ctx, extra);
}

static dm_status upload(void)
{
    return dm_upload(ctx, block, one_fill->block, one_fill->bytes, NULL);
}

static dm_status download(void)
{
    unsigned char byte;
    return dm_download(ctx, &byte, block, sizeof byte, NULL);
}

static dm_status synchronise(void)
{
    return dm_sync(ctx, NULL);
}

static dm_status fill(void)
{
    return fill_block(ctx, one_fill, block, NULL);
}

static dm_status fill_several(void)
{
    return fill_block(ctx, eight_fills, block, NULL);
}

static dm_status draft_extend(void)
{
    int64_t tokens;
    int32_t *lengths = block;
    return dm_fill_draft_extend(ctx, lengths, lengths + 8, 0, 16, lengths + 16, NULL, 8, &tokens, NULL);
}

typedef struct act {
    const char *name;
    void (*prepare)(void);
    dm_status (*run)(void);
    void (*undo)(void); /* after run was good */
} act;

static const act acts[] = {
    {"dm_open", NULL, open_again, close_again},
    {"dm_malloc", NULL, allocate, free_extra},
    {"dm_free", allocate_extra, release, NULL},
    {"dm_upload", NULL, upload, NULL},
    {"dm_download", NULL, download, NULL},
    {"dm_sync", NULL, synchronise, NULL},
    {"dm_fill", NULL, fill, NULL},
    {"dm_fill_many", NULL, fill_several, NULL},
    {"dm_fill_draft_extend", NULL, draft_extend, NULL},
};
enum { OPEN, FREE = 2, FILL = 6, DRAFT_EXTEND = 8, ACTS = LENGTH(acts) };

static void begin_act(const act *a)
{
    if (a != &acts[OPEN]) {
        good(open_again());
        block = upload_block(ctx, eight_fills);
    }
    if (a->prepare)
        a->prepare();
}

static void end_act(const act *a)
{
    if (a->undo)
        a->undo();
    if (a == &acts[OPEN])
        return;
    good(dm_free(ctx, block));
    dm_close(ctx);
}

/* How often the act, when all is well, makes the call. */
static int count_calls(const act *a, const char *call)
{
    begin_act(a);
    const int before = driver.calls(call);
    good(a->run());
    const int calls = driver.calls(call) - before;
    end_act(a);
    return calls;
}

/* dm_open asks the driver what there is before and after it uses it; there, what fails is the backend. */
static bool is_expected(const act *a, int call, dm_status status, int error)
{
    if (a == &acts[OPEN] && call < PROBE_CALLS && (status == DM_ERR_NO_BACKEND || status == DM_ERR_DRIVER))
        return true;
    return status == (error == OUT_OF_MEMORY ? DM_ERR_OUT_OF_MEMORY : DM_ERR_DRIVER);
}

/* The probe's questions for a name may go unanswered, and where something stands in the way of a graph, there is none.
 * dm_fill_draft_extend asks for itself first whether the stream is captured. */
static bool may_be_good(const act *a, int call, int nth)
{
    const bool asks_for_graph = call == IS_CAPTURING && vendor == CUDA && (a != &acts[DRAFT_EXTEND] || nth > 1);
    return a == &acts[OPEN] || (a >= &acts[FILL] && (asks_for_graph || call >= GET_ID));
}

static void expect_ready(const char *what)
{
    dm_backend_info info = {.size = sizeof info};
    good(dm_context_info(ctx, &info));
    ck_assert_msg(info.state == DM_BACKEND_READY, "%s: open, and yet %s", what, info.reason);
}

/* A dm_free that fails after it has freed cannot be tried again: extra is made anew. */
static void expect_nothing_left(const act *a, const char *what, int live)
{
    if (a == &acts[FREE] && driver.live_objects() == live - 1)
        allocate_extra();
    ck_assert_msg(driver.live_objects() == live, "%s: %d objects left", what, driver.live_objects() - live);
}

static void fail_once(const act *a, int call, int nth, int error, int current)
{
    char what[128], words[64];
    snprintf(what, sizeof what, "%s, call %d of %s, current %d", a->name, nth, called[call][vendor], current);
    snprintf(words, sizeof words, "error %d: %s", error, error == OUT_OF_MEMORY ? "out of memory" : "unknown error");
    begin_act(a);
    set_current(current);
    const int live = driver.live_objects();
    const uintptr_t before = get_current();
    driver.fail_call(called[call][vendor], nth, error);
    const dm_status status = a->run();
    driver.fail_call("", 0, 0);
    ck_assert_msg(get_current() == before || call == SET_CURRENT, "%s: another device is current", what);
    if (status == DM_OK) {
        ck_assert_msg(may_be_good(a, call, nth), "%s: DM_OK", what);
        expect_ready(what);
    } else {
        ck_assert_msg(is_expected(a, call, status, error), "%s: %s", what, dm_status_string(status));
        ck_assert_msg(strstr(dm_last_error(), words), "%s: %s", what, dm_last_error());
        expect_nothing_left(a, what, live);
        set_current(current);
        ck_assert_msg(a->run() == DM_OK, "%s: %s the second time", what, dm_last_error());
    }
    if (current == NO_DEVICE)
        check_fill(ctx, 1, 1, NULL);
    end_act(a);
}

START_TEST(a_driver_call_fails)
{
    const act *a = &acts[_i % ACTS];
    use_vendor(_i / ACTS);
    one_fill = make_batch(0, 1);
    eight_fills = make_batch(0, IMAGE_MAX_DESCS);
    good(open_again()); /* so that the driver is up */
    retain_contexts();
    dm_close(ctx);
    const int live = driver.live_objects();
    for (int call = 0; call < CALLED; call++)
        for (int current = NO_DEVICE; current < DEVICES && called[call][vendor]; current++) {
            set_current(current);
            const int calls = count_calls(a, called[call][vendor]);
            for (int nth = 1; nth <= calls; nth++) {
                fail_once(a, call, nth, current == 0 ? OUT_OF_MEMORY : UNKNOWN, current);
                ck_assert_int_eq(driver.live_objects(), live);
            }
        }
    release_contexts();
    image_free(one_fill);
    image_free(eight_fills);
}
END_TEST

/* There is nobody to tell. What one failing call should have given back is lost, and no more than that; if the device
 * cannot be made current, that is all there is. */
START_TEST(a_driver_call_fails_in_close)
{
    use_vendor(_i);
    for (int call = 0; call < CALLED; call++)
        for (int nth = 1; nth <= 4 && called[call][vendor]; nth++) {
            const int live = driver.live_objects();
            good(open_again());
            const int most = call == GET_CURRENT || call == SET_CURRENT ? driver.live_objects() - live : 1;
            driver.fail_call(called[call][vendor], nth, UNKNOWN);
            dm_close(ctx);
            driver.fail_call("", 0, 0);
            ck_assert_msg(driver.live_objects() <= live + most, "%s leaves %d", called[call][vendor],
                          driver.live_objects() - live);
        }
    good(open_again());
    check_fill(ctx, 2, 1, NULL);
    dm_close(ctx);
}
END_TEST

START_TEST(a_driver_fails_as_the_environment_says)
{
    setenv("DRAFTMETA_GRAPHS", "0", 1); /* the second fill may be as the first */
    setenv("SIMT_FAIL", _i == CUDA ? "cuLaunchKernel:2:719" : "hipModuleLaunchKernel:2:719", 1);
    open_vendor(_i);
    check_fill(ctx, 1, 1, NULL);
    image *img = make_batch(1, 1);
    void *memory = upload_block(ctx, img);
    ck_assert_int_eq(fill_block(ctx, img, memory, NULL), DM_ERR_DRIVER);
    ck_assert_msg(strstr(dm_last_error(), "error 719"), "%s", dm_last_error());
    good(fill_block(ctx, img, memory, NULL));
    good(dm_free(ctx, memory));
    image_free(img);
    close_vendor();
}
END_TEST

/* ---- Memory checks ----------------------------------------------------------------------------------------------- */

START_TEST(memory_is_checked_when_asked_for)
{
    setenv("DRAFTMETA_CHECK", "1", 1);
    open_vendor(_i);
    image *img = make_batch(3, 1);
    void *memory = upload_block(ctx, img);
    good(fill_block(ctx, img, memory, NULL));
    ck_assert_int_eq(fill_block(ctx, img, img->block, NULL), DM_ERR_POINTER);
    ck_assert_int_eq(fill_block(ctx, img, (char *)memory + img->bytes / 2 / 64 * 64, NULL), DM_ERR_POINTER);
    good(dm_free(ctx, memory));
    image_free(img);
    close_vendor();
}
END_TEST

/* ---- Capture and replay ------------------------------------------------------------------------------------------ */

static void *make_stream(unsigned flags)
{
    void *stream;
    set_current(0);
    ck_assert_int_eq(driver.stream_create(&stream, flags), 0);
    return stream;
}

/* A context with its device current, as an engine has it, and a stream. */
static void *open_with_stream(int which)
{
    open_vendor(which);
    retain_contexts();
    return make_stream(NON_BLOCKING);
}

static void close_with_stream(void *stream)
{
    ck_assert_int_eq(driver.stream_destroy(stream), 0);
    release_contexts();
    close_vendor();
}

/* Ends the capture; the graph, ready to be launched. */
static void *end_capture(void *stream)
{
    void *graph, *exec;
    ck_assert_int_eq(driver.end_capture(stream, &graph), 0);
    ck_assert_int_eq(driver.instantiate(&exec, graph, 0), 0);
    ck_assert_int_eq(driver.graph_destroy(graph), 0);
    return exec;
}

/* Captured as the first fill of the context; then the graph alone follows what the memory holds. */
static void check_replay(int which, int fills)
{
    enum { ROUNDS = 6 };
    void *stream = open_with_stream(which);
    image *img = make_batch(0, fills);
    void *memory = upload_block(ctx, img);
    ck_assert_int_eq(driver.begin_capture(stream, THREAD_LOCAL_MODE), 0);
    good(fill_block(ctx, img, memory, stream));
    void *exec = end_capture(stream);
    ck_assert_int_eq(driver.launches(), 0);
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
        image *next = make_batch(seed, fills);
        ck_assert_uint_eq(next->bytes, img->bytes);
        good(dm_upload(ctx, memory, next->block, next->bytes, stream));
        ck_assert_int_eq(driver.graph_launch(exec, stream), 0);
        expect_filled(ctx, next, memory);
        image_free(next);
    }
    ck_assert_int_eq(driver.launches(), ROUNDS);
    ck_assert_int_eq(driver.exec_destroy(exec), 0);
    good(dm_free(ctx, memory));
    image_free(img);
    close_with_stream(stream);
}

START_TEST(a_replay_follows_its_inputs)
{
    check_replay(_i, 1);
}
END_TEST

START_TEST(a_replay_of_eight_follows_their_inputs)
{
    check_replay(_i, IMAGE_MAX_DESCS);
}
END_TEST

START_TEST(waiting_is_refused_in_a_capture)
{
    void *stream = open_with_stream(_i), *lengths;
    int64_t tokens = -1;
    good(dm_malloc(ctx, 256, &lengths));
    int32_t *q = lengths, *kv = q + 2, *e = kv + 2, host[2] = {-7, -7};
    good(dm_upload(ctx, q, (int32_t[]){2, 1, 10, 20, -7, -7, -7, -7}, 32, NULL));
    ck_assert_int_eq(driver.begin_capture(stream, GLOBAL_MODE), 0);
    ck_assert_int_eq(dm_fill_draft_extend(ctx, q, kv, 2, 16, e, NULL, 4, &tokens, stream), DM_ERR_CAPTURE);
    void *exec = end_capture(stream); /* of nothing, and not spoilt */
    ck_assert_int_eq(driver.graph_launch(exec, stream), 0);
    ck_assert_int_eq(driver.launches(), 0);
    ck_assert_int_eq(tokens, -1);
    ck_assert_int_eq(driver.exec_destroy(exec), 0);

    ck_assert_int_eq(driver.begin_capture(stream, GLOBAL_MODE), 0);
    good(dm_fill_draft_extend(ctx, q, kv, 2, 16, e, NULL, 4, NULL, stream));
    exec = end_capture(stream);
    good(dm_download(ctx, host, e, sizeof host, stream));
    ck_assert_int_eq(host[0], -7);
    ck_assert_int_eq(driver.graph_launch(exec, stream), 0);
    good(dm_download(ctx, host, e, sizeof host, stream));
    ck_assert_int_eq(host[0], 9);
    ck_assert_int_eq(host[1], 10);
    ck_assert_int_eq(driver.exec_destroy(exec), 0);
    good(dm_fill_draft_extend(ctx, q, kv, 2, 16, e, NULL, 4, &tokens, stream));
    ck_assert_int_eq(tokens, 3);
    good(dm_free(ctx, lengths));
    close_with_stream(stream);
}
END_TEST

/* Copies and waits on a stream under capture, and allocation anywhere, fail; the context is as good as before. */
START_TEST(memory_calls_fail_in_a_capture)
{
    void *stream = open_with_stream(_i), *memory, *more, *graph;
    unsigned char byte = 0;
    good(dm_malloc(ctx, 64, &memory));
    for (int call = 0; call < 4; call++) {
        ck_assert_int_eq(driver.begin_capture(stream, GLOBAL_MODE), 0);
        const dm_status status = call == 0   ? dm_upload(ctx, memory, &byte, 1, stream)
                                 : call == 1 ? dm_download(ctx, &byte, memory, 1, stream)
                                 : call == 2 ? dm_sync(ctx, stream)
                                             : dm_malloc(ctx, 64, &more);
        ck_assert_int_eq(status, DM_ERR_DRIVER);
        ck_assert_msg(strstr(dm_last_error(), "error 900: operation not permitted when stream is capturing"), "%s",
                      dm_last_error());
        ck_assert_int_ne(driver.end_capture(stream, &graph), 0); /* spoilt, as on a GPU */
        check_fill(ctx, 4, 1, stream);
    }
    good(dm_free(ctx, memory));
    close_with_stream(stream);
}
END_TEST

/* A capture of one thread does not disturb the fills of another stream. */
START_TEST(other_streams_work_during_a_capture)
{
    void *stream = open_with_stream(_i), *other = make_stream(0), *graph;
    image *img = make_batch(5, 1);
    void *memory = upload_block(ctx, img);
    ck_assert_int_eq(driver.begin_capture(stream, GLOBAL_MODE), 0);
    for (int i = 0; i < 3; i++) /* by a kernel, by a graph that is set, by that graph */
        good(fill_block(ctx, img, memory, other));
    good(dm_sync(ctx, other));
    ck_assert_int_eq(driver.end_capture(stream, &graph), 0);
    ck_assert_int_eq(driver.graph_destroy(graph), 0);
    expect_filled(ctx, img, memory);
    good(dm_free(ctx, memory));
    image_free(img);
    ck_assert_int_eq(driver.stream_destroy(other), 0);
    close_with_stream(stream);
}
END_TEST

/* ---- Repeats ----------------------------------------------------------------------------------------------------- */

enum { KNOWN_STREAMS = 4, KNOWN_CALLS = 8, ROUNDS = 5 };

static int graph_launches(void)
{
    return driver.calls("cuGraphLaunch") + driver.calls("hipGraphLaunch");
}

/* Of so many launches, which would be graphs where the driver is used for them. */
static void expect_graphs(int before, int expected)
{
    ck_assert_int_eq(graph_launches() - before, vendor == CUDA ? expected : 0);
}

/* Fills the memory once for each of the seeds 0, 1, ..., which change what is read and not the calls. */
static void fill_rounds(const image *like, void *memory, int rounds, dm_stream stream)
{
    for (uint64_t seed = 0; seed < (uint64_t)rounds; seed++) {
        image *img = make_batch(seed, (int)like->count);
        ck_assert_uint_eq(img->bytes, like->bytes);
        good(dm_upload(ctx, memory, img->block, img->bytes, stream));
        good(fill_block(ctx, img, memory, stream));
        good(dm_sync(ctx, stream));
        expect_filled(ctx, img, memory);
        image_free(img);
    }
}

static void check_repeats(int fills, dm_stream stream, int expected)
{
    image *img = make_batch(0, fills);
    void *memory = upload_block(ctx, img);
    const int before = graph_launches();
    fill_rounds(img, memory, ROUNDS, stream);
    expect_graphs(before, expected);
    good(dm_free(ctx, memory));
    image_free(img);
}

START_TEST(a_fill_that_repeats_is_a_graph)
{
    void *stream = open_with_stream(_i);
    check_repeats(1, stream, ROUNDS - 1);
    check_repeats(IMAGE_MAX_DESCS, stream, ROUNDS - 1);
    ck_assert_int_eq(driver.launches(), 2 * ROUNDS);
    close_with_stream(stream);
}
END_TEST

START_TEST(there_are_no_graphs_unless_asked_for)
{
    unsetenv("DRAFTMETA_GRAPHS");
    void *stream = open_with_stream(_i);
    check_repeats(1, stream, 0);
    ck_assert_int_eq(driver.calls("cuGraphCreate"), 0);
    close_with_stream(stream);
}
END_TEST

/* So many different fills are known, and each is the one that was asked for. */
START_TEST(fills_that_take_turns_repeat)
{
    void *stream = open_with_stream(_i);
    image *img = make_batch(0, 1);
    void *memory = upload_block(ctx, img);
    for (int different = 2; different <= KNOWN_CALLS + 1; different++) {
        const int before = graph_launches();
        for (int i = 0; i < ROUNDS * different; i++) {
            image *next = make_batch((uint64_t)i, 1);
            next->descs[0].topk = 10 * different + i % different; /* below most lengths */
            good(dm_upload(ctx, memory, next->block, next->bytes, stream));
            good(fill_block(ctx, next, memory, stream));
            expect_filled(ctx, next, memory);
            image_free(next);
        }
        expect_graphs(before, different <= KNOWN_CALLS ? (ROUNDS - 1) * different : 0);
    }
    good(dm_free(ctx, memory));
    image_free(img);
    close_with_stream(stream);
}
END_TEST

/* The one that was used last stays known, however many others come by. */
START_TEST(what_repeats_is_not_forgotten)
{
    void *stream = open_with_stream(_i);
    image *img = make_batch(0, 1);
    void *memory = upload_block(ctx, img);
    good(fill_block(ctx, img, memory, stream));
    const int before = graph_launches();
    for (int i = 0; i < 3 * KNOWN_CALLS; i++) {
        image *other = make_batch(0, 1);
        other->descs[0].topk = 1000 + i;
        good(fill_block(ctx, other, memory, stream));
        good(fill_block(ctx, img, memory, stream));
        image_free(other);
    }
    expect_graphs(before, 3 * KNOWN_CALLS);
    good(dm_free(ctx, memory));
    image_free(img);
    close_with_stream(stream);
}
END_TEST

START_TEST(each_stream_has_graphs_of_its_own)
{
    enum { MANY = KNOWN_STREAMS + 2 };
    void *urgent, *streams[MANY] = {open_with_stream(_i)};
    for (int i = 1; i < MANY; i++)
        streams[i] = make_stream(i % 2 ? NON_BLOCKING : 0);
    if (_i == CUDA) { /* its kernels would lose their priority */
        ck_assert_int_eq(driver.stream_create_urgent(&urgent, NON_BLOCKING, -1), 0);
        check_repeats(1, urgent, 0);
        ck_assert_int_eq(driver.stream_destroy(urgent), 0);
    }
    image *img = make_batch(0, 1);
    void *memory = upload_block(ctx, img);
    for (int i = 0; i < MANY; i++) {
        const int before = graph_launches();
        fill_rounds(img, memory, ROUNDS, streams[i]);
        expect_graphs(before, i < KNOWN_STREAMS ? ROUNDS - 1 : 0);
    }
    good(dm_free(ctx, memory));
    image_free(img);
    for (int i = 1; i < MANY; i++)
        ck_assert_int_eq(driver.stream_destroy(streams[i]), 0);
    close_with_stream(streams[0]);
}
END_TEST

/* A stream that comes later may have the handle of one that is gone, whose graphs are not its own. */
START_TEST(a_handle_that_comes_again_is_another_stream)
{
    void *first = open_with_stream(_i);
    image *img = make_batch(0, 1);
    void *memory = upload_block(ctx, img);
    fill_rounds(img, memory, ROUNDS, first);
    ck_assert_int_eq(driver.stream_destroy(first), 0);
    ck_assert_ptr_eq(make_stream(NON_BLOCKING), first);
    const int before = graph_launches();
    fill_rounds(img, memory, ROUNDS, first);
    expect_graphs(before, ROUNDS - 1);
    good(dm_free(ctx, memory));
    image_free(img);
    close_with_stream(first);
}
END_TEST

/* What is captured is the kernel, and the graph of the library stays as it is. */
START_TEST(a_capture_does_not_repeat)
{
    void *stream = open_with_stream(_i);
    image *img = make_batch(0, 1);
    void *memory = upload_block(ctx, img);
    fill_rounds(img, memory, ROUNDS, stream);
    ck_assert_int_eq(driver.begin_capture(stream, GLOBAL_MODE), 0);
    const int before = graph_launches();
    good(fill_block(ctx, img, memory, stream));
    void *exec = end_capture(stream);
    expect_graphs(before, 0);
    good(dm_upload(ctx, memory, img->block, img->bytes, stream));
    ck_assert_int_eq(driver.graph_launch(exec, stream), 0);
    expect_filled(ctx, img, memory);
    ck_assert_int_eq(driver.exec_destroy(exec), 0);
    check_repeats(1, stream, ROUNDS - 1);
    good(dm_free(ctx, memory));
    image_free(img);
    close_with_stream(stream);
}
END_TEST

/* A driver that fails at a graph is asked for a kernel instead. Loops over the calls that it fails at. */
static const struct {
    const char *name;
    int nth, kernels; /* of ROUNDS launches, how many are no graphs then */
} failing[] = {
    {"cuGraphCreate", 1, ROUNDS},
    {"cuGraphAddKernelNode_v2", 1, ROUNDS},
    {"cuStreamCreate", 1, ROUNDS},
    {"cuGraphInstantiateWithFlags", 1, ROUNDS},
    {"cuGraphUpload", 32, ROUNDS},
    {"cuStreamDestroy_v2", 1, ROUNDS},
    {"cuStreamIsCapturing", 1, 2},
    {"cuStreamIsCapturing", 2, 2},
    {"cuStreamGetId", 1, 2},
    {"cuStreamGetId", 2, 2},
    {"cuStreamGetPriority", 1, 2},
    {"cuStreamGetCtx", 1, 2},
    {"cuGraphLaunch", 1, 2},
    {"cuGraphLaunch", 3, 2},
    {"cuGraphExecKernelNodeSetParams_v2", 1, 2},
};

START_TEST(a_graph_that_fails_is_a_kernel)
{
    use_vendor(CUDA);
    driver.fail_call(failing[_i].name, failing[_i].nth, UNKNOWN);
    good(open_device(0, &ctx));
    image *img = make_batch(0, 1);
    void *memory = upload_block(ctx, img);
    fill_rounds(img, memory, ROUNDS, NULL);
    ck_assert_int_ge(driver.calls(failing[_i].name), failing[_i].nth);
    driver.fail_call("", 0, 0);
    ck_assert_int_eq(driver.launches(), ROUNDS);
    ck_assert_int_eq(driver.calls("cuLaunchKernel"), failing[_i].kernels);
    good(dm_free(ctx, memory));
    image_free(img);
    dm_close(ctx);
}
END_TEST

/* ---- Streams, devices, threads ----------------------------------------------------------------------------------- */

START_TEST(all_kinds_of_streams)
{
    void *stream = open_with_stream(_i), *blocking = make_stream(0);
    void *const streams[] = {NULL, (void *)1, (void *)2, stream, blocking};
    for (size_t i = 0; i < LENGTH(streams); i++)
        check_fill(ctx, i, 1 + (int)i, streams[i]);
    ck_assert_int_eq(driver.stream_destroy(blocking), 0);
    close_with_stream(stream);
}
END_TEST

START_TEST(two_devices_at_once)
{
    dm_context *on[DEVICES];
    use_vendor(_i);
    for (int device = 0; device < DEVICES; device++)
        good(open_device(device, &on[device]));
    retain_contexts();
    for (int current = NO_DEVICE; current < DEVICES; current++)
        for (int device = 0; device < DEVICES; device++) {
            set_current(current);
            const uintptr_t before = get_current();
            check_fill(on[device], (uint64_t)device, 2, NULL);
            ck_assert_uint_eq(get_current(), before);
        }
    dm_close(on[0]);
    check_fill(on[1], 7, 1, NULL);
    dm_close(on[1]);
    release_contexts();
    ck_assert_int_eq(driver.live_objects(), 0);
}
END_TEST

enum { THREADS = 8, FILLS_OF_A_THREAD = 20 };

/* Checks nothing by ck_assert, which is for the main thread only. */
static void *fill_in_a_thread(void *arg)
{
    const uint64_t number = *(const uint64_t *)arg;
    checker *c = checker_new(ctx);
    bool fine = true;
    for (uint64_t i = 0; i < FILLS_OF_A_THREAD && fine; i++) {
        mismatch m;
        image *img = make_batch(100 * number + i, 1 + (int)i % 3);
        void *const per_thread_stream = (void *)2;
        fine = checker_run(c, img, i % 2 ? per_thread_stream : NULL, &m, NULL) == DM_OK && !m.found;
        if (!fine)
            printf("thread %d: %s\n", (int)number, m.text);
        image_free(img);
    }
    checker_free(c);
    return fine ? arg : NULL;
}

START_TEST(eight_threads_on_one_context)
{
    pthread_t threads[THREADS];
    uint64_t numbers[THREADS];
    void *result;
    open_vendor(_i);
    for (uint64_t i = 0; i < THREADS; i++) {
        numbers[i] = i;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, fill_in_a_thread, &numbers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_join(threads[i], &result), 0);
        ck_assert_ptr_nonnull(result);
    }
    close_vendor();
}
END_TEST

/* ---- The suite --------------------------------------------------------------------------------------------------- */

/* By name: a driver that is loaded here would be loaded in every test, and its environment read. */
static bool has_drivers(void)
{
    for (int i = 0; i < VENDORS; i++) {
        const char *path = getenv(variables[i]);
        if (!path || !strstr(path, "_simt.so"))
            return false;
    }
    return true;
}

int main(void)
{
    const TTest *const tests[] = {a_driver_call_fails_in_close,
                                  a_driver_fails_as_the_environment_says,
                                  memory_is_checked_when_asked_for,
                                  a_replay_follows_its_inputs,
                                  a_replay_of_eight_follows_their_inputs,
                                  waiting_is_refused_in_a_capture,
                                  memory_calls_fail_in_a_capture,
                                  other_streams_work_during_a_capture,
                                  a_fill_that_repeats_is_a_graph,
                                  there_are_no_graphs_unless_asked_for,
                                  fills_that_take_turns_repeat,
                                  what_repeats_is_not_forgotten,
                                  each_stream_has_graphs_of_its_own,
                                  a_handle_that_comes_again_is_another_stream,
                                  a_capture_does_not_repeat,
                                  all_kinds_of_streams,
                                  two_devices_at_once,
                                  eight_threads_on_one_context};
    if (!has_drivers()) {
        printf("SKIP: %s and %s name no test drivers\n", variables[CUDA], variables[HIP]);
        return SKIPPED;
    }
    setenv("DRAFTMETA_GRAPHS", "1", 1); /* the tests that want none say so */
    TCase *tcase = tcase_create("driver");
    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, a_driver_call_fails, 0, VENDORS * ACTS);
    for (size_t i = 0; i < LENGTH(tests); i++)
        tcase_add_loop_test(tcase, tests[i], 0, VENDORS);
    tcase_add_loop_test(tcase, a_graph_that_fails_is_a_kernel, 0, LENGTH(failing));
    Suite *suite = suite_create("driver");
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
