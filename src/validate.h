/* From a caller's descriptor to a job: every check of the contract that needs no look at the device. */
#ifndef DRAFTMETA_VALIDATE_H
#define DRAFTMETA_VALIDATE_H

#include "backend.h"

/* A caller's struct may be larger than the known one, of a later version, as long as the rest of it is zero. */
dm_status dm_check_struct(const char *name, const void *given, size_t size, size_t known);

/* Checks desc and lowers it into *job. where is put before field names in messages: "" or "descs[2]->". */
dm_status dm_validate(const dm_fill_desc *desc, const char *where, dm_job *job);

/* The memory a fill reads or writes through one field. */
typedef struct dm_range {
    const char *field;
    const char *begin, *end;
    size_t desc;
    bool output;
} dm_range;

enum { DM_MAX_RANGES = 20 };

/* Lists the arrays that are given; returns their number. For a descriptor that dm_validate accepted. */
int dm_list_ranges(const dm_fill_desc *desc, size_t index, dm_range ranges[DM_MAX_RANGES]);

/* DM_ERR_OVERLAP if an output overlaps anything else and the contract does not allow it. Sorts ranges. */
dm_status dm_check_overlaps(dm_range *ranges, size_t count, const dm_fill_desc *const *descs);

#endif
