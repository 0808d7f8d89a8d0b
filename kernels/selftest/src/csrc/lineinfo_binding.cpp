// fatwheel_selftest._lineinfo: a plain extension module without torch, as projects have them that
// pass addresses. Each function takes (x, y, n, stream) as integers; y is written.

#include <Python.h>

#include "launchers.h"

namespace {

using Launcher = cudaError_t (*)(const float*, float*, int, cudaStream_t);

template <Launcher launch>
PyObject* call(PyObject*, PyObject* arguments) {
    unsigned long long x, y, stream;
    int n;
    if (!PyArg_ParseTuple(arguments, "KKiK", &x, &y, &n, &stream)) return nullptr;
    cudaError_t error =
        launch(reinterpret_cast<const float*>(x), reinterpret_cast<float*>(y), n,
               reinterpret_cast<cudaStream_t>(stream));
    if (error != cudaSuccess)
        return PyErr_Format(PyExc_RuntimeError, "CUDA: %s (%s)", cudaGetErrorString(error),
                            cudaGetErrorName(error));
    Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"reversed", call<&selftest::reversed>, METH_VARARGS, "y[i] = x[n - 1 - i]"},
    {"scaled", call<&selftest::scaled>, METH_VARARGS, "y[i] = x[i] * 3"},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_lineinfo", nullptr, -1, methods,
                      nullptr,               nullptr,     nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__lineinfo() { return PyModule_Create(&module); }
