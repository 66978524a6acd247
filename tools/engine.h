/* A simulated serving engine: continuous batching, paged KV cache, speculative decoding, virtual time.
 *
 * It decides who is in the batch and where their KV tokens lie, which is all that the metadata depends on; it knows
 * nothing of the library. A step is
 *
 *     while (engine_begin_step(e)) {
 *         ... the batch, its lengths and the table are those of this step ...
 *         engine_end_step(e);
 *     }
 *
 * engine_begin_step gives every running request room for its draft tokens, preempting the newest request if pages run
 * out, then admits waiting requests first come, first served, while a row and the pages for their prompt are free.
 * engine_end_step verifies the draft tokens: a request accepts 1 to draft_tokens tokens, and leaves when it has all its
 * output tokens. A preempted request waits at the head of the queue and prefills its prompt and its output so far.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_ENGINE_H
#define DRAFTMETA_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness.h"
#include "trace.h"

typedef struct engine_config {
    int32_t max_requests; /* in the batch */
    int32_t draft_tokens; /* n >= 1 verified at a time: the last token sampled and n - 1 drafts */
    double accept_rate;   /* chance of each draft to be accepted, if the one before it was */
    int32_t page_size;    /* tokens */
    int32_t pages;        /* in the pool; engine_pages_of() of every request must fit */
    int32_t max_context;  /* KV tokens of a request, draft tokens included */
    int64_t step_us;      /* virtual time of a step */
    int64_t prefill_ns;   /* and of each prompt token that is admitted in it */
    uint64_t seed;
} engine_config;

/* A request in the batch. */
typedef struct engine_request {
    int32_t id;       /* its place in the trace */
    int32_t row;      /* of the table: 1 .. max_requests; row 0 is for padding */
    int32_t context;  /* KV tokens that are committed: prompt and accepted tokens */
    int32_t accepted; /* in the last verification; 0 in the step that admits it */
    int32_t pages;    /* that it holds: room for context + draft_tokens */
} engine_request;

/* A run of slots of one row, written in this step. */
typedef struct engine_change {
    int32_t row, first, count;
} engine_change;

typedef struct engine_counts {
    int64_t steps, admitted, finished, preempted;
    int64_t tokens; /* of output */
} engine_counts;

/* To be read by all, changed by engine.c only. */
typedef struct engine {
    engine_config config;
    const trace *requests;
    rng random;
    int64_t now_us;

    engine_request *batch; /* in order of admission */
    int32_t batch_size;

    int32_t *table; /* [rows][columns] slot of each KV token: page * page_size + offset; row 0 is all zero */
    int32_t rows, columns;
    engine_change *changes; /* at most one for each row */
    int32_t num_changes;

    int32_t *free_pages; /* a stack, shuffled at first; pages are 1 .. config.pages, page 0 is for padding */
    int32_t num_free_pages;
    int32_t *free_rows; /* a stack */
    int32_t num_free_rows;

    int32_t *produced;  /* output tokens of each request of the trace so far */
    int32_t *preempted; /* ids, a stack: the top was admitted first */
    int32_t num_preempted;
    size_t next; /* first request of the trace that was never admitted */
    engine_counts counts;
} engine;

/* Pages that tokens of context and the draft tokens behind them take. */
int32_t engine_pages_of(const engine_config *config, int64_t context);

/* The trace must outlive the engine; input + output + draft tokens of each request must fit max_context and the pool,
 * and (pages + 1) * page_size an int32. NULL: out of memory. */
engine *engine_new(const engine_config *config, const trace *requests);
void engine_free(engine *e);

/* False when all requests have finished; else the batch has at least one request. */
bool engine_begin_step(engine *e);
void engine_end_step(engine *e);

#endif
