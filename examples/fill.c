#include <draftmeta.h>
#include <stdio.h>

int main(void)
{
    int32_t lens[3] = {6, 1, 12}, seen[6]; /* KV tokens of 3 requests, 2 of them new in each */
    void *in, *out;
    dm_context *ctx;
    if (dm_open(NULL, &ctx) || dm_malloc(ctx, sizeof lens, &in) || dm_malloc(ctx, sizeof seen, &out))
        return fprintf(stderr, "%s\n", dm_last_error()), 1;
    dm_fill_desc desc = {.size = sizeof desc, .num_requests = 3, .extend_len = 2};
    desc.seq_lens = (dm_vec){in, 3, DM_INT32};
    desc.seqlens_expanded = (dm_vec){out, 6, DM_INT32};
    if (dm_upload(ctx, in, lens, sizeof lens, NULL) || dm_fill(ctx, &desc, NULL) ||
        dm_download(ctx, seen, out, sizeof seen, NULL))
        return fprintf(stderr, "%s\n", dm_last_error()), 1;
    for (int t = 0; t < 6; t++)
        printf("token %d of request %d sees %d KV tokens\n", t % 2, t / 2, seen[t]);
    return dm_free(ctx, in), dm_free(ctx, out), dm_close(ctx), 0;
}
