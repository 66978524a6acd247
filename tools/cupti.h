/* How long kernels ran on an NVIDIA GPU, by the records of CUPTI, which is opened at run time.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_CUPTI_H
#define DRAFTMETA_CUPTI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cupti cupti;

/* When a kernel began and ended, in nanoseconds of the device's clock. */
typedef struct cupti_kernel {
    uint64_t start, end;
} cupti_kernel;

/* Opens the library, and does nothing yet. path NULL: it is looked for by its usual names. NULL if it is not there or
 * lacks something; *why then says so, in static storage. */
cupti *cupti_load(const char *path, const char **why);
/* From now on records the kernels whose names wanted likes; wanted is called from any thread. It slows launches down.
 * NULL, or why it fails. One recording at a time. */
const char *cupti_start(cupti *c, bool (*wanted)(const char *kernel));
/* Ends the recording too. NULL is allowed. */
void cupti_close(cupti *c);

/* Stores the kernels since the last call, at most so many, in the order in which they began, and returns how many there
 * were. Their work must have finished. */
size_t cupti_take(cupti *c, cupti_kernel *kernels, size_t most);

#endif
