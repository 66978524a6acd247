/* What the parts of the extension share.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DRAFTMETA_PYTHON_CORE_H
#define DRAFTMETA_PYTHON_CORE_H

#include "arrays.h"

/* ---- contexts.c ---- */

/* One open device of one backend. Opened once and never closed: drivers may be gone before the interpreter is. */
typedef struct device {
    dm_context *ctx;
    dm_backend_info info;
    bool is_cpu;
    struct device *next;
} device;

/* draftmeta.Error, made by the module. */
extern PyObject *core_error;

/* The device, opened if it is not yet; backend NULL: dm_open's choice. NULL with draftmeta.Error set. */
device *device_open(const char *backend, int32_t ordinal);

/* What dm_context_info and dm_backend_query say, as a dict. */
PyObject *info_as_dict(const dm_backend_info *info);

/* Sets draftmeta.Error with the status and dm_last_error's words; returns NULL. */
PyObject *raise_status(dm_status status);

/* A stream: None (the default stream), an integer, or an object with cuda_stream, ptr or handle. */
bool stream_from(PyObject *object, dm_stream *stream);

PyObject *context_type_new(PyObject *module);
PyObject *core_open(PyObject *module, PyObject *args, PyObject *kwargs);

/* ---- fill.c ---- */

PyObject *fill_type_new(PyObject *module);
/* The fields that Fill takes: a dict from names to "input", "output" (arrays), "int", "flag" or "schedules". */
PyObject *core_fields(void);
PyObject *core_fill(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *core_fill_many(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *core_read_report(PyObject *module, PyObject *args, PyObject *kwargs);

#endif
