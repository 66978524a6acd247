/* draftmeta replay: a serving trace through the simulated engine, with every fill of every step checked.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "engine.h"
#include "fills.h"
#include "tools.h"
#include "trace.h"

typedef struct replay_options {
    const char *path, *backend;
    int64_t device, steps, max_requests, draft_tokens, max_context, page_size, pages, topk, seed;
    double accept_rate, step_ms, prefill_us;
    bool padded, graph, json;
} replay_options;

typedef struct replay {
    const replay_options *options;
    trace trace;
    engine *engine;
    dm_context *ctx;
    fills *fills;
    dm_backend_info backend;
    tool_samples times[NUM_FILL_KINDS]; /* microseconds */
    int64_t bytes[NUM_FILL_KINDS];
    int64_t batch_sum, batch_max;
    int64_t mismatches;
    mismatch first;
    int64_t first_step;
    fill_kind first_kind;
} replay;

/* ---- Options -------------------------------------------------------------------------------------------------- */

static bool parse(int argc, char **argv, replay_options *o, int *status)
{
    *o = (replay_options){.steps = 2000,
                          .max_requests = 64,
                          .draft_tokens = 4,
                          .max_context = 131072,
                          .page_size = 64,
                          .topk = 2048,
                          .accept_rate = 0.7,
                          .step_ms = 30,
                          .prefill_us = 20};
    const tool_option options[] = {
        {"backend", TOOL_STRING, &o->backend, 0, 0, "cuda, hip or cpu [the first that works]"},
        {"device", TOOL_INT, &o->device, 0, 1023, "ordinal among the backend's devices [0]"},
        {"steps", TOOL_INT, &o->steps, 0, 1e12, "stop after N steps; 0: the whole trace [2000]"},
        {"max-requests", TOOL_INT, &o->max_requests, 1, 4096, "requests in the batch [64]"},
        {"draft-tokens", TOOL_INT, &o->draft_tokens, 1, 64, "tokens verified at a time [4]"},
        {"accept-rate", TOOL_REAL, &o->accept_rate, 0, 1, "chance of a draft to be accepted [0.7]"},
        {"max-context", TOOL_INT, &o->max_context, 1024, 16777216, "KV tokens of a request [131072]"},
        {"page-size", TOOL_INT, &o->page_size, 1, 65536, "tokens of a page [64]"},
        {"pages", TOOL_INT, &o->pages, 0, INT32_MAX, "pages in the pool; 0: for max-requests mean requests [0]"},
        {"topk", TOOL_INT, &o->topk, 1, INT32_MAX, "KV tokens that sparse attention keeps [2048]"},
        {"step-ms", TOOL_REAL, &o->step_ms, 0, 1e6, "virtual time of a step [30]"},
        {"prefill-us", TOOL_REAL, &o->prefill_us, 0, 1e6, "virtual time of a prompt token [20]"},
        {"seed", TOOL_INT, &o->seed, 0, 9007199254740992.0, "of acceptance and page order [0]"},
        {"padded", TOOL_FLAG, &o->padded, 0, 0, "pad every fill to the largest batch, as a captured graph does"},
        {"graph", TOOL_FLAG, &o->graph, 0, 0, "capture each fill once per batch size and replay it; needs a GPU"},
        {"json", TOOL_FLAG, &o->json, 0, 0, "print the summary as JSON"},
    };
    const tool_command command = {
        .name = "replay",
        .arguments = "TRACE.csv",
        .summary =
            "Runs a serving trace (arrival_ms,input_tokens,output_tokens) through a continuous-batching loop with\n"
            "a paged KV cache and speculative decoding, in virtual time. Each step does the fills for draft extend,\n"
            "decode and target verify through the library; every byte of their buffers is compared with what the\n"
            "oracle computes.",
        .options = options,
        .num_options = sizeof options / sizeof options[0],
        .positional = &o->path,
        .num_positional = 1,
    };
    return tool_parse(&command, argc, argv, status);
}

/* ---- Setting up ----------------------------------------------------------------------------------------------- */

static engine_config configure(const replay_options *o)
{
    return (engine_config){.max_requests = (int32_t)o->max_requests,
                           .draft_tokens = (int32_t)o->draft_tokens,
                           .accept_rate = o->accept_rate,
                           .page_size = (int32_t)o->page_size,
                           .pages = (int32_t)o->pages,
                           .max_context = (int32_t)o->max_context,
                           .step_us = (int64_t)(o->step_ms * 1000),
                           .prefill_ns = (int64_t)(o->prefill_us * 1000),
                           .seed = (uint64_t)o->seed};
}

/* Chooses the size of the page pool if the user did not, and refuses one that cannot hold the largest request. The
 * default holds max_requests requests of mean length: a batch of long ones runs out of pages now and then. */
static bool size_pool(const trace *t, engine_config *config)
{
    int64_t largest = 0, sum = 0;
    for (size_t i = 0; i < t->count; i++) {
        const int64_t pages = engine_pages_of(config, t->requests[i].input_tokens + t->requests[i].output_tokens);
        largest = pages > largest ? pages : largest;
        sum += pages;
    }
    const int64_t mean = sum / (int64_t)t->count * config->max_requests;
    const int64_t pages = config->pages > 0 ? config->pages : mean > largest ? mean : largest;
    const int64_t most = INT32_MAX / config->page_size - 1; /* slots are int32; one page is for padding */
    if (pages < largest || pages > most) {
        tool_error("--pages: expected %" PRId64 " (the largest request) to %" PRId64 " (int32 slots), got %" PRId64,
                   largest, most, pages);
        return false;
    }
    config->pages = (int32_t)pages;
    return true;
}

static int open_backend(replay *r)
{
    const int opened = tool_open(r->options->backend, r->options->device, &r->ctx);
    if (opened != TOOL_GOOD)
        return opened;
    r->backend.size = sizeof r->backend;
    const dm_status status = dm_context_info(r->ctx, &r->backend);
    if (status != DM_OK)
        return tool_failed("dm_context_info", status);
    if (r->options->graph && strcmp(r->backend.name, "cpu") == 0) {
        tool_error("--graph: the cpu backend has no graphs; choose a GPU with --backend, or leave it out");
        return TOOL_USAGE;
    }
    return TOOL_GOOD;
}

static int set_up(replay *r)
{
    const replay_options *o = r->options;
    char error[512];
    if (!trace_load(o->path, o->max_context - o->draft_tokens, &r->trace, error, sizeof error)) {
        tool_error("%s", error);
        return TOOL_USAGE;
    }
    engine_config config = configure(o);
    if (!size_pool(&r->trace, &config))
        return TOOL_USAGE;
    const int opened = open_backend(r);
    if (opened != TOOL_GOOD)
        return opened;
    r->engine = engine_new(&config, &r->trace);
    if (r->engine == NULL) {
        tool_error("out of host memory");
        return TOOL_NO_BACKEND;
    }
    const fills_options options = {.topk = (int32_t)o->topk, .padded = o->padded, .graph = o->graph};
    const dm_status status = fills_new(r->ctx, r->engine, &options, &r->fills);
    return status == DM_OK ? TOOL_GOOD : tool_failed("making the buffers", status);
}

static void tear_down(replay *r)
{
    for (fill_kind kind = 0; kind < NUM_FILL_KINDS; kind++)
        tool_samples_free(&r->times[kind]);
    fills_free(r->fills);
    engine_free(r->engine);
    dm_close(r->ctx);
    trace_free(&r->trace);
}

/* ---- The loop ------------------------------------------------------------------------------------------------- */

static dm_status measure_fill(replay *r, fill_kind kind)
{
    const double start = tool_now_us();
    const dm_status status = fills_run(r->fills, kind);
    tool_samples_add(&r->times[kind], tool_now_us() - start);
    r->bytes[kind] += fills_bytes(r->fills, kind);
    return status;
}

static dm_status check_fill(replay *r, fill_kind kind)
{
    const bool found_before = r->first.found;
    const dm_status status = fills_check(r->fills, kind, &r->mismatches, &r->first);
    if (r->first.found && !found_before) {
        r->first_step = r->engine->counts.steps;
        r->first_kind = kind;
    }
    return status;
}

static dm_status do_step(replay *r)
{
    dm_status status = fills_load(r->fills);
    for (fill_kind kind = 0; kind < NUM_FILL_KINDS && status == DM_OK; kind++) {
        status = measure_fill(r, kind);
        if (status == DM_OK)
            status = check_fill(r, kind);
    }
    r->batch_sum += r->engine->batch_size;
    r->batch_max = r->engine->batch_size > r->batch_max ? r->engine->batch_size : r->batch_max;
    return status;
}

/* A line on stderr, rewritten ten times a second; last: wiped. */
static void show_progress(const replay *r, double *shown, bool last)
{
    const double now = tool_now_us();
    if (!isatty(STDERR_FILENO) || (!last && now - *shown < 1e5))
        return;
    *shown = now;
    const engine_counts *c = &r->engine->counts;
    fprintf(stderr, "\r\033[K");
    if (!last)
        fprintf(stderr, "step %" PRId64 ": %d requests in the batch, %" PRId64 " of %zu finished, mismatches %" PRId64,
                c->steps, r->engine->batch_size, c->finished, r->trace.count, r->mismatches);
    fflush(stderr);
}

static int run(replay *r)
{
    double shown = 0;
    dm_status status = DM_OK;
    const int64_t steps = r->options->steps > 0 ? r->options->steps : INT64_MAX;
    while (status == DM_OK && r->engine->counts.steps < steps && engine_begin_step(r->engine)) {
        status = do_step(r);
        engine_end_step(r->engine);
        show_progress(r, &shown, false);
    }
    show_progress(r, &shown, true);
    return status == DM_OK ? TOOL_GOOD : tool_failed("replay", status);
}

/* ---- The summary ---------------------------------------------------------------------------------------------- */

static double mean_batch(const replay *r)
{
    return r->engine->counts.steps > 0 ? (double)r->batch_sum / (double)r->engine->counts.steps : 0;
}

static void print_first_mismatch(const replay *r)
{
    if (r->first.found)
        tool_error("step %" PRId64 ", %s: %s", r->first_step, fill_kind_name(r->first_kind), r->first.text);
}

static void print_text(replay *r)
{
    const engine *e = r->engine;
    const engine_counts *c = &e->counts;
    printf("backend   %s, %s\n", r->backend.name, r->backend.device_name);
    printf("trace     %s, %zu requests\n", r->options->path, r->trace.count);
    printf("steps     %" PRId64 " in %.1f s of virtual time\n", c->steps, (double)e->now_us / 1e6);
    printf("requests  %" PRId64 " admitted, %" PRId64 " finished, %" PRId64 " preempted\n", c->admitted, c->finished,
           c->preempted);
    printf("batch     %.1f requests on average, %" PRId64 " at most; %d pages of %d tokens\n", mean_batch(r),
           r->batch_max, e->config.pages, e->config.page_size);
    printf("tokens    %" PRId64 " of output\n", c->tokens);
    if (r->options->graph)
        printf("graphs    %" PRId64 " captured; times are of replays\n\n", fills_graphs(r->fills));
    else
        printf("graphs    none; times are of calls\n\n");
    printf("%-14s %8s %10s %11s %10s %10s\n", "fill", "fills", "MB written", "median us", "p99 us", "max us");
    for (fill_kind kind = 0; kind < NUM_FILL_KINDS; kind++) {
        tool_samples *s = &r->times[kind];
        printf("%-14s %8zu %10.1f %11.1f %10.1f %10.1f\n", fill_kind_name(kind), s->count, (double)r->bytes[kind] / 1e6,
               tool_samples_percentile(s, 50), tool_samples_percentile(s, 99), tool_samples_percentile(s, 100));
    }
    printf("\nmismatches %" PRId64 "\n", r->mismatches);
}

static void write_setup(tool_json *j, const replay *r)
{
    const engine_config *config = &r->engine->config;
    tool_json_string(j, "version", dm_version());
    tool_json_string(j, "backend", r->backend.name);
    tool_json_string(j, "device", r->backend.device_name);
    tool_json_string(j, "driver", r->backend.driver_version);
    tool_json_string(j, "trace", r->options->path);
    tool_json_int(j, "max_requests", config->max_requests);
    tool_json_int(j, "draft_tokens", config->draft_tokens);
    tool_json_real(j, "accept_rate", config->accept_rate);
    tool_json_int(j, "max_context", config->max_context);
    tool_json_int(j, "page_size", config->page_size);
    tool_json_int(j, "pages", config->pages);
    tool_json_int(j, "topk", r->options->topk);
    tool_json_real(j, "step_ms", r->options->step_ms);
    tool_json_real(j, "prefill_us", r->options->prefill_us);
    tool_json_int(j, "seed", r->options->seed);
    tool_json_bool(j, "padded", r->options->padded);
    tool_json_bool(j, "graph", r->options->graph);
}

static void write_fill(tool_json *j, replay *r, fill_kind kind)
{
    tool_samples *s = &r->times[kind];
    tool_json_open(j, NULL, '{');
    tool_json_string(j, "name", fill_kind_name(kind));
    tool_json_int(j, "count", (int64_t)s->count);
    tool_json_int(j, "bytes_written", r->bytes[kind]);
    tool_json_real(j, "median_us", tool_samples_percentile(s, 50));
    tool_json_real(j, "p99_us", tool_samples_percentile(s, 99));
    tool_json_real(j, "max_us", tool_samples_percentile(s, 100));
    tool_json_close(j, '}');
}

static void print_json(replay *r)
{
    const engine_counts *c = &r->engine->counts;
    tool_json j = {.out = stdout};
    tool_json_open(&j, NULL, '{');
    write_setup(&j, r);
    tool_json_int(&j, "steps", c->steps);
    tool_json_real(&j, "virtual_seconds", (double)r->engine->now_us / 1e6);
    tool_json_int(&j, "requests", (int64_t)r->trace.count);
    tool_json_int(&j, "admitted", c->admitted);
    tool_json_int(&j, "finished", c->finished);
    tool_json_int(&j, "preempted", c->preempted);
    tool_json_int(&j, "output_tokens", c->tokens);
    tool_json_real(&j, "batch_mean", mean_batch(r));
    tool_json_int(&j, "batch_max", r->batch_max);
    tool_json_int(&j, "graphs_captured", fills_graphs(r->fills));
    tool_json_open(&j, "fills", '[');
    for (fill_kind kind = 0; kind < NUM_FILL_KINDS; kind++)
        write_fill(&j, r, kind);
    tool_json_close(&j, ']');
    tool_json_int(&j, "mismatches", r->mismatches);
    tool_json_close(&j, '}');
}

int cmd_replay(int argc, char **argv)
{
    replay_options options;
    int status;
    if (!parse(argc, argv, &options, &status))
        return status;
    replay r = {.options = &options};
    status = set_up(&r);
    if (status == TOOL_GOOD)
        status = run(&r);
    if (status == TOOL_GOOD) {
        print_first_mismatch(&r);
        if (options.json)
            print_json(&r);
        else
            print_text(&r);
        status = r.mismatches == 0 ? TOOL_GOOD : TOOL_MISMATCH;
    }
    tear_down(&r);
    return status;
}
