/* Plain loops for the compiler to vectorise; the build compiles this file once per instruction set and names the table
 * (DM_ROWS) and the set (DM_ROWS_ISA). */
#include "rows.h"

#include <string.h>

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
static void pages_by_shift(int32_t *restrict out, int64_t n, const int32_t *restrict slots, int shift)
{
    const int32_t ones = (int32_t)((1u << shift) - 1);
    for (int64_t i = 0; i < n; i++) {
        const int32_t slot = slots[i << shift];
        out[i] = (slot + (slot >> 31 & ones)) >> shift;
    }
}

static void pages_by_division(int32_t *restrict out, int64_t n, const int32_t *restrict slots, int32_t page_size)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = slots[i * page_size] / page_size;
}

static void some_pages(int32_t *restrict out, int64_t n, const int32_t *restrict slots, int32_t page_size)
{
    if ((page_size & (page_size - 1)) == 0)
        pages_by_shift(out, n, slots, __builtin_ctz((unsigned)page_size));
    else
        pages_by_division(out, n, slots, page_size);
}

/* Where each page is another line of memory, many are not in a near cache: they are asked for early, as processors do
 * not foresee so wide a step. */
static void ask_for_pages(const int32_t *slots, int32_t page_size)
{
    for (int64_t i = 0; i < BATCH; i++)
        __builtin_prefetch(&slots[i * page_size]);
}

/* A batch goes from registers to all rows, so that none is read again. */
static void pages(int32_t *restrict out, int64_t rows, int64_t stride, int64_t n, const int32_t *restrict slots,
                  int32_t page_size)
{
    const int64_t last_asking = n >= MANY_PAGES && page_size >= LINE_SLOTS ? n - AHEAD - BATCH : -1;
    int32_t batch[BATCH];
    int64_t c = 0;
    for (; c + BATCH <= n; c += BATCH) {
        if (c <= last_asking)
            ask_for_pages(slots + (c + AHEAD) * page_size, page_size);
        some_pages(batch, BATCH, slots + c * page_size, page_size);
        for (int64_t r = 0; r < rows; r++)
            memcpy(out + r * stride + c, batch, sizeof batch);
    }
    if (c == n)
        return;
    some_pages(batch, n - c, slots + c * page_size, page_size);
    for (int64_t r = 0; r < rows; r++)
        memcpy(out + r * stride + c, batch, (size_t)(n - c) * sizeof *batch);
}

const dm_rows DM_ROWS = {.isa = DM_ROWS_ISA, .ramp = ramp, .clipped_ramp = clipped_ramp, .set = set, .pages = pages};
