/* Rows of accepted items that have the same fields but for key, content hash and entity, as binary COPY has them. */
#include "emit.h"

#define ACCEPTED_FIELDS 5

const char ledger_rows_doc[] = "ledger_rows(accepted, start, middles, end)\n--\n\n"
                               "Return for each accepted item: start, its key, the middle of its entity, its content "
                               "hash, end. None: an item expires, so that its end is another one.";

static int add_object(Buffer *out, PyObject *bytes)
{
    if (buffer_add(out, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)))
        return 1;
    PyErr_NoMemory();
    return 0;
}

static int add_key(Buffer *out, PyObject *object)
{
    Text key;
    Byte size[4];
    if (!utf8_of(object, &key)) {
        PyErr_SetString(PyExc_ValueError, "a key that is no UTF-8");
        return 0;
    }
    put_32(size, (uint32_t)key.size);
    if (key.size <= INT32_MAX && buffer_add(out, size, 4) && buffer_add(out, key.start, key.size))
        return 1;
    PyErr_NoMemory();
    return 0;
}

/* 1: the row was added. 0: the item expires. -1: an error. */
static int add_row(Buffer *out, PyObject *item, PyObject *start, PyObject *middles, PyObject *end)
{
    if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != ACCEPTED_FIELDS ||
        !PyBytes_CheckExact(PyTuple_GET_ITEM(item, 3))) {
        PyErr_SetString(PyExc_TypeError, "something else than an accepted item");
        return -1;
    }
    if (PyTuple_GET_ITEM(item, 4) != Py_None)
        return 0;
    PyObject *middle = PyDict_GetItemWithError(middles, PyTuple_GET_ITEM(item, 2));
    if (middle == NULL || !PyBytes_CheckExact(middle)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_KeyError, "an entity without a middle");
        return -1;
    }
    int good = add_object(out, start) && add_key(out, PyTuple_GET_ITEM(item, 1)) && add_object(out, middle) &&
               add_object(out, PyTuple_GET_ITEM(item, 3)) && add_object(out, end);
    return good ? 1 : -1;
}

PyObject *ledger_rows(PyObject *module, PyObject *args)
{
    PyObject *accepted, *start, *middles, *end;
    Buffer out = {0};
    int done = 1;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!O!O!O!:ledger_rows", &PyList_Type, &accepted, &PyBytes_Type, &start, &PyDict_Type,
                          &middles, &PyBytes_Type, &end))
        return NULL;
    for (Py_ssize_t n = 0; done == 1 && n < PyList_GET_SIZE(accepted); n++) {
        PyObject *item = Py_NewRef(PyList_GET_ITEM(accepted, n));
        done = add_row(&out, item, start, middles, end);
        Py_DECREF(item);
    }
    PyObject *found = NULL;
    if (done == 1)
        found = PyBytes_FromStringAndSize((const char *)out.data, (Py_ssize_t)out.size);
    else if (done == 0)
        found = Py_NewRef(Py_None);
    PyMem_RawFree(out.data);
    return found;
}
