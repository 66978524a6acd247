/* Binding: from keyword arguments, the fields of a fill, to a descriptor.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_PYTHON_BIND_H
#define DRAFTMETA_PYTHON_BIND_H

#include "core.h"

/* Where a fill runs, as far as known, and the arguments that decided it. */
typedef struct place {
    const char *backend, *backend_by; /* NULL: nothing decided it yet */
    int32_t ordinal;                  /* or UNKNOWN_DEVICE */
    const char *ordinal_by;
} place;

/* Where the address of one of a call's arrays goes. */
typedef struct patch {
    size_t at;      /* the pointer's offset in the descriptor */
    int index;      /* of the array */
    int64_t offset; /* in bytes, from the array's beginning to what the field takes of it */
} patch;

enum { MAX_PATCHES = 24 };

typedef struct binding {
    dm_fill_desc desc;
    place place;
    PyObject *kept;       /* a list of what keeps the arrays alive */
    int64_t output_bytes; /* a bound on what one call writes */
    bool has_requests, has_torch;
    /* Of fills that are bound by layout, whose array arguments are parts of the call's arrays: tuples of an array's
     * index, rows, columns and rows to skip. arrays NULL: no parts. */
    PyObject *const *objects;
    const array *arrays; /* data NULL: None */
    int array_count;
    patch patches[MAX_PATCHES];
    int patch_count;
} binding;

/* False with an exception set; else with b->kept a reference. */
bool start_binding(binding *b, const place *p);

/* Binds the fields in kwargs, which may be NULL; None is "not given" everywhere. */
bool bind_fields(binding *b, PyObject *kwargs);

/* Opens the device that the arrays call for; num_requests is that of seq_lens if it was not given. */
device *open_place(binding *b);

/* All of that for Fill's arguments, which have a place too. The device, with b->kept a reference; or NULL. */
device *bind(binding *b, PyObject *kwargs);

/* An int32 argument. */
bool bind_int32(const char *name, PyObject *object, int32_t *value);

/* Gives kwargs[name] out, which may be None, and takes it from the arguments that are left. */
bool take(PyObject *kwargs, const char *name, PyObject **value);

#endif
