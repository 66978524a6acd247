/* Runs a case on a context and holds every byte of it against the oracle. */
#include "harness.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

struct checker {
    dm_context *ctx;
    void *device;            /* memory of the context */
    unsigned char *expected; /* the block before the fill, then as the oracle has it */
    unsigned char *got;
    size_t room; /* bytes of each of the three */
};

checker *checker_new(dm_context *ctx)
{
    checker *c = harness_alloc(sizeof *c);
    c->ctx = ctx;
    return c;
}

static dm_status release(checker *c)
{
    free(c->expected);
    free(c->got);
    dm_status status = dm_free(c->ctx, c->device);
    *c = (checker){.ctx = c->ctx};
    return status;
}

void checker_free(checker *c)
{
    if (!c)
        return;
    release(c);
    free(c);
}

static dm_status make_room(checker *c, size_t bytes)
{
    if (bytes <= c->room)
        return DM_OK;
    size_t room = bytes + bytes / 2;
    dm_status status = release(c);
    if (status == DM_OK)
        status = dm_malloc(c->ctx, room, &c->device);
    if (status != DM_OK)
        return status;
    c->expected = aligned_alloc(64, (room + 63) / 64 * 64);
    c->got = harness_alloc(room);
    if (!c->expected)
        abort();
    c->room = room;
    return DM_OK;
}

/* ---- Words for what differs ---- */

/* "page_table[3][17] of descriptor 1", for the element that holds byte at of the part. */
static void name_element(const image_part *part, size_t at, char *text, size_t room)
{
    size_t i = at / part->elem;
    if (part->sticky)
        snprintf(text, room, "%s->%s of descriptor %d", part->field,
                 at < 4   ? "flags"
                 : at < 8 ? "bad_request"
                          : "tokens_wanted",
                 part->desc);
    else if (part->row)
        snprintf(text, room, "%s[%zu][%zu] of descriptor %d", part->field, i / part->row, i % part->row, part->desc);
    else
        snprintf(text, room, "%s[%zu] of descriptor %d", part->field, i, part->desc);
}

/* The number in the element (of a report: the member) that holds byte at of the part. */
static int64_t number_at(const image_part *part, size_t at, const unsigned char *block)
{
    const unsigned char *payload = block + part->offset;
    int32_t narrow;
    int64_t broad;
    if (part->elem == 4 || (part->sticky && at < 8)) {
        memcpy(&narrow, payload + at / 4 * 4, sizeof narrow);
        return narrow;
    }
    memcpy(&broad, payload + at / 8 * 8, sizeof broad);
    return broad;
}

static void tell_payload(const checker *c, const image_part *part, size_t at, char *text, size_t room)
{
    char element[96];
    name_element(part, at, element, sizeof element);
    snprintf(text, room, "%s%s: expected %" PRId64 ", got %" PRId64, part->output ? "" : "input ", element,
             number_at(part, at, c->expected), number_at(part, at, c->got));
}

static void tell_guard(const checker *c, const image_part *before, const image_part *after, size_t pos, char *text,
                       size_t room)
{
    char left[96] = "", right[96] = "";
    if (before)
        snprintf(left, sizeof left, "%zu bytes after the end of %s of descriptor %d",
                 pos - (before->offset + before->bytes), before->field, before->desc);
    if (after)
        snprintf(right, sizeof right, "%zu bytes before %s of descriptor %d", after->offset - pos, after->field,
                 after->desc);
    snprintf(text, room, "a guard changed, %s%s%s: expected 0x%02x, got 0x%02x", left, before && after ? ", " : "",
             right, c->expected[pos], c->got[pos]);
}

/* Says where expected and got differ first, if they do. */
static void compare(const checker *c, const image *img, mismatch *m)
{
    if (memcmp(c->expected, c->got, img->bytes) == 0)
        return;
    size_t pos = 0, i = 0;
    while (c->expected[pos] == c->got[pos])
        pos++;
    while (i < img->num_parts && img->parts[i].offset + img->parts[i].bytes <= pos)
        i++;
    m->found = true;
    if (i < img->num_parts && img->parts[i].offset <= pos)
        tell_payload(c, &img->parts[i], pos - img->parts[i].offset, m->text, sizeof m->text);
    else
        tell_guard(c, i > 0 ? &img->parts[i - 1] : NULL, i < img->num_parts ? &img->parts[i] : NULL, pos, m->text,
                   sizeof m->text);
}

/* ---- The two fills ---- */

static void poison(const checker *c, const image *img, unsigned char byte)
{
    for (size_t i = 0; i < img->num_parts; i++)
        if (img->parts[i].output && !img->parts[i].sticky)
            memset(c->expected + img->parts[i].offset, byte, img->parts[i].bytes);
}

/* Fills the block in the context's memory, as it is in c->expected, and brings the result to c->got. */
static dm_status run_library(checker *c, const image *img, dm_stream stream)
{
    dm_fill_desc descs[IMAGE_MAX_DESCS];
    const dm_fill_desc *list[IMAGE_MAX_DESCS];
    for (size_t i = 0; i < img->count; i++) {
        descs[i] = img->descs[i];
        list[i] = &descs[i];
        image_rebase(&descs[i], img->block, c->device);
    }
    dm_status status = dm_upload(c->ctx, c->device, c->expected, img->bytes, stream);
    if (status == DM_OK)
        status = img->count == 1 ? dm_fill(c->ctx, list[0], stream) : dm_fill_many(c->ctx, list, img->count, stream);
    if (status == DM_OK)
        status = dm_download(c->ctx, c->got, c->device, img->bytes, stream);
    return status;
}

static void run_oracle(checker *c, const image *img)
{
    for (size_t i = 0; i < img->count; i++) {
        dm_fill_desc desc = img->descs[i];
        image_rebase(&desc, img->block, c->expected);
        oracle_fill(&desc);
    }
}

static uint64_t digest_outputs(const checker *c, const image *img)
{
    uint64_t digest = 0;
    for (size_t i = 0; i < img->num_parts; i++)
        if (img->parts[i].output)
            digest = XXH3_64bits_withSeed(c->got + img->parts[i].offset, img->parts[i].bytes, digest);
    return digest;
}

static dm_status run_over(checker *c, const image *img, unsigned char byte, dm_stream stream, mismatch *m)
{
    memcpy(c->expected, img->block, img->bytes);
    poison(c, img, byte);
    dm_status status = run_library(c, img, stream);
    if (status != DM_OK)
        return status;
    run_oracle(c, img);
    compare(c, img, m);
    return DM_OK;
}

dm_status checker_run(checker *c, const image *img, dm_stream stream, mismatch *m, uint64_t *digest)
{
    *m = (mismatch){0};
    dm_status status = make_room(c, img->bytes);
    if (status == DM_OK)
        status = run_over(c, img, IMAGE_POISON, stream, m);
    if (status == DM_OK && digest)
        *digest = digest_outputs(c, img);
    if (status == DM_OK && !m->found)
        status = run_over(c, img, (unsigned char)~IMAGE_POISON, stream, m);
    if (status != DM_OK)
        snprintf(m->text, sizeof m->text, "%s: %s", dm_status_string(status), dm_last_error());
    return status;
}
