/* Fills bound by how their arrays are laid out, not by where they are: what the drop-ins for engines call.
 *
 * An engine allocates some of a step's arrays anew each time, in the same shapes. So what is bound is kept by layout,
 * and a call brings the addresses: it copies the bound descriptors and puts them in. Nothing that is kept is changed
 * afterwards, so that any number of threads may run one plan at the same time.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "bind.h"

#include <string.h>

enum { MAX_ARRAYS = 16, MAX_FILLS = 2, MAX_WORDS = MAX_ARRAYS * (2 + 2 * MAX_DIMENSIONS) };

/* ---- Layouts ---- */

typedef struct layout {
    int count;
    PyObject *objects[MAX_ARRAYS]; /* the call's own */
    array arrays[MAX_ARRAYS];      /* data NULL: None */
    size_t used;
    int64_t words[MAX_WORDS]; /* all of the arrays that a bound fill depends on, addresses apart */
} layout;

static bool on_gpu(const array *a)
{
    return a->data && (a->home == HOME_CUDA || a->home == HOME_HIP);
}

static bool read_arrays(layout *l, const char *const *names)
{
    bool any = false;
    for (int i = 0; i < l->count; i++) {
        array *a = &l->arrays[i];
        if (l->objects[i] == Py_None)
            a->data = NULL;
        else if (!array_look(l->objects[i], names[i], a))
            return false;
        any = any || on_gpu(a);
    }
    for (int i = 0; i < l->count && any; i++) /* among a GPU's arrays the host's must be pinned */
        if (l->arrays[i].data && !array_ask_pinned(l->objects[i], names[i], &l->arrays[i]))
            return false;
    return true;
}

/* The first array at the same address as array i. */
static int first_there(const layout *l, int i)
{
    int first = 0;
    while (l->arrays[first].data != l->arrays[i].data)
        first++;
    return first;
}

/* Type, device, alignment and the array that it is one with, in bits that do not overlap. */
static int64_t word_of(const layout *l, int i)
{
    const array *a = &l->arrays[i];
    const int64_t alignment = (int64_t)((uintptr_t)a->data % 16);
    const int64_t ordinal = (int64_t)((uint64_t)(uint32_t)a->device << 32);
    return ordinal | first_there(l, i) << 16 | alignment << 12 | a->ndim << 8 | (int64_t)a->home << 4 |
           a->read_only << 3 | (int64_t)a->type;
}

/* The object's type counts too: it decides whose stream is the current one. */
static void set_words(layout *l)
{
    int64_t *word = l->words;
    for (int i = 0; i < l->count; i++) {
        const array *a = &l->arrays[i];
        if (!a->data) {
            *word++ = 0;
            continue;
        }
        const size_t ndim = (size_t)a->ndim;
        *word++ = word_of(l, i);
        *word++ = (int64_t)(intptr_t)Py_TYPE(l->objects[i]);
        memcpy(word, a->shape, ndim * sizeof *word);
        memcpy(word + ndim, a->strides, ndim * sizeof *word);
        word += 2 * ndim;
    }
    l->used = (size_t)(word - l->words);
}

static bool read_layout(layout *l, PyObject *arrays, const char *const *names)
{
    l->count = (int)PyTuple_Size(arrays);
    for (int i = 0; i < l->count; i++)
        l->objects[i] = PyTuple_GetItem(arrays, i);
    if (!read_arrays(l, names))
        return false;
    set_words(l);
    return true;
}

/* ---- Plans: what is bound ---- */

typedef struct plan {
    device *device;
    stream_source streams;
    bool is_long;
    int count;
    dm_fill_desc descs[MAX_FILLS];
    patch patches[MAX_FILLS][MAX_PATCHES];
    int patch_counts[MAX_FILLS];
} plan;

static const char plan_name[] = "draftmeta.plan";

static plan *plan_in(PyObject *capsule)
{
    return PyCapsule_GetPointer(capsule, plan_name);
}

static void free_plan(PyObject *capsule)
{
    plan *p = plan_in(capsule);
    stream_source_clear(&p->streams);
    PyMem_Free(p);
}

static bool check(const device *d, const dm_fill_desc *desc)
{
    const dm_status status = d ? dm_fill_check(d->ctx, desc) : DM_OK;
    return d && (status == DM_OK || raise_status(status));
}

static void add_fill(plan *p, const binding *b)
{
    const int i = p->count++;
    p->descs[i] = b->desc;
    p->is_long = p->is_long || b->output_bytes >= LONG_FILL_BYTES;
    p->patch_counts[i] = b->patch_count;
    memcpy(p->patches[i], b->patches, sizeof b->patches);
}

/* One fill from its fields, on the place of those before. */
static bool bind_fill(plan *p, const layout *l, PyObject *fields, place *where, bool *has_torch)
{
    binding b;
    if (!start_binding(&b, where))
        return false;
    b.objects = l->objects;
    b.arrays = l->arrays;
    b.array_count = l->count;
    const bool good = bind_fields(&b, fields) && (p->device = open_place(&b)) && check(p->device, &b.desc);
    if (good)
        add_fill(p, &b);
    *where = b.place;
    *has_torch = *has_torch || b.has_torch;
    Py_DECREF(b.kept);
    return good;
}

static bool bind_fills(plan *p, const layout *l, PyObject *fills)
{
    place where = {.ordinal = UNKNOWN_DEVICE};
    bool has_torch = false;
    const Py_ssize_t count = PyTuple_Size(fills);
    if (count < 1 || count > MAX_FILLS)
        return PyErr_Format(PyExc_ValueError, "%zd fills to bind: 1 to %d", count, MAX_FILLS), false;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *fields = PyTuple_GetItem(fills, i);
        if (!PyDict_Check(fields))
            return PyErr_Format(PyExc_TypeError, "a fill is bound from a dict, not %R", Py_TYPE(fields)), false;
        if (!bind_fill(p, l, fields, &where, &has_torch))
            return false;
    }
    return stream_source_init(&p->streams, has_torch, p->device);
}

/* The capsule of a plan. */
static PyObject *new_plan(const layout *l, PyObject *fills)
{
    plan *p = PyMem_Calloc(1, sizeof *p);
    if (!p)
        return PyErr_NoMemory();
    PyObject *capsule = bind_fills(p, l, fills) ? PyCapsule_New(p, plan_name, free_plan) : NULL;
    if (!capsule) {
        stream_source_clear(&p->streams);
        PyMem_Free(p);
    }
    return capsule;
}

static void put_addresses(dm_fill_desc *desc, const patch *patches, int count, const layout *l)
{
    for (const patch *p = patches; p < patches + count; p++) {
        void *address = (char *)l->arrays[p->index].data + p->offset;
        memcpy((char *)desc + p->at, &address, sizeof address);
    }
}

static PyObject *run_plan(const plan *p, const layout *l)
{
    dm_fill_desc descs[MAX_FILLS];
    const dm_fill_desc *pointers[MAX_FILLS];
    dm_stream stream;
    if (!stream_choose(&p->streams, NULL, &stream))
        return NULL;
    for (int i = 0; i < p->count; i++) {
        descs[i] = p->descs[i];
        put_addresses(&descs[i], p->patches[i], p->patch_counts[i], l);
        pointers[i] = &descs[i];
    }
    return call_library(p->device, pointers, (size_t)p->count, p->is_long, stream);
}

/* ---- draftmeta._core.ByLayout ---- */

typedef struct by_layout {
    PyObject_HEAD;
    PyObject *arrays;              /* the arguments' names */
    const char *names[MAX_ARRAYS]; /* the same */
    PyObject *bind, *first;
    PyObject *plans; /* an OrderedDict from (words, numbers) to plans, the one that was used last at its end */
    PyObject *last;  /* that one: ((words, numbers), capsule) */
    Py_ssize_t limit;
    long long calls, binds;
} by_layout;

static PyObject *new_key(const layout *l, PyObject *numbers)
{
    PyObject *words = PyBytes_FromStringAndSize((const char *)l->words, (Py_ssize_t)(l->used * sizeof *l->words));
    PyObject *key = words ? PyTuple_Pack(2, words, numbers) : NULL;
    Py_XDECREF(words);
    return key;
}

/* 1, 0, or -1 with an exception set. */
static int is_key(PyObject *key, const layout *l, PyObject *numbers)
{
    PyObject *words = PyTuple_GetItem(key, 0);
    const size_t bytes = l->used * sizeof *l->words;
    if ((size_t)PyBytes_Size(words) != bytes || memcmp(PyBytes_AsString(words), l->words, bytes) != 0)
        return 0;
    return PyObject_RichCompareBool(PyTuple_GetItem(key, 1), numbers, Py_EQ);
}

/* Makes entry, ((words, numbers), capsule), the one that was used last; takes the reference. The capsule, a new
 * reference. */
static PyObject *set_last(by_layout *self, PyObject *entry)
{
    PyObject *former = self->last, *capsule = entry ? PyTuple_GetItem(entry, 1) : NULL;
    if (!capsule)
        return NULL;
    Py_INCREF(capsule);
    self->last = entry;
    Py_XDECREF(former);
    return capsule;
}

/* The plan that was used last, a new reference, if it fits; else NULL, with an exception set or none. */
static PyObject *try_last(by_layout *self, const layout *l, PyObject *numbers)
{
    PyObject *last = self->last, *capsule = NULL;
    if (!last)
        return NULL;
    Py_INCREF(last); /* comparing numbers may run other code, and that this again */
    if (is_key(PyTuple_GetItem(last, 0), l, numbers) > 0)
        capsule = PyTuple_GetItem(last, 1);
    Py_XINCREF(capsule);
    Py_DECREF(last);
    return capsule;
}

/* The same of all plans. */
static PyObject *try_all(by_layout *self, PyObject *key)
{
    PyObject *capsule = PyDict_GetItemWithError(self->plans, key);
    if (!capsule)
        return NULL;
    PyObject *entry = PyTuple_Pack(2, key, capsule);
    PyObject *moved = entry ? PyObject_CallMethod(self->plans, "move_to_end", "(O)", key) : NULL;
    if (!moved) {
        Py_XDECREF(entry);
        return NULL;
    }
    Py_DECREF(moved);
    return set_last(self, entry);
}

/* Drops the plans that were not used for longest. */
static bool make_room(by_layout *self)
{
    while (PyDict_Size(self->plans) > self->limit) {
        PyObject *dropped = PyObject_CallMethod(self->plans, "popitem", "i", 0);
        if (!dropped)
            return false;
        Py_DECREF(dropped);
    }
    return true;
}

/* Says once where it runs. */
static bool say_first(by_layout *self, const device *d)
{
    PyObject *first = self->first;
    if (!first)
        return true;
    self->first = NULL;
    PyObject *said = PyObject_CallFunction(first, "si", d->info.name, (int)d->info.device);
    Py_DECREF(first);
    Py_XDECREF(said);
    return said;
}

/* Asks the binding function for the fills and keeps the plan made of them. */
static PyObject *bind_plan(by_layout *self, const layout *l, PyObject *arrays, PyObject *key)
{
    PyObject *given = PyObject_CallFunctionObjArgs(self->bind, arrays, PyTuple_GetItem(key, 1), NULL);
    PyObject *fills = given ? PySequence_Tuple(given) : NULL;
    PyObject *capsule = fills ? new_plan(l, fills) : NULL, *result = NULL;
    Py_XDECREF(given);
    Py_XDECREF(fills);
    if (capsule && PyObject_SetItem(self->plans, key, capsule) == 0 && make_room(self) &&
        say_first(self, plan_in(capsule)->device)) {
        self->binds++;
        result = set_last(self, PyTuple_Pack(2, key, capsule));
    }
    Py_XDECREF(capsule);
    return result;
}

static PyObject *find_or_bind(by_layout *self, const layout *l, PyObject *arrays, PyObject *numbers)
{
    PyObject *capsule = try_last(self, l, numbers);
    if (capsule || PyErr_Occurred())
        return capsule;
    PyObject *key = new_key(l, numbers);
    capsule = key ? try_all(self, key) : NULL;
    if (!capsule && !PyErr_Occurred())
        capsule = bind_plan(self, l, arrays, key);
    Py_XDECREF(key);
    return capsule;
}

static PyObject *by_layout_run(PyObject *object, PyObject *const *args, Py_ssize_t count)
{
    by_layout *self = (by_layout *)object;
    layout l;
    if (count != 2 || !PyTuple_Check(args[0]) || !PyTuple_Check(args[1]))
        return PyErr_Format(PyExc_TypeError, "run takes a tuple of arrays and a tuple of numbers");
    if (PyTuple_Size(args[0]) != PyTuple_Size(self->arrays))
        return PyErr_Format(PyExc_TypeError, "run takes %zd arrays", PyTuple_Size(self->arrays));
    if (!read_layout(&l, args[0], self->names))
        return NULL;
    PyObject *capsule = find_or_bind(self, &l, args[0], args[1]);
    PyObject *result = capsule ? run_plan(plan_in(capsule), &l) : NULL;
    Py_XDECREF(capsule);
    self->calls += result != NULL;
    return result;
}

/* ---- Its type ---- */

static bool set_names(by_layout *self)
{
    const Py_ssize_t count = PyTuple_Size(self->arrays);
    if (count > MAX_ARRAYS)
        return PyErr_Format(PyExc_ValueError, "%zd arrays: at most %d", count, MAX_ARRAYS), false;
    for (Py_ssize_t i = 0; i < count; i++)
        if (!(self->names[i] = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(self->arrays, i), NULL)))
            return false;
    return true;
}

static PyObject *new_ordered_dict(void)
{
    PyObject *module = PyImport_ImportModule("collections");
    PyObject *made = module ? PyObject_CallMethod(module, "OrderedDict", NULL) : NULL;
    Py_XDECREF(module);
    return made;
}

static PyObject *by_layout_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"arrays", "bind", "limit", "first", NULL};
    PyObject *arrays, *bind, *first = NULL;
    Py_ssize_t limit;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!On|O:ByLayout", names, &PyTuple_Type, &arrays, &bind, &limit,
                                     &first))
        return NULL;
    if (limit < 1)
        return PyErr_Format(PyExc_ValueError, "limit is %zd: it must be at least 1", limit);
    by_layout *self = (by_layout *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (!self)
        return NULL;
    Py_INCREF(arrays);
    Py_INCREF(bind);
    Py_XINCREF(first);
    self->arrays = arrays;
    self->bind = bind;
    self->first = first;
    self->limit = limit;
    self->plans = new_ordered_dict();
    if (!set_names(self) || !self->plans)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int by_layout_traverse(PyObject *object, visitproc visit, void *arg)
{
    by_layout *self = (by_layout *)object;
    Py_VISIT(self->arrays);
    Py_VISIT(self->bind);
    Py_VISIT(self->first);
    Py_VISIT(self->plans);
    Py_VISIT(self->last);
    Py_VISIT(Py_TYPE(object));
    return 0;
}

static void by_layout_dealloc(PyObject *object)
{
    by_layout *self = (by_layout *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    Py_XDECREF(self->arrays);
    Py_XDECREF(self->bind);
    Py_XDECREF(self->first);
    Py_XDECREF(self->plans);
    Py_XDECREF(self->last);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyObject *by_layout_calls(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(((by_layout *)self)->calls);
}

static PyObject *by_layout_binds(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(((by_layout *)self)->binds);
}

static PyObject *by_layout_kept(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(PyDict_Size(((by_layout *)self)->plans));
}

static const char by_layout_doc[] =
    "ByLayout(arrays, bind, limit, first=None)\n--\n\n"
    "Fills that are bound once for each layout of their arrays: devices, types, shapes, strides, addresses modulo 16,\n"
    "which are None and which begin at one address. arrays: the arguments' names.\n\n"
    "bind(arrays, numbers) gives the fills to enqueue together: dicts of Fill's arguments, with draftmeta._bound.Part\n"
    "for arrays. What it gives may depend on nothing but layout and numbers. limit layouts are kept; the one that was\n"
    "not used for longest goes first. No array is kept alive. first(backend, device) is called at the first one.";

static const char run_doc[] = "run($self, arrays, numbers, /)\n--\n\nEnqueues the fills: one launch.";

PyObject *by_layout_type_new(PyObject *module)
{
    static PyMethodDef methods[] = {
        {"run", (PyCFunction)(void (*)(void))by_layout_run, METH_FASTCALL, run_doc},
        {NULL, NULL, 0, NULL},
    };
    static PyGetSetDef members[] = {
        {"calls", by_layout_calls, NULL, "How often it was run.", NULL},
        {"binds", by_layout_binds, NULL, "How often of these it had to bind.", NULL},
        {"kept", by_layout_kept, NULL, "How many layouts are bound.", NULL},
        {NULL, NULL, NULL, NULL, NULL},
    };
    static PyType_Slot slots[] = {
        {Py_tp_doc, (void *)by_layout_doc},
        {Py_tp_new, by_layout_new},
        {Py_tp_dealloc, by_layout_dealloc},
        {Py_tp_traverse, by_layout_traverse},
        {Py_tp_methods, methods},
        {Py_tp_getset, members},
        {0, NULL},
    };
    static PyType_Spec spec = {
        .name = "draftmeta._core.ByLayout",
        .basicsize = sizeof(by_layout),
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
        .slots = slots,
    };
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}
