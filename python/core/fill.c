/* draftmeta.Fill: a descriptor bound to Python's arrays, and its one call.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "core.h"

#include <stddef.h>
#include <string.h>

/* ---- The descriptor's fields: a new one is a line here, one in Fill's documentation and one in _core.pyi ---- */

typedef enum kind { VEC, TABLE, INT32, INT64, FLAG, SCHEDULES, REPORT } kind;

/* How a field's array is used. */
enum {
    WRITTEN = 1,  /* it must not be read-only */
    WIDE = 2,     /* int64 too */
    ANY_SHAPE = 4 /* any number of dimensions, contiguous */
};

typedef struct field {
    const char *name;
    kind kind;
    uint32_t how; /* of an array; a flag's DM_FILL_* bit */
    size_t offset;
} field;

#define FIELD(name, kind, how) #name, kind, how, offsetof(dm_fill_desc, name)
static const field fields[] = {
    {FIELD(num_requests, INT32, 0)},
    {FIELD(seq_lens, VEC, WIDE)},
    {FIELD(extend_lens, VEC, WIDE)},
    {FIELD(query_start_loc, VEC, WIDE)},
    {FIELD(extend_len, INT32, 0)},
    {FIELD(seq_len_bias, INT32, 0)},
    {FIELD(req_to_token, TABLE, 0)},
    {FIELD(req_pool_indices, VEC, WIDE)},
    {FIELD(block_table, TABLE, 0)},
    {FIELD(topk, INT32, 0)},
    {FIELD(pool_size, INT32, 0)},
    {FIELD(page_size, INT32, 0)},
    {FIELD(padded_requests, INT32, 0)},
    {FIELD(padded_tokens, INT64, 0)},
    {FIELD(context_divisor, INT32, 0)},
    {FIELD(dcp_world, INT32, 0)},
    {FIELD(dcp_rank, INT32, 0)},
    {FIELD(dcp_interleave, INT32, 0)},
    {FIELD(seqlens_expanded, VEC, WRITTEN)},
    {FIELD(dsa_cache_seqlens, VEC, WRITTEN)},
    {FIELD(dsa_cu_seqlens_k, VEC, WRITTEN)},
    {FIELD(token_to_req, VEC, WRITTEN)},
    {FIELD(context_lens, VEC, WRITTEN | ANY_SHAPE)},
    {FIELD(page_table_1, TABLE, WRITTEN)},
    {FIELD(page_table, TABLE, WRITTEN)},
    {FIELD(cache_seqlens, VEC, WRITTEN)},
    {FIELD(cu_seqlens_q, VEC, WRITTEN)},
    {FIELD(cu_seqlens_k, VEC, WRITTEN)},
    {FIELD(num_tokens, VEC, WRITTEN | ANY_SHAPE)},
    {FIELD(schedules, SCHEDULES, WRITTEN | ANY_SHAPE)},
    {FIELD(report, REPORT, WRITTEN | ANY_SHAPE | WIDE)},
    {"full_rows", FLAG, DM_FILL_FULL_ROWS, offsetof(dm_fill_desc, flags)},
    {"context_per_request", FLAG, DM_FILL_CONTEXT_PER_REQUEST, offsetof(dm_fill_desc, flags)},
};
#undef FIELD

enum { NUM_FIELDS = sizeof fields / sizeof *fields, NUM_SCHEDULES = 2 };

static const field *find_field(const char *name)
{
    for (size_t i = 0; i < NUM_FIELDS; i++)
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    return NULL;
}

static const char *kind_name(const field *f)
{
    switch (f->kind) {
    case INT32:
    case INT64:
        return "int";
    case FLAG:
        return "flag";
    case SCHEDULES:
        return "schedules";
    case VEC:
    case TABLE:
    case REPORT:
        break;
    }
    return f->how & WRITTEN ? "output" : "input";
}

PyObject *core_fields(void)
{
    PyObject *kinds = PyDict_New();
    for (size_t i = 0; kinds && i < NUM_FIELDS; i++) {
        PyObject *kind = PyUnicode_FromString(kind_name(&fields[i]));
        if (!kind || PyDict_SetItemString(kinds, fields[i].name, kind) < 0)
            Py_CLEAR(kinds);
        Py_XDECREF(kind);
    }
    return kinds;
}

/* ---- Binding: from keyword arguments to a descriptor ---- */

/* Where a fill runs, as far as known, and the arguments that decided it. */
typedef struct place {
    const char *backend, *backend_by; /* NULL: nothing decided it yet */
    int32_t ordinal;                  /* or UNKNOWN_DEVICE */
    const char *ordinal_by;
} place;

typedef struct binding {
    dm_fill_desc desc;
    place place;
    PyObject *kept;       /* a list of what keeps the arrays alive */
    int64_t output_bytes; /* a bound on what one call writes */
    bool has_requests, has_torch;
} binding;

static bool start_binding(binding *b, const place *p)
{
    *b = (binding){.desc.size = sizeof b->desc, .place = *p, .kept = PyList_New(0)};
    return b->kept;
}

static const char *backend_of(home h)
{
    return h == HOME_CUDA ? "cuda" : h == HOME_HIP ? "hip" : "cpu";
}

static PyObject *place_name(const char *backend, int32_t ordinal)
{
    return ordinal == UNKNOWN_DEVICE ? PyUnicode_FromString(backend)
                                     : PyUnicode_FromFormat("%s:%d", backend, (int)ordinal);
}

static bool wrong_place(const place *p, const char *by, const char *name, const char *backend, int32_t ordinal)
{
    PyObject *here = place_name(backend, ordinal), *there = place_name(p->backend, p->ordinal);
    if (here && there)
        PyErr_Format(PyExc_ValueError, "%s is on %U, but %s calls for %U", name, here, by, there);
    Py_XDECREF(here);
    Py_XDECREF(there);
    return false;
}

/* All arrays of a fill lie where the first one does; pinned memory goes with any. */
static bool agree_on_place(place *p, const char *name, const array *a)
{
    if (a->home == HOME_PINNED)
        return true;
    const char *backend = backend_of(a->home);
    const int32_t ordinal = a->home == HOME_HOST ? 0 : a->device;
    if (!p->backend)
        p->backend = backend, p->backend_by = name;
    if (strcmp(p->backend, backend) != 0)
        return wrong_place(p, p->backend_by, name, backend, ordinal);
    if (p->ordinal == UNKNOWN_DEVICE)
        p->ordinal = ordinal, p->ordinal_by = name;
    return ordinal == UNKNOWN_DEVICE || ordinal == p->ordinal || wrong_place(p, p->ordinal_by, name, backend, ordinal);
}

/* Whether object is a torch.Tensor; torch is looked at only if somebody imported it. */
static bool is_torch(PyObject *object)
{
    PyObject *torch = PyDict_GetItemString(PyImport_GetModuleDict(), "torch");
    PyObject *tensor = torch ? get_attribute(torch, "Tensor") : NULL;
    const bool is = tensor && PyObject_IsInstance(object, tensor) == 1;
    Py_XDECREF(tensor);
    PyErr_Clear();
    return is;
}

static bool check_use(const field *f, const char *name, const array *a)
{
    if (a->type == DM_INT64 && !(f->how & WIDE))
        return PyErr_Format(PyExc_TypeError, "%s has elements of type int64: it takes int32", name), false;
    if (a->read_only && f->how & WRITTEN)
        return PyErr_Format(PyExc_ValueError, "%s is read-only: a fill writes it", name), false;
    const int ndim = f->kind == TABLE ? 2 : 1;
    if (!(f->how & ANY_SHAPE) && a->ndim != ndim)
        return PyErr_Format(PyExc_ValueError, "%s has %d dimensions: it takes %d", name, a->ndim, ndim), false;
    if (f->kind != TABLE && !array_is_contiguous(a))
        return PyErr_Format(PyExc_ValueError, "%s is not contiguous", name), false;
    return true;
}

/* Imports and checks the array, which the binding keeps from then on. */
static bool bind_array(binding *b, const field *f, const char *name, PyObject *object, array *a)
{
    if (!array_import(object, name, a))
        return false;
    const bool good =
        check_use(f, name, a) && agree_on_place(&b->place, name, a) && PyList_Append(b->kept, a->keeper) == 0;
    Py_DECREF(a->keeper);
    if (good && f->how & WRITTEN)
        b->output_bytes += 4 * array_elements(a);
    if (good && (a->home == HOME_CUDA || a->home == HOME_HIP))
        b->has_torch = b->has_torch || is_torch(object);
    return good;
}

static bool bind_vec(binding *b, const field *f, const char *name, PyObject *object, dm_vec *vec)
{
    array a;
    if (!bind_array(b, f, name, object, &a))
        return false;
    *vec = (dm_vec){a.data, array_elements(&a), a.type};
    return true;
}

static bool bind_table(binding *b, const field *f, PyObject *object, dm_table *table)
{
    array a;
    if (!bind_array(b, f, f->name, object, &a))
        return false;
    const int64_t rows = a.shape[0], cols = a.shape[1];
    const int64_t stride = rows > 1 ? a.strides[0] : cols;
    if (rows > 0 && cols > 1 && a.strides[1] != 1) /* arrays without elements have any strides */
        return PyErr_Format(PyExc_ValueError, "%s has columns that are not adjacent", f->name), false;
    if (stride < cols)
        return PyErr_Format(PyExc_ValueError, "%s has rows that overlap", f->name), false;
    *table = (dm_table){a.data, rows, cols, stride, a.type};
    return true;
}

static bool bind_report(binding *b, const field *f, PyObject *object, dm_report **report)
{
    dm_vec vec;
    if (!bind_vec(b, f, f->name, object, &vec))
        return false;
    if (vec.len * (vec.type == DM_INT64 ? 8 : 4) < (int64_t)sizeof **report)
        return PyErr_Format(PyExc_ValueError, "%s has %lld elements: it takes 2 of int64, or 4 of int32", f->name,
                            (long long)vec.len),
               false;
    *report = vec.data;
    return true;
}

/* An integer from min to max. */
static bool bind_int(const char *name, PyObject *object, int64_t min, int64_t max, int64_t *value)
{
    PyObject *number = PyNumber_Index(object);
    if (!number)
        return PyErr_Format(PyExc_TypeError, "%s is of type %R: it takes an integer", name, Py_TYPE(object)), false;
    int overflow;
    *value = PyLong_AsLongLongAndOverflow(number, &overflow);
    Py_DECREF(number);
    if (overflow || *value < min || *value > max)
        return PyErr_Format(PyExc_ValueError, "%s is %R: it must be from %lld to %lld", name, object, (long long)min,
                            (long long)max),
               false;
    return true;
}

static bool bind_int32(const char *name, PyObject *object, int32_t *value)
{
    int64_t wide = 0;
    const bool good = bind_int(name, object, INT32_MIN, INT32_MAX, &wide); /* the library knows what each field takes */
    *value = (int32_t)wide;
    return good;
}

/* ---- Schedules ---- */

typedef struct word {
    const char *name;
    int value;
} word;

/* The value of the attribute, one of the words. */
static bool read_word(PyObject *schedule, const char *attribute, const char *path, const word *words, int *value)
{
    PyObject *given = get_attribute(schedule, attribute);
    const char *name = given && PyUnicode_Check(given) ? PyUnicode_AsUTF8AndSize(given, NULL) : NULL;
    *value = 0;
    for (const word *w = words; name && w->name; w++)
        if (strcmp(w->name, name) == 0)
            *value = w->value;
    if (!*value && given)
        PyErr_Format(PyExc_ValueError, "%s.%s is %R: it takes \"%s\", \"%s\"%s%s%s", path, attribute, given,
                     words[0].name, words[1].name, words[2].name ? ", \"" : "", words[2].name ? words[2].name : "",
                     words[2].name ? "\"" : "");
    Py_XDECREF(given);
    return *value;
}

/* An integer attribute; None leaves *value as it is. */
static bool read_int(PyObject *schedule, const char *attribute, const char *path, int32_t *value)
{
    PyObject *given = get_attribute(schedule, attribute);
    char name[64];
    PyOS_snprintf(name, sizeof name, "%s.%s", path, attribute);
    const bool good = given && (given == Py_None || bind_int32(name, given, value));
    Py_XDECREF(given);
    return good;
}

static bool bind_schedule(binding *b, const field *f, const char *path, PyObject *schedule, dm_schedule *s)
{
    static const word variants[] = {
        {"smxx", DM_SCHEDULE_SMXX}, {"sm90", DM_SCHEDULE_SM90}, {"sm100", DM_SCHEDULE_SM100}, {NULL, 0}};
    static const word units[] = {{"token", DM_UNIT_TOKEN}, {"request", DM_UNIT_REQUEST}, {NULL, 0}};
    int variant, unit;
    if (!read_word(schedule, "variant", path, variants, &variant) || !read_word(schedule, "unit", path, units, &unit))
        return false;
    char name[64];
    PyOS_snprintf(name, sizeof name, "%s.table", path);
    PyObject *table = get_attribute(schedule, "table");
    const bool bound = table && bind_vec(b, f, name, table, &s->table);
    Py_XDECREF(table);
    if (!bound)
        return false;
    s->variant = (dm_schedule_variant)variant;
    s->unit = (dm_schedule_unit)unit;
    const int64_t slots = s->table.len / 2 - 1; /* as many as the table has room for */
    s->slots = slots < INT32_MAX ? (int32_t)slots : INT32_MAX;
    return read_int(schedule, "slots", path, &s->slots) && read_int(schedule, "divisor", path, &s->divisor);
}

static bool bind_schedules(binding *b, const field *f, PyObject *object, dm_schedule *schedules)
{
    static const char *const paths[NUM_SCHEDULES] = {"schedules[0]", "schedules[1]"};
    PyObject *all = PySequence_Tuple(object);
    if (!all)
        return PyErr_Format(PyExc_TypeError, "schedules is of type %R: it takes a list of draftmeta.Schedule",
                            Py_TYPE(object)),
               false;
    const Py_ssize_t count = PyTuple_Size(all);
    bool good = count <= NUM_SCHEDULES;
    if (!good)
        PyErr_Format(PyExc_ValueError, "schedules has %zd entries: at most %d", count, NUM_SCHEDULES);
    memset(schedules, 0, NUM_SCHEDULES * sizeof *schedules);
    for (Py_ssize_t i = 0; i < count && good; i++)
        good = bind_schedule(b, f, paths[i], PyTuple_GetItem(all, i), &schedules[i]);
    Py_DECREF(all);
    return good;
}

/* ---- All fields ---- */

static bool bind_flag(const field *f, PyObject *object, uint32_t *flags)
{
    const int on = PyObject_IsTrue(object);
    *flags = on > 0 ? *flags | f->how : *flags & ~f->how;
    return on >= 0;
}

static bool bind_field(binding *b, const field *f, PyObject *object)
{
    void *to = (char *)&b->desc + f->offset;
    switch (f->kind) {
    case VEC:
        return bind_vec(b, f, f->name, object, to);
    case TABLE:
        return bind_table(b, f, object, to);
    case INT32:
        b->has_requests = b->has_requests || to == &b->desc.num_requests;
        return bind_int32(f->name, object, to);
    case INT64:
        return bind_int(f->name, object, INT64_MIN, INT64_MAX, to);
    case FLAG:
        return bind_flag(f, object, to);
    case SCHEDULES:
        return bind_schedules(b, f, object, to);
    case REPORT:
        return bind_report(b, f, object, to);
    }
    return false;
}

/* Gives kwargs[name] out, which may be None, and takes it from the arguments that are left. */
static bool take(PyObject *kwargs, const char *name, PyObject **value)
{
    *value = kwargs ? PyDict_GetItemString(kwargs, name) : NULL;
    if (!*value)
        return true;
    Py_INCREF(*value);
    return PyDict_DelItemString(kwargs, name) == 0;
}

/* None is "not given" everywhere. */
static bool bind_fields(binding *b, PyObject *kwargs)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (kwargs && PyDict_Next(kwargs, &at, &key, &value)) {
        const char *name = PyUnicode_AsUTF8AndSize(key, NULL);
        const field *f = name ? find_field(name) : NULL;
        if (!f)
            return PyErr_Format(PyExc_TypeError, "%R is not an argument of a fill", key), false;
        if (value != Py_None && !bind_field(b, f, value))
            return false;
    }
    return true;
}

static bool named_backend(PyObject *object, place *p)
{
    static const char *const names[] = {"cuda", "hip", "cpu"};
    if (!object || object == Py_None)
        return true;
    const char *given = PyUnicode_Check(object) ? PyUnicode_AsUTF8AndSize(object, NULL) : NULL;
    for (int i = 0; given && i < 3; i++)
        if (strcmp(given, names[i]) == 0)
            p->backend = names[i], p->backend_by = "backend";
    if (!p->backend)
        PyErr_Format(PyExc_ValueError, "backend is %R: it takes \"cuda\", \"hip\" or \"cpu\"", object);
    return p->backend;
}

static bool named_device(PyObject *object, place *p)
{
    if (!object || object == Py_None)
        return true;
    p->ordinal_by = "device";
    int64_t ordinal = 0;
    const bool good = bind_int("device", object, 0, INT32_MAX, &ordinal);
    p->ordinal = (int32_t)ordinal;
    return good;
}

/* Binds Fill's keyword arguments and opens the device. The device, with b->kept a reference; or NULL. */
static device *bind(binding *b, PyObject *kwargs)
{
    place p = {.ordinal = UNKNOWN_DEVICE};
    PyObject *backend = NULL, *ordinal = NULL;
    bool good = take(kwargs, "backend", &backend) && take(kwargs, "device", &ordinal) && named_backend(backend, &p) &&
                named_device(ordinal, &p) && start_binding(b, &p);
    device *d = NULL;
    if (good && bind_fields(b, kwargs)) {
        if (!b->has_requests && b->desc.seq_lens.len <= INT32_MAX)
            b->desc.num_requests = (int32_t)b->desc.seq_lens.len;
        const place *q = &b->place;
        d = device_open(q->backend ? q->backend : "cpu", q->ordinal == UNKNOWN_DEVICE ? 0 : q->ordinal);
    }
    if (good && !d)
        Py_CLEAR(b->kept);
    Py_XDECREF(backend);
    Py_XDECREF(ordinal);
    return d;
}

/* ---- Streams ---- */

/* PyTorch's function that gives a device's current stream as a number. */
static PyObject *torch_stream_getter(void)
{
    PyObject *module = PyImport_ImportModule("torch._C");
    PyObject *getter = module ? get_attribute(module, "_cuda_getCurrentRawStream") : NULL;
    Py_XDECREF(module);
    return getter;
}

static bool call_getter(PyObject *getter, PyObject *ordinal, dm_stream *stream)
{
    PyObject *number = PyObject_CallFunctionObjArgs(getter, ordinal, NULL);
    const bool good = number && stream_from(number, stream);
    Py_XDECREF(number);
    return good;
}

/* The stream of a single use: the given one, else PyTorch's current one for its arrays, else the default stream. */
static bool choose_stream(PyObject *given, bool has_torch, int32_t ordinal, dm_stream *stream)
{
    if ((given && given != Py_None) || !has_torch)
        return stream_from(given, stream);
    PyObject *getter = torch_stream_getter(), *number = PyLong_FromLong(ordinal);
    const bool good = getter && number && call_getter(getter, number, stream);
    Py_XDECREF(getter);
    Py_XDECREF(number);
    return good;
}

/* ---- Calls ---- */

/* From this much on other Python threads run while the CPU backend fills. */
enum { LONG_FILL_BYTES = 256 << 10 };

/* Launches are short; the interpreter is let go only for a long fill on the CPU. */
static PyObject *call_library(const device *d, const dm_fill_desc *const *descs, size_t count, bool is_long,
                              dm_stream stream)
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
    PyObject *kept;          /* what keeps the arrays alive */
    PyObject *stream_getter; /* PyTorch's, if the arrays are its; else NULL */
    PyObject *ordinal;
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
    self->ordinal = PyLong_FromLong(d->info.device);
    if (b->has_torch)
        self->stream_getter = torch_stream_getter();
    self->kept = borrow ? NULL : b->kept;
    Py_XINCREF(self->kept);
    return self->ordinal && (!b->has_torch || self->stream_getter);
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
    Py_VISIT(self->stream_getter);
    Py_VISIT(Py_TYPE(object));
    return 0;
}

static void fill_dealloc(PyObject *object)
{
    fill *self = (fill *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->kept);
    Py_XDECREF(self->stream_getter);
    Py_XDECREF(self->ordinal);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static bool fill_stream(const fill *self, PyObject *given, dm_stream *stream)
{
    if (self->stream_getter && (!given || given == Py_None))
        return call_getter(self->stream_getter, self->ordinal, stream);
    return stream_from(given, stream);
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
    if (!set_requests(&desc, requests) || !fill_stream(self, given, &stream))
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
    if (bind_fields(&b, kwargs) && set_requests(&b.desc, requests) && fill_stream(self, given, &stream)) {
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
        if (choose_stream(given, b.has_torch, d->info.device, &stream))
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
        set_many_requests(descs, (Py_ssize_t)count, requests) && fill_stream(first, given, &stream))
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
    fields_ = Py_BuildValue("{s:O,s:O,s:O}", "report", object, "backend", backend, "device", ordinal);
    binding b;
    device *d = fields_ ? bind(&b, fields_) : NULL;
    dm_stream stream;
    dm_report report;
    if (d && choose_stream(given, b.has_torch, d->info.device, &stream)) {
        const dm_status status =
            b.desc.report ? dm_download(d->ctx, &report, b.desc.report, sizeof report, stream) : DM_OK;
        result = status == DM_OK ? Py_BuildValue("(IIK)", report.flags, report.bad_request,
                                                 (unsigned long long)report.tokens_wanted)
                                 : raise_status(status);
    }
    if (d)
        Py_DECREF(b.kept);
    Py_XDECREF(fields_);
    return result;
}
