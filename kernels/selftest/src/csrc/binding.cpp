// torch.ops.fatwheel_selftest: checks its arguments, then calls the launchers.
//
// Registered with TORCH_LIBRARY by importing an otherwise empty module: torch/library.h compiles
// six times faster than torch/extension.h.

#include <Python.h>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <climits>
#include <tuple>

#include "launchers.h"

namespace {

void check(cudaError_t error) {
    TORCH_CHECK(error == cudaSuccess, "CUDA: ", cudaGetErrorString(error), " (",
                cudaGetErrorName(error), ")");
}

// The one shape all functions take: contiguous, on a GPU, a multiple of `run` elements.
int length(const at::Tensor& x, at::ScalarType type, int run = 1) {
    TORCH_CHECK(x.is_cuda(), "x must be on a GPU");
    TORCH_CHECK(x.scalar_type() == type, "x must be ", type, ", not ", x.scalar_type());
    TORCH_CHECK(x.is_contiguous(), "x must be contiguous");
    TORCH_CHECK(0 < x.numel() && x.numel() < INT_MAX, "x must have 1 to 2^31 - 2 elements");
    TORCH_CHECK(x.numel() % run == 0, "x must have a multiple of ", run, " elements");
    return static_cast<int>(x.numel());
}

cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

using FloatLauncher = cudaError_t (*)(const float*, float*, int, cudaStream_t);

template <FloatLauncher launch>
at::Tensor map(const at::Tensor& x) {
    int n = length(x, at::kFloat);
    c10::cuda::CUDAGuard guard(x.device());
    at::Tensor y = at::empty_like(x);
    check(launch(x.const_data_ptr<float>(), y.mutable_data_ptr<float>(), n, stream()));
    return y;
}

at::Tensor cube(const at::Tensor& x) {
    int n = length(x, at::kDouble);
    c10::cuda::CUDAGuard guard(x.device());
    at::Tensor y = at::empty_like(x);
    check(selftest::power<double, 3>(x.const_data_ptr<double>(), y.mutable_data_ptr<double>(), n,
                                     stream()));
    return y;
}

at::Tensor sum(const at::Tensor& x) {
    int n = length(x, at::kFloat);
    c10::cuda::CUDAGuard guard(x.device());
    auto bytes = static_cast<int64_t>(selftest::sum_workspace(n));
    at::Tensor workspace = at::empty({bytes}, x.options().dtype(at::kByte));
    at::Tensor total = at::empty({}, x.options());
    check(selftest::sum(x.const_data_ptr<float>(), total.mutable_data_ptr<float>(), n,
                        workspace.mutable_data_ptr(), bytes, stream()));
    return total;
}

at::Tensor sort_runs(const at::Tensor& x) {
    int n = length(x, at::kInt, selftest::kSortedRun);
    c10::cuda::CUDAGuard guard(x.device());
    at::Tensor y = at::empty_like(x);
    check(selftest::sort_runs(x.const_data_ptr<int>(), y.mutable_data_ptr<int>(), n, stream()));
    return y;
}

std::tuple<at::Tensor, int64_t> polynomial(const at::Tensor& x, const at::Tensor& coefficients) {
    int n = length(x, at::kFloat);
    TORCH_CHECK(coefficients.is_cpu() && coefficients.is_contiguous() &&
                    coefficients.scalar_type() == at::kFloat && coefficients.numel() == 4,
                "coefficients must be 4 contiguous floats on the CPU");
    c10::cuda::CUDAGuard guard(x.device());
    at::Tensor y = at::empty_like(x);
    unsigned long long evaluated = 0;
    check(selftest::polynomial(coefficients.const_data_ptr<float>(), x.const_data_ptr<float>(),
                               y.mutable_data_ptr<float>(), n, &evaluated, stream()));
    return {y, static_cast<int64_t>(evaluated)};
}

std::tuple<at::Tensor, at::Tensor> warp_sums(const at::Tensor& x) {
    int n = length(x, at::kInt, 32);
    c10::cuda::CUDAGuard guard(x.device());
    at::Tensor sums = at::empty({n / 32}, x.options());
    at::Tensor arch = at::empty({}, x.options());
    check(selftest::warp_sums(x.const_data_ptr<int>(), sums.mutable_data_ptr<int>(),
                              arch.mutable_data_ptr<int>(), n, stream()));
    return {sums, arch};
}

}  // namespace

TORCH_LIBRARY(fatwheel_selftest, m) {
    m.def("square(Tensor x) -> Tensor", &map<&selftest::power<float, 2>>);
    m.def("cube(Tensor x) -> Tensor", &cube);
    m.def("sum(Tensor x) -> Tensor", &sum);
    m.def("sort_runs(Tensor x) -> Tensor", &sort_runs);
    m.def("increment(Tensor x) -> Tensor", &map<&selftest::increment>);
    m.def("polynomial(Tensor x, Tensor coefficients) -> (Tensor, int)", &polynomial);
    m.def("warp_sums(Tensor x) -> (Tensor, Tensor)", &warp_sums);
    m.def("scaled(Tensor x) -> Tensor", &map<&selftest::scaled>);
    m.def("scaled_again(Tensor x) -> Tensor", &map<&selftest::scaled_again>);
}

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cases", nullptr, -1,     nullptr,
                             nullptr,               nullptr,  nullptr, nullptr};

PyMODINIT_FUNC PyInit__cases() { return PyModule_Create(&module); }
