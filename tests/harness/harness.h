/* What the Check suites and the command share: the oracle, seeded cases, guarded and poisoned memory.
 *
 * The oracle is written from include/draftmeta.h alone and shares no code with src/. */
#ifndef DRAFTMETA_HARNESS_H
#define DRAFTMETA_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "draftmeta.h"

/* ---- The oracle: oracle.c ---- */

/* Does what dm_fill promises, naively and serially, over arrays in host memory. The descriptor must be valid. */
void oracle_fill(const dm_fill_desc *desc);

/* ---- Seeded random numbers: random.c ---- */

typedef struct rng {
    uint64_t state;
} rng;

/* Streams of one seed are independent of each other. */
rng rng_seeded(uint64_t seed, uint64_t stream);
uint64_t rng_next(rng *r);
/* Uniform in [lo, hi], both included. */
int64_t rng_between(rng *r, int64_t lo, int64_t hi);
/* True with probability percent / 100. */
bool rng_chance(rng *r, int percent);

/* ---- Images: image.c ----
 * The memory of some fills as one block, every array as [guard | payload | guard], so that a stray write, a missing one
 * and a changed input all show in one comparison. Host and device have the same layout. Every byte outside the payloads
 * is IMAGE_GUARD; no two payloads overlap, except that fields which the contract lets share a buffer share one part. */

#define IMAGE_MAX_DESCS DM_FILL_MANY_MAX
#define IMAGE_GUARD 0xc7
#define IMAGE_GUARD_BYTES 64
#define IMAGE_POISON 0xa5

typedef struct image_part {
    const char *field; /* its name in dm_fill_desc; of a buffer that several fields share, the first */
    int desc;          /* which descriptor; of a part that several share, the first */
    bool output;
    bool sticky;          /* a report: what it held before the fill counts, so it is never poisoned */
    size_t offset, bytes; /* the payload's place in the block */
    size_t elem;          /* bytes of an element, for messages */
    size_t row;           /* elements from one row to the next, for messages; 0: not a table */
} image_part;

/* A set of fills for one dm_fill_many call. The descriptors' pointers point into block. */
typedef struct image {
    dm_fill_desc descs[IMAGE_MAX_DESCS];
    size_t count;
    unsigned char *block; /* aligned to 64 bytes */
    size_t bytes, room;   /* used and allocated */
    image_part *parts;    /* in ascending order of offset */
    size_t num_parts;
    char title[96];
} image;

/* An empty image. While it is being built, the descriptors' pointers are offsets into the block. */
image *image_new(void);
/* Appends an array misalign bytes behind a 64-byte boundary and returns its offset; part.offset is ignored. Outputs are
 * poisoned, the rest is zero. The block may move. */
size_t image_add(image *img, image_part part, size_t misalign);
/* The last guard; from here on the descriptors' pointers are addresses. */
void image_finish(image *img);
void image_free(image *img);

/* Moves every pointer of desc from the block at from to the same place in the block at to. */
void image_rebase(dm_fill_desc *desc, const void *from, const void *to);

/* Zeroed memory; where there is none left, the program ends with a message. */
void *harness_alloc(size_t bytes);

/* ---- Seeded cases: cases.c ---- */

typedef struct case_limits {
    /* Requests, tokens written (inputs may still ask for more) and columns of a page table, at most, or little more;
     * 0: the generator's own, small enough for thousands a second. */
    int64_t max_requests, max_tokens, max_columns;
} case_limits;

/* Case number index of seed: a function of its arguments and nothing else. Inputs are set, outputs hold poison.
 * limits NULL: all of the generator's own. */
image *case_make(uint64_t seed, uint64_t index, const case_limits *limits);
/* What kind of case it is, in a few words, for messages: "verify int64 R=5 kpool=4 page=64 x1 hostile". Static per
 * image. */
const char *case_title(const image *img);
void case_free(image *img);

/* ---- Running a case on a context: check.c ---- */

typedef struct checker checker; /* device memory that grows with the largest case and is reused */

checker *checker_new(dm_context *ctx);
void checker_free(checker *c);

typedef struct mismatch {
    bool found;
    char text[512]; /* array, element, expected, got */
} mismatch;

/* Fills the image twice over different poisons through ctx, on stream, and compares every byte of the block with what
 * the oracle makes of it. The status is the library's; text says what differs, or after a failure what failed. The
 * outputs' digests (XXH3 over the payload of each output after the first fill, in order of img->parts) are combined
 * into *digest if it is not NULL. */
dm_status checker_run(checker *c, const image *img, dm_stream stream, mismatch *m, uint64_t *digest);

#endif
