/* The module: a program for each entity, and a comparison of values. */
#include "walk.h"

static PyObject *same(PyObject *module, PyObject *const *values, Py_ssize_t count)
{
    PyTypeObject **decimal = PyModule_GetState(module);
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "same takes two values");
    int found = surely_same(values[0], values[1], *decimal, 0);
    return found < 0 ? NULL : PyBool_FromLong(found);
}

static int module_exec(PyObject *module)
{
    PyTypeObject **state = PyModule_GetState(module);
    PyObject *numbers = PyImport_ImportModule("decimal");
    PyObject *decimal = numbers ? PyObject_GetAttrString(numbers, "Decimal") : NULL;
    Py_XDECREF(numbers);
    if (decimal == NULL)
        return -1;
    *state = (PyTypeObject *)decimal;
    PyObject *type = PyType_FromModuleAndSpec(module, &program_spec, NULL);
    if (type == NULL)
        return -1;
    int added = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return added < 0 ? -1 : PyModule_AddIntConstant(module, "LAYOUT", LAYOUT);
}

static void module_free(void *module)
{
    PyTypeObject **state = PyModule_GetState(module);
    if (state != NULL)
        Py_CLEAR(*state);
}

static PyMethodDef module_methods[] = {
    {"same", (PyCFunction)(void (*)(void))same, METH_FASTCALL, "Whether two JSON values are surely equal."},
    {0},
};

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kvmigrate.consistency._walk",
    .m_doc = "Compares plain items with their rows, or does not know.",
    .m_size = sizeof(PyTypeObject *),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__walk(void)
{
    return PyModuleDef_Init(&module_def);
}
