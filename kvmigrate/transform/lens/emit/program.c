/* An entity's plan, copied from tuples and checked: whatever runs it may trust every number in it. */
#include "emit.h"

static void *make_array(Py_ssize_t count, size_t size)
{
    void *made = PyMem_Calloc(count ? (size_t)count : 1, size);
    if (made == NULL)
        PyErr_NoMemory();
    return made;
}

static int wrong(const char *what)
{
    PyErr_Format(PyExc_ValueError, "a program whose %s is wrong", what);
    return 0;
}

/* The items of a tuple, which stays alive as part of the spec. */
static PyObject *tuple_at(PyObject *tuple, Py_ssize_t position, const char *what)
{
    PyObject *found = PyTuple_GET_ITEM(tuple, position);
    if (!PyTuple_Check(found) || PyTuple_GET_SIZE(found) > INT16_MAX) {
        wrong(what);
        return NULL;
    }
    return found;
}

static int read_choices(Column *column, PyObject *values)
{
    Py_ssize_t count = PyTuple_GET_SIZE(values);
    column->choices = make_array(count, sizeof(Choice));
    if (column->choices == NULL)
        return 0;
    for (Py_ssize_t n = 0; n < count; n++) {
        PyObject *value = PyTuple_GET_ITEM(values, n);
        if (!PyBytes_CheckExact(value) || PyBytes_GET_SIZE(value) > MAX_TEXT_BYTES)
            return wrong("value");
        column->choices[n].start = PyBytes_AS_STRING(value);
        column->choices[n].size = (size_t)PyBytes_GET_SIZE(value);
    }
    column->choice_count = (int)count;
    return 1;
}

static int read_column(Program *program, int table, PyObject *spec)
{
    Column *column = &program->columns[program->column_count++];
    const Table *owner = &program->tables[table];
    int source, kind;
    unsigned int oid;
    PyObject *values;
    if (!PyArg_ParseTuple(spec, "iippiiiiIO!;a column", &source, &column->source_arg, &column->required,
                          &column->array, &kind, &column->whole, &column->fraction, &column->factor, &oid,
                          &PyTuple_Type, &values))
        return 0;
    if (source < FROM_MEMBER || source > FROM_NOTHING || kind < TEXT || kind >= KINDS || column->factor < 1)
        return wrong("column");
    column->source = (Source)source;
    column->kind = (Kind)kind;
    column->oid = oid;
    int at_root = column->source == FROM_KEY || column->source == FROM_EXPIRY;
    if (at_root && table != 0)
        return wrong("column");
    if (column->source == FROM_KEY) {
        int known = kind == TEXT || kind == UUID || kind == SMALLINT || kind == INTEGER || kind == BIGINT;
        if (!known || column->source_arg < 0 || column->source_arg >= program->key_count)
            return wrong("key");
    }
    if (column->source == FROM_ORDINAL && (table == 0 || kind < SMALLINT || kind > BIGINT))
        return wrong("ordinal");
    if (column->source == FROM_PARENT &&
        (table == 0 || column->source_arg < 0 || column->source_arg >= program->tables[owner->parent].columns))
        return wrong("parent");
    return read_choices(column, values);
}

static int read_table(Program *program, int number, PyObject *spec)
{
    Table *table = &program->tables[number];
    PyObject *columns;
    if (!PyArg_ParseTuple(spec, "iiiiO!;a table", &table->parent, &table->node, &table->whole, &table->rest,
                          &PyTuple_Type, &columns))
        return 0;
    Py_ssize_t count = PyTuple_GET_SIZE(columns);
    if (count < 1 || count > 1600 || (number == 0) != (table->parent == -1) || table->parent >= number ||
        table->parent < -1)
        return wrong("table");
    table->first_column = program->column_count;
    table->columns = (int)count;
    int scalar = table->whole >= 0;
    if (scalar ? table->node != -1 || number == 0 || table->whole >= count
               : table->node < 0 || table->node >= program->node_count || table->whole != -1)
        return wrong("table");
    if (table->rest < -1 || table->rest >= count || (scalar && table->rest != -1))
        return wrong("rest");
    for (Py_ssize_t n = 0; n < count; n++) {
        PyObject *column = tuple_at(columns, n, "column");
        if (column == NULL || !read_column(program, number, column))
            return 0;
    }
    const Column *own = program->columns + table->first_column;
    if (table->rest >= 0 && own[table->rest].source != FROM_NOTHING)
        return wrong("rest");
    return !scalar || own[table->whole].source == FROM_MEMBER || wrong("table");
}

static int read_tables(Program *program, PyObject *tables)
{
    Py_ssize_t columns = 0;
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(tables); n++) {
        PyObject *table = tuple_at(tables, n, "table");
        PyObject *last = table && PyTuple_GET_SIZE(table) == 5 ? tuple_at(table, 4, "table") : NULL;
        if (last == NULL)
            return PyErr_Occurred() ? 0 : wrong("table");
        columns += PyTuple_GET_SIZE(last);
    }
    program->columns = make_array(columns, sizeof(Column));
    program->tables = make_array(PyTuple_GET_SIZE(tables), sizeof(Table));
    if (program->columns == NULL || program->tables == NULL)
        return 0;
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(tables); n++)
        if (!read_table(program, program->table_count++, PyTuple_GET_ITEM(tables, n)))
            return 0;
    return program->table_count > 0 || wrong("table");
}

/* owners: by node, the table whose members it has, or -1. */
static int check_member(Program *program, const Member *member, int node, int *owners)
{
    int owner = owners[node], number = member->number;
    const Table *table = &program->tables[owner];
    switch (member->target) {
    case TO_OBJECT:
        if (number <= node || number >= program->node_count || owners[number] != -1)
            return wrong("object");
        owners[number] = owner;
        return 1;
    case TO_CHILD:
        if (number <= 0 || number >= program->table_count || program->tables[number].parent != owner ||
            table->node != node)
            return wrong("child");
        return 1;
    default:
        if (number < 0 || number >= table->columns)
            return wrong("member");
        Source wanted = member->target == TO_KEY ? FROM_KEY : FROM_MEMBER;
        program->repeated_keys += member->target == TO_KEY;
        return program->columns[table->first_column + number].source == wanted || wrong("member");
    }
}

static int read_node(Program *program, int number, PyObject *members, int *owners)
{
    Node *node = &program->nodes[number];
    node->first = program->member_count;
    node->count = (int)PyTuple_GET_SIZE(members);
    if (owners[number] == -1)
        return wrong("node");
    for (int n = 0; n < node->count; n++) {
        Member *member = &program->members[program->member_count++];
        PyObject *spec = tuple_at(members, n, "member"), *name;
        int target;
        if (spec == NULL || !PyArg_ParseTuple(spec, "Sii;a member", &name, &target, &member->number))
            return 0;
        member->name = PyBytes_AS_STRING(name);
        member->size = (size_t)PyBytes_GET_SIZE(name);
        if (target < TO_COLUMN || target > TO_CHILD || member->size > MAX_TEXT_BYTES)
            return wrong("member");
        member->target = (Target)target;
        if (!check_member(program, member, number, owners))
            return 0;
    }
    return 1;
}

static int read_nodes(Program *program, PyObject *nodes)
{
    Py_ssize_t members = 0;
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(nodes); n++) {
        PyObject *node = tuple_at(nodes, n, "node");
        if (node == NULL)
            return 0;
        members += PyTuple_GET_SIZE(node);
    }
    program->nodes = make_array(program->node_count, sizeof(Node));
    program->members = make_array(members, sizeof(Member));
    int *owners = make_array(program->node_count, sizeof(int));
    int good = program->nodes != NULL && program->members != NULL && owners != NULL;
    for (int n = 0; good && n < program->node_count; n++)
        owners[n] = -1;
    for (int n = 0; good && n < program->table_count; n++) {
        int node = program->tables[n].node;
        if (node < 0)
            continue;
        good = owners[node] == -1 || wrong("node");
        owners[node] = n;
    }
    for (int n = 0; good && n < program->node_count; n++)
        good = read_node(program, n, PyTuple_GET_ITEM(nodes, n), owners);
    PyMem_Free(owners);
    return good;
}

static PyObject *program_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *tables, *nodes, *names, *entity;
    int keys, takes_expiry, owned;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) > 0)
        return PyErr_Format(PyExc_TypeError, "Program takes no names");
    if (!PyArg_ParseTuple(args, "O!O!O!Oipp:Program", &PyTuple_Type, &tables, &PyTuple_Type, &nodes, &PyTuple_Type,
                          &names, &entity, &keys, &takes_expiry, &owned))
        return NULL;
    Program *program = (Program *)type->tp_alloc(type, 0);
    if (program == NULL)
        return NULL;
    program->spec = Py_NewRef(args);
    program->names = Py_NewRef(names);
    program->entity = Py_NewRef(entity);
    program->key_count = keys;
    program->takes_expiry = takes_expiry;
    program->owned = owned;
    program->node_count = (int)(PyTuple_GET_SIZE(nodes) <= INT16_MAX ? PyTuple_GET_SIZE(nodes) : 0);
    if (keys < 0 || keys > MAX_CAPTURES || PyTuple_GET_SIZE(names) != PyTuple_GET_SIZE(tables) ||
        PyTuple_GET_SIZE(tables) > INT16_MAX)
        wrong("size");
    else if (read_tables(program, tables) && read_nodes(program, nodes))
        return (PyObject *)program;
    Py_DECREF(program);
    return NULL;
}

static void program_dealloc(PyObject *self)
{
    Program *program = (Program *)self;
    PyTypeObject *type = Py_TYPE(self);
    if (program->columns != NULL)
        for (int n = 0; n < program->column_count; n++)
            PyMem_Free(program->columns[n].choices);
    PyMem_Free(program->columns);
    PyMem_Free(program->tables);
    PyMem_Free(program->nodes);
    PyMem_Free(program->members);
    Py_XDECREF(program->spec);
    Py_XDECREF(program->names);
    Py_XDECREF(program->entity);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot program_slots[] = {
    {Py_tp_doc, "How one entity's plain items become rows: Program(tables, nodes, names, entity, keys, takes_expiry, owned)."},
    {Py_tp_new, program_new},
    {Py_tp_dealloc, program_dealloc},
    {0, NULL},
};

PyType_Spec program_spec = {
    .name = "kvmigrate.transform.lens._emit.Program",
    .basicsize = sizeof(Program),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = program_slots,
};
