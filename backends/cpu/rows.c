/* Plain loops for the compiler to vectorise; the build compiles this file once per instruction set and names the table
 * (DM_ROWS) and the set (DM_ROWS_ISA). */
#include "rows.h"

enum {
    LINE_SLOTS = 16,
    MANY_PAGES = 256,
    BATCH = 16, /* of which so many are looked up together, */
    AHEAD = 64  /* and their lines asked for so many pages earlier */
};

static void ramp(int32_t *restrict out, int64_t n, int32_t first)
{
    for (int64_t i = 0; i < n; i++) {
        const int32_t e = first + (int32_t)i;
        out[i] = e < 0 ? 0 : e;
    }
}

static void clipped_ramp(int32_t *restrict out, int64_t n, int32_t first, int32_t top)
{
    for (int64_t i = 0; i < n; i++) {
        const int32_t e = first + (int32_t)i;
        const int32_t low = e < 0 ? 0 : e;
        out[i] = low < top ? low : top;
    }
}

static void set(int32_t *restrict out, int64_t n, int32_t value)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = value;
}

/* A page size of 1 << shift: adding shift ones to negative slots makes the shift round toward zero. */
static void few_pages_by_shift(int32_t *restrict out, int64_t n, const int32_t *restrict slots, int shift)
{
    const int32_t ones = (int32_t)((1u << shift) - 1);
    for (int64_t i = 0; i < n; i++) {
        const int32_t slot = slots[i << shift];
        out[i] = (slot + (slot >> 31 & ones)) >> shift;
    }
}

/* Where each page is another line of memory, many are not in a near cache: they are asked for early, as processors do
 * not foresee so wide a step. */
static void many_pages_by_shift(int32_t *restrict out, int64_t n, const int32_t *restrict slots, int shift)
{
    int64_t i = 0;
    for (; i + AHEAD + BATCH <= n; i += BATCH) {
        for (int64_t k = i + AHEAD; k < i + AHEAD + BATCH; k++)
            __builtin_prefetch(&slots[k << shift]);
        few_pages_by_shift(out + i, BATCH, slots + (i << shift), shift);
    }
    few_pages_by_shift(out + i, n - i, slots + (i << shift), shift);
}

static void pages(int32_t *restrict out, int64_t n, const int32_t *restrict slots, int32_t page_size)
{
    if ((page_size & (page_size - 1)) == 0) {
        const int shift = __builtin_ctz((unsigned)page_size);
        if (n < MANY_PAGES || page_size < LINE_SLOTS)
            few_pages_by_shift(out, n, slots, shift);
        else
            many_pages_by_shift(out, n, slots, shift);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        out[i] = slots[i * page_size] / page_size;
}

const dm_rows DM_ROWS = {.isa = DM_ROWS_ISA, .ramp = ramp, .clipped_ramp = clipped_ramp, .set = set, .pages = pages};
