#include "repeat.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "launch.h"

/* A graph is ordered after its own earlier launches, also those on other streams. So each belongs to one stream for
 * good, and streams that come when all are taken have none. */
enum { STREAMS = 4, CALLS = 8, NON_BLOCKING = 1 };

typedef struct known_call {
    void *exec;
    bool is_set;       /* exec launches this call */
    uint64_t last_use; /* 0: never */
    gpu_call call;     /* with this param: */
    _Alignas(8) unsigned char param[sizeof(gpu_jobs)];
} known_call;

typedef struct known_stream {
    unsigned long long id; /* no other stream of the process has it, ever */
    uint64_t uses;
    int latest; /* the call that was used last */
    known_call calls[CALLS];
} known_stream;

struct gpu_repeats {
    const gpu_driver *driver;
    void *context;
    void *graph, *node; /* which all execs were made from */
    int num_streams;
    atomic_flag busy;
    known_stream streams[STREAMS];
};

/* ---- Opening ---- */

/* With what their first launches would else allocate. */
static int make_execs(gpu_repeats *repeats, void *stream)
{
    const gpu_graph_calls *graphs = &repeats->driver->graphs;
    int error = 0;
    for (int s = 0; s < STREAMS; s++)
        for (int c = 0; c < CALLS && !error; c++) {
            void **exec = &repeats->streams[s].calls[c].exec;
            error = graphs->instantiate(exec, repeats->graph, 0);
            if (!error)
                error = graphs->upload(*exec, stream);
        }
    return error;
}

static int make_graphs(gpu_repeats *repeats, void *kernel)
{
    const gpu_graph_calls *graphs = &repeats->driver->graphs;
    void *params[] = {repeats->streams[0].calls[0].param}, *stream;
    const gpu_kernel_node node = {.function = kernel, .grid = {1, 1, 1}, .block = {1, 1, 1}, .params = params};
    int error = graphs->create(&repeats->graph, 0);
    if (!error)
        error = graphs->add_kernel(&repeats->node, repeats->graph, NULL, 0, &node);
    if (!error)
        error = graphs->stream_create(&stream, NON_BLOCKING);
    if (error)
        return error;
    error = make_execs(repeats, stream);
    const int left = graphs->stream_destroy(stream);
    return error ? error : left;
}

gpu_repeats *gpu_repeats_open(const gpu_driver *driver, void *context, void *kernel)
{
    gpu_repeats *repeats = driver->graphs.launch ? calloc(1, sizeof *repeats) : NULL;
    if (!repeats)
        return NULL;
    repeats->driver = driver;
    repeats->context = context;
    atomic_flag_clear(&repeats->busy);
    if (make_graphs(repeats, kernel) == 0)
        return repeats;
    gpu_repeats_close(repeats, true);
    return NULL;
}

void gpu_repeats_close(gpu_repeats *repeats, bool entered)
{
    if (!repeats)
        return;
    for (int s = 0; s < STREAMS; s++)
        for (int c = 0; c < CALLS && entered; c++)
            if (repeats->streams[s].calls[c].exec)
                repeats->driver->graphs.exec_destroy(repeats->streams[s].calls[c].exec);
    if (repeats->graph && entered)
        repeats->driver->graphs.destroy(repeats->graph);
    free(repeats);
}

/* ---- Launching ---- */

/* Whether a graph on the stream does what a kernel does: its node has the default priority and runs in the context, and
 * not in another, nor in a part of the device (a green context). */
static bool is_plain(const gpu_repeats *repeats, dm_stream stream)
{
    const gpu_graph_calls *graphs = &repeats->driver->graphs;
    int priority;
    void *context;
    return !graphs->stream_priority(stream, &priority) && priority == 0 && !graphs->stream_context(stream, &context) &&
           context == repeats->context;
}

/* What is known of the stream, which is taken in if it is new and there is room. */
static known_stream *stream_for(gpu_repeats *repeats, dm_stream stream)
{
    unsigned long long id;
    if (repeats->driver->graphs.stream_id(stream, &id))
        return NULL;
    for (int i = 0; i < repeats->num_streams; i++)
        if (repeats->streams[i].id == id)
            return &repeats->streams[i];
    if (repeats->num_streams == STREAMS || !is_plain(repeats, stream))
        return NULL;
    known_stream *taken = &repeats->streams[repeats->num_streams++];
    taken->id = id;
    return taken;
}

static bool is_same(const gpu_call *a, const gpu_call *b)
{
    return a->kernel == b->kernel && a->grid == b->grid && a->threads == b->threads && a->bytes == b->bytes &&
           memcmp(a->param, b->param, a->bytes) == 0;
}

/* Looks from the latest on: calls that take turns are the next ones. */
static known_call *find_call(known_stream *in, const gpu_call *call)
{
    for (int i = 0; i < CALLS; i++) {
        known_call *known = &in->calls[(in->latest + i) % CALLS];
        if (is_same(&known->call, call))
            return known;
    }
    return NULL;
}

static void note_use(known_stream *in, known_call *known)
{
    known->last_use = ++in->uses;
    in->latest = (int)(known - in->calls);
}

/* In the place of the one that has not been used for longest. It gets its graph when it comes again. */
static void remember(known_stream *in, const gpu_call *call)
{
    known_call *oldest = &in->calls[0];
    for (int c = 1; c < CALLS; c++)
        if (in->calls[c].last_use < oldest->last_use)
            oldest = &in->calls[c];
    oldest->is_set = false;
    oldest->call = *call;
    oldest->call.param = memcpy(oldest->param, call->param, call->bytes);
    note_use(in, oldest);
}

static bool launch_known(const gpu_repeats *repeats, known_call *known, dm_stream stream)
{
    const gpu_graph_calls *graphs = &repeats->driver->graphs;
    const gpu_call *call = &known->call;
    void *params[] = {call->param};
    const gpu_kernel_node node = {
        .function = call->kernel, .grid = {call->grid, 1, 1}, .block = {call->threads, 1, 1}, .params = params};
    if (!known->is_set)
        known->is_set = !graphs->set_kernel(known->exec, repeats->node, &node);
    return known->is_set && !graphs->launch(known->exec, stream);
}

static bool repeat_on(gpu_repeats *repeats, const gpu_call *call, dm_stream stream)
{
    known_stream *in = stream_for(repeats, stream);
    if (!in)
        return false;
    known_call *known = find_call(in, call);
    if (!known) {
        remember(in, call);
        return false;
    }
    note_use(in, known);
    return launch_known(repeats, known, stream);
}

bool gpu_repeat(gpu_repeats *repeats, const gpu_call *call, dm_stream stream)
{
    int capturing = 0;
    if (repeats->driver->stream_is_capturing(stream, &capturing) || capturing ||
        atomic_flag_test_and_set(&repeats->busy))
        return false;
    const bool launched = repeat_on(repeats, call, stream);
    atomic_flag_clear(&repeats->busy);
    return launched;
}
