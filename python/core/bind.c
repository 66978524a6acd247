/* Binding: from keyword arguments to a descriptor.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "bind.h"

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
        PyObject *text = PyUnicode_FromString(kind_name(&fields[i]));
        if (!text || PyDict_SetItemString(kinds, fields[i].name, text) < 0)
            Py_CLEAR(kinds);
        Py_XDECREF(text);
    }
    return kinds;
}

/* ---- Places ---- */

bool start_binding(binding *b, const place *p)
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

/* ---- Checks of arrays ---- */

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

/* ---- Parts of a call's arrays ---- */

/* What a part says: rows from skip on, the first columns; -1: all there are. */
typedef struct part {
    int index;
    long long rows, columns, skip;
} part;

static bool read_part(const binding *b, const char *name, PyObject *object, part *p)
{
    if (!PyArg_ParseTuple(object, "iLLL", &p->index, &p->rows, &p->columns, &p->skip))
        return false;
    if (p->index >= 0 && p->index < b->array_count && b->arrays[p->index].data)
        return true;
    return PyErr_Format(PyExc_ValueError, "%s is not among the arrays of the call", name), false;
}

/* Leaves of the array what the part says; *offset is the distance in bytes to the array's beginning. A table has at
 * most these columns, and a vector of any shape is flat. */
static bool cut(const part *p, const field *f, const char *name, array *a, int64_t *offset)
{
    *offset = 0;
    if (f->how & ANY_SHAPE && array_is_contiguous(a)) {
        a->shape[0] = array_elements(a);
        a->strides[0] = a->ndim = 1;
    }
    if (p->rows >= 0 && a->ndim) {
        if (a->shape[0] < p->skip + p->rows)
            return PyErr_Format(PyExc_ValueError, "%s has %lld rows: at least %lld are needed", name,
                                (long long)a->shape[0], p->skip + p->rows),
                   false;
        *offset = p->skip * a->strides[0] * array_element_bytes(a);
        a->data = (char *)a->data + *offset;
        a->shape[0] = p->rows;
    }
    if (p->columns >= 0 && a->ndim == 2 && p->columns < a->shape[1])
        a->shape[1] = p->columns;
    return true;
}

/* The array that the part stands for, *object, which becomes the caller's own. at: where in the descriptor its address
 * goes. */
static bool take_part(binding *b, const field *f, const char *name, PyObject **object, array *a, const void *at)
{
    part p;
    int64_t offset;
    if (!read_part(b, name, *object, &p))
        return false;
    *object = b->objects[p.index];
    *a = b->arrays[p.index];
    if (!cut(&p, f, name, a, &offset))
        return false;
    if (b->patch_count == MAX_PATCHES)
        return PyErr_Format(PyExc_ValueError, "%s is one array too many", name), false;
    b->patches[b->patch_count++] = (patch){(size_t)((const char *)at - (const char *)&b->desc), p.index, offset};
    return true;
}

/* ---- Arrays ---- */

/* An array that the binding keeps from then on. Whether it is pinned does not matter to a fill on the CPU. */
static bool import_and_keep(binding *b, const char *name, PyObject *object, array *a)
{
    const bool is_cpu = b->place.backend && strcmp(b->place.backend, "cpu") == 0;
    if (!array_import(object, name, a))
        return false;
    const bool good = (is_cpu || array_ask_pinned(object, name, a)) && PyList_Append(b->kept, a->keeper) == 0;
    Py_DECREF(a->keeper);
    return good;
}

/* Imports and checks the array. at: where in the descriptor its address goes. */
static bool bind_array(binding *b, const field *f, const char *name, PyObject *object, array *a, const void *at)
{
    const bool is_part = b->arrays && PyTuple_Check(object);
    if (!(is_part ? take_part(b, f, name, &object, a, at) : import_and_keep(b, name, object, a)))
        return false;
    if (!check_use(f, name, a) || !agree_on_place(&b->place, name, a))
        return false;
    if (f->how & WRITTEN)
        b->output_bytes += 4 * array_elements(a);
    if (a->home == HOME_CUDA || a->home == HOME_HIP)
        b->has_torch = b->has_torch || is_torch(object);
    return true;
}

static bool bind_vec(binding *b, const field *f, const char *name, PyObject *object, dm_vec *vec)
{
    array a;
    if (!bind_array(b, f, name, object, &a, &vec->data))
        return false;
    *vec = (dm_vec){a.data, array_elements(&a), a.type};
    return true;
}

static bool bind_table(binding *b, const field *f, PyObject *object, dm_table *table)
{
    array a;
    if (!bind_array(b, f, f->name, object, &a, &table->data))
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
    array a;
    if (!bind_array(b, f, f->name, object, &a, report))
        return false;
    if (array_elements(&a) * array_element_bytes(&a) < (int64_t)sizeof **report)
        return PyErr_Format(PyExc_ValueError, "%s has %lld elements: it takes 2 of int64, or 4 of int32", f->name,
                            (long long)array_elements(&a)),
               false;
    *report = a.data;
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

bool bind_int32(const char *name, PyObject *object, int32_t *value)
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

bool take(PyObject *kwargs, const char *name, PyObject **value)
{
    *value = kwargs ? PyDict_GetItemString(kwargs, name) : NULL;
    if (!*value)
        return true;
    Py_INCREF(*value);
    return PyDict_DelItemString(kwargs, name) == 0;
}

bool bind_fields(binding *b, PyObject *kwargs)
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

device *open_place(binding *b)
{
    if (!b->has_requests && b->desc.seq_lens.len <= INT32_MAX)
        b->desc.num_requests = (int32_t)b->desc.seq_lens.len;
    const place *p = &b->place;
    return device_open(p->backend ? p->backend : "cpu", p->ordinal == UNKNOWN_DEVICE ? 0 : p->ordinal);
}

device *bind(binding *b, PyObject *kwargs)
{
    place p = {.ordinal = UNKNOWN_DEVICE};
    PyObject *backend = NULL, *ordinal = NULL;
    bool good = take(kwargs, "backend", &backend) && take(kwargs, "device", &ordinal) && named_backend(backend, &p) &&
                named_device(ordinal, &p) && start_binding(b, &p);
    device *d = good && bind_fields(b, kwargs) ? open_place(b) : NULL;
    if (good && !d)
        Py_CLEAR(b->kept);
    Py_XDECREF(backend);
    Py_XDECREF(ordinal);
    return d;
}
