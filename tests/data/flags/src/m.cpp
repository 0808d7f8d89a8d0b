#if __cplusplus < 202002L
#error C++20
#endif
#include <Python.h>
static PyModuleDef d = {PyModuleDef_HEAD_INIT, "_C", 0, -1, 0};
extern "C" PyObject *PyInit__C() { return PyModule_Create(&d); }
