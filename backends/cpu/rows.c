/* Plain loops for the compiler to vectorise; the build compiles this file once per instruction set and names the table
 * (DM_ROWS) and the set (DM_ROWS_ISA). */
#include "rows.h"

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
static void pages_by_shift(int32_t *restrict out, int64_t n, const int32_t *restrict slots, int shift)
{
    const int32_t ones = (int32_t)((1u << shift) - 1);
    for (int64_t i = 0; i < n; i++) {
        const int32_t slot = slots[i << shift];
        out[i] = (slot + (slot >> 31 & ones)) >> shift;
    }
}

static void pages(int32_t *restrict out, int64_t n, const int32_t *restrict slots, int32_t page_size)
{
    if ((page_size & (page_size - 1)) == 0) {
        pages_by_shift(out, n, slots, __builtin_ctz((unsigned)page_size));
        return;
    }
    for (int64_t i = 0; i < n; i++)
        out[i] = slots[i * page_size] / page_size;
}

const dm_rows DM_ROWS = {.isa = DM_ROWS_ISA, .ramp = ramp, .clipped_ramp = clipped_ramp, .set = set, .pages = pages};
