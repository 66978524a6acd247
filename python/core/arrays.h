/* Arrays from Python: what a DLPack exporter, a __cuda_array_interface__ or a buffer says of its memory.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_PYTHON_ARRAYS_H
#define DRAFTMETA_PYTHON_ARRAYS_H

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#include "draftmeta.h"

enum { MAX_DIMENSIONS = 8, UNKNOWN_DEVICE = -1 };

/* Whose memory it is. Pinned memory may stand in a fill on any device. */
typedef enum home { HOME_HOST, HOME_PINNED, HOME_CUDA, HOME_HIP } home;

typedef struct array {
    void *data; /* never NULL */
    home home;
    int32_t device; /* UNKNOWN_DEVICE where the exporter does not say */
    dm_type type;
    int ndim;
    int64_t shape[MAX_DIMENSIONS], strides[MAX_DIMENSIONS]; /* strides in elements */
    bool read_only;
    PyObject *keeper; /* a reference that keeps the memory alive */
} array;

/* object.name. Names are kept: the interpreter's cache of attributes would hold a new string for each call. */
PyObject *get_attribute(PyObject *object, const char *name);

/* Describes object, the argument called name. On failure returns false with a TypeError, ValueError or the exporter's
 * own exception set, and no reference taken. Host memory may be pinned: array_ask_pinned knows, and takes longer. */
bool array_import(PyObject *object, const char *name, array *a);
bool array_ask_pinned(PyObject *object, const char *name, array *a);

/* As array_import, of an array that is not to be kept. */
bool array_look(PyObject *object, const char *name, array *a);

/* 4 or 8. */
int array_element_bytes(const array *a);

/* The product of the extents. */
int64_t array_elements(const array *a);

/* Whether elements follow each other without gaps, last dimension fastest. */
bool array_is_contiguous(const array *a);

#endif
