/* Contexts, and fills on their way to a backend: check, lower, dispatch. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "registry.h"
#include "validate.h"

#define STRING_(x) #x
#define STRING(x) STRING_(x)

struct dm_context {
    const dm_backend *backend;
    void *state;
    bool check;
    dm_backend_info info;
    pthread_mutex_t waiting; /* held while a dm_fill_draft_extend uses report */
    dm_report *report;
};

const char *dm_version(void)
{
    return STRING(DM_VERSION_MAJOR) "." STRING(DM_VERSION_MINOR) "." STRING(DM_VERSION_PATCH);
}

/* ---- Contexts ---- */

static dm_status check_options(const dm_options *options)
{
    const dm_status status = dm_check_struct("options", options, options->size, sizeof *options);
    if (status != DM_OK)
        return status;
    if (options->device < 0)
        return dm_fail(DM_ERR_RANGE, "options.device is %d: it must not be negative", options->device);
    if (options->threads < 0)
        return dm_fail(DM_ERR_RANGE, "options.threads is %d: it must not be negative", options->threads);
    return DM_OK;
}

/* What a context needs beside its backend's state: its description, and the report that waiting fills use. */
static dm_status furnish(dm_context *ctx, const dm_choice *choice)
{
    ctx->info = choice->info;
    ctx->info.device = choice->args.device;
    dm_status status = ctx->backend->device_name(ctx->state, ctx->info.device_name, sizeof ctx->info.device_name);
    if (status != DM_OK)
        return status;
    void *report;
    status = ctx->backend->alloc(ctx->state, sizeof *ctx->report, &report);
    if (status == DM_OK)
        ctx->report = report;
    return status;
}

static dm_status open_context(dm_context *ctx, const dm_options *options)
{
    dm_choice choice = {.args = {.device = options->device, .threads = options->threads}};
    dm_status status = dm_registry_choose(options->backend, &choice);
    if (status != DM_OK)
        return status;
    ctx->backend = choice.backend;
    ctx->check = choice.check;
    status = ctx->backend->open(&choice.args, &ctx->state);
    if (status != DM_OK)
        return status;
    status = furnish(ctx, &choice);
    if (status == DM_OK && pthread_mutex_init(&ctx->waiting, NULL))
        status = dm_fail(DM_ERR_OUT_OF_MEMORY, "no memory for a mutex");
    if (status != DM_OK) {
        if (ctx->report)
            ctx->backend->free(ctx->state, ctx->report);
        ctx->backend->close(ctx->state);
    }
    return status;
}

dm_status dm_open(const dm_options *options, dm_context **ctx)
{
    static const dm_options defaults = {.size = sizeof defaults};
    if (!ctx)
        return dm_fail(DM_ERR_ARGUMENT, "ctx is NULL");
    *ctx = NULL;
    options = options ? options : &defaults;
    dm_status status = check_options(options);
    if (status != DM_OK)
        return status;
    dm_context *made = calloc(1, sizeof *made);
    if (!made)
        return dm_fail(DM_ERR_OUT_OF_MEMORY, "no memory for a context");
    status = open_context(made, options);
    if (status == DM_OK)
        *ctx = made;
    else
        free(made);
    return status;
}

void dm_close(dm_context *ctx)
{
    if (!ctx)
        return;
    ctx->backend->free(ctx->state, ctx->report);
    ctx->backend->close(ctx->state);
    pthread_mutex_destroy(&ctx->waiting);
    free(ctx);
}

dm_status dm_context_info(const dm_context *ctx, dm_backend_info *info)
{
    if (!ctx || !info)
        return dm_fail(DM_ERR_ARGUMENT, "%s is NULL", ctx ? "info" : "ctx");
    if (info->size != sizeof *info)
        return dm_fail(DM_ERR_STRUCT_SIZE, "info->size is %zu: set it to sizeof(dm_backend_info), %zu", info->size,
                       sizeof *info);
    *info = ctx->info;
    return DM_OK;
}

/* ---- Memory ---- */

dm_status dm_malloc(dm_context *ctx, size_t bytes, void **ptr)
{
    if (ptr)
        *ptr = NULL;
    if (!ctx || !ptr)
        return dm_fail(DM_ERR_ARGUMENT, "%s is NULL", ctx ? "ptr" : "ctx");
    return ctx->backend->alloc(ctx->state, bytes ? bytes : 1, ptr);
}

dm_status dm_free(dm_context *ctx, void *ptr)
{
    if (!ctx)
        return dm_fail(DM_ERR_ARGUMENT, "ctx is NULL");
    return ptr ? ctx->backend->free(ctx->state, ptr) : DM_OK;
}

static dm_status check_copy(const dm_context *ctx, const void *dst, const void *src, size_t bytes)
{
    if (!ctx)
        return dm_fail(DM_ERR_ARGUMENT, "ctx is NULL");
    if (bytes && (!dst || !src))
        return dm_fail(DM_ERR_ARGUMENT, "%s is NULL", dst ? "src" : "dst");
    return DM_OK;
}

dm_status dm_upload(dm_context *ctx, void *dst, const void *src, size_t bytes, dm_stream stream)
{
    const dm_status status = check_copy(ctx, dst, src, bytes);
    return status == DM_OK ? ctx->backend->upload(ctx->state, dst, src, bytes, stream) : status;
}

dm_status dm_download(dm_context *ctx, void *dst, const void *src, size_t bytes, dm_stream stream)
{
    const dm_status status = check_copy(ctx, dst, src, bytes);
    return status == DM_OK ? ctx->backend->download(ctx->state, dst, src, bytes, stream) : status;
}

dm_status dm_sync(dm_context *ctx, dm_stream stream)
{
    if (!ctx)
        return dm_fail(DM_ERR_ARGUMENT, "ctx is NULL");
    return ctx->backend->sync(ctx->state, stream);
}

/* ---- Fills ---- */

static dm_status check_pointers(const dm_context *ctx, const dm_range *ranges, int count)
{
    for (int i = 0; i < count; i++) {
        const size_t bytes = (size_t)(ranges[i].end - ranges[i].begin);
        if (!bytes) /* may lie anywhere, behind an allocation's end for one */
            continue;
        const dm_status status = ctx->backend->check_range(ctx->state, ranges[i].field, ranges[i].begin, bytes);
        if (status != DM_OK)
            return status;
    }
    return DM_OK;
}

/* The checks of DRAFTMETA_CHECK=1, over all descriptors of a call, each of which is valid by itself. */
static dm_status check_memory(const dm_context *ctx, const dm_fill_desc *const *descs, size_t count)
{
    dm_range *ranges = malloc(count * DM_MAX_RANGES * sizeof *ranges);
    if (!ranges)
        return dm_fail(DM_ERR_OUT_OF_MEMORY, "no memory for DRAFTMETA_CHECK");
    size_t n = 0;
    dm_status status = DM_OK;
    for (size_t i = 0; i < count && status == DM_OK; i++) {
        const int listed = dm_list_ranges(descs[i], i, ranges + n);
        status = check_pointers(ctx, ranges + n, listed);
        n += (size_t)listed;
    }
    if (status == DM_OK)
        status = dm_check_overlaps(ranges, n, descs);
    free(ranges);
    return status;
}

static dm_status lower_one(const dm_fill_desc *desc, size_t index, size_t count, dm_job *job)
{
    char where[40] = "", name[40] = "desc";
    if (count > 1) { /* only then: formatting takes longer than all checks */
        snprintf(where, sizeof where, "descs[%zu]->", index);
        snprintf(name, sizeof name, "descs[%zu]", index);
    }
    if (!desc)
        return dm_fail(DM_ERR_ARGUMENT, "%s is NULL", name);
    const dm_status status = dm_check_struct(name, desc, desc->size, sizeof *desc);
    return status == DM_OK ? dm_validate(desc, where, job) : status;
}

static dm_status lower_chunk(const dm_fill_desc *const *descs, size_t first, size_t n, size_t count, dm_job *jobs)
{
    for (size_t i = 0; i < n; i++) {
        const dm_status status = lower_one(descs[first + i], first + i, count, &jobs[i]);
        if (status != DM_OK)
            return status;
    }
    return DM_OK;
}

static size_t chunk_at(size_t first, size_t count)
{
    return count - first < DM_FILL_MANY_MAX ? count - first : DM_FILL_MANY_MAX;
}

/* Checks all descriptors; the last chunk's jobs are ready to go. */
static dm_status lower_all(const dm_context *ctx, const dm_fill_desc *const *descs, size_t count, dm_job *jobs)
{
    if (!ctx || (count && !descs))
        return dm_fail(DM_ERR_ARGUMENT, "%s is NULL", ctx ? "descs" : "ctx");
    dm_status status = DM_OK;
    for (size_t first = 0; first < count && status == DM_OK; first += DM_FILL_MANY_MAX)
        status = lower_chunk(descs, first, chunk_at(first, count), count, jobs);
    if (status == DM_OK && ctx->check && count)
        status = check_memory(ctx, descs, count);
    return status;
}

dm_status dm_fill_many(dm_context *ctx, const dm_fill_desc *const *descs, size_t count, dm_stream stream)
{
    dm_job jobs[DM_FILL_MANY_MAX];
    dm_status status = lower_all(ctx, descs, count, jobs); /* nothing is enqueued before all is known to be valid */
    for (size_t first = 0; first < count && status == DM_OK; first += DM_FILL_MANY_MAX) {
        if (count > DM_FILL_MANY_MAX)
            status = lower_chunk(descs, first, chunk_at(first, count), count, jobs);
        if (status == DM_OK)
            status = ctx->backend->fill(ctx->state, jobs, (int)chunk_at(first, count), stream);
    }
    return status;
}

dm_status dm_fill_check(dm_context *ctx, const dm_fill_desc *desc)
{
    dm_job job;
    return lower_all(ctx, &desc, 1, &job);
}

dm_status dm_fill(dm_context *ctx, const dm_fill_desc *desc, dm_stream stream)
{
    return dm_fill_many(ctx, &desc, 1, stream);
}

/* ---- Draft extend, without a descriptor ---- */

static dm_fill_desc draft_extend_desc(const int32_t *extend_seq_lens, const int32_t *seq_lens, int32_t num_requests,
                                      int32_t topk, int32_t *out_seqlens_expanded, int32_t *out_dsa_cache_seqlens,
                                      int64_t token_capacity)
{
    dm_fill_desc desc = {.size = sizeof desc, .num_requests = num_requests, .topk = topk};
    desc.seq_lens = (dm_vec){(void *)(uintptr_t)seq_lens, seq_lens ? num_requests : 0, DM_INT32};
    desc.extend_lens = (dm_vec){(void *)(uintptr_t)extend_seq_lens, extend_seq_lens ? num_requests : 0, DM_INT32};
    if (out_seqlens_expanded)
        desc.seqlens_expanded = (dm_vec){out_seqlens_expanded, token_capacity, DM_INT32};
    if (out_dsa_cache_seqlens)
        desc.dsa_cache_seqlens = (dm_vec){out_dsa_cache_seqlens, token_capacity, DM_INT32};
    return desc;
}

/* Under this function's names, which are not all the descriptor's. */
static dm_status check_draft_arrays(const dm_fill_desc *desc, int64_t token_capacity)
{
    const struct {
        const char *name;
        const void *data;
    } arrays[] = {{"extend_seq_lens", desc->extend_lens.data},
                  {"seq_lens", desc->seq_lens.data},
                  {"out_seqlens_expanded", desc->seqlens_expanded.data},
                  {"out_dsa_cache_seqlens", desc->dsa_cache_seqlens.data}};
    for (int i = 0; i < 4; i++) {
        if (i < 2 && desc->num_requests && !arrays[i].data)
            return dm_fail(DM_ERR_ARGUMENT, "%s is NULL", arrays[i].name);
        if ((uintptr_t)arrays[i].data % sizeof(int32_t))
            return dm_fail(DM_ERR_ALIGNMENT, "%s is %p: align it to 4 bytes", arrays[i].name, arrays[i].data);
        if (i >= 2 && arrays[i].data && token_capacity > INT64_MAX / 8)
            return dm_fail(DM_ERR_SHAPE, "token_capacity is %lld: more than memory can hold",
                           (long long)token_capacity);
    }
    return DM_OK;
}

static dm_status check_draft_extend(const dm_fill_desc *desc, int64_t token_capacity)
{
    if (desc->num_requests < 0)
        return dm_fail(DM_ERR_RANGE, "num_requests is %d: it must not be negative", desc->num_requests);
    if (desc->topk < 1)
        return dm_fail(DM_ERR_RANGE, "topk is %d: it must be at least 1", desc->topk);
    if (token_capacity < 0)
        return dm_fail(DM_ERR_RANGE, "token_capacity is %lld: it must not be negative", (long long)token_capacity);
    return check_draft_arrays(desc, token_capacity);
}

/* Fills with the context's own report and waits for it. */
static dm_status fill_and_count(dm_context *ctx, dm_fill_desc *desc, int64_t *tokens, dm_stream stream)
{
    dm_report report = {0};
    desc->report = ctx->report;
    dm_status status = dm_upload(ctx, ctx->report, &report, sizeof report, stream);
    if (status == DM_OK)
        status = dm_fill(ctx, desc, stream);
    if (status == DM_OK)
        status = dm_download(ctx, &report, ctx->report, sizeof report, stream);
    if (status == DM_OK)
        *tokens = (int64_t)report.tokens_wanted;
    return status;
}

static dm_status refuse_capture(const dm_context *ctx, dm_stream stream)
{
    bool capturing;
    const dm_status status = ctx->backend->is_capturing(ctx->state, stream, &capturing);
    if (status == DM_OK && capturing)
        return dm_fail(DM_ERR_CAPTURE, "tokens_written waits, which a stream under capture cannot: pass NULL");
    return status;
}

dm_status dm_fill_draft_extend(dm_context *ctx, const int32_t *extend_seq_lens, const int32_t *seq_lens,
                               int32_t num_requests, int32_t topk, int32_t *out_seqlens_expanded,
                               int32_t *out_dsa_cache_seqlens, int64_t token_capacity, int64_t *tokens_written,
                               dm_stream stream)
{
    if (!ctx)
        return dm_fail(DM_ERR_ARGUMENT, "ctx is NULL");
    dm_fill_desc desc = draft_extend_desc(extend_seq_lens, seq_lens, num_requests, topk, out_seqlens_expanded,
                                          out_dsa_cache_seqlens, token_capacity);
    dm_status status = check_draft_extend(&desc, token_capacity);
    if (status != DM_OK)
        return status;
    if (!tokens_written)
        return dm_fill(ctx, &desc, stream);
    status = refuse_capture(ctx, stream);
    if (status != DM_OK)
        return status;
    pthread_mutex_lock(&ctx->waiting);
    status = fill_and_count(ctx, &desc, tokens_written, stream);
    pthread_mutex_unlock(&ctx->waiting);
    if (status == DM_OK && *tokens_written > token_capacity)
        return dm_fail(DM_ERR_CAPACITY, "token_capacity is %lld, but there are %lld tokens: the first were written",
                       (long long)token_capacity, (long long)*tokens_written);
    return status;
}
