/* Fills written down in short, for tests made by hand: a spec names what matters, the rest has a useful value. */
#ifndef DRAFTMETA_SPEC_H
#define DRAFTMETA_SPEC_H

#include "harness.h"

/* The outputs, as bits of fill_spec.wants. */
enum {
    WANT_EXPANDED = 1 << 0,
    WANT_DSA = 1 << 1,
    WANT_DSA_PREFIX = 1 << 2,
    WANT_TOKEN_TO_REQ = 1 << 3,
    WANT_CONTEXT = 1 << 4,
    WANT_CACHE = 1 << 5,
    WANT_CU_Q = 1 << 6,
    WANT_CU_K = 1 << 7,
    WANT_NUM_TOKENS = 1 << 8,
    WANT_TABLE_1 = 1 << 9,
    WANT_TABLE = 1 << 10,
    WANT_SCHEDULE_0 = 1 << 11,
    WANT_SCHEDULE_1 = 1 << 12,
    NUM_WANTS = 13,
    WANT_ALL = (1 << NUM_WANTS) - 1,
    WANT_TABLES = WANT_TABLE_1 | WANT_TABLE,
    WANT_SCHEDULES = WANT_SCHEDULE_0 | WANT_SCHEDULE_1,
    WANT_LENGTHS = WANT_ALL & ~(WANT_TABLES | WANT_SCHEDULES)
};

enum { NO_TOKENS = -1 };

typedef struct fill_spec {
    int32_t requests;
    /* Values of the inputs; NULL: not given. */
    const int64_t *seq_lens, *extend_lens, *query_start_loc, *pool_indices;
    dm_type seq_type, query_type, pool_type; /* 0: int32 */
    int32_t extend_len, seq_len_bias;
    int32_t topk, pool_size, page_size; /* topk 0: 2048; page_size 0: 64 */
    int32_t padded_requests;
    int64_t padded_tokens;
    int32_t context_divisor, dcp_world, dcp_rank, dcp_interleave;
    uint32_t flags;

    int64_t pool_rows, context; /* of req_to_token; 0: requests, 256 */
    bool blocks;                /* a block table instead; there is no page_table_1 then */
    bool negative_slots;        /* in every other page of the source */

    unsigned wants;   /* 0: all */
    int64_t capacity; /* of the outputs per token; 0: exactly enough, NO_TOKENS: none */
    int64_t columns;  /* of both page tables; 0: as many as the source has */
    int64_t gap;      /* elements between the rows of all tables */
    /* All but table; variant 0: SM90 and SM100; unit 0: TOKEN, and REQUEST if there is extend_len; slots 0: 13. */
    dm_schedule schedules[2];

    bool aligned;                  /* every array begins at a multiple of 64 bytes */
    bool no_report, shares_report; /* shares: the first descriptor's */
    dm_report report;              /* before the fill */
} fill_spec;

/* T, as the contract clamps it. */
int64_t spec_tokens(const fill_spec *s);

/* Appends a descriptor with its arrays to an image that is being built. */
void spec_add(image *img, const fill_spec *s);

/* The finished image of one fill. */
image *spec_image(const fill_spec *s);

#endif
