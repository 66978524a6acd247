/* The simulated serving engine.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "engine.h"

/* ---- Construction --------------------------------------------------------------------------------------------- */

int32_t engine_pages_of(const engine_config *config, int64_t context)
{
    return (int32_t)((context + config->draft_tokens + config->page_size - 1) / config->page_size);
}

/* Fills the free stacks; pages in random order, as they are in an engine that has run for a while. */
static void fill_free_stacks(engine *e)
{
    for (int32_t i = 0; i < e->config.pages; i++) {
        const int32_t j = (int32_t)rng_between(&e->random, 0, i);
        e->free_pages[i] = e->free_pages[j];
        e->free_pages[j] = i + 1;
    }
    for (int32_t i = 0; i < e->config.max_requests; i++)
        e->free_rows[i] = e->config.max_requests - i;
    e->num_free_pages = e->config.pages;
    e->num_free_rows = e->config.max_requests;
}

static bool allocate(engine *e)
{
    const size_t requests = (size_t)e->config.max_requests;
    e->batch = calloc(requests, sizeof *e->batch);
    e->table = calloc((size_t)e->rows * (size_t)e->columns, sizeof *e->table);
    e->changes = calloc(requests, sizeof *e->changes);
    e->free_pages = calloc((size_t)e->config.pages, sizeof *e->free_pages);
    e->free_rows = calloc(requests, sizeof *e->free_rows);
    e->produced = calloc(e->requests->count, sizeof *e->produced);
    e->preempted = calloc(requests, sizeof *e->preempted);
    return e->batch && e->table && e->changes && e->free_pages && e->free_rows && e->produced && e->preempted;
}

engine *engine_new(const engine_config *config, const trace *requests)
{
    engine *e = calloc(1, sizeof *e);
    if (e == NULL)
        return NULL;
    e->config = *config;
    e->requests = requests;
    e->random = rng_seeded(config->seed, 0);
    e->rows = config->max_requests + 1;
    e->columns = (config->max_context + config->page_size - 1) / config->page_size * config->page_size;
    if (!allocate(e)) {
        engine_free(e);
        return NULL;
    }
    fill_free_stacks(e);
    return e;
}

void engine_free(engine *e)
{
    if (e == NULL)
        return;
    free(e->batch);
    free(e->table);
    free(e->changes);
    free(e->free_pages);
    free(e->free_rows);
    free(e->produced);
    free(e->preempted);
    free(e);
}

/* ---- Pages ---------------------------------------------------------------------------------------------------- */

static int32_t *row_of(engine *e, const engine_request *r)
{
    return e->table + (size_t)r->row * (size_t)e->columns;
}

/* Takes pages until r has room for its context and draft tokens, and writes their slots; they must be free. */
static void grow(engine *e, engine_request *r)
{
    const int32_t size = e->config.page_size, wanted = engine_pages_of(&e->config, r->context);
    if (wanted <= r->pages)
        return;
    e->changes[e->num_changes++] = (engine_change){r->row, r->pages * size, (wanted - r->pages) * size};
    for (int32_t *slots = row_of(e, r) + r->pages * size; r->pages < wanted; r->pages++) {
        const int32_t page = e->free_pages[--e->num_free_pages];
        for (int32_t offset = 0; offset < size; offset++)
            *slots++ = page * size + offset;
    }
}

/* Gives back the pages and the row. The row keeps its stale slots, as in an engine: nobody may look at them. */
static void release(engine *e, const engine_request *r)
{
    const int32_t *row = row_of(e, r);
    for (int32_t i = 0; i < r->pages; i++)
        e->free_pages[e->num_free_pages++] = row[i * e->config.page_size] / e->config.page_size;
    e->free_rows[e->num_free_rows++] = r->row;
}

/* ---- Scheduling ----------------------------------------------------------------------------------------------- */

static void preempt_newest(engine *e)
{
    const engine_request *r = &e->batch[--e->batch_size];
    release(e, r);
    e->preempted[e->num_preempted++] = r->id;
    e->counts.preempted++;
}

/* Room for the draft tokens of all, oldest first. The newest may preempt itself; the oldest always fits. */
static void grow_batch(engine *e)
{
    for (int32_t i = 0; i < e->batch_size; i++) {
        engine_request *r = &e->batch[i];
        const int32_t missing = engine_pages_of(&e->config, r->context) - r->pages;
        while (missing > e->num_free_pages && i < e->batch_size)
            preempt_newest(e);
        if (i < e->batch_size)
            grow(e, r);
    }
}

/* The request at the head of the queue that has arrived; -1: none. */
static int32_t queue_head(const engine *e)
{
    if (e->num_preempted > 0)
        return e->preempted[e->num_preempted - 1];
    const bool arrived = e->next < e->requests->count && e->requests->requests[e->next].arrival_ms * 1000 <= e->now_us;
    return arrived ? (int32_t)e->next : -1;
}

static void leave_queue(engine *e)
{
    if (e->num_preempted > 0) {
        e->num_preempted--;
    } else {
        e->next++;
        e->counts.admitted++;
    }
}

/* Admits the head of the queue if it fits. */
static bool admit(engine *e)
{
    const int32_t id = queue_head(e);
    if (id < 0 || e->num_free_rows == 0)
        return false;
    const int32_t context = e->requests->requests[id].input_tokens + e->produced[id];
    if (engine_pages_of(&e->config, context) > e->num_free_pages)
        return false;
    engine_request *r = &e->batch[e->batch_size++];
    *r = (engine_request){.id = id, .row = e->free_rows[--e->num_free_rows], .context = context};
    grow(e, r);
    leave_queue(e);
    e->now_us += context * e->config.prefill_ns / 1000;
    return true;
}

bool engine_begin_step(engine *e)
{
    const int64_t preempted_before = e->counts.preempted;
    e->num_changes = 0;
    grow_batch(e);
    if (e->batch_size == 0 && e->num_preempted == 0) { /* idle until the next request arrives */
        if (e->next == e->requests->count)
            return false;
        const int64_t arrival_us = e->requests->requests[e->next].arrival_ms * 1000;
        e->now_us = arrival_us > e->now_us ? arrival_us : e->now_us;
    }
    if (e->counts.preempted == preempted_before) { /* else a victim would come back at once */
        while (admit(e))
            ;
    }
    return true;
}

/* ---- Verification --------------------------------------------------------------------------------------------- */

/* Drafts are accepted up to the first rejection; the token sampled there always is. */
static int32_t verify_drafts(engine *e)
{
    int32_t accepted = 1;
    while (accepted < e->config.draft_tokens && (double)(rng_next(&e->random) >> 11) * 0x1p-53 < e->config.accept_rate)
        accepted++;
    return accepted;
}

/* Accepts tokens of r, no more than it still wants. True: it has them all. */
static bool advance(engine *e, engine_request *r)
{
    const int32_t missing = e->requests->requests[r->id].output_tokens - e->produced[r->id];
    const int32_t accepted = verify_drafts(e);
    r->accepted = accepted < missing ? accepted : missing;
    r->context += r->accepted;
    e->produced[r->id] += r->accepted;
    e->counts.tokens += r->accepted;
    return r->accepted == missing;
}

void engine_end_step(engine *e)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < e->batch_size; i++) {
        engine_request *r = &e->batch[i];
        if (advance(e, r)) {
            release(e, r);
            e->counts.finished++;
        } else {
            e->batch[kept++] = *r;
        }
    }
    e->batch_size = kept;
    e->now_us += e->config.step_us;
    e->counts.steps++;
}
