/* The three fills of an engine's step, done by the library and, on host mirrors of the same memory, by the oracle.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_FILLS_H
#define DRAFTMETA_FILLS_H

#include <stdbool.h>
#include <stdint.h>

#include "draftmeta.h"
#include "engine.h"
#include "harness.h"

/* In the order of a step: bring the draft model up to date, draft, verify. */
typedef enum fill_kind { FILL_DRAFT_EXTEND, FILL_DECODE, FILL_TARGET_VERIFY, NUM_FILL_KINDS } fill_kind;

const char *fill_kind_name(fill_kind kind);

typedef struct fills_options {
    int32_t topk;
    bool padded; /* the same descriptor in every step, as in a captured graph: absent requests have length 0 */
    bool graph;  /* capture each fill once per number of requests and replay it from then on; not on the CPU backend */
} fills_options;

typedef struct fills fills;

/* Makes the output buffers, for the largest batch of e, and a copy of its table in the context's memory. ctx and e must
 * outlive it. On failure *f is NULL. */
dm_status fills_new(dm_context *ctx, const engine *e, const fills_options *options, fills **f);
void fills_free(fills *f);

/* Uploads the batch of this step and what changed in the table; captures the fills that have no graph yet. */
dm_status fills_load(fills *f);

/* One fill by the library, from the call until its results are there. */
dm_status fills_run(fills *f, fill_kind kind);

/* The graphs captured so far. */
int64_t fills_graphs(const fills *f);

/* The bytes that this fill writes in this step, the report apart. */
int64_t fills_bytes(const fills *f, fill_kind kind);

/* The same fill by the oracle; then compares all output buffers, whole. Adds the number of int32 words that differ to
 * *mismatches and describes the first of all in *first. Differences are repaired, so that each is counted once. */
dm_status fills_check(fills *f, fill_kind kind, int64_t *mismatches, mismatch *first);

#endif
