/* The guarded block that holds all arrays of a case. */
#include "harness.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_ALIGN = 64, FIRST_ROOM = 1 << 15, MAX_PARTS = 24 * IMAGE_MAX_DESCS };

static void *need(void *memory)
{
    if (!memory) {
        fprintf(stderr, "harness: out of memory\n");
        abort();
    }
    return memory;
}

void *harness_alloc(size_t bytes)
{
    return need(calloc(bytes ? bytes : 1, 1));
}

image *image_new(void)
{
    image *img = harness_alloc(sizeof *img);
    img->room = FIRST_ROOM;
    img->block = need(aligned_alloc(BLOCK_ALIGN, img->room));
    img->parts = need(malloc(MAX_PARTS * sizeof *img->parts));
    return img;
}

static void make_room(image *img, size_t bytes)
{
    if (bytes <= img->room)
        return;
    while (img->room < bytes)
        img->room *= 2;
    unsigned char *block = need(aligned_alloc(BLOCK_ALIGN, img->room));
    memcpy(block, img->block, img->bytes);
    free(img->block);
    img->block = block;
}

static size_t round_up(size_t x)
{
    return (x + BLOCK_ALIGN - 1) / BLOCK_ALIGN * BLOCK_ALIGN;
}

size_t image_add(image *img, image_part part, size_t misalign)
{
    if (img->num_parts == MAX_PARTS)
        abort();
    part.offset = round_up(img->bytes + IMAGE_GUARD_BYTES) + misalign;
    make_room(img, part.offset + part.bytes);
    memset(img->block + img->bytes, IMAGE_GUARD, part.offset - img->bytes);
    memset(img->block + part.offset, part.output && !part.sticky ? IMAGE_POISON : 0, part.bytes);
    img->bytes = part.offset + part.bytes;
    img->parts[img->num_parts++] = part;
    return part.offset;
}

void image_finish(image *img)
{
    size_t end = round_up(img->bytes + IMAGE_GUARD_BYTES);
    make_room(img, end);
    memset(img->block + img->bytes, IMAGE_GUARD, end - img->bytes);
    img->bytes = end;
    for (size_t i = 0; i < img->count; i++)
        image_rebase(&img->descs[i], NULL, img->block);
}

void image_free(image *img)
{
    if (!img)
        return;
    free(img->block);
    free(img->parts);
    free(img);
}

static void *moved(const void *pointer, const void *from, const void *to)
{
    return pointer ? (void *)((uintptr_t)pointer - (uintptr_t)from + (uintptr_t)to) : NULL;
}

void image_rebase(dm_fill_desc *d, const void *from, const void *to)
{
    void **pointers[] = {
        &d->seq_lens.data,         &d->extend_lens.data,        &d->query_start_loc.data,   &d->req_to_token.data,
        &d->req_pool_indices.data, &d->block_table.data,        &d->seqlens_expanded.data,  &d->dsa_cache_seqlens.data,
        &d->dsa_cu_seqlens_k.data, &d->token_to_req.data,       &d->context_lens.data,      &d->page_table_1.data,
        &d->page_table.data,       &d->cache_seqlens.data,      &d->cu_seqlens_q.data,      &d->cu_seqlens_k.data,
        &d->num_tokens.data,       &d->schedules[0].table.data, &d->schedules[1].table.data};
    for (size_t i = 0; i < sizeof pointers / sizeof *pointers; i++)
        *pointers[i] = moved(*pointers[i], from, to);
    d->report = moved(d->report, from, to);
}
