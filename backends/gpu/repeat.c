#include "repeat.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "launch.h"

/* A graph is ordered behind its own earlier launches, also those on other streams. So each belongs to one stream for
 * good, and streams that come when all are taken have none. */
enum { STREAMS = 4, CALLS = 8 };

typedef struct known_call {
    void *exec;
    bool is_set;       /* exec launches this call */
    uint64_t last_use; /* 0: never */
    gpu_call call;     /* with this param: */
    unsigned char param[sizeof(gpu_launch_many)];
} known_call;

typedef struct known_stream {
    unsigned long long id; /* no other stream of the process has it, ever */
    uint64_t uses;
    int latest; /* the call that was launched last */
    known_call calls[CALLS];
} known_stream;

struct gpu_repeats {
    const gpu_driver *driver;
    void *graph, *node; /* which all execs were made from */
    int num_streams;
    atomic_flag busy;
    known_stream streams[STREAMS];
};

/* ---- Opening ---- */

static int make_graphs(gpu_repeats *repeats, void *kernel)
{
    const gpu_driver *driver = repeats->driver;
    void *params[] = {repeats->streams[0].calls[0].param};
    const gpu_kernel_node node = {.function = kernel, .grid = {1, 1, 1}, .block = {1, 1, 1}, .params = params};
    int error = driver->graph_create(&repeats->graph, 0);
    if (!error)
        error = driver->graph_add_kernel(&repeats->node, repeats->graph, NULL, 0, &node);
    for (int s = 0; s < STREAMS; s++)
        for (int c = 0; c < CALLS && !error; c++) {
            void **exec = &repeats->streams[s].calls[c].exec;
            error = driver->graph_instantiate(exec, repeats->graph, 0);
            if (!error) /* which else allocates when it is first launched */
                error = driver->graph_upload(*exec, NULL);
        }
    return error;
}

int gpu_repeats_open(const gpu_vendor *vendor, const gpu_driver *driver, void *kernel, gpu_repeats **repeats)
{
    gpu_repeats *made = calloc(1, sizeof *made);
    if (!made)
        return vendor->out_of_memory_error;
    made->driver = driver;
    atomic_flag_clear(&made->busy);
    const int error = make_graphs(made, kernel);
    if (error)
        gpu_repeats_close(made);
    else
        *repeats = made;
    return error;
}

void gpu_repeats_close(gpu_repeats *repeats)
{
    if (!repeats)
        return;
    for (int s = 0; s < STREAMS; s++)
        for (int c = 0; c < CALLS; c++)
            if (repeats->streams[s].calls[c].exec)
                repeats->driver->exec_destroy(repeats->streams[s].calls[c].exec);
    if (repeats->graph)
        repeats->driver->graph_destroy(repeats->graph);
    free(repeats);
}

/* ---- Launching ---- */

/* The nodes of a graph have priorities of their own, so that streams of another than the default have no graphs. */
static known_stream *find_stream(gpu_repeats *repeats, dm_stream stream)
{
    unsigned long long id;
    int priority;
    if (repeats->driver->stream_id(stream, &id))
        return NULL;
    for (int i = 0; i < repeats->num_streams; i++)
        if (repeats->streams[i].id == id)
            return &repeats->streams[i];
    if (repeats->num_streams == STREAMS || repeats->driver->stream_priority(stream, &priority) || priority)
        return NULL;
    known_stream *found = &repeats->streams[repeats->num_streams++];
    found->id = id;
    return found;
}

static bool is_same(const gpu_call *a, const gpu_call *b)
{
    return a->kernel == b->kernel && a->grid == b->grid && a->threads == b->threads && a->bytes == b->bytes &&
           memcmp(a->param, b->param, a->bytes) == 0;
}

/* Those that take turns are found at once. */
static known_call *find_call(known_stream *in, const gpu_call *call)
{
    for (int i = 0; i < CALLS; i++) {
        const int c = (in->latest + i) % CALLS;
        if (in->calls[c].last_use && is_same(&in->calls[c].call, call)) {
            in->latest = c;
            in->calls[c].last_use = ++in->uses;
            return &in->calls[c];
        }
    }
    return NULL;
}

/* In the place of the one that has not been used for longest. A graph is made of it when it comes again. */
static void remember(known_stream *in, const gpu_call *call)
{
    int oldest = 0;
    for (int c = 1; c < CALLS; c++)
        if (in->calls[c].last_use < in->calls[oldest].last_use)
            oldest = c;
    known_call *known = &in->calls[oldest];
    known->is_set = false;
    known->last_use = ++in->uses;
    known->call = *call;
    known->call.param = memcpy(known->param, call->param, call->bytes);
    in->latest = oldest;
}

static bool launch_known(const gpu_repeats *repeats, known_call *known, dm_stream stream)
{
    const gpu_call *call = &known->call;
    void *params[] = {call->param};
    const gpu_kernel_node node = {
        .function = call->kernel, .grid = {call->grid, 1, 1}, .block = {call->threads, 1, 1}, .params = params};
    if (!known->is_set)
        known->is_set = !repeats->driver->graph_set_kernel(known->exec, repeats->node, &node);
    return known->is_set && !repeats->driver->graph_launch(known->exec, stream);
}

static bool repeat_on(gpu_repeats *repeats, const gpu_call *call, dm_stream stream)
{
    known_stream *in = find_stream(repeats, stream);
    known_call *known = in ? find_call(in, call) : NULL;
    if (known)
        return launch_known(repeats, known, stream);
    if (in)
        remember(in, call);
    return false;
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
