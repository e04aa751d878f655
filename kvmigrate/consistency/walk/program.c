/* An entity's plan, copied from tuples and checked: whatever runs it may trust every number in it. */
#include "walk.h"

static int wrong(const char *what)
{
    if (!PyErr_Occurred())
        PyErr_Format(PyExc_ValueError, "a program whose %s is wrong", what);
    return 0;
}

static void *room_for(Py_ssize_t count, size_t size)
{
    void *made = PyMem_Calloc(count ? (size_t)count : 1, size);
    if (made == NULL)
        PyErr_NoMemory();
    return made;
}

static PyObject *tuple_in(PyObject *tuple, Py_ssize_t place)
{
    PyObject *found = PyTuple_GET_ITEM(tuple, place);
    return PyTuple_Check(found) && PyTuple_GET_SIZE(found) <= INT16_MAX ? found : NULL;
}

static int read_column(Program *program, int number, Column *column, PyObject *spec)
{
    Table *table = &program->tables[number];
    int role, kind;
    long long unit;
    if (!PyArg_ParseTuple(spec, "iippiLO!;a column", &role, &kind, &column->array, &column->nullable, &column->source,
                          &unit, &PyTuple_Type, &column->choices))
        return 0;
    if (role < 0 || role >= ROLES || kind < 0 || kind >= KINDS || unit < 1 || unit > 1000000)
        return wrong("column");
    column->role = (Role)role;
    column->kind = (Kind)kind;
    column->unit = unit;
    int limit = role == OF_KEY      ? (number == 0 ? (int)PyTuple_GET_SIZE(program->captures) : 0)
                : role == OF_PARENT ? (number > 0 ? program->tables[table->parent].columns : 0)
                : role == OF_TENANT ? program->tables[0].columns
                                    : 1;
    if (column->source < 0 || column->source >= limit)
        return wrong("source");
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(column->choices); n++)
        if (!PyBytes_CheckExact(PyTuple_GET_ITEM(column->choices, n)))
            return wrong("choice");
    return 1;
}

static int read_table(Program *program, int number, PyObject *spec)
{
    Table *table = &program->tables[number];
    PyObject *columns;
    if (!PyArg_ParseTuple(spec, "iiiiO!;a table", &table->parent, &table->node, &table->whole, &table->place,
                          &PyTuple_Type, &columns))
        return 0;
    Py_ssize_t count = PyTuple_GET_SIZE(columns);
    int is_value = table->whole >= 0;
    if (count < 1 || count > 1600 || (number == 0 ? table->parent != -1 : table->parent < 0) ||
        table->parent >= number || table->whole < -1 || table->whole >= count || (is_value && number == 0) ||
        (is_value ? table->node != -1 : table->node < 0 || table->node >= program->node_count) ||
        (number == 0 ? table->place != -1 : table->place < 0 || table->place >= count))
        return wrong("table");
    table->column = room_for(count, sizeof(Column));
    table->fields = room_for(count, sizeof(Text));
    if (table->column == NULL || table->fields == NULL)
        return 0;
    table->columns = (int)count;
    for (Py_ssize_t n = 0; n < count; n++) {
        PyObject *column = tuple_in(columns, n);
        if (column == NULL || !read_column(program, number, &table->column[n], column))
            return wrong("column");
    }
    if (number > 0 && table->column[table->place].role != OF_PLACE)
        return wrong("place");
    return !is_value || table->column[table->whole].role == OF_MEMBER || wrong("value");
}

/* owners: by node, the table whose members it has, or -1. Each node is reached once, so no walk can go in circles. */
static int read_member(Program *program, int node, Member *member, PyObject *spec, int *owners, int *met)
{
    PyObject *name;
    int target, owner = owners[node];
    if (!PyArg_ParseTuple(spec, "Sii;a member", &name, &target, &member->number))
        return 0;
    member->name = (const Byte *)PyBytes_AS_STRING(name);
    member->size = (size_t)PyBytes_GET_SIZE(name);
    if (target < 0 || target >= TARGETS)
        return wrong("member");
    member->target = (Target)target;
    const Table *table = &program->tables[owner];
    int number = member->number;
    if (member->target == TO_OBJECT) {
        if (number <= node || number >= program->node_count || owners[number] != -1)
            return wrong("object");
        owners[number] = owner;
        return 1;
    }
    if (member->target == TO_LIST || member->target == TO_MAP) {
        if (number <= owner || number >= program->table_count || program->tables[number].parent != owner ||
            met[number]++)
            return wrong("child");
        return 1;
    }
    if (number < 0 || number >= table->columns)
        return wrong("member");
    return table->column[number].role == (target == TO_KEY ? OF_KEY : OF_MEMBER) || wrong("member");
}

static int read_nodes(Program *program, PyObject *nodes, int *owners, int *met)
{
    for (int n = 0; n < program->node_count; n++)
        owners[n] = -1;
    for (int n = 0; n < program->table_count; n++) {
        int node = program->tables[n].node;
        if (node < 0)
            continue;
        if (owners[node] != -1)
            return wrong("node");
        owners[node] = n;
    }
    for (int n = 0; n < program->node_count; n++) {
        PyObject *members = tuple_in(nodes, n);
        Node *node = &program->nodes[n];
        if (members == NULL || owners[n] == -1)
            return wrong("node");
        node->members = room_for(PyTuple_GET_SIZE(members), sizeof(Member));
        if (node->members == NULL)
            return 0;
        node->count = (int)PyTuple_GET_SIZE(members);
        for (int m = 0; m < node->count; m++) {
            PyObject *member = tuple_in(members, m);
            if (member == NULL || !read_member(program, n, &node->members[m], member, owners, met))
                return wrong("member");
        }
    }
    return 1;
}

static int read_keys(Program *program, PyObject *keys)
{
    program->key_count = (int)PyTuple_GET_SIZE(keys);
    for (int n = 0; n < program->key_count; n++) {
        PyObject *spec = tuple_in(keys, n);
        KeyColumn *key = &program->keys[n];
        int kind;
        if (spec == NULL || !PyArg_ParseTuple(spec, "iii;a key", &kind, &key->bytes, &key->capture))
            return wrong("key");
        if ((kind != TEXT && kind != ENUM && kind != UUID && kind != INTEGER) || key->bytes < 0 || key->bytes > 8 ||
            key->capture < 0 || key->capture >= PyTuple_GET_SIZE(program->captures))
            return wrong("key");
        key->kind = (Kind)kind;
    }
    return 1;
}

static int read_program(Program *program, PyObject *tables, PyObject *nodes, PyObject *keys)
{
    Py_ssize_t table_count = PyTuple_GET_SIZE(tables), node_count = PyTuple_GET_SIZE(nodes);
    if (table_count < 1 || table_count > INT16_MAX || node_count > INT16_MAX || PyTuple_GET_SIZE(keys) < 1 ||
        PyTuple_GET_SIZE(keys) > MAX_KEY_COLUMNS || PyTuple_GET_SIZE(program->captures) > INT16_MAX)
        return wrong("size");
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(program->captures); n++)
        if (!PyUnicode_CheckExact(PyTuple_GET_ITEM(program->captures, n)))
            return wrong("capture");
    program->tables = room_for(table_count, sizeof(Table));
    program->nodes = room_for(node_count, sizeof(Node));
    if (program->tables == NULL || program->nodes == NULL)
        return 0;
    program->table_count = (int)table_count;
    program->node_count = (int)node_count;
    for (int n = 0; n < program->table_count; n++) {
        PyObject *table = tuple_in(tables, n);
        if (table == NULL || !read_table(program, n, table))
            return wrong("table");
    }
    int *owners = room_for(node_count, sizeof(int)), *met = room_for(table_count, sizeof(int));
    int good = owners != NULL && met != NULL && read_nodes(program, nodes, owners, met) && read_keys(program, keys);
    PyMem_Free(owners);
    PyMem_Free(met);
    return good;
}

static PyObject *program_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *tables, *nodes, *keys, *captures;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0)
        return PyErr_Format(PyExc_TypeError, "Program takes no names");
    if (!PyArg_ParseTuple(args, "O!O!O!O!:Program", &PyTuple_Type, &tables, &PyTuple_Type, &nodes, &PyTuple_Type,
                          &keys, &PyTuple_Type, &captures))
        return NULL;
    Program *program = (Program *)type->tp_alloc(type, 0);
    if (program == NULL)
        return NULL;
    program->spec = Py_NewRef(args);
    program->captures = Py_NewRef(captures);
    if (read_program(program, tables, nodes, keys))
        return (PyObject *)program;
    Py_DECREF(program);
    return NULL;
}

static void program_dealloc(PyObject *self)
{
    Program *program = (Program *)self;
    PyTypeObject *type = Py_TYPE(self);
    for (int n = 0; n < program->table_count; n++) {
        PyMem_Free(program->tables[n].column);
        PyMem_Free(program->tables[n].fields);
    }
    for (int n = 0; n < program->node_count; n++)
        PyMem_Free(program->nodes[n].members);
    PyMem_Free(program->tables);
    PyMem_Free(program->nodes);
    PyMem_Free(program->work.scratch.data);
    PyMem_Free(program->work.more.data);
    PyMem_Free(program->work.entries);
    Py_XDECREF(program->spec);
    Py_XDECREF(program->captures);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *agreeing(PyObject *self, PyObject *args)
{
    Program *program = (Program *)self;
    PyObject *items, *captured, *blobs;
    if (!PyArg_ParseTuple(args, "O!O!O!:agreeing", &PyList_Type, &items, &PyList_Type, &captured, &PyTuple_Type,
                          &blobs))
        return NULL;
    Page page = {0};
    Py_ssize_t count = PyList_GET_SIZE(items);
    PyObject *found = page_of(program, items, captured, blobs, &page) ? PyList_New(count) : NULL;
    for (Py_ssize_t n = 0; found != NULL && n < count; n++) {
        PyObject *value = PyTuple_GET_ITEM(PyList_GET_ITEM(items, n), 1);
        Answer same = same_item(program, &page, (int)n, (const Byte *)PyBytes_AS_STRING(value),
                                (size_t)PyBytes_GET_SIZE(value));
        if (same == FAILED)
            Py_CLEAR(found);
        else
            PyList_SET_ITEM(found, n, Py_NewRef(same == YES ? Py_True : Py_False));
    }
    page_free(program, &page);
    return found;
}

static PyMethodDef program_methods[] = {
    {"agreeing", agreeing, METH_VARARGS, "Whether the rows of each item certainly tell the same."},
    {0},
};

static PyType_Slot program_slots[] = {
    {Py_tp_doc, "How one entity's items and rows are compared: Program(tables, nodes, keys, captures)."},
    {Py_tp_new, program_new},
    {Py_tp_dealloc, program_dealloc},
    {Py_tp_methods, program_methods},
    {0, NULL},
};

PyType_Spec program_spec = {
    .name = "kvmigrate.consistency._walk.Program",
    .basicsize = sizeof(Program),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = program_slots,
};
