#include <Python.h>

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", "", -1, nullptr};
PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&module); }
