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

/* Whose stream a call is put on if it names none: PyTorch's current one, or, with getter NULL, the default stream. */
typedef struct stream_source {
    PyObject *getter, *ordinal;
} stream_source;

bool stream_source_init(stream_source *s, bool has_torch, const device *d);
void stream_source_clear(stream_source *s);

/* given: NULL or None (the source decides), an integer, or an object with cuda_stream, ptr or handle. */
bool stream_choose(const stream_source *s, PyObject *given, dm_stream *stream);

PyObject *context_type_new(PyObject *module);
PyObject *core_open(PyObject *module, PyObject *args, PyObject *kwargs);

/* ---- bind.c ---- */

/* The fields that Fill takes: a dict from names to "input", "output" (arrays), "int", "flag" or "schedules". */
PyObject *core_fields(void);

/* ---- fill.c ---- */

/* From this much on other Python threads run while the CPU backend fills. */
enum { LONG_FILL_BYTES = 256 << 10 };

/* Enqueues the fills; None, or NULL with draftmeta.Error set. */
PyObject *call_library(const device *d, const dm_fill_desc *const *descs, size_t count, bool is_long, dm_stream stream);

PyObject *fill_type_new(PyObject *module);
PyObject *core_fill(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *core_fill_many(PyObject *module, PyObject *args, PyObject *kwargs);
PyObject *core_read_report(PyObject *module, PyObject *args, PyObject *kwargs);

/* ---- layout.c ---- */

PyObject *by_layout_type_new(PyObject *module);

#endif
