/* The inner loops of the CPU backend: runs of int32, compiled once per instruction set (rows.c). */
#ifndef DRAFTMETA_CPU_ROWS_H
#define DRAFTMETA_CPU_ROWS_H

#include <stdint.h>

typedef struct dm_rows {
    const char *isa;
    /* out[i] = max(0, first + i); first + i fits an int32 */
    void (*ramp)(int32_t *out, int64_t n, int32_t first);
    /* out[i] = min(max(0, first + i), top) */
    void (*clipped_ramp)(int32_t *out, int64_t n, int32_t first, int32_t top);
    /* out[i] = value */
    void (*set)(int32_t *out, int64_t n, int32_t value);
    /* out[r * stride + i] = slots[i * page_size] / page_size, rounded toward zero, for 0 <= r < rows */
    void (*pages)(int32_t *out, int64_t rows, int64_t stride, int64_t n, const int32_t *slots, int32_t page_size);
} dm_rows;

extern const dm_rows dm_rows_base, dm_rows_avx2, dm_rows_avx512;

/* The best of them for this processor. */
const dm_rows *dm_rows_choose(void);

#endif
