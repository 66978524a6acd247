/* The module draftmeta._core.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

#include <stdio.h>

#include "tools.h"

static PyObject *core_backends(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    PyObject *all = PyList_New(0);
    for (int32_t i = 0; all && i < dm_backend_count(); i++) {
        dm_backend_info info = {.size = sizeof info};
        const dm_status status = dm_backend_query(i, &info);
        PyObject *one = status == DM_OK ? info_as_dict(&info) : raise_status(status);
        if (!one || PyList_Append(all, one) < 0)
            Py_CLEAR(all);
        Py_XDECREF(one);
    }
    return all;
}

/* The command "draftmeta info" with these arguments; its exit status. */
static PyObject *core_command_info(PyObject *module, PyObject *args)
{
    enum { MOST = 16 };
    char *argv[MOST + 1] = {"info"};
    const Py_ssize_t count = PyTuple_Size(args);
    (void)module;
    if (count >= MOST)
        return PyErr_Format(PyExc_ValueError, "too many arguments"), NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        const char *text = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(args, i), NULL);
        if (!text)
            return NULL;
        argv[i + 1] = (char *)(uintptr_t)text;
    }
    const int status = cmd_info((int)count + 1, argv);
    fflush(stdout);
    return PyLong_FromLong(status);
}

static PyMethodDef functions[] = {
    {"open", (PyCFunction)(void (*)(void))core_open, METH_VARARGS | METH_KEYWORDS,
     "open(backend=None, device=0)\n--\n\n"
     "Opens a device, or gives the one that is open: a draftmeta.Context. backend None takes DRAFTMETA_BACKEND, else\n"
     "the first of cuda, hip and cpu that works. Fill opens what it needs by itself. Raises draftmeta.Error."},
    {"fill", (PyCFunction)(void (*)(void))core_fill, METH_VARARGS | METH_KEYWORDS,
     "fill(*, stream=None, **fields)\n--\n\n"
     "One fill without a Fill: takes its arguments and a stream, and enqueues it. The arrays are not kept: they must\n"
     "live until the stream has passed the fill. Raises what Fill raises."},
    {"fill_many", (PyCFunction)(void (*)(void))core_fill_many, METH_VARARGS | METH_KEYWORDS,
     "fill_many(fills, num_requests=None, stream=None)\n--\n\n"
     "Enqueues several draftmeta.Fill of one device, eight to a launch. num_requests: None, one number for all, or "
     "one\n"
     "for each. No fill may read what another one of the call writes. All are checked before any is enqueued.\n"
     "Raises TypeError, ValueError, draftmeta.Error."},
    {"read_report", (PyCFunction)(void (*)(void))core_read_report, METH_VARARGS | METH_KEYWORDS, NULL},
    {"backends", core_backends, METH_NOARGS, NULL},
    {"command_info", core_command_info, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static const char error_doc[] =
    "What the library refused or could not do, in its words.\n\n"
    "status: the number of the dm_status; status_name: its name, \"DM_ERR_SHAPE\" for example.";

/* Takes the reference to value. */
static int add(PyObject *module, const char *name, PyObject *value)
{
    const int failed = value ? PyModule_AddObjectRef(module, name, value) : -1;
    Py_XDECREF(value);
    return failed;
}

static int fill_module(PyObject *module)
{
    if (!core_error)
        core_error = PyErr_NewExceptionWithDoc("draftmeta.Error", error_doc, NULL, NULL);
    if (!core_error || PyModule_AddObjectRef(module, "Error", core_error) < 0)
        return -1;
    return add(module, "Fill", fill_type_new(module)) || add(module, "Context", context_type_new(module)) ||
                   add(module, "ByLayout", by_layout_type_new(module)) || add(module, "fields", core_fields()) ||
                   add(module, "version", PyUnicode_FromString(dm_version()))
               ? -1
               : 0;
}

static PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "draftmeta._core",
    .m_doc = "The C part of draftmeta: import draftmeta instead.",
    .m_size = -1,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void)
{
    PyObject *module = PyModule_Create(&definition);
    if (module && fill_module(module) < 0)
        Py_CLEAR(module);
    return module;
}
