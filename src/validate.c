/* The contract's rules for descriptors, as one table of fields and a few checks between fields. */
#include "validate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long an array must be, and whether the fill writes it. */
typedef enum role {
    IN_REQUEST,        /* R */
    IN_REQUEST_PREFIX, /* R + 1 */
    OUT_TOKEN,         /* any length: bounds M */
    OUT_TOKEN_PREFIX,  /* at least 1: M + 1 */
    OUT_REQUEST,       /* max(R, padded_requests) */
    OUT_REQUEST_PREFIX,
    OUT_ONE
} role;

typedef struct field {
    const char *name;
    size_t offset;
    role role;
} field;

#define FIELD(name) #name, offsetof(dm_fill_desc, name)
static const field vec_fields[] = {
    {FIELD(seq_lens), IN_REQUEST},
    {FIELD(extend_lens), IN_REQUEST},
    {FIELD(query_start_loc), IN_REQUEST_PREFIX},
    {FIELD(req_pool_indices), IN_REQUEST},
    {FIELD(seqlens_expanded), OUT_TOKEN},
    {FIELD(dsa_cache_seqlens), OUT_TOKEN},
    {FIELD(dsa_cu_seqlens_k), OUT_TOKEN_PREFIX},
    {FIELD(token_to_req), OUT_TOKEN},
    {FIELD(context_lens), OUT_TOKEN},
    {FIELD(cache_seqlens), OUT_REQUEST},
    {FIELD(cu_seqlens_q), OUT_REQUEST_PREFIX},
    {FIELD(cu_seqlens_k), OUT_REQUEST_PREFIX},
    {FIELD(num_tokens), OUT_ONE},
};

typedef struct table_field {
    const char *name;
    size_t offset;
    bool output;
} table_field;

static const table_field table_fields[] = {
    {FIELD(req_to_token), false},
    {FIELD(block_table), false},
    {FIELD(page_table_1), true},
    {FIELD(page_table), true},
};
#undef FIELD

enum { NUM_VECS = sizeof vec_fields / sizeof *vec_fields, NUM_TABLES = sizeof table_fields / sizeof *table_fields };
_Static_assert(NUM_VECS + NUM_TABLES + 3 <= DM_MAX_RANGES, "with two schedules and a report");

static const char *const schedule_names[2] = {"schedules[0].table", "schedules[1].table"};

static const dm_vec *vec_of(const dm_fill_desc *desc, const field *f)
{
    return (const dm_vec *)((const char *)desc + f->offset);
}

static const dm_table *table_of(const dm_fill_desc *desc, const table_field *f)
{
    return (const dm_table *)((const char *)desc + f->offset);
}

static bool is_input(role r)
{
    return r == IN_REQUEST || r == IN_REQUEST_PREFIX;
}

static size_t type_bytes(dm_type type)
{
    return type == DM_INT64 ? 8 : 4;
}

static int64_t row_stride(const dm_table *t)
{
    return t->row_stride ? t->row_stride : t->cols;
}

dm_status dm_check_struct(const char *name, const void *given, size_t size, size_t known)
{
    const size_t most = 65536; /* no version's struct has more; a garbled size is not followed through memory */
    if (size < known || size > most)
        return dm_fail(DM_ERR_STRUCT_SIZE, "%s->size is %zu: set it to the struct's sizeof, %zu", name, size, known);
    for (size_t i = known; i < size; i++)
        if (((const unsigned char *)given)[i])
            return dm_fail(DM_ERR_STRUCT_SIZE,
                           "%s->size is %zu and byte %zu is not zero: this library is version %s and knows %zu bytes",
                           name, size, i, dm_version(), known);
    return DM_OK;
}

/* ---- Single fields ---- */

static dm_status check_scalars(const dm_fill_desc *desc, const char *where)
{
    const struct {
        const char *name;
        int64_t value;
    } scalars[] = {
        {"num_requests", desc->num_requests},
        {"extend_len", desc->extend_len},
        {"seq_len_bias", desc->seq_len_bias},
        {"topk", desc->topk},
        {"pool_size", desc->pool_size},
        {"page_size", desc->page_size},
        {"padded_tokens", desc->padded_tokens},
        {"padded_requests", desc->padded_requests},
        {"context_divisor", desc->context_divisor},
        {"dcp_world", desc->dcp_world},
        {"dcp_rank", desc->dcp_rank},
        {"dcp_interleave", desc->dcp_interleave},
    };
    for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++)
        if (scalars[i].value < 0)
            return dm_fail(DM_ERR_RANGE, "%s%s is %lld: it must not be negative", where, scalars[i].name,
                           (long long)scalars[i].value);
    if (desc->dcp_rank && desc->dcp_rank >= desc->dcp_world)
        return dm_fail(DM_ERR_RANGE, "%sdcp_rank is %d: it must be below dcp_world, %d", where, desc->dcp_rank,
                       desc->dcp_world);
    const uint32_t known = DM_FILL_FULL_ROWS | DM_FILL_CONTEXT_PER_REQUEST;
    if (desc->flags & ~known)
        return dm_fail(DM_ERR_ARGUMENT, "%sflags is 0x%x: 0x%x is all that this version knows", where, desc->flags,
                       known);
    return DM_OK;
}

static dm_status check_array(const char *where, const char *name, const void *data, dm_type type, bool wide_allowed)
{
    if (type != DM_INT32 && !(wide_allowed && type == DM_INT64))
        return dm_fail(DM_ERR_TYPE, "%s%s.type is %d: it takes DM_INT32%s", where, name, (int)type,
                       wide_allowed ? " or DM_INT64" : "");
    if ((uintptr_t)data % type_bytes(type))
        return dm_fail(DM_ERR_ALIGNMENT, "%s%s.data is %p: align it to %zu bytes", where, name, data, type_bytes(type));
    return DM_OK;
}

static int64_t least_length(const dm_fill_desc *desc, role r)
{
    const int64_t requests = desc->num_requests;
    const int64_t padded = requests > desc->padded_requests ? requests : desc->padded_requests;
    switch (r) {
    case IN_REQUEST:
        return requests;
    case IN_REQUEST_PREFIX:
        return requests + 1;
    case OUT_TOKEN:
        return 0;
    case OUT_REQUEST:
        return padded;
    case OUT_REQUEST_PREFIX:
        return padded + 1;
    case OUT_TOKEN_PREFIX:
    case OUT_ONE:
        return 1;
    }
    return 0;
}

static dm_status check_vec(const dm_fill_desc *desc, const char *where, const field *f)
{
    const dm_vec *v = vec_of(desc, f);
    if (!v->data && v->len)
        return dm_fail(DM_ERR_ARGUMENT, "%s%s.data is NULL, but its len is %lld", where, f->name, (long long)v->len);
    if (!v->data)
        return DM_OK;
    const dm_status status = check_array(where, f->name, v->data, v->type, is_input(f->role));
    if (status != DM_OK)
        return status;
    const int64_t least = least_length(desc, f->role);
    if (v->len < least)
        return dm_fail(DM_ERR_SHAPE, "%s%s.len is %lld: it must be at least %lld (num_requests %d, padded_requests %d)",
                       where, f->name, (long long)v->len, (long long)least, desc->num_requests, desc->padded_requests);
    if (v->len > INT64_MAX / 8)
        return dm_fail(DM_ERR_SHAPE, "%s%s.len is %lld: more than memory can hold", where, f->name, (long long)v->len);
    return DM_OK;
}

static dm_status check_table(const dm_fill_desc *desc, const char *where, const table_field *f)
{
    const dm_table *t = table_of(desc, f);
    if (!t->data && t->rows && t->cols)
        return dm_fail(DM_ERR_ARGUMENT, "%s%s.data is NULL, but it has %lld x %lld elements", where, f->name,
                       (long long)t->rows, (long long)t->cols);
    if (!t->data)
        return DM_OK;
    const dm_status status = check_array(where, f->name, t->data, t->type, false);
    if (status != DM_OK)
        return status;
    if (t->rows < 0 || t->cols < 0)
        return dm_fail(DM_ERR_SHAPE, "%s%s is %lld x %lld: extents must not be negative", where, f->name,
                       (long long)t->rows, (long long)t->cols);
    if (row_stride(t) < t->cols)
        return dm_fail(DM_ERR_SHAPE, "%s%s.row_stride is %lld, but a row has %lld columns: its rows would overlap",
                       where, f->name, (long long)t->row_stride, (long long)t->cols);
    if (row_stride(t) > INT64_MAX / 8 / (t->rows ? t->rows : 1))
        return dm_fail(DM_ERR_SHAPE, "%s%s has %lld rows of stride %lld: more than memory can hold", where, f->name,
                       (long long)t->rows, (long long)row_stride(t));
    return DM_OK;
}

static dm_status check_schedule(const dm_fill_desc *desc, const char *where, int i)
{
    const dm_schedule *s = &desc->schedules[i];
    const dm_vec *v = &s->table;
    if (!v->data && v->len)
        return dm_fail(DM_ERR_ARGUMENT, "%s%s.data is NULL, but its len is %lld", where, schedule_names[i],
                       (long long)v->len);
    if (!v->data)
        return DM_OK;
    const dm_status status = check_array(where, schedule_names[i], v->data, v->type, false);
    if (status != DM_OK)
        return status;
    if (s->slots < 1)
        return dm_fail(DM_ERR_RANGE, "%sschedules[%d].slots is %d: it must be at least 1", where, i, s->slots);
    if (s->divisor < 0)
        return dm_fail(DM_ERR_RANGE, "%sschedules[%d].divisor is %d: it must not be negative", where, i, s->divisor);
    if (v->len < 2 * ((int64_t)s->slots + 1))
        return dm_fail(DM_ERR_SHAPE, "%s%s.len is %lld: %d slots take 2 * (slots + 1) = %lld", where, schedule_names[i],
                       (long long)v->len, s->slots, 2 * ((long long)s->slots + 1));
    if (v->len > INT64_MAX / 8)
        return dm_fail(DM_ERR_SHAPE, "%s%s.len is %lld: more than memory can hold", where, schedule_names[i],
                       (long long)v->len);
    if (s->variant < DM_SCHEDULE_SMXX || s->variant > DM_SCHEDULE_SM100)
        return dm_fail(DM_ERR_ARGUMENT, "%sschedules[%d].variant is %d: pass a DM_SCHEDULE_* value", where, i,
                       (int)s->variant);
    if (s->unit != DM_UNIT_TOKEN && s->unit != DM_UNIT_REQUEST)
        return dm_fail(DM_ERR_ARGUMENT, "%sschedules[%d].unit is %d: pass DM_UNIT_TOKEN or DM_UNIT_REQUEST", where, i,
                       (int)s->unit);
    return DM_OK;
}

static dm_status check_fields(const dm_fill_desc *desc, const char *where)
{
    dm_status status = check_scalars(desc, where);
    for (int i = 0; i < NUM_VECS && status == DM_OK; i++)
        status = check_vec(desc, where, &vec_fields[i]);
    for (int i = 0; i < NUM_TABLES && status == DM_OK; i++)
        status = check_table(desc, where, &table_fields[i]);
    for (int i = 0; i < 2 && status == DM_OK; i++)
        status = check_schedule(desc, where, i);
    if (status == DM_OK && (uintptr_t)desc->report % 8)
        status = dm_fail(DM_ERR_ALIGNMENT, "%sreport is %p: align it to 8 bytes", where, (void *)desc->report);
    return status;
}

/* ---- Between fields ---- */

static dm_status check_query_source(const dm_fill_desc *desc, const char *where)
{
    const int given = !!desc->extend_lens.data + !!desc->query_start_loc.data + !!desc->extend_len;
    if (given > 1)
        return dm_fail(DM_ERR_CONFLICT, "%sextend_lens, query_start_loc and extend_len: give only one of them", where);
    if (desc->num_requests && !given)
        return dm_fail(DM_ERR_MISSING, "%sextend_lens, query_start_loc or extend_len must be given", where);
    if (desc->num_requests && !desc->seq_lens.data)
        return dm_fail(DM_ERR_MISSING, "%sseq_lens must be given", where);
    return DM_OK;
}

static dm_status check_tables_fit(const dm_fill_desc *desc, const char *where)
{
    const bool blocks = desc->block_table.data, slots = desc->req_to_token.data;
    if (blocks && slots)
        return dm_fail(DM_ERR_CONFLICT, "%sreq_to_token and block_table: give only one of them", where);
    if (blocks && desc->req_pool_indices.data)
        return dm_fail(DM_ERR_CONFLICT, "%sreq_pool_indices goes with req_to_token, not with block_table", where);
    if (blocks && desc->page_table_1.data)
        return dm_fail(DM_ERR_CONFLICT, "%spage_table_1 needs slots; block_table has only pages", where);
    if (desc->page_table_1.data && !slots)
        return dm_fail(DM_ERR_MISSING, "%spage_table_1 needs req_to_token", where);
    if (desc->page_table.data && !slots && !blocks)
        return dm_fail(DM_ERR_MISSING, "%spage_table needs req_to_token or block_table", where);
    if (desc->page_table.data && desc->page_size < 1)
        return dm_fail(DM_ERR_RANGE, "%spage_size is 0: page_table needs at least 1", where);
    return DM_OK;
}

static bool has_token_output(const dm_fill_desc *desc)
{
    for (int i = 0; i < NUM_VECS; i++)
        if ((vec_fields[i].role == OUT_TOKEN || vec_fields[i].role == OUT_TOKEN_PREFIX) &&
            vec_of(desc, &vec_fields[i])->data)
            return true;
    return desc->page_table_1.data || desc->page_table.data;
}

static dm_status check_schedules_fit(const dm_fill_desc *desc, const char *where)
{
    for (int i = 0; i < 2; i++) {
        const dm_schedule *s = &desc->schedules[i];
        if (!s->table.data)
            continue;
        if (s->unit == DM_UNIT_REQUEST && !desc->extend_len)
            return dm_fail(DM_ERR_MISSING, "%sschedules[%d].unit is DM_UNIT_REQUEST, which needs extend_len", where, i);
        if (s->unit == DM_UNIT_TOKEN && !desc->padded_tokens && !has_token_output(desc))
            return dm_fail(DM_ERR_MISSING,
                           "%sschedules[%d].unit is DM_UNIT_TOKEN, which needs padded_tokens or an output per token",
                           where, i);
    }
    return DM_OK;
}

static dm_status check_combination(const dm_fill_desc *desc, const char *where)
{
    dm_status status = check_query_source(desc, where);
    if (status == DM_OK)
        status = check_tables_fit(desc, where);
    if (status == DM_OK)
        status = check_schedules_fit(desc, where);
    if (status != DM_OK)
        return status;
    if ((desc->dsa_cache_seqlens.data || desc->dsa_cu_seqlens_k.data) && desc->topk < 1)
        return dm_fail(DM_ERR_RANGE, "%stopk is 0: dsa_cache_seqlens and dsa_cu_seqlens_k need at least 1", where);
    if (desc->flags & DM_FILL_CONTEXT_PER_REQUEST && !desc->extend_len)
        return dm_fail(DM_ERR_MISSING, "%sflags has DM_FILL_CONTEXT_PER_REQUEST, which needs extend_len", where);
    return DM_OK;
}

/* ---- Lowering ---- */

static int64_t token_capacity(const dm_fill_desc *desc)
{
    int64_t capacity = INT64_MAX;
    for (int i = 0; i < NUM_VECS; i++) {
        const dm_vec *v = vec_of(desc, &vec_fields[i]);
        const role r = vec_fields[i].role;
        if (!v->data || (r != OUT_TOKEN && r != OUT_TOKEN_PREFIX))
            continue;
        const int64_t tokens = v->len - (r == OUT_TOKEN_PREFIX);
        capacity = tokens < capacity ? tokens : capacity;
    }
    for (int i = 0; i < NUM_TABLES; i++) {
        const dm_table *t = table_of(desc, &table_fields[i]);
        if (table_fields[i].output && t->data && t->rows < capacity)
            capacity = t->rows;
    }
    return capacity;
}

static int32_t log2_or_minus_1(int32_t n)
{
    return n > 0 && (n & (n - 1)) == 0 ? __builtin_ctz((unsigned)n) : -1;
}

static uint32_t low_or_max(int64_t v)
{
    return v < UINT32_MAX ? (uint32_t)v : UINT32_MAX;
}

static dm_shard lower_shard(const dm_fill_desc *desc)
{
    const int64_t part = desc->dcp_interleave ? desc->dcp_interleave : 1;
    if (desc->dcp_world <= 1)
        return (dm_shard){.round = 1, .interleave = 1};
    return (dm_shard){low_or_max(part * desc->dcp_world), low_or_max(part * desc->dcp_rank), (uint32_t)part};
}

static dm_job_schedule lower_schedule(const dm_fill_desc *desc, const dm_schedule *s)
{
    if (!s->table.data)
        return (dm_job_schedule){0};
    const int32_t n = s->unit == DM_UNIT_TOKEN ? 1 : desc->extend_len;
    const bool sm100 = s->variant == DM_SCHEDULE_SM100;
    const uint32_t divisor = s->divisor ? (uint32_t)s->divisor : 1;
    const uint64_t step = (uint64_t)DM_SPLIT * divisor;
    return (dm_job_schedule){
        .table = s->table.data,
        .slots = s->slots,
        .atoms = sm100 ? n : n / 2 + n % 2,
        .divisor = divisor,
        .step = step <= INT32_MAX ? (uint32_t)step : 0,
        .step_shift = step <= INT32_MAX ? log2_or_minus_1((int32_t)step) : -1,
        .flags = (s->unit == DM_UNIT_TOKEN ? DM_SCHED_PER_TOKEN : 0) | (sm100 ? DM_SCHED_ADJACENT : 0) |
                 (s->variant == DM_SCHEDULE_SM90 ? DM_SCHED_TAIL_HEAVY : 0) |
                 (desc->dcp_world > 1 ? DM_SCHED_LOCAL : 0),
        .shard = lower_shard(desc),
    };
}

/* flag if pointer is given */
static uint32_t flag_if(const void *pointer, uint32_t flag)
{
    return pointer ? flag : 0;
}

/* Whether context_lens or schedules are made from other lengths than the rest. */
static bool is_local(const dm_fill_desc *d)
{
    const bool context = d->context_lens.data, scheduled = d->schedules[0].table.data || d->schedules[1].table.data;
    return (d->dcp_world > 1 && (context || scheduled)) || (d->context_divisor > 1 && context);
}

static uint32_t lower_outputs(const dm_fill_desc *d)
{
    return flag_if(d->seqlens_expanded.data, DM_JOB_SEQLENS_EXPANDED) |
           flag_if(d->dsa_cache_seqlens.data, DM_JOB_DSA_CACHE_SEQLENS) |
           flag_if(d->dsa_cu_seqlens_k.data, DM_JOB_DSA_CU_SEQLENS_K) |
           flag_if(d->token_to_req.data, DM_JOB_TOKEN_TO_REQ) | flag_if(d->context_lens.data, DM_JOB_CONTEXT_LENS) |
           flag_if(d->cache_seqlens.data, DM_JOB_CACHE_SEQLENS) | flag_if(d->cu_seqlens_q.data, DM_JOB_CU_SEQLENS_Q) |
           flag_if(d->cu_seqlens_k.data, DM_JOB_CU_SEQLENS_K) | flag_if(d->num_tokens.data, DM_JOB_NUM_TOKENS) |
           flag_if(d->report, DM_JOB_REPORT) | (has_token_output(d) ? DM_JOB_TOKENS : 0) |
           (is_local(d) ? DM_JOB_LOCAL : 0);
}

static uint32_t lower_inputs(const dm_fill_desc *d)
{
    const dm_vec *extend = d->query_start_loc.data ? &d->query_start_loc : &d->extend_lens;
    return (d->seq_lens.type == DM_INT64 ? DM_JOB_SEQ64 : 0) | (extend->type == DM_INT64 ? DM_JOB_EXTEND64 : 0) |
           (d->req_pool_indices.type == DM_INT64 ? DM_JOB_POOL64 : 0) | flag_if(extend->data, DM_JOB_EXTEND) |
           flag_if(d->query_start_loc.data, DM_JOB_QUERY_START) | flag_if(d->block_table.data, DM_JOB_BLOCK_TABLE) |
           (d->flags & DM_FILL_FULL_ROWS ? DM_JOB_FULL_ROWS : 0) |
           (d->flags & DM_FILL_CONTEXT_PER_REQUEST ? DM_JOB_CONTEXT_PER_REQUEST : 0) |
           flag_if(d->page_table.data, DM_JOB_TABLES) | flag_if(d->page_table_1.data, DM_JOB_TABLES);
}

static int64_t min_cols(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Columns that the source has for page_table. */
static int64_t source_pages(const dm_fill_desc *desc)
{
    if (desc->block_table.data)
        return desc->block_table.cols;
    const int64_t cols = desc->req_to_token.cols, size = desc->page_size;
    return size ? cols / size + (cols % size != 0) : 0;
}

static dm_job lower(const dm_fill_desc *desc)
{
    const dm_table *source = desc->block_table.data ? &desc->block_table : &desc->req_to_token;
    return (dm_job){
        .seq_lens = desc->seq_lens.data,
        .extend = desc->query_start_loc.data ? desc->query_start_loc.data : desc->extend_lens.data,
        .pool = desc->req_pool_indices.data,
        .source = source->data,
        .source_rows = source->rows,
        .source_stride = row_stride(source),
        .seqlens_expanded = desc->seqlens_expanded.data,
        .dsa_cache_seqlens = desc->dsa_cache_seqlens.data,
        .dsa_cu_seqlens_k = desc->dsa_cu_seqlens_k.data,
        .token_to_req = desc->token_to_req.data,
        .context_lens = desc->context_lens.data,
        .page_table_1 = desc->page_table_1.data,
        .page_table_1_cols = desc->page_table_1.cols,
        .page_table_1_stride = row_stride(&desc->page_table_1),
        .page_table_1_bound = min_cols(desc->page_table_1.cols, source->cols),
        .page_table = desc->page_table.data,
        .page_table_cols = desc->page_table.cols,
        .page_table_stride = row_stride(&desc->page_table),
        .page_table_bound = min_cols(desc->page_table.cols, source_pages(desc)),
        .cache_seqlens = desc->cache_seqlens.data,
        .cu_seqlens_q = desc->cu_seqlens_q.data,
        .cu_seqlens_k = desc->cu_seqlens_k.data,
        .num_tokens = desc->num_tokens.data,
        .report = desc->report,
        .capacity = token_capacity(desc),
        .padded_tokens = desc->padded_tokens,
        .num_requests = desc->num_requests,
        .padded_requests = desc->padded_requests > desc->num_requests ? desc->padded_requests : desc->num_requests,
        .extend_len = desc->extend_len,
        .seq_len_bias = desc->seq_len_bias,
        .topk = desc->topk,
        .pool_size = desc->pool_size ? desc->pool_size : 1,
        .page_size = desc->page_size ? desc->page_size : 1,
        .page_shift = log2_or_minus_1(desc->page_size ? desc->page_size : 1),
        .flags = lower_inputs(desc) | lower_outputs(desc),
        .shard = lower_shard(desc),
        .context_divisor = desc->context_divisor ? (uint32_t)desc->context_divisor : 1,
        .schedules = {lower_schedule(desc, &desc->schedules[0]), lower_schedule(desc, &desc->schedules[1])},
    };
}

dm_status dm_validate(const dm_fill_desc *desc, const char *where, dm_job *job)
{
    dm_status status = check_fields(desc, where);
    if (status == DM_OK)
        status = check_combination(desc, where);
    if (status == DM_OK)
        *job = lower(desc);
    return status;
}

/* ---- DRAFTMETA_CHECK ---- */

static dm_range range_of(const char *name, const void *data, int64_t bytes, size_t desc, bool output)
{
    return (dm_range){.field = name, .begin = data, .end = (const char *)data + bytes, .desc = desc, .output = output};
}

int dm_list_ranges(const dm_fill_desc *desc, size_t index, dm_range ranges[DM_MAX_RANGES])
{
    int n = 0;
    for (int i = 0; i < NUM_VECS; i++) {
        const dm_vec *v = vec_of(desc, &vec_fields[i]);
        if (v->data)
            ranges[n++] = range_of(vec_fields[i].name, v->data, v->len * (int64_t)type_bytes(v->type), index,
                                   !is_input(vec_fields[i].role));
    }
    for (int i = 0; i < NUM_TABLES; i++) {
        const dm_table *t = table_of(desc, &table_fields[i]);
        if (!t->data)
            continue; /* its numbers are not checked, and may be anything */
        const int64_t elements = t->rows ? (t->rows - 1) * row_stride(t) + t->cols : 0;
        ranges[n++] = range_of(table_fields[i].name, t->data, elements * 4, index, table_fields[i].output);
    }
    for (int i = 0; i < 2; i++) {
        const dm_vec *v = &desc->schedules[i].table;
        if (v->data)
            ranges[n++] = range_of(schedule_names[i], v->data, v->len * 4, index, true);
    }
    if (desc->report)
        ranges[n++] = range_of("report", desc->report, sizeof *desc->report, index, true);
    return n;
}

static int by_begin(const void *a, const void *b)
{
    const dm_range *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* Whether a field holds the same as cache_seqlens where every request has one token. */
static bool holds_kv(const char *name, const dm_fill_desc *desc)
{
    if (!strcmp(name, "context_lens"))
        return desc->dcp_world <= 1 && desc->context_divisor <= 1;
    return !strcmp(name, "seqlens_expanded") || !strcmp(name, "cache_seqlens");
}

static bool may_share(const dm_range *a, const dm_range *b, const dm_fill_desc *const *descs)
{
    if (!strcmp(a->field, "report") && !strcmp(b->field, "report"))
        return a->begin == b->begin;
    const dm_fill_desc *desc = descs[a->desc];
    return a->desc == b->desc && a->begin == b->begin && desc->extend_len == 1 && holds_kv(a->field, desc) &&
           holds_kv(b->field, desc);
}

dm_status dm_check_overlaps(dm_range *ranges, size_t count, const dm_fill_desc *const *descs)
{
    qsort(ranges, count, sizeof *ranges, by_begin);
    for (size_t i = 0; i < count; i++)
        for (size_t k = i + 1; k < count && ranges[k].begin < ranges[i].end; k++) {
            const dm_range *a = &ranges[i], *b = &ranges[k];
            if (b->begin == b->end || (!a->output && !b->output) || may_share(a, b, descs))
                continue;
            return dm_fail(DM_ERR_OVERLAP, "descs[%zu]->%s overlaps descs[%zu]->%s at %p", b->desc, b->field, a->desc,
                           a->field, (const void *)b->begin);
        }
    return DM_OK;
}
