/* From jobs to launches. */
#include "plan.h"

#include "formula.h"

enum {
    THREADS = 256,       /* of a block, unless a schedule wants more */
    WHOLE_WARPS = 64,    /* of any GPU */
    PAGE_THREADS = 512,  /* for tables, of each multiprocessor: the most where rows are narrow, */
    SLOT_THREADS = 1024, /* and where they are as wide as the context */
    FEW_REQUESTS = 16,   /* which have fewer threads: what is not live costs more than what is */
    SLOTS_OF_THREAD = 8, /* of a row's declared slots, how many a thread is for */
    ROWS_OF_THREAD = 8,  /* the fewest rows for which more threads are worth their start */
    TOKENS_OF_SLICE = 2, /* of a request, that another block is worth */
    MOST_PADDING_TEAMS = 64,
    MAX_LENGTH_BLOCKS = 128,
    LENGTHS_THREADS = 128,        /* of a block for lengths alone, */
    LENGTHS_BY_WARP_THREADS = 64, /* and where each warp sums for itself, */
    LENGTHS_BY_WARP = 1024        /* up to so many requests */
};

/* Of token counts, each up to one more than the capacity. */
_Static_assert((int64_t)GPU_MAX_THREADS *(GPU_STEP_CAPACITY + 1) <= INT32_MAX, "a block's sums leave 32 bits");

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t clamp(int64_t v, int64_t low, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

/* The largest power of two that is at most v >= 1, as a shift. */
static int32_t floor_log2(int64_t v)
{
    int32_t shift = 0;
    while (v >> (shift + 1))
        shift++;
    return shift;
}

/* The smallest power of two that is at least v >= 1, as a shift. */
static int32_t ceil_log2(int64_t v)
{
    return v <= 1 ? 0 : floor_log2(v - 1) + 1;
}

static bool has_schedules(const dm_job *job)
{
    return job->schedules[0].table || job->schedules[1].table;
}

/* Whether a step's kernel writes them: a tile of requests, all of whose units are covered and few. */
static bool are_step_schedules(const dm_job *job)
{
    const int64_t tokens = (int64_t)job->num_requests * job->extend_len;
    if (job->padded_requests >= GPU_MAX_THREADS)
        return false;
    if (job->flags & DM_JOB_EXTEND)
        return job->capacity <= GPU_STEP_UNITS;
    return tokens <= job->capacity && tokens <= GPU_STEP_UNITS;
}

/* The tokens of requests that have as many each, as dm_tokens_written says. */
static int64_t even_tokens_written(const dm_job *job)
{
    return dm_tokens_written(job, (int64_t)job->num_requests * job->extend_len);
}

/* The threads with a token each, and one for what follows the last. */
static int64_t length_threads(const dm_job *job)
{
    const int64_t tokens = (int64_t)job->num_requests * job->extend_len,
                  requests = job->padded_requests - job->num_requests;
    const int64_t written = even_tokens_written(job) - tokens;
    return tokens + (written > requests ? written : requests) + 1;
}

/* Whether 32 bits do, and there is a request to load. */
static bool is_bounded(const dm_job *job)
{
    return job->num_requests > 0 && job->padded_requests <= GPU_STEP_REQUESTS && job->capacity <= GPU_STEP_CAPACITY &&
           (int64_t)job->padded_requests * job->extend_len <= GPU_STEP_CAPACITY &&
           job->page_table_stride <= GPU_STEP_STRIDE && job->page_table_1_stride <= GPU_STEP_STRIDE &&
           job->source_stride <= GPU_STEP_STRIDE && job->source_rows <= INT32_MAX;
}

gpu_kind gpu_kind_of(const dm_job *job)
{
    const bool ragged = job->flags & DM_JOB_EXTEND, has_report = job->flags & DM_JOB_REPORT;
    const bool masks = (job->page_shift >= 0 || !job->page_table) && !(job->pool_size & (job->pool_size - 1));
    if (!is_bounded(job) || !masks || (has_schedules(job) && !are_step_schedules(job)))
        return GPU_ANY;
    if (has_report && !ragged && (int64_t)job->num_requests * job->extend_len > GPU_STEP_REPORT)
        return GPU_ANY;
    if (!ragged && (job->extend_len > THREADS || length_threads(job) > GPU_STEP_TOKENS))
        return GPU_ANY; /* a tile has whole requests, and each sums those of all before it */
    return ragged ? GPU_RAGGED : GPU_STEP;
}

bool gpu_is_lengths(const dm_job *job)
{
    const uint32_t may = DM_JOB_EXTEND | DM_JOB_SEQ64 | DM_JOB_SEQLENS_EXPANDED | DM_JOB_DSA_CACHE_SEQLENS;
    return is_bounded(job) && (job->flags & ~may) == DM_JOB_TOKENS && !has_schedules(job) && job->pool_size == 1 &&
           !job->padded_tokens;
}

unsigned gpu_plan_lengths(const dm_job *job, gpu_lengths *out, unsigned *threads)
{
    *out = (gpu_lengths){
        .num_requests = job->num_requests,
        .by_block = job->flags & DM_JOB_EXTEND && job->num_requests > LENGTHS_BY_WARP,
        .seq_lens = job->seq_lens,
        .extend = job->extend,
        .seq64 = !!(job->flags & DM_JOB_SEQ64),
        .seq_len_bias = job->seq_len_bias,
        .capacity = (int32_t)job->capacity,
        .topk = job->topk,
        .seqlens_expanded = job->flags & DM_JOB_SEQLENS_EXPANDED ? job->seqlens_expanded : NULL,
        .dsa_cache_seqlens = job->flags & DM_JOB_DSA_CACHE_SEQLENS ? job->dsa_cache_seqlens : NULL,
        .extend_len = job->extend_len,
    };
    *threads = out->by_block ? LENGTHS_THREADS : LENGTHS_BY_WARP_THREADS;
    return (unsigned)clamp(ceil_div(job->num_requests, *threads), 1, INT32_MAX);
}

unsigned gpu_plan_threads(const dm_job *jobs, int count, gpu_kind kind)
{
    int64_t most = THREADS;
    for (int i = 0; i < count && kind != GPU_ANY; i++) /* a step's schedules have all requests in one tile */
        if (has_schedules(&jobs[i]) && jobs[i].padded_requests >= most)
            most = jobs[i].padded_requests + 1;
    return (unsigned)(ceil_div(most, WHOLE_WARPS) * WHOLE_WARPS);
}

static void plan_tokens(const dm_job *job, unsigned threads, gpu_job *out)
{
    const int64_t all = length_threads(job);
    const int32_t n = job->extend_len;
    out->tokens_written = (int32_t)even_tokens_written(job);
    out->extend_shift = n & (n - 1) ? -1 : floor_log2(clamp(n, 1, INT32_MAX));
    out->tile_requests = (int32_t)threads / (n ? n : 1);
    out->tile = all <= GPU_WARP_REQUESTS + 1 ? 0 : out->tile_requests * (n ? n : 1);
    out->length_blocks = out->tile ? (int32_t)ceil_div(all, out->tile) : 1;
}

/* A request a thread; or all of them in every warp. */
static void plan_requests(const dm_job *job, gpu_kind kind, unsigned threads, gpu_job *out)
{
    const int64_t requests = (int64_t)job->padded_requests + 1, blocks = ceil_div(requests, threads);
    const bool in_warps = requests <= GPU_WARP_REQUESTS + 1;
    const int64_t tokens = job->flags & DM_JOB_TOKENS ? job->capacity / requests / TOKENS_OF_SLICE : 1;
    const int64_t tiles = kind != GPU_ANY ? blocks : ceil_div(blocks, ceil_div(blocks, MAX_LENGTH_BLOCKS));
    const int64_t most = clamp(MAX_LENGTH_BLOCKS / tiles, 1, MAX_LENGTH_BLOCKS);
    out->tile = in_warps ? 0 : (int32_t)(ceil_div(blocks, tiles) * threads);
    out->slice_shift = ceil_log2(clamp(in_warps ? ceil_div(tokens, threads / 32) : tokens, 1, most));
    out->length_blocks = (int32_t)(tiles << out->slice_shift);
}

static void plan_lengths(const dm_job *job, gpu_kind kind, unsigned threads, gpu_job *out)
{
    const int64_t requests = (int64_t)job->padded_requests + 1, tiles = ceil_div(requests, threads);
    if (kind == GPU_STEP)
        plan_tokens(job, threads, out);
    else
        plan_requests(job, kind, threads, out);
    if (!(job->flags & DM_JOB_REPORT))
        return;
    out->report_tile = (int32_t)(ceil_div(tiles, MAX_LENGTH_BLOCKS) * threads);
    out->report_blocks = kind == GPU_STEP ? 1 : (int32_t)ceil_div(requests, out->report_tile);
}

static void plan_schedules(const dm_job *job, unsigned threads, gpu_job *out)
{
    int64_t slots = 1;
    int32_t schedules = 0;
    for (int i = 0; i < 2; i++) {
        if (!job->schedules[i].table)
            continue;
        out->schedules[schedules] = job->schedules[i];
        if (job->schedules[i].flags & DM_SCHED_LOCAL)
            out->schedules[schedules].step_shift = -1; /* one test for both */
        schedules++;
        slots = job->schedules[i].slots > slots ? job->schedules[i].slots : slots;
    }
    out->slots_shift = ceil_log2(clamp(ceil_div(slots + 1, threads), 1, MAX_LENGTH_BLOCKS));
    out->schedule_blocks = schedules << out->slots_shift;
}

/* Threads for the tables from what the host knows: requests and declared widths; what is live shows on the device.
 * Returns their blocks. */
static int64_t plan_tables(const dm_job *job, int multiprocessors, unsigned threads, gpu_job *out)
{
    if (!(job->flags & DM_JOB_TABLES))
        return 0;
    const int64_t slots = job->page_table_1 ? job->page_table_1_cols : 0;
    const int64_t pages = job->page_table ? job->page_table_cols : 0, width = slots > pages ? slots : pages;
    const int64_t requests = clamp(job->num_requests, 1, INT32_MAX), rows = job->capacity / requests;
    const int64_t all = (int64_t)multiprocessors * (slots ? SLOT_THREADS : PAGE_THREADS);
    const int32_t most = floor_log2(clamp(all / requests, (int64_t)1 << GPU_LEAST_TEAM_SHIFT, all));
    const int64_t columns = ceil_div(width, !slots                    ? 1
                                            : requests > FEW_REQUESTS ? SLOTS_OF_THREAD
                                                                      : 4 * SLOTS_OF_THREAD);
    const int32_t column_shift = (int32_t)clamp(ceil_log2(columns), 0, most);
    int32_t row_shift = (int32_t)clamp(floor_log2(clamp(rows / ROWS_OF_THREAD, 1, INT32_MAX)), 0, most - column_shift);
    if (column_shift + row_shift < GPU_LEAST_TEAM_SHIFT)
        row_shift = GPU_LEAST_TEAM_SHIFT - column_shift;
    out->column_shift = column_shift;
    out->request_shift = column_shift + row_shift;
    out->column_mask = (1u << column_shift) - 1;
    out->row_mask = (1u << row_shift) - 1;
    const bool padding = job->flags & DM_JOB_FULL_ROWS && job->padded_tokens;
    const int64_t padded = job->padded_tokens < job->capacity ? job->padded_tokens : job->capacity;
    out->padding_teams = padding ? (int32_t)clamp(padded / (ROWS_OF_THREAD << row_shift), 1, MOST_PADDING_TEAMS) : 0;
    return ceil_div(((int64_t)job->num_requests + out->padding_teams) << out->request_shift, threads);
}

static void lower_tables(const dm_job *job, gpu_job *out)
{
    const bool blocks = job->flags & DM_JOB_BLOCK_TABLE, by_slot = job->page_table_1;
    out->pool = job->pool ? job->pool : job->seq_lens;
    out->pool_bytes = !job->pool ? 0 : job->flags & DM_JOB_POOL64 ? 8 : 4;
    out->source = job->source;
    out->source_rows = job->source_rows;
    out->source_stride = job->source_stride;
    out->page_size = job->page_table ? job->page_size : 1;
    out->page_shift = job->page_table ? job->page_shift : 0;
    out->entry_size = blocks ? 1 : out->page_size;
    out->entry_shift = blocks ? 0 : out->page_shift;
    out->slot_bound = job->page_table_1 ? (uint32_t)clamp(job->page_table_1_bound, 0, INT32_MAX) : 0;
    out->page_bound = job->page_table ? (uint32_t)clamp(job->page_table_bound, 0, INT32_MAX) : 0;
    out->step_size = by_slot ? 1 : out->entry_size;
    out->read_size = by_slot ? 1 : out->page_size;
    out->read_shift = by_slot ? 0 : out->page_shift;
    const int64_t last_page = out->page_bound ? (int64_t)(out->page_bound - 1) * out->entry_size + 1 : 0;
    out->read_bound = !by_slot                      ? out->page_bound
                      : last_page > out->slot_bound ? (uint32_t)clamp(last_page, 0, INT32_MAX)
                                                    : out->slot_bound;
    /* So that an offset can be added where there is no table; nothing is written there. */
    int32_t *const none = (int32_t *)(uintptr_t)job->source;
    out->page_table_1 = job->page_table_1 ? job->page_table_1 : none;
    out->page_table = job->page_table ? job->page_table : none;
    out->page_table_1_stride = job->page_table_1_stride;
    out->page_table_stride = job->page_table_stride;
    out->page_table_1_cols = job->page_table_1 ? job->page_table_1_cols : 0;
    out->page_table_cols = job->page_table ? job->page_table_cols : 0;
}

static void lower_lengths(const dm_job *job, gpu_job *out)
{
    out->topk = job->topk;
    out->pool_size = job->pool_size;
    out->seqlens_expanded = job->seqlens_expanded;
    out->dsa_cache_seqlens = job->dsa_cache_seqlens;
    out->dsa_cu_seqlens_k = job->dsa_cu_seqlens_k;
    out->cache_seqlens = job->cache_seqlens;
    out->cu_seqlens_k = job->cu_seqlens_k;
    out->token_to_req = job->token_to_req;
    out->context_lens = job->context_lens;
    out->cu_seqlens_q = job->cu_seqlens_q;
    out->num_tokens = job->num_tokens;
    out->padded_tokens = job->padded_tokens < job->capacity ? job->padded_tokens : job->capacity;
    out->shard = job->shard;
    out->context_divisor = job->context_divisor;
    out->report = job->report;
}

unsigned gpu_plan(const dm_job *job, gpu_kind kind, int multiprocessors, unsigned threads, gpu_job *out)
{
    *out = (gpu_job){.flags = job->flags,
                     .num_requests = job->num_requests,
                     .padded_requests = job->padded_requests,
                     .extend_len = job->extend_len,
                     .seq_len_bias = job->seq_len_bias,
                     .seq_lens = job->seq_lens,
                     .extend = job->extend,
                     .seq_bytes = job->flags & DM_JOB_SEQ64 ? 8 : 4,
                     .extend_bytes = job->flags & DM_JOB_EXTEND64 ? 8 : 4,
                     .capacity = job->capacity};
    lower_tables(job, out);
    lower_lengths(job, out);
    plan_schedules(job, threads, out);
    plan_lengths(job, kind, threads, out);
    const int64_t tables = plan_tables(job, multiprocessors, threads, out);
    return (unsigned)(out->schedule_blocks + out->length_blocks + out->report_blocks + tables);
}
