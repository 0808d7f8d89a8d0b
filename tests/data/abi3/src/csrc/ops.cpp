// torch.ops.fatwheel_abi3.triple_, and a Python module that is there to be imported.
#include <Python.h>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

void launch_triple(float *data, long count, void *stream);

static torch::stable::Tensor triple_(torch::stable::Tensor tensor) {
    launch_triple(static_cast<float *>(tensor.mutable_data_ptr()), tensor.numel(), nullptr);
    return tensor;
}

STABLE_TORCH_LIBRARY(fatwheel_abi3, m) { m.def("triple_(Tensor(a!) tensor) -> Tensor(a!)"); }

STABLE_TORCH_LIBRARY_IMPL(fatwheel_abi3, CUDA, m) { m.impl("triple_", TORCH_BOX(&triple_)); }

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr};

PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&module); }
