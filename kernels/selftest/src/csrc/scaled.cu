// One source, several objects: both extensions compile this file, each with its own
// -DSELFTEST_FACTOR, and scaled_again.cu includes it.

#include "launchers.h"

#ifndef SELFTEST_NAME
#define SELFTEST_NAME scaled
#endif

namespace selftest {
namespace {

__global__ void scale(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] * SELFTEST_FACTOR;
}

}  // namespace

cudaError_t SELFTEST_NAME(const float* x, float* y, int n, cudaStream_t stream) {
    scale<<<blocks_for(n), kThreads, 0, stream>>>(x, y, n);
    return cudaGetLastError();
}

}  // namespace selftest
