/* Page tables: rows of the source, for every token of a request. A source that both tables need is read once. */
#ifndef DRAFTMETA_GPU_TABLES_H
#define DRAFTMETA_GPU_TABLES_H

#include "requests.h"

/* A request's row of the source, as memory has it, and its lengths. */
typedef struct gpu_raw_row {
    gpu_raw lengths;
    gpu_words row;
} gpu_raw_row;

/* Without indices, job.pool has the lengths, of which a step loads the first: a branch would take longer. */
template <class Int, bool RAGGED> DM_FN gpu_raw_row gpu_load_row(const gpu_job &job, uint32_t r)
{
    gpu_raw_row raw = {gpu_load<Int, RAGGED>(job, r), {(int32_t)r, 0}};
    if (gpu_is_exact<Int>() && (!job.pool_bytes || r >= (uint32_t)job.num_requests))
        return raw;
    const gpu_words row = gpu_load_words(job.pool, job.pool_bytes, gpu_loaded<Int>(job, r));
    raw.row = job.pool_bytes ? row : raw.row;
    return raw;
}

/* The rows of one request: count of them, from token t on; what is live, and where the source has it. */
template <class Int> struct gpu_rows {
    const int32_t *source;
    typename gpu_index<Int>::type t, count;
    uint32_t kv, columns;
};

/* Where a row of a table begins, in elements. */
template <class Int> DM_FN uint64_t gpu_row_offset(typename gpu_index<Int>::type row, int64_t stride)
{
    return gpu_is_exact<Int>() ? (uint64_t)row * (uint64_t)stride : (uint64_t)(uint32_t)row * (uint32_t)stride;
}

/* n / size; in a step, sizes are powers of two. */
template <class Int> DM_FN uint32_t gpu_over(uint32_t n, int32_t size, int32_t shift)
{
    return gpu_is_exact<Int>() && shift < 0 ? n / (uint32_t)size : n >> shift;
}

template <class Int> DM_FN bool gpu_is_multiple(uint32_t n, int32_t size, int32_t shift)
{
    return gpu_is_exact<Int>() && shift < 0 ? n % (uint32_t)size == 0 : !(n & ((uint32_t)size - 1));
}

/* The source's row, or -1 where it has none; the report has it then. */
template <class Int> DM_FN typename gpu_index<Int>::type gpu_source_row(const gpu_job &job, const gpu_words &row)
{
    if (gpu_is_exact<Int>()) {
        const int64_t number = gpu_value(row, job.pool_bytes);
        return number >= 0 && number < job.source_rows ? number : -1;
    }
    return (uint32_t)row.low < (uint32_t)job.source_rows && row.high == 0 ? row.low : -1;
}

/* Nothing is live where the source has no row, or there is no such request. */
template <class Int, bool RAGGED>
DM_FN gpu_rows<Int> gpu_rows_of(const gpu_job &job, uint32_t r, const gpu_raw_row &raw, typename gpu_index<Int>::type t)
{
    typedef typename gpu_index<Int>::type Index;
    const gpu_request req = gpu_request_of<RAGGED>(job, r, raw.lengths);
    const Index row = gpu_source_row<Int>(job, raw.row);
    const uint32_t kv = row < 0 ? 0 : (uint32_t)req.kv;
    const uint32_t columns = gpu_over<Int>(kv + (uint32_t)job.read_size - 1, job.read_size, job.read_shift);
    return gpu_rows<Int>{job.source + gpu_row_offset<Int>(row < 0 ? 0 : row, job.source_stride), t,
                         gpu_min<Index>(RAGGED ? req.q : job.extend_len, (Index)job.capacity - t), kv,
                         gpu_min(columns, job.read_bound)};
}

/* Zeroes what is not live of both tables; after the last request, the padding's rows, which teams share. */
template <class Int>
DM_FN void gpu_clear_rows(const gpu_job &job, uint32_t r, const gpu_rows<Int> &rows, uint32_t column, int32_t first_row)
{
    typedef typename gpu_index<Int>::type Index;
    const uint32_t requests = (uint32_t)job.num_requests, down = job.row_mask + 1;
    const Index t = rows.t;
    Index count = rows.count, first = first_row, step = down;
    if (r >= requests) {
        count = r - requests < (uint32_t)job.padding_teams ? (Index)gpu_tokens_written(job, t) - t : 0;
        first += (Index)(r - requests) * down;
        step *= job.padding_teams;
    }
#pragma unroll 1
    for (int k = 0; k < 2; k++) {
        int32_t *const table = k ? job.page_table : job.page_table_1;
        const uint32_t pages = gpu_over<Int>(rows.kv + (uint32_t)job.page_size - 1, job.page_size, job.page_shift);
        const Index end = (Index)(k ? job.page_table_cols : job.page_table_1_cols); /* 0 without the table */
        const Index live = k ? gpu_min(pages, job.page_bound) : gpu_min(rows.kv, job.slot_bound);
#pragma unroll 1
        for (Index row = first; row < count; row += step) {
            const uint64_t offset = gpu_row_offset<Int>(t + row, k ? job.page_table_stride : job.page_table_1_stride);
#pragma unroll 1
            for (Index c = live + column; c < end; c += job.column_mask + 1)
                table[offset + (uint64_t)c] = 0;
        }
    }
}

/* slot, or the page that it is in, rounded toward zero. */
template <class Int> DM_FN int32_t gpu_entry_of(const gpu_job &job, int32_t slot)
{
    if (gpu_is_exact<Int>() && job.entry_shift < 0)
        return slot / job.entry_size;
    return (slot + (slot >> 31 & (job.entry_size - 1))) >> job.entry_shift;
}

/* Columns column, column + across, ..., COLUMNS of them, which are all live: each is loaded once, for both tables. The
 * first row is there. */
template <class Int, int COLUMNS>
DM_FN void gpu_copy_columns(const gpu_job &job, const gpu_rows<Int> &rows, uint32_t column, int32_t first_row)
{
    typedef typename gpu_index<Int>::type Index;
    const Index down = job.row_mask + 1;
    uint32_t at[COLUMNS], entry[COLUMNS];
    int32_t slot[COLUMNS], page[COLUMNS];
    bool is_slot[COLUMNS], begins[COLUMNS];
#pragma unroll
    for (uint32_t i = 0; i < COLUMNS; i++) {
        at[i] = (column + i * (job.column_mask + 1)) * (uint32_t)job.step_size;
        slot[i] = rows.source[at[i]];
    }
    int32_t *slots = job.page_table_1 + gpu_row_offset<Int>(rows.t + first_row, job.page_table_1_stride);
    int32_t *entries = job.page_table + gpu_row_offset<Int>(rows.t + first_row, job.page_table_stride);
#pragma unroll
    for (uint32_t i = 0; i < COLUMNS; i++) {
        entry[i] = gpu_over<Int>(at[i], job.entry_size, job.entry_shift);
        is_slot[i] = at[i] < job.slot_bound;
        begins[i] = gpu_is_multiple<Int>(at[i], job.entry_size, job.entry_shift) && entry[i] < job.page_bound;
        page[i] = gpu_entry_of<Int>(job, slot[i]);
    }
#pragma unroll 1
    for (Index row = first_row;;) {
#pragma unroll
        for (uint32_t i = 0; i < COLUMNS; i++) {
            if (is_slot[i])
                slots[at[i]] = slot[i];
            if (begins[i])
                entries[entry[i]] = page[i];
        }
        row += down;
        if (row >= rows.count)
            return;
        slots += gpu_row_offset<Int>(down, job.page_table_1_stride);
        entries += gpu_row_offset<Int>(down, job.page_table_stride);
    }
}

/* The rows of one request for each thread; after the last request come those of the padding. As many columns are in
 * flight as the thread has, up to four, or two in the larger code of ragged requests: what is not live costs no
 * instructions. */
template <class Int, bool RAGGED> DM_FN void gpu_fill_tables(const gpu_job &job, int block)
{
    typedef typename gpu_index<Int>::type Index;
    const Int first = (Int)block * blockDim.x, number = first + threadIdx.x;
    const uint32_t r = (uint32_t)(number >> job.request_shift), across = job.column_mask + 1;
    const int32_t row = (int32_t)((uint32_t)(number >> job.column_shift) & job.row_mask);
    const uint32_t requests = (uint32_t)job.num_requests;
    const gpu_raw_row raw = gpu_load_row<Int, RAGGED>(job, r);
    Index t = (Index)gpu_min(r, requests) * job.extend_len;
    if (RAGGED)
        t = (Index)gpu_tokens_before<Int>(job, gpu_min((uint32_t)(first >> job.request_shift), requests),
                                          gpu_min(r, requests));
    const gpu_rows<Int> rows = gpu_rows_of<Int, RAGGED>(job, r, raw, t);
    const uint32_t columns = row < rows.count ? rows.columns : 0;
#pragma unroll 1
    for (uint32_t column = (uint32_t)number & job.column_mask; column < columns;) {
        if (!RAGGED && column + 3 * across < columns) {
            gpu_copy_columns<Int, 4>(job, rows, column, row);
            column += 4 * across;
        } else if (column + across < columns) {
            gpu_copy_columns<Int, 2>(job, rows, column, row);
            column += 2 * across;
        } else {
            gpu_copy_columns<Int, 1>(job, rows, column, row);
            column += across;
        }
    }
    if (job.flags & DM_JOB_FULL_ROWS)
        gpu_clear_rows(job, r, rows, (uint32_t)number & job.column_mask, row);
}

#endif
