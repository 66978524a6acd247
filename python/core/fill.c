/* draftmeta.Fill: a descriptor bound to Python's arrays, and its one call.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "bind.h"

/* ---- Calls ---- */

/* Launches are short; the interpreter is let go only for a long fill on the CPU. */
PyObject *call_library(const device *d, const dm_fill_desc *const *descs, size_t count, bool is_long, dm_stream stream)
{
    dm_status status;
    if (d->is_cpu && is_long) {
        Py_BEGIN_ALLOW_THREADS;
        status = dm_fill_many(d->ctx, descs, count, stream);
        Py_END_ALLOW_THREADS;
    } else {
        status = dm_fill_many(d->ctx, descs, count, stream);
    }
    if (status != DM_OK)
        return raise_status(status);
    Py_INCREF(Py_None);
    return Py_None;
}

/* ---- draftmeta.Fill ---- */

typedef struct fill {
    PyObject_HEAD;
    dm_fill_desc desc; /* not changed after binding: calls copy it */
    device *device;
    PyObject *kept; /* what keeps the arrays alive */
    stream_source streams;
    bool is_long;
} fill;

static PyTypeObject *fill_type;

static bool furnish_fill(fill *self, device *d, binding *b, bool borrow)
{
    const dm_status status = dm_fill_check(d->ctx, &b->desc);
    if (status != DM_OK)
        return raise_status(status), false;
    self->desc = b->desc;
    self->device = d;
    self->is_long = b->output_bytes >= LONG_FILL_BYTES;
    self->kept = borrow ? NULL : b->kept;
    Py_XINCREF(self->kept);
    return stream_source_init(&self->streams, b->has_torch, d);
}

static PyObject *bind_new(PyTypeObject *type, PyObject *kwargs, bool borrow)
{
    binding b;
    device *d = bind(&b, kwargs);
    if (!d)
        return NULL;
    const allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PyObject *self = alloc(type, 0);
    if (self && !furnish_fill((fill *)self, d, &b, borrow))
        Py_CLEAR(self);
    Py_DECREF(b.kept);
    return self;
}

static PyObject *fill_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *given;
    if (PyTuple_Size(args))
        return PyErr_Format(PyExc_TypeError, "Fill takes keyword arguments only"), NULL;
    if (!take(kwargs, "borrow", &given))
        return NULL;
    const int borrow = given ? PyObject_IsTrue(given) : 0;
    Py_XDECREF(given);
    return borrow < 0 ? NULL : bind_new(type, kwargs, borrow);
}

static int fill_traverse(PyObject *object, visitproc visit, void *arg)
{
    fill *self = (fill *)object;
    Py_VISIT(self->kept);
    Py_VISIT(self->streams.getter);
    Py_VISIT(Py_TYPE(object));
    return 0;
}

static void fill_dealloc(PyObject *object)
{
    fill *self = (fill *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->kept);
    stream_source_clear(&self->streams);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* num_requests and stream by position, or NULL. */
static bool positional(PyObject *args, PyObject **requests, PyObject **stream)
{
    const Py_ssize_t count = PyTuple_Size(args);
    *requests = count > 0 ? PyTuple_GetItem(args, 0) : NULL;
    *stream = count > 1 ? PyTuple_GetItem(args, 1) : NULL;
    if (count <= 2)
        return true;
    PyErr_Format(PyExc_TypeError, "a fill takes num_requests and stream by position, and %zd were given", count);
    return false;
}

static bool set_requests(dm_fill_desc *desc, PyObject *requests)
{
    return !requests || requests == Py_None || bind_int32("num_requests", requests, &desc->num_requests);
}

static PyObject *call_plainly(const fill *self, PyObject *requests, PyObject *given)
{
    dm_fill_desc desc = self->desc;
    const dm_fill_desc *one = &desc;
    dm_stream stream;
    if (!set_requests(&desc, requests) || !stream_choose(&self->streams, given, &stream))
        return NULL;
    return call_library(self->device, &one, 1, self->is_long, stream);
}

/* A call with other values of some fields: they are bound as Fill's are, for this call. */
static PyObject *call_changed(const fill *self, PyObject *requests, PyObject *given, PyObject *kwargs)
{
    const dm_backend_info *info = &self->device->info;
    const place p = {info->name, "the fill", info->device, "the fill"};
    binding b;
    dm_stream stream;
    if (!start_binding(&b, &p))
        return NULL;
    b.desc = self->desc;
    PyObject *result = NULL;
    if (bind_fields(&b, kwargs) && set_requests(&b.desc, requests) && stream_choose(&self->streams, given, &stream)) {
        const dm_fill_desc *one = &b.desc;
        result = call_library(self->device, &one, 1, self->is_long || b.output_bytes >= LONG_FILL_BYTES, stream);
    }
    Py_DECREF(b.kept);
    return result;
}

static PyObject *fill_call(PyObject *object, PyObject *args, PyObject *kwargs)
{
    const fill *self = (const fill *)object;
    PyObject *requests, *given;
    if (!positional(args, &requests, &given))
        return NULL;
    if (!kwargs || PyDict_Size(kwargs) == 0)
        return call_plainly(self, requests, given);
    PyObject *left = PyDict_Copy(kwargs), *named = NULL;
    PyObject *result = NULL;
    if (left && take(left, "stream", &named))
        result = call_changed(self, requests, named ? named : given, left);
    Py_XDECREF(left);
    Py_XDECREF(named);
    return result;
}

static PyObject *fill_get_backend(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(((fill *)self)->device->info.name);
}

static PyObject *fill_get_device(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((fill *)self)->device->info.device);
}

static PyObject *fill_get_requests(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((fill *)self)->desc.num_requests);
}

static PyObject *fill_repr(PyObject *object)
{
    const fill *self = (const fill *)object;
    return PyUnicode_FromFormat("<draftmeta.Fill on %s:%d, %d requests>", self->device->info.name,
                                (int)self->device->info.device, (int)self->desc.num_requests);
}

static const char fill_doc[] =
    "Fill(**fields)\n--\n\n"
    "One fill, bound to its buffers; calling it enqueues the fill.\n\n"
    "The keyword arguments are the fields of dm_fill_desc; draftmeta.h says what each means. Arrays are anything with\n"
    "__dlpack__, __cuda_array_interface__ or a buffer: PyTorch, CuPy, JAX, NumPy. None is \"not given\".\n\n"
    "Inputs, for R = num_requests (default: the length of seq_lens):\n"
    "    seq_lens            int32 or int64 [R]      KV tokens of each request\n"
    "    extend_lens         int32 or int64 [R]      query tokens of each request; or\n"
    "    query_start_loc     int32 or int64 [R + 1]  their prefix; or\n"
    "    extend_len          int                     the same number for every request\n"
    "    seq_len_bias        int                     added to every length\n"
    "    req_to_token        int32 [pool][context]   the slot of each KV token\n"
    "    req_pool_indices    int32 or int64 [R]      row of req_to_token\n"
    "    block_table         int32 [R][pages]        pages, instead of req_to_token\n"
    "    topk, pool_size, page_size, padded_requests, padded_tokens: int\n"
    "    context_divisor, dcp_world, dcp_rank, dcp_interleave: int, of compressed caches and of those that ranks "
    "share\n"
    "    full_rows, context_per_request: bool, the flags DM_FILL_FULL_ROWS and DM_FILL_CONTEXT_PER_REQUEST\n\n"
    "Outputs, int32, for at most M tokens:\n"
    "    seqlens_expanded, dsa_cache_seqlens, token_to_req [M]; context_lens [M] or [R][n]; dsa_cu_seqlens_k [M + 1]\n"
    "    page_table_1, page_table [M][columns]; rows may have gaps between them\n"
    "    cache_seqlens [R]; cu_seqlens_q, cu_seqlens_k [R + 1]; num_tokens [1]\n"
    "    schedules           up to two draftmeta.Schedule\n"
    "    report              16 bytes (2 of int64), zeroed once; see draftmeta.read_report\n\n"
    "backend (\"cuda\", \"hip\", \"cpu\") and device (an ordinal) say where it runs; by default the arrays do.\n"
    "borrow=True: the buffers are not kept alive; who calls the fill sees to it that they are.\n\n"
    "Raises TypeError (what is no array, or has another dtype), ValueError (device, contiguity, dimensions, read-only\n"
    "outputs) or draftmeta.Error (whatever else the library refuses); each names the argument. Unless borrowed, the\n"
    "buffers are kept alive; they must neither move nor shrink.\n\n"
    "fill(num_requests=None, stream=None, **fields) enqueues it: one launch, no allocation, legal in a graph capture.\n"
    "stream: an integer, or an object with cuda_stream, ptr or handle; None is PyTorch's current stream if the arrays\n"
    "are PyTorch's, else the default stream. fields are other values for this call; arrays among them are not kept.\n"
    "After an exception nothing has been enqueued. Threads may call one fill at the same time.";

PyObject *fill_type_new(PyObject *module)
{
    static PyGetSetDef members[] = {
        {"backend", fill_get_backend, NULL, "\"cuda\", \"hip\" or \"cpu\".", NULL},
        {"device", fill_get_device, NULL, "The ordinal among the backend's devices.", NULL},
        {"num_requests", fill_get_requests, NULL, "How many requests a call fills if it is not told.", NULL},
        {NULL, NULL, NULL, NULL, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_doc, (void *)fill_doc}, {Py_tp_new, fill_new},
        {Py_tp_dealloc, fill_dealloc}, {Py_tp_traverse, fill_traverse},
        {Py_tp_call, fill_call},       {Py_tp_repr, fill_repr},
        {Py_tp_getset, members},       {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "draftmeta.Fill",
        .basicsize = sizeof(fill),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    fill_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return (PyObject *)fill_type;
}

/* ---- Functions of the module ---- */

/* The stream of a single use. */
static bool choose_stream(PyObject *given, bool has_torch, const device *d, dm_stream *stream)
{
    stream_source s;
    const bool good = stream_source_init(&s, has_torch, d) && stream_choose(&s, given, stream);
    stream_source_clear(&s);
    return good;
}

PyObject *core_fill(PyObject *module, PyObject *args, PyObject *kwargs)
{
    (void)module;
    PyObject *given = NULL, *result = NULL;
    binding b;
    if (PyTuple_Size(args))
        return PyErr_Format(PyExc_TypeError, "fill takes keyword arguments only"), NULL;
    if (!take(kwargs, "stream", &given))
        return NULL;
    device *d = bind(&b, kwargs);
    if (d) {
        const dm_fill_desc *one = &b.desc;
        dm_stream stream;
        if (choose_stream(given, b.has_torch, d, &stream))
            result = call_library(d, &one, 1, b.output_bytes >= LONG_FILL_BYTES, stream);
        Py_DECREF(b.kept);
    }
    Py_XDECREF(given);
    return result;
}

/* requests: None, one number for all fills, or a sequence with one for each. */
static bool set_many_requests(dm_fill_desc *descs, Py_ssize_t count, PyObject *requests)
{
    PyObject *each = requests && PySequence_Check(requests) ? PySequence_Tuple(requests) : NULL;
    bool good = !PyErr_Occurred();
    if (each && PyTuple_Size(each) != count) {
        PyErr_Format(PyExc_ValueError, "num_requests has %zd entries for %zd fills", PyTuple_Size(each), count);
        good = false;
    }
    for (Py_ssize_t i = 0; i < count && good; i++)
        good = set_requests(&descs[i], each ? PyTuple_GetItem(each, i) : requests);
    Py_XDECREF(each);
    return good;
}

/* The fills' descriptors, and pointers to them behind. They are all on the first one's device. */
static bool collect(PyObject *fills, Py_ssize_t count, dm_fill_desc *descs, const dm_fill_desc **pointers,
                    bool *is_long)
{
    const device *first = NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GetItem(fills, i);
        if (!PyObject_TypeCheck(item, fill_type))
            return PyErr_Format(PyExc_TypeError, "fills[%zd] is of type %R: it takes draftmeta.Fill", i, Py_TYPE(item)),
                   false;
        const fill *f = (const fill *)item;
        first = first ? first : f->device;
        if (f->device != first)
            return PyErr_Format(PyExc_ValueError, "fills[%zd] is on %s:%d, but fills[0] is on %s:%d", i,
                                f->device->info.name, (int)f->device->info.device, first->info.name,
                                (int)first->info.device),
                   false;
        descs[i] = f->desc;
        pointers[i] = &descs[i];
        *is_long = *is_long || f->is_long;
    }
    return true;
}

static PyObject *fill_all(PyObject *fills, PyObject *requests, PyObject *given)
{
    const size_t count = (size_t)PyTuple_Size(fills);
    if (count == 0)
        return Py_BuildValue("");
    dm_fill_desc *descs = PyMem_Malloc(count * (sizeof *descs + sizeof(dm_fill_desc *)));
    if (!descs)
        return PyErr_NoMemory();
    const dm_fill_desc **pointers = (const dm_fill_desc **)(descs + count);
    bool is_long = false;
    dm_stream stream;
    PyObject *result = NULL;
    const fill *first = (const fill *)PyTuple_GetItem(fills, 0);
    if (collect(fills, (Py_ssize_t)count, descs, pointers, &is_long) &&
        set_many_requests(descs, (Py_ssize_t)count, requests) && stream_choose(&first->streams, given, &stream))
        result = call_library(first->device, pointers, count, is_long, stream);
    PyMem_Free(descs);
    return result;
}

PyObject *core_fill_many(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"fills", "num_requests", "stream", NULL};
    PyObject *fills, *requests = NULL, *given = NULL;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OO:fill_many", names, &fills, &requests, &given))
        return NULL;
    PyObject *all = PySequence_Tuple(fills);
    PyObject *result = all ? fill_all(all, requests, given) : NULL;
    Py_XDECREF(all);
    return result;
}

/* Waits for the stream: (flags, bad_request, tokens_wanted). */
PyObject *core_read_report(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"report", "stream", "backend", "device", NULL};
    PyObject *object, *given = NULL, *fields_ = NULL, *result = NULL;
    PyObject *backend = Py_None, *ordinal = Py_None;
    (void)module;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOO:read_report", names, &object, &given, &backend, &ordinal))
        return NULL;
    if (object == Py_None) {
        PyErr_SetString(PyExc_TypeError, "report is None: it takes the buffer that was given as Fill(report=...)");
        return NULL;
    }
    fields_ = Py_BuildValue("{s:O,s:O,s:O}", "report", object, "backend", backend, "device", ordinal);
    binding b;
    device *d = fields_ ? bind(&b, fields_) : NULL;
    dm_stream stream;
    dm_report report;
    if (d && choose_stream(given, b.has_torch, d, &stream)) {
        const dm_status status = dm_download(d->ctx, &report, b.desc.report, sizeof report, stream);
        result = status == DM_OK ? Py_BuildValue("(IIK)", report.flags, report.bad_request,
                                                 (unsigned long long)report.tokens_wanted)
                                 : raise_status(status);
    }
    if (d)
        Py_DECREF(b.kept);
    Py_XDECREF(fields_);
    return result;
}
