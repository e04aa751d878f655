/* The module: items as Python has them to `run_item`, and what it made of them back. */
#include "emit.h"

/* What is needed beside the programs, and where keys belong. Immutable once made. */
typedef struct {
    PyObject_HEAD
    PyObject *programs, *spec;
    PyObject *json;                  /* the kind of items that may be plain */
    PyObject *accepted;              /* the type of tuple that an accepted item becomes */
    PyObject *digest, *content_hash; /* of a usual value; of any item */
    Routes routes;
} Emitter;

/* What one call makes: items that are not ours, items that are, and a run per program. */
typedef struct {
    Emitter *emitter;
    PyObject *left, *accepted;
    Run *runs;
    int *started;
    int run_count, staged, last_head;
} Page;

static void page_end(Page *page)
{
    for (int n = 0; page->runs != NULL && page->started != NULL && n < page->run_count; n++)
        if (page->started[n])
            run_end(&page->runs[n]);
    PyMem_Free(page->runs);
    PyMem_Free(page->started);
    Py_CLEAR(page->left);
    Py_CLEAR(page->accepted);
}

static int page_start(Page *page, Emitter *emitter, int runs, int staged)
{
    memset(page, 0, sizeof(*page));
    page->emitter = emitter;
    page->run_count = runs;
    page->staged = staged;
    page->left = PyList_New(0);
    page->accepted = PyList_New(0);
    page->runs = PyMem_Calloc((size_t)runs + 1, sizeof(Run));
    page->started = PyMem_Calloc((size_t)runs + 1, sizeof(int));
    if (page->left && page->accepted && page->runs && page->started)
        return 1;
    page_end(page);
    if (!PyErr_Occurred())
        PyErr_NoMemory();
    return 0;
}

static Run *page_run(Page *page, int number, PyObject *program)
{
    Run *run = &page->runs[number];
    if (!page->started[number]) {
        page->started[number] = 1;
        if (!run_start(run, (const Program *)program, page->staged)) {
            PyErr_NoMemory();
            return NULL;
        }
    }
    return run;
}

/* The bytes of a text; of a text that is not ASCII Python remembers them. False: it has none. */
int utf8_of(PyObject *object, Text *text)
{
    Py_ssize_t size;
    if (!PyUnicode_CheckExact(object))
        return 0;
    const char *start = PyUnicode_AsUTF8AndSize(object, &size);
    if (start == NULL) {
        PyErr_Clear();
        return 0;
    }
    text->start = (const Byte *)start;
    text->size = (size_t)size;
    text->escaped = 0;
    return 1;
}

/* A key that is no field's address: what stands between a hash's key and its field (U+241F) is not in it. */
static int plain_key_of(PyObject *object, Text *text)
{
    static const Byte SEPARATOR[] = {0xE2, 0x90, 0x9F};
    if (!utf8_of(object, text))
        return 0;
    if (PyUnicode_IS_ASCII(object))
        return 1;
    for (size_t n = 0; n + sizeof(SEPARATOR) <= text->size; n++)
        if (memcmp(text->start + n, SEPARATOR, sizeof(SEPARATOR)) == 0)
            return 0;
    return 1;
}

/* Fill all but address and ordinal. False: it cannot be ours. */
static int look_into(const Emitter *emitter, const Program *program, PyObject *item, Incoming *incoming)
{
    PyObject *value = PyTuple_GET_ITEM(item, 1), *expires = PyTuple_GET_ITEM(item, 3);
    if (PyTuple_GET_ITEM(item, 2) != emitter->json || !PyBytes_CheckExact(value))
        return 0;
    incoming->data = (const Byte *)PyBytes_AS_STRING(value);
    incoming->size = (size_t)PyBytes_GET_SIZE(value);
    incoming->expires = expires != Py_None;
    incoming->expires_at_ms = 0;
    if (!incoming->expires)
        return 1;
    int overflow = 0;
    if (!program->takes_expiry || !PyLong_CheckExact(expires))
        return 0;
    incoming->expires_at_ms = PyLong_AsLongLongAndOverflow(expires, &overflow);
    return !overflow;
}

static int is_item(PyObject *item)
{
    return PyTuple_Check(item) && PyTuple_GET_SIZE(item) == 4;
}

/* Note an item whose rows were added, with its content hash. */
static int accept(Page *page, const Program *program, PyObject *item, Py_ssize_t ordinal)
{
    Emitter *emitter = page->emitter;
    PyTypeObject *type = (PyTypeObject *)emitter->accepted;
    PyObject *expires = PyTuple_GET_ITEM(item, 3);
    PyObject *number = PyLong_FromSsize_t(ordinal);
    PyObject *hash = expires == Py_None ? PyObject_CallOneArg(emitter->digest, PyTuple_GET_ITEM(item, 1))
                                        : PyObject_CallOneArg(emitter->content_hash, item);
    PyObject *made = number && hash ? type->tp_alloc(type, 5) : NULL;
    if (made == NULL) {
        Py_XDECREF(number);
        Py_XDECREF(hash);
        return 0;
    }
    PyTuple_SET_ITEM(made, 0, number);
    PyTuple_SET_ITEM(made, 1, Py_NewRef(PyTuple_GET_ITEM(item, 0)));
    PyTuple_SET_ITEM(made, 2, Py_NewRef(program->entity));
    PyTuple_SET_ITEM(made, 3, hash);
    PyTuple_SET_ITEM(made, 4, Py_NewRef(expires));
    int added = PyList_Append(page->accepted, made);
    Py_DECREF(made);
    return added == 0;
}

static int leave(Page *page, PyObject *what)
{
    int added = what == NULL ? -1 : PyList_Append(page->left, what);
    Py_XDECREF(what);
    return added == 0;
}

static PyObject *blocks_of(const Page *page)
{
    PyObject *blocks = PyList_New(0);
    for (int r = 0; blocks != NULL && r < page->run_count; r++) {
        const Run *run = &page->runs[r];
        for (int n = 0; page->started[r] && n < run->program->table_count; n++) {
            if (run->rows[n] == 0)
                continue;
            PyObject *block = Py_BuildValue("(Oy#nn)", PyTuple_GET_ITEM(run->program->names, n),
                                            (const char *)run->out[n].data, (Py_ssize_t)run->out[n].size,
                                            run->rows[n], (Py_ssize_t)run->rests[n].bytes);
            int added = block == NULL ? -1 : PyList_Append(blocks, block);
            Py_XDECREF(block);
            if (added < 0) {
                Py_DECREF(blocks);
                return NULL;
            }
        }
    }
    return blocks;
}

static PyObject *page_result(Page *page, int good)
{
    PyObject *blocks = good ? blocks_of(page) : NULL;
    PyObject *result = blocks ? PyTuple_Pack(3, page->left, page->accepted, blocks) : NULL;
    Py_XDECREF(blocks);
    page_end(page);
    return result;
}

/* Try an item whose captures stand in the run. 1: its rows were added. 0: it is not ours. -1: an error. */
static int try_item(Page *page, Run *run, PyObject *item, Incoming *incoming)
{
    if (!look_into(page->emitter, run->program, item, incoming))
        return 0;
    switch (run_item(run, incoming)) {
    case MINE:
        return accept(page, run->program, item, incoming->ordinal) ? 1 : -1;
    case NOT_MINE:
        return 0;
    default:
        PyErr_NoMemory();
        return -1;
    }
}

static int try_routed(Page *page, Run *run, PyObject *routed, PyObject *places, int derived)
{
    Incoming incoming = {.derived = derived};
    if (!PyTuple_Check(routed) || PyTuple_GET_SIZE(routed) != 3 || !is_item(PyTuple_GET_ITEM(routed, 1)) ||
        !PyTuple_Check(PyTuple_GET_ITEM(routed, 2))) {
        PyErr_SetString(PyExc_TypeError, "a group of something else than (ordinal, item, captures)");
        return 0;
    }
    PyObject *item = PyTuple_GET_ITEM(routed, 1), *captured = PyTuple_GET_ITEM(routed, 2);
    incoming.ordinal = PyLong_AsSsize_t(PyTuple_GET_ITEM(routed, 0));
    if (incoming.ordinal == -1 && PyErr_Occurred())
        return 0;
    int ours = utf8_of(PyTuple_GET_ITEM(item, 0), &incoming.address);
    for (Py_ssize_t n = 0; ours && n < PyTuple_GET_SIZE(places); n++) {
        Py_ssize_t place = PyLong_AsSsize_t(PyTuple_GET_ITEM(places, n));
        if (place < 0 || place >= PyTuple_GET_SIZE(captured)) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "a place that no capture has");
            return 0;
        }
        ours = utf8_of(PyTuple_GET_ITEM(captured, place), &run->captures[n]);
    }
    int done = ours ? try_item(page, run, item, &incoming) : 0;
    return done == 0 ? leave(page, Py_NewRef(routed)) : done > 0;
}

PyDoc_STRVAR(group_doc, "group(program, group, staged, derived, places)\n--\n\n"
                        "Return what is left of a group, what was accepted, and (table, rows, count, bytes in rest) of its tables.");

static PyObject *emitter_group(PyObject *self, PyObject *args)
{
    PyObject *number, *group, *places;
    Emitter *emitter = (Emitter *)self;
    Page page;
    int staged, derived;
    if (!PyArg_ParseTuple(args, "O!O!ppO!:group", &PyLong_Type, &number, &PyList_Type, &group, &staged, &derived,
                          &PyTuple_Type, &places))
        return NULL;
    Py_ssize_t at = PyLong_AsSsize_t(number);
    if (at < 0 || at >= PyTuple_GET_SIZE(emitter->programs)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_IndexError, "no such program");
        return NULL;
    }
    PyObject *program = PyTuple_GET_ITEM(emitter->programs, at);
    if (PyTuple_GET_SIZE(places) != ((Program *)program)->key_count) {
        PyErr_SetString(PyExc_ValueError, "a place is needed for each key");
        return NULL;
    }
    if (!page_start(&page, emitter, 1, staged))
        return NULL;
    Run *run = page_run(&page, 0, program);
    int good = run != NULL;
    for (Py_ssize_t n = 0; good && n < PyList_GET_SIZE(group); n++) {
        PyObject *routed = Py_NewRef(PyList_GET_ITEM(group, n));
        good = try_routed(&page, run, routed, places, derived);
        Py_DECREF(routed);
    }
    return page_result(&page, good);
}

static int try_keyed(Page *page, PyObject *item, Py_ssize_t ordinal)
{
    Emitter *emitter = page->emitter;
    Text captures[MAX_SEGMENTS];
    Incoming incoming = {.ordinal = ordinal};
    const Template *template = NULL;
    if (!is_item(item)) {
        PyErr_SetString(PyExc_TypeError, "a page of something else than items");
        return 0;
    }
    if (plain_key_of(PyTuple_GET_ITEM(item, 0), &incoming.address))
        template = route_find(&emitter->routes, &page->last_head, &incoming.address, captures);
    int done = 0;
    if (template != NULL) {
        PyObject *program = PyTuple_GET_ITEM(emitter->programs, template->program);
        Run *run = page_run(page, template->program, program);
        if (run == NULL)
            return 0;
        for (int n = 0; n < run->program->key_count; n++)
            run->captures[n] = captures[template->places[n]];
        incoming.derived = template->derived;
        done = try_item(page, run, item, &incoming);
    }
    return done == 0 ? leave(page, Py_BuildValue("(nO)", ordinal, item)) : done > 0;
}

PyDoc_STRVAR(page_doc, "page(items, staged)\n--\n\n"
                       "Return (ordinal, item) of what is left, what was accepted, and (table, rows, count, bytes in rest) of the tables.");

static PyObject *emitter_page(PyObject *self, PyObject *args)
{
    PyObject *items;
    Page page;
    int staged;
    if (!PyArg_ParseTuple(args, "Op:page", &items, &staged))
        return NULL;
    PyObject *fast = PySequence_Fast(items, "a page is a sequence of items");
    if (fast == NULL)
        return NULL;
    if (!page_start(&page, (Emitter *)self, (int)PyTuple_GET_SIZE(((Emitter *)self)->programs), staged)) {
        Py_DECREF(fast);
        return NULL;
    }
    int good = 1;
    for (Py_ssize_t n = 0; good && n < PySequence_Fast_GET_SIZE(fast); n++) {
        PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(fast, n));
        good = try_keyed(&page, item, n);
        Py_DECREF(item);
    }
    Py_DECREF(fast);
    return page_result(&page, good);
}

PyDoc_STRVAR(takes_doc, "takes(keys)\n--\n\n"
                        "Return whether `page` tells of every one of these keys which entity it belongs to.");

static PyObject *emitter_takes(PyObject *self, PyObject *keys)
{
    const Emitter *emitter = (Emitter *)self;
    Text captures[MAX_SEGMENTS], key;
    int last_head = 0;
    if (!PyList_Check(keys))
        return PyErr_Format(PyExc_TypeError, "keys are a list");
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(keys); n++)
        if (!plain_key_of(PyList_GET_ITEM(keys, n), &key) ||
            route_find(&emitter->routes, &last_head, &key, captures) == NULL)
            Py_RETURN_FALSE;
    Py_RETURN_TRUE;
}

static PyObject *emitter_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *programs, *json, *accepted, *digest, *content_hash, *heads;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0)
        return PyErr_Format(PyExc_TypeError, "Emitter takes no names");
    if (!PyArg_ParseTuple(args, "O!OO!OOO!:Emitter", &PyTuple_Type, &programs, &json, &PyType_Type, &accepted, &digest,
                          &content_hash, &PyTuple_Type, &heads))
        return NULL;
    PyTypeObject *program_type = PyType_GetModuleState(type) ? *(PyTypeObject **)PyType_GetModuleState(type) : NULL;
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(programs); n++)
        if (program_type == NULL || !Py_IS_TYPE(PyTuple_GET_ITEM(programs, n), program_type))
            return PyErr_Format(PyExc_TypeError, "an emitter of something else than programs");
    if (!PyType_IsSubtype((PyTypeObject *)accepted, &PyTuple_Type) ||
        ((PyTypeObject *)accepted)->tp_itemsize != (Py_ssize_t)sizeof(PyObject *))
        return PyErr_Format(PyExc_TypeError, "what is accepted becomes a tuple");
    Emitter *emitter = (Emitter *)type->tp_alloc(type, 0);
    if (emitter == NULL)
        return NULL;
    emitter->programs = Py_NewRef(programs);
    emitter->spec = Py_NewRef(heads);
    emitter->json = Py_NewRef(json);
    emitter->accepted = Py_NewRef(accepted);
    emitter->digest = Py_NewRef(digest);
    emitter->content_hash = Py_NewRef(content_hash);
    if (routes_read(&emitter->routes, heads, programs))
        return (PyObject *)emitter;
    Py_DECREF(emitter);
    return NULL;
}

static int emitter_traverse(PyObject *self, visitproc visit, void *arg)
{
    Emitter *emitter = (Emitter *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(emitter->programs);
    Py_VISIT(emitter->json);
    Py_VISIT(emitter->accepted);
    Py_VISIT(emitter->digest);
    Py_VISIT(emitter->content_hash);
    return 0;
}

static void emitter_dealloc(PyObject *self)
{
    Emitter *emitter = (Emitter *)self;
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    routes_free(&emitter->routes);
    Py_XDECREF(emitter->programs);
    Py_XDECREF(emitter->spec);
    Py_XDECREF(emitter->json);
    Py_XDECREF(emitter->accepted);
    Py_XDECREF(emitter->digest);
    Py_XDECREF(emitter->content_hash);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef emitter_methods[] = {
    {"group", emitter_group, METH_VARARGS, group_doc},
    {"page", emitter_page, METH_VARARGS, page_doc},
    {"takes", emitter_takes, METH_O, takes_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot emitter_slots[] = {
    {Py_tp_doc, "Emits plain items: Emitter(programs, json, accepted, digest, content_hash, heads)."},
    {Py_tp_new, emitter_new},
    {Py_tp_dealloc, emitter_dealloc},
    {Py_tp_traverse, emitter_traverse},
    {Py_tp_methods, emitter_methods},
    {0, NULL},
};

static PyType_Spec emitter_spec = {
    .name = "kvmigrate.transform.lens._emit.Emitter",
    .basicsize = sizeof(Emitter),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = emitter_slots,
};

/* The module's state: the type of programs, which an emitter must know. */
static PyTypeObject **state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

static int module_exec(PyObject *module)
{
    PyObject *program = PyType_FromModuleAndSpec(module, &program_spec, NULL);
    if (program == NULL)
        return -1;
    *state_of(module) = (PyTypeObject *)program;
    PyObject *emitter = PyType_FromModuleAndSpec(module, &emitter_spec, NULL);
    if (emitter == NULL)
        return -1;
    int failed = PyModule_AddIntConstant(module, "LAYOUT", LAYOUT) < 0 ||
                 PyModule_AddObjectRef(module, "Program", program) < 0 ||
                 PyModule_AddObjectRef(module, "Emitter", emitter) < 0;
    Py_DECREF(emitter);
    return failed ? -1 : 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    Py_VISIT(*state_of(module));
    return 0;
}

static int module_clear(PyObject *module)
{
    Py_CLEAR(*state_of(module));
    return 0;
}

static void module_free(void *module)
{
    module_clear((PyObject *)module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static PyMethodDef module_methods[] = {
    {"ledger_rows", ledger_rows, METH_VARARGS, ledger_rows_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_emit",
    .m_doc = "Plain items to rows, several times as fast as generated Python, and the same to the last byte.",
    .m_size = sizeof(PyTypeObject *),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__emit(void)
{
    return PyModuleDef_Init(&module_def);
}
