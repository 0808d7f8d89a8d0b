// What the CUDA units offer to the binding.
//
// Each launcher enqueues its kernels on `stream` and returns cudaSuccess or the launch's error.
// Pointers are device pointers to `n` contiguous elements unless a comment says otherwise.

#pragma once

#include <cstddef>

#include <cuda_runtime_api.h>

namespace selftest {

// templates.cu: y[i] = x[i] to the power N.
template <typename T, int N>
cudaError_t power(const T* x, T* y, int n, cudaStream_t stream);

// cub.cu: *total = sum of x. `workspace` holds `sum_workspace(n)` bytes.
size_t sum_workspace(int n);
cudaError_t sum(const float* x, float* total, int n, void* workspace, size_t bytes,
                cudaStream_t stream);

// cub.cu: sorts each run of `kSortedRun` elements by itself; n is a multiple of it.
constexpr int kSortedRun = 512;
cudaError_t sort_runs(const int* x, int* y, int n, cudaStream_t stream);

// anonymous.cu: y[i] = x[i] + 1, by a kernel whose name another unit uses too.
cudaError_t increment(const float* x, float* y, int n, cudaStream_t stream);

// statics.cu: y[i] = c[0] + c[1] x[i] + c[2] x[i]^2 + c[3] x[i]^3; `coefficients` is on the host.
// *evaluated is how many elements this unit's counter has seen since the library was loaded.
cudaError_t polynomial(const float* coefficients, const float* x, float* y, int n,
                       unsigned long long* evaluated, cudaStream_t stream);

// perarch.cu: sums[w] = sum of elements 32 w to 32 w + 31; n is a multiple of 32.
// *arch is the __CUDA_ARCH__ of the code that ran (device pointer).
cudaError_t warp_sums(const int* x, int* sums, int* arch, int n, cudaStream_t stream);

// scaled.cu: y[i] = x[i] * SELFTEST_FACTOR; scaled_again.cu includes scaled.cu with another factor.
cudaError_t scaled(const float* x, float* y, int n, cudaStream_t stream);
cudaError_t scaled_again(const float* x, float* y, int n, cudaStream_t stream);

// lineinfo.cu: y[i] = x[n - 1 - i].
cudaError_t reversed(const float* x, float* y, int n, cudaStream_t stream);

constexpr int kThreads = 128;

inline int blocks_for(int n) { return (n + kThreads - 1) / kThreads; }

}  // namespace selftest
