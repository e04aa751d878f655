/* Two JSON values as Python has them: whether they are surely equal. No code of Python runs meanwhile. */
#include "walk.h"

static int is_plain(PyObject *value, PyTypeObject *decimal)
{
    return PyUnicode_CheckExact(value) || PyLong_CheckExact(value) || PyBool_Check(value) || value == Py_None ||
           Py_TYPE(value) == decimal;
}

static int same_dicts(PyObject *left, PyObject *right, PyTypeObject *decimal, int depth)
{
    PyObject *name, *value;
    Py_ssize_t place = 0;
    if (PyDict_GET_SIZE(left) != PyDict_GET_SIZE(right))
        return 0;
    while (PyDict_Next(left, &place, &name, &value)) {
        if (!PyUnicode_CheckExact(name))
            return 0;
        PyObject *rival = PyDict_GetItemWithError(right, name);
        if (rival == NULL)
            return PyErr_Occurred() ? -1 : 0;
        int same = surely_same(value, rival, decimal, depth + 1);
        if (same != 1)
            return same;
    }
    return 1;
}

static int same_lists(PyObject *left, PyObject *right, PyTypeObject *decimal, int depth)
{
    if (PyList_GET_SIZE(left) != PyList_GET_SIZE(right))
        return 0;
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(left); n++) {
        int same = surely_same(PyList_GET_ITEM(left, n), PyList_GET_ITEM(right, n), decimal, depth + 1);
        if (same != 1)
            return same;
    }
    return 1;
}

/* 1: they are, 0: who knows, -1: an exception is set. */
int surely_same(PyObject *left, PyObject *right, PyTypeObject *decimal, int depth)
{
    if (Py_TYPE(left) != Py_TYPE(right) || depth > MAX_DEPTH)
        return 0;
    if (PyDict_CheckExact(left))
        return same_dicts(left, right, decimal, depth);
    if (PyList_CheckExact(left))
        return same_lists(left, right, decimal, depth);
    return is_plain(left, decimal) ? PyObject_RichCompareBool(left, right, Py_EQ) : 0;
}
