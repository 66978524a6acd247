/* Arrays from Python.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "arrays.h"

#include <stdio.h>
#include <string.h>

#include "dlpack.h"

/* Stands for the address of an array without elements, for which exporters may say NULL. */
static int64_t nothing;

PyObject *get_attribute(PyObject *object, const char *name)
{
    static PyObject *names;
    if (!names && !(names = PyDict_New()))
        return NULL;
    PyObject *known = PyDict_GetItemString(names, name);
    if (known)
        return PyObject_GetAttr(object, known);
    PyObject *made = PyUnicode_InternFromString(name);
    PyObject *value = made && PyDict_SetItem(names, made, made) == 0 ? PyObject_GetAttr(object, made) : NULL;
    Py_XDECREF(made);
    return value;
}

static bool bad_type(const char *name, const char *type)
{
    PyErr_Format(PyExc_TypeError, "%s has elements of type %s: it takes int32 or int64", name, type);
    return false;
}

/* What an exporter raised becomes the cause of an error that names the argument. */
static bool exporter_failed(const char *name)
{
    PyObject *type, *cause, *trace, *error_type, *error, *error_trace;
    if (!PyErr_ExceptionMatches(PyExc_Exception)) /* the user's interrupt, for one */
        return false;
    PyErr_Fetch(&type, &cause, &trace);
    PyErr_NormalizeException(&type, &cause, &trace);
    PyErr_Format(PyExc_ValueError, "%s cannot be read: its exporter failed", name);
    PyErr_Fetch(&error_type, &error, &error_trace);
    PyErr_NormalizeException(&error_type, &error, &error_trace);
    if (trace)
        PyException_SetTraceback(cause, trace);
    PyException_SetCause(error, cause); /* takes the reference */
    Py_XDECREF(type);
    Py_XDECREF(trace);
    PyErr_Restore(error_type, error, error_trace);
    return false;
}

static bool set_ndim(array *a, const char *name, int64_t ndim)
{
    if (ndim < 0 || ndim > MAX_DIMENSIONS) {
        PyErr_Format(PyExc_ValueError, "%s has %lld dimensions: at most %d are understood", name, (long long)ndim,
                     MAX_DIMENSIONS);
        return false;
    }
    a->ndim = (int)ndim;
    return true;
}

static void set_contiguous(array *a)
{
    int64_t stride = 1;
    for (int i = a->ndim - 1; i >= 0; i--) {
        a->strides[i] = stride;
        stride *= a->shape[i];
    }
}

int array_element_bytes(const array *a)
{
    return a->type == DM_INT64 ? 8 : 4;
}

/* From bytes to elements. */
static bool set_stride(array *a, const char *name, int i, int64_t bytes)
{
    a->strides[i] = bytes / array_element_bytes(a);
    if (bytes % array_element_bytes(a) == 0)
        return true;
    PyErr_Format(PyExc_ValueError, "%s has a stride of %lld bytes: it must be a multiple of its elements' %d", name,
                 (long long)bytes, array_element_bytes(a));
    return false;
}

int64_t array_elements(const array *a)
{
    int64_t n = 1;
    for (int i = 0; i < a->ndim; i++)
        n *= a->shape[i];
    return n;
}

bool array_is_contiguous(const array *a)
{
    int64_t stride = 1;
    for (int i = a->ndim - 1; i >= 0; i--) {
        if (a->shape[i] != 1 && a->strides[i] != stride && array_elements(a))
            return false;
        stride *= a->shape[i];
    }
    return true;
}

/* ---- Buffers: NumPy, array.array, memoryview ---- */

static bool set_format(array *a, const char *name, const Py_buffer *view)
{
    const char *format = view->format ? view->format : "B";
    const char *code = *format == '@' || *format == '=' || *format == '<' ? format + 1 : format;
    const bool is_integer = strlen(code) == 1 && strchr("ilq", *code);
    if (!is_integer || (view->itemsize != 4 && view->itemsize != 8))
        return bad_type(name, format);
    a->type = view->itemsize == 8 ? DM_INT64 : DM_INT32;
    return true;
}

static bool describe_view(array *a, const char *name, const Py_buffer *view)
{
    if (!set_format(a, name, view) || !set_ndim(a, name, view->ndim))
        return false;
    a->data = view->buf;
    a->read_only = view->readonly;
    for (int i = 0; i < a->ndim; i++) {
        a->shape[i] = view->shape[i];
        if (!set_stride(a, name, i, view->strides[i]))
            return false;
    }
    return true;
}

/* Takes the reference to memory, a memoryview, which keeps the buffer where it is. */
static bool import_view(PyObject *memory, const char *name, array *a)
{
    Py_buffer view;
    bool described = false;
    if (PyObject_GetBuffer(memory, &view, PyBUF_FORMAT | PyBUF_STRIDES) == 0) {
        described = describe_view(a, name, &view);
        PyBuffer_Release(&view);
    }
    if (described)
        a->keeper = memory;
    else
        Py_DECREF(memory);
    return described;
}

/* ---- DLPack: PyTorch, CuPy, JAX ---- */

static bool set_home(array *a, const char *name, int32_t device_type)
{
    switch (device_type) {
    case DLPACK_CPU:
        a->home = HOME_HOST;
        return true;
    case DLPACK_CUDA_HOST:
    case DLPACK_ROCM_HOST:
        a->home = HOME_PINNED;
        return true;
    case DLPACK_CUDA:
    case DLPACK_CUDA_MANAGED:
        a->home = HOME_CUDA;
        return true;
    case DLPACK_ROCM:
        a->home = HOME_HIP;
        return true;
    default:
        PyErr_Format(PyExc_ValueError, "%s is on a device of DLPack's type %d: it takes CPU, CUDA or ROCm memory", name,
                     (int)device_type);
        return false;
    }
}

static bool set_code(array *a, const char *name, const dlpack_tensor *t)
{
    static const char *const codes[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
    const bool named = t->code < sizeof codes / sizeof *codes;
    if (t->code != DLPACK_INT || (t->bits != 32 && t->bits != 64) || t->lanes != 1) {
        char type[32];
        snprintf(type, sizeof type, "%s%d", named ? codes[t->code] : "float", t->bits);
        return bad_type(name, type);
    }
    a->type = t->bits == 64 ? DM_INT64 : DM_INT32;
    return true;
}

static bool describe_tensor(array *a, const char *name, const dlpack_tensor *t)
{
    if (!set_home(a, name, t->device_type) || !set_code(a, name, t) || !set_ndim(a, name, t->ndim))
        return false;
    a->device = t->device_id;
    a->data = t->data ? (char *)t->data + t->byte_offset : NULL;
    for (int i = 0; i < a->ndim; i++)
        a->shape[i] = t->shape[i];
    if (!t->strides)
        set_contiguous(a);
    for (int i = 0; i < a->ndim && t->strides; i++)
        a->strides[i] = t->strides[i];
    return true;
}

static bool describe_versioned(array *a, const char *name, const dlpack_versioned *v)
{
    if (v->major != DLPACK_MAJOR) {
        PyErr_Format(PyExc_ValueError, "%s comes in DLPack %u.%u: version %d is understood", name, (unsigned)v->major,
                     (unsigned)v->minor, DLPACK_MAJOR);
        return false;
    }
    a->read_only = v->flags & DLPACK_READ_ONLY;
    return describe_tensor(a, name, &v->tensor);
}

/* The table of functions that a type offers, or NULL. It lives as long as the process. */
static const dlpack_exchange *exchange_of_type(PyObject *type)
{
    PyObject *capsule = get_attribute(type, "__dlpack_c_exchange_api__");
    const dlpack_exchange *e = capsule ? PyCapsule_GetPointer(capsule, "dlpack_exchange_api") : NULL;
    PyErr_Clear();
    Py_XDECREF(capsule);
    while (e && e->major > DLPACK_MAJOR)
        e = e->older;
    return e && e->major == DLPACK_MAJOR && e->describe ? e : NULL;
}

/* That of object's type. The last type that had one is remembered: nearly all arrays are of the same. */
static const dlpack_exchange *exchange_of(PyObject *object)
{
    static PyObject *known_type;
    static const dlpack_exchange *known;
    PyObject *type = (PyObject *)Py_TYPE(object);
    if (type == known_type)
        return known;
    const dlpack_exchange *e = exchange_of_type(type);
    if (!e)
        return NULL;
    PyObject *former = known_type;
    Py_INCREF(type);
    known_type = type;
    known = e;
    Py_XDECREF(former);
    return e;
}

/* object.__dlpack_device__()'s type. */
static bool ask_device(PyObject *object, const char *name, int *type)
{
    PyObject *method = get_attribute(object, "__dlpack_device__");
    PyObject *device = method ? PyObject_CallNoArgs(method) : NULL;
    int id;
    Py_XDECREF(method);
    if (!device)
        return exporter_failed(name);
    const bool known = PyTuple_Check(device) && PyArg_ParseTuple(device, "ii", type, &id);
    Py_DECREF(device);
    if (!known)
        return PyErr_Format(PyExc_TypeError, "%s.__dlpack_device__() did not return two integers", name), false;
    return true;
}

/* PyTorch's tensors in pinned memory are the host's, but by __dlpack_device__. */
static void set_pinned(array *a, int type)
{
    if (a->home == HOME_HOST && (type == DLPACK_CUDA_HOST || type == DLPACK_ROCM_HOST))
        a->home = HOME_PINNED;
}

bool array_ask_pinned(PyObject *object, const char *name, array *a)
{
    int type;
    if (a->home != HOME_HOST || !exchange_of(object)) /* the other ways have said it already */
        return true;
    if (!ask_device(object, name, &type))
        return false;
    set_pinned(a, type);
    return true;
}

static bool describe_exchange(const dlpack_exchange *e, PyObject *object, const char *name, array *a)
{
    dlpack_tensor t;
    return e->describe(object, &t) ? exporter_failed(name) : describe_tensor(a, name, &t);
}

static bool import_exchange(const dlpack_exchange *e, PyObject *object, const char *name, array *a)
{
    if (!describe_exchange(e, object, name, a))
        return false;
    Py_INCREF(object);
    a->keeper = object;
    return true;
}

/* object.__dlpack__(...), which is not to synchronise; exporters of before 2023 do not know max_version. */
static PyObject *get_capsule(PyObject *object, bool on_gpu)
{
    PyObject *method = get_attribute(object, "__dlpack__"), *none = PyTuple_New(0);
    PyObject *options = on_gpu ? Py_BuildValue("{s:i,s:(ii)}", "stream", -1, "max_version", DLPACK_MAJOR, 0)
                               : Py_BuildValue("{s:(ii)}", "max_version", DLPACK_MAJOR, 0);
    PyObject *capsule = method && none && options ? PyObject_Call(method, none, options) : NULL;
    if (!capsule && options && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        if (PyDict_DelItemString(options, "max_version") == 0)
            capsule = PyObject_Call(method, none, options);
    }
    Py_XDECREF(method);
    Py_XDECREF(none);
    Py_XDECREF(options);
    return capsule;
}

static bool describe_capsule(array *a, const char *name, PyObject *capsule)
{
    if (PyCapsule_IsValid(capsule, "dltensor_versioned"))
        return describe_versioned(a, name, PyCapsule_GetPointer(capsule, "dltensor_versioned"));
    if (PyCapsule_IsValid(capsule, "dltensor"))
        return describe_tensor(a, name, &((dlpack_managed *)PyCapsule_GetPointer(capsule, "dltensor"))->tensor);
    PyErr_Format(PyExc_TypeError, "%s.__dlpack__() did not return a DLPack capsule", name);
    return false;
}

/* The capsule is kept as it is: whoever owns it gives the tensor back. */
static bool import_capsule(PyObject *object, const char *name, array *a)
{
    int type;
    if (!ask_device(object, name, &type) || !set_home(a, name, type))
        return false;
    PyObject *capsule = get_capsule(object, a->home == HOME_CUDA || a->home == HOME_HIP);
    if (!capsule)
        return exporter_failed(name);
    if (describe_capsule(a, name, capsule)) {
        set_pinned(a, type);
        a->keeper = capsule;
        return true;
    }
    Py_DECREF(capsule);
    return false;
}

static bool import_dlpack(PyObject *object, const char *name, array *a)
{
    const dlpack_exchange *e = exchange_of(object);
    return e ? import_exchange(e, object, name, a) : import_capsule(object, name, a);
}

/* ---- __cuda_array_interface__: Numba and others ---- */

static bool set_typestr(array *a, const char *name, PyObject *interface)
{
    PyObject *value = PyDict_GetItemString(interface, "typestr");
    const char *type = value ? PyUnicode_AsUTF8AndSize(value, NULL) : "missing";
    if (!type)
        return false;
    if (strcmp(type, "<i4") != 0 && strcmp(type, "<i8") != 0)
        return bad_type(name, type);
    a->type = strcmp(type, "<i8") == 0 ? DM_INT64 : DM_INT32;
    return true;
}

static bool set_data(array *a, PyObject *interface)
{
    PyObject *data = PyDict_GetItemString(interface, "data"), *address;
    int read_only;
    if (!data || !PyTuple_Check(data) || !PyArg_ParseTuple(data, "Op", &address, &read_only))
        return false;
    a->data = PyLong_AsVoidPtr(address);
    a->read_only = read_only;
    return !PyErr_Occurred();
}

/* values: a tuple of ndim integers. */
static bool read_integers(PyObject *values, int ndim, int64_t *out)
{
    if (PyTuple_Size(values) != ndim)
        return false;
    for (int i = 0; i < ndim; i++) {
        out[i] = PyLong_AsLongLong(PyTuple_GetItem(values, i));
        if (out[i] == -1 && PyErr_Occurred())
            return false;
    }
    return true;
}

static bool set_extents(array *a, const char *name, PyObject *interface)
{
    PyObject *shape = PyDict_GetItemString(interface, "shape"), *strides = PyDict_GetItemString(interface, "strides");
    if (!shape || !PyTuple_Check(shape) || !set_ndim(a, name, PyTuple_Size(shape)) ||
        !read_integers(shape, a->ndim, a->shape))
        return false;
    if (!strides || strides == Py_None)
        return set_contiguous(a), true;
    int64_t bytes[MAX_DIMENSIONS];
    if (!PyTuple_Check(strides) || !read_integers(strides, a->ndim, bytes))
        return false;
    for (int i = 0; i < a->ndim; i++)
        if (!set_stride(a, name, i, bytes[i]))
            return false;
    return true;
}

static bool describe_interface(array *a, const char *name, PyObject *interface)
{
    if (PyDict_Check(interface)) {
        PyObject *mask = PyDict_GetItemString(interface, "mask");
        if (mask && mask != Py_None)
            return PyErr_Format(PyExc_ValueError, "%s is masked: it takes arrays without a mask", name), false;
        a->home = HOME_CUDA;
        a->device = UNKNOWN_DEVICE;
        if (set_typestr(a, name, interface) && set_data(a, interface) && set_extents(a, name, interface))
            return true;
    }
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_TypeError, "%s has a __cuda_array_interface__ that cannot be understood", name);
    return false;
}

static bool import_interface(PyObject *object, const char *name, array *a)
{
    PyObject *interface = get_attribute(object, "__cuda_array_interface__");
    const bool described = interface && describe_interface(a, name, interface);
    Py_XDECREF(interface);
    if (described) {
        Py_INCREF(object);
        a->keeper = object;
    }
    return described;
}

/* ---- All of them ---- */

static bool has(PyObject *object, const char *attribute)
{
    PyObject *value = get_attribute((PyObject *)Py_TYPE(object), attribute);
    PyErr_Clear();
    Py_XDECREF(value);
    return value;
}

static bool import(PyObject *object, const char *name, array *a)
{
    const bool dlpack = has(object, "__dlpack__");
    if (PyObject_CheckBuffer(object)) {
        PyObject *memory = PyMemoryView_FromObject(object);
        if (memory)
            return import_view(memory, name, a);
        if (!dlpack)
            return exporter_failed(name);
        PyErr_Clear(); /* a device's array may have a buffer by its type only */
    }
    if (dlpack)
        return import_dlpack(object, name, a);
    if (has(object, "__cuda_array_interface__"))
        return import_interface(object, name, a);
    PyErr_Format(PyExc_TypeError,
                 "%s is of type %R: it takes an array with __dlpack__, __cuda_array_interface__ or a buffer", name,
                 Py_TYPE(object));
    return false;
}

/* Gives an array without elements an address. */
static bool check_memory(array *a, const char *name)
{
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] < 0)
            return PyErr_Format(PyExc_ValueError, "%s has a negative extent", name), false;
    if (!a->data && array_elements(a) == 0)
        a->data = &nothing;
    if (!a->data)
        PyErr_Format(PyExc_ValueError, "%s has elements and no address", name);
    return a->data;
}

bool array_import(PyObject *object, const char *name, array *a)
{
    *a = (array){0};
    if (!import(object, name, a))
        return false;
    const bool good = check_memory(a, name);
    if (!good)
        Py_DECREF(a->keeper);
    return good;
}

bool array_look(PyObject *object, const char *name, array *a)
{
    const dlpack_exchange *e = exchange_of(object);
    *a = (array){0};
    if (e)
        return describe_exchange(e, object, name, a) && check_memory(a, name);
    if (!array_import(object, name, a))
        return false;
    Py_CLEAR(a->keeper);
    return true;
}
