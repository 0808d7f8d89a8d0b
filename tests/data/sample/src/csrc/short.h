// The part of cuda_runtime.h that launching a kernel takes. With that header a unit takes two
// seconds to compile, without it a third of one: setup.py keeps nvcc from including it.
//
// As CUDA 13.0's own headers declare it: crt/device_functions.h and crt/host_runtime.h.
#pragma once

#define __CUDA_INCLUDE_COMPILER_INTERNAL_HEADERS__
#include <crt/host_config.h>
#include <builtin_types.h>
#include <cuda_runtime_api.h>
#include <device_launch_parameters.h>

extern "C" {
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared = 0,
                                     struct CUstream_st *stream = 0);
cudaError_t CUDARTAPI __cudaGetKernel(cudaKernel_t *, const void *);
cudaError_t CUDARTAPI __cudaLaunchKernel(cudaKernel_t, dim3 grid, dim3 block, void **arguments,
                                         size_t shared, cudaStream_t stream);
}

static inline cudaError_t __cudaLaunchKernel_helper(cudaKernel_t kernel, dim3 grid, dim3 block,
                                                    void **arguments, size_t shared,
                                                    cudaStream_t stream) {
    return __cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}
