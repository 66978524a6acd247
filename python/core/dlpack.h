/* The layouts of DLPack 1.x that are read here, and of 0.x, which had no version. github.com/dmlc/dlpack has the
 * specification.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_PYTHON_DLPACK_H
#define DRAFTMETA_PYTHON_DLPACK_H

#include <stdint.h>

enum {
    DLPACK_MAJOR = 1,
    DLPACK_CPU = 1,
    DLPACK_CUDA = 2,
    DLPACK_CUDA_HOST = 3,
    DLPACK_ROCM = 10,
    DLPACK_ROCM_HOST = 11,
    DLPACK_CUDA_MANAGED = 13,
    DLPACK_INT = 0,
    DLPACK_READ_ONLY = 1
};

typedef struct dlpack_tensor {
    void *data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides; /* strides NULL: contiguous */
    uint64_t byte_offset;
} dlpack_tensor;

/* In a capsule "dltensor". */
typedef struct dlpack_managed {
    dlpack_tensor tensor;
    void *manager;
    void (*deleter)(struct dlpack_managed *);
} dlpack_managed;

/* In a capsule "dltensor_versioned". */
typedef struct dlpack_versioned {
    uint32_t major, minor;
    void *manager;
    void (*deleter)(struct dlpack_versioned *);
    uint64_t flags;
    dlpack_tensor tensor;
} dlpack_versioned;

/* In a type's attribute __dlpack_c_exchange_api__, a capsule "dlpack_exchange_api": the fast way. */
typedef struct dlpack_exchange {
    uint32_t major, minor;
    struct dlpack_exchange *older;
    void *allocate, *export_managed, *import_managed;
    int (*describe)(void *object, dlpack_tensor *out); /* may be NULL; the object owns what out points to */
    void *current_stream;
} dlpack_exchange;

#endif
