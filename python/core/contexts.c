/* Open devices, errors and streams.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

#include <string.h>

#include "tools.h"

PyObject *core_error;

/* ---- Errors ---- */

PyObject *raise_status(dm_status status)
{
    PyObject *error = PyObject_CallFunction(core_error, "s", dm_last_error());
    PyObject *number = PyLong_FromLong(status), *name = PyUnicode_FromString(dm_status_string(status));
    if (error && number && name && PyObject_SetAttrString(error, "status", number) == 0 &&
        PyObject_SetAttrString(error, "status_name", name) == 0)
        PyErr_SetObject(core_error, error);
    Py_XDECREF(error);
    Py_XDECREF(number);
    Py_XDECREF(name);
    return NULL;
}

/* ---- Streams ---- */

/* The first of the attributes that streams of PyTorch, CuPy, Numba and cuda.core keep their handle in. */
static PyObject *stream_handle(PyObject *object)
{
    static const char *const attributes[] = {"cuda_stream", "ptr", "handle"};
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++) {
        PyObject *value = get_attribute(object, attributes[i]);
        if (value)
            return value;
        PyErr_Clear();
    }
    PyErr_Format(PyExc_TypeError,
                 "stream is of type %R: it takes None, an integer, or an object with cuda_stream, ptr or handle",
                 Py_TYPE(object));
    return NULL;
}

/* A stream: None (the default stream), an integer, or an object with cuda_stream, ptr or handle. */
static bool stream_from(PyObject *object, dm_stream *stream)
{
    *stream = NULL;
    if (!object || object == Py_None)
        return true;
    if (PyLong_Check(object)) {
        *stream = PyLong_AsVoidPtr(object);
        return !PyErr_Occurred();
    }
    PyObject *handle = PyIndex_Check(object) ? PyNumber_Index(object) : stream_handle(object);
    PyObject *number = handle ? PyNumber_Long(handle) : NULL;
    *stream = number ? PyLong_AsVoidPtr(number) : NULL;
    Py_XDECREF(handle);
    Py_XDECREF(number);
    return !PyErr_Occurred();
}

/* PyTorch's function that gives a device's current stream as a number. */
static PyObject *torch_stream_getter(void)
{
    PyObject *module = PyImport_ImportModule("torch._C");
    PyObject *getter = module ? get_attribute(module, "_cuda_getCurrentRawStream") : NULL;
    Py_XDECREF(module);
    return getter;
}

bool stream_source_init(stream_source *s, bool has_torch, const device *d)
{
    *s = (stream_source){NULL, NULL};
    if (!has_torch)
        return true;
    s->getter = torch_stream_getter();
    s->ordinal = PyLong_FromLong(d->info.device);
    if (s->getter && s->ordinal)
        return true;
    stream_source_clear(s);
    return false;
}

void stream_source_clear(stream_source *s)
{
    Py_CLEAR(s->getter);
    Py_CLEAR(s->ordinal);
}

bool stream_choose(const stream_source *s, PyObject *given, dm_stream *stream)
{
    if (!s->getter || (given && given != Py_None))
        return stream_from(given, stream);
    PyObject *number = PyObject_CallFunctionObjArgs(s->getter, s->ordinal, NULL);
    const bool good = number && stream_from(number, stream);
    Py_XDECREF(number);
    return good;
}

/* ---- Devices ---- */

static device *devices;

static device *device_find(const char *backend, int32_t ordinal)
{
    for (device *d = devices; d; d = d->next)
        if (strcmp(d->info.name, backend) == 0 && d->info.device == ordinal)
            return d;
    return NULL;
}

static device *device_add(dm_context *ctx)
{
    device *made = PyMem_Calloc(1, sizeof *made);
    if (!made) {
        dm_close(ctx);
        PyErr_NoMemory();
        return NULL;
    }
    made->ctx = ctx;
    made->info.size = sizeof made->info;
    const dm_status status = dm_context_info(ctx, &made->info);
    device *known = status == DM_OK ? device_find(made->info.name, made->info.device) : NULL;
    if (status != DM_OK || known) { /* dm_open may choose what is open already */
        dm_close(ctx);
        PyMem_Free(made);
        return known ? known : (device *)raise_status(status);
    }
    made->is_cpu = strcmp(made->info.name, "cpu") == 0;
    made->next = devices;
    devices = made;
    return made;
}

device *device_open(const char *backend, int32_t ordinal)
{
    device *known = backend ? device_find(backend, ordinal) : NULL;
    if (known)
        return known;
    const dm_options options = {.size = sizeof options, .backend = backend, .device = ordinal};
    dm_context *ctx;
    const dm_status status = dm_open(&options, &ctx);
    return status == DM_OK ? device_add(ctx) : (device *)raise_status(status);
}

PyObject *info_as_dict(const dm_backend_info *b)
{
    return Py_BuildValue("{s:s,s:N,s:s,s:i,s:i,s:s,s:s,s:s,s:s}", "name", b->name, "ready",
                         PyBool_FromLong(b->state == DM_BACKEND_READY), "state", tool_state_name(b->state), "devices",
                         (int)b->device_count, "device", (int)b->device, "device_name", b->device_name,
                         "driver_version", b->driver_version, "oldest_driver", b->oldest_driver, "reason", b->reason);
}

/* ---- draftmeta.Context ---- */

typedef struct context {
    PyObject_HEAD;
    const device *device;
} context;

static PyTypeObject *context_type;

static void context_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static PyObject *context_backend(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(((context *)self)->device->info.name);
}

static PyObject *context_device(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((context *)self)->device->info.device);
}

static PyObject *context_info(PyObject *self, void *unused)
{
    (void)unused;
    return info_as_dict(&((context *)self)->device->info);
}

static PyObject *context_repr(PyObject *self)
{
    const dm_backend_info *info = &((context *)self)->device->info;
    return PyUnicode_FromFormat("<draftmeta.Context %s:%d, %s>", info->name, (int)info->device, info->device_name);
}

PyObject *context_type_new(PyObject *module)
{
    static PyGetSetDef members[] = {
        {"backend", context_backend, NULL, "\"cuda\", \"hip\" or \"cpu\".", NULL},
        {"device", context_device, NULL, "The ordinal among the backend's devices.", NULL},
        {"info", context_info, NULL, "What is known of the backend and the device, as a dict.", NULL},
        {NULL, NULL, NULL, NULL, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_doc, "An open device of a backend. draftmeta.open() gives it."},
        {Py_tp_dealloc, context_dealloc},
        {Py_tp_repr, context_repr},
        {Py_tp_getset, members},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "draftmeta.Context",
        .basicsize = sizeof(context),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
        .slots = slots,
    };
    context_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return (PyObject *)context_type;
}

PyObject *core_open(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"backend", "device", NULL};
    const char *backend = NULL;
    int ordinal = 0;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|zi:open", names, &backend, &ordinal))
        return NULL;
    const device *d = device_open(backend, ordinal);
    context *made = d ? PyObject_New(context, context_type) : NULL;
    if (made)
        made->device = d;
    return (PyObject *)made;
}
