/* The module: a program for each entity. */
#include "walk.h"

static int module_exec(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &program_spec, NULL);
    if (type == NULL)
        return -1;
    int added = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return added < 0 ? -1 : PyModule_AddIntConstant(module, "LAYOUT", LAYOUT);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "kvmigrate.consistency._walk",
    .m_doc = "Compares plain items with their rows, or does not know.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__walk(void)
{
    return PyModuleDef_Init(&module_def);
}
