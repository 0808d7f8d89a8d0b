// A kernel with internal linkage: its symbol carries the unit's module id. statics.cu has another
// kernel of the same name, so an id that two units share would show.

#include "launchers.h"

namespace selftest {
namespace {

__global__ void step(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i] + 1.0f;
}

}  // namespace

cudaError_t increment(const float* x, float* y, int n, cudaStream_t stream) {
    step<<<blocks_for(n), kThreads, 0, stream>>>(x, y, n);
    return cudaGetLastError();
}

}  // namespace selftest
