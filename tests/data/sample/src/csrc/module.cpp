// A Python module of whatever name the build gives it.
#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)
#define INIT_OF(name) PyInit_##name
#define INIT(name) INIT_OF(name)

#include <Python.h>

static PyModuleDef module = {PyModuleDef_HEAD_INIT, TEXT(NAME), nullptr, -1, nullptr};

PyMODINIT_FUNC INIT(NAME)() { return PyModule_Create(&module); }
