// Code that differs by architecture: each slice has other instructions, and says which it is.

#include "launchers.h"

namespace selftest {

__device__ int warp_sum(int value) {
#if __CUDA_ARCH__ >= 800
    return __reduce_add_sync(0xffffffffu, value);
#else
    for (int offset = 16; offset > 0; offset /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
#endif
}

__global__ void warp_sums_kernel(const int* x, int* sums, int* arch, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int sum = warp_sum(i < n ? x[i] : 0);
    if (i < n && i % 32 == 0) sums[i / 32] = sum;
#ifdef __CUDA_ARCH__
    if (i == 0) *arch = __CUDA_ARCH__;
#endif
}

cudaError_t warp_sums(const int* x, int* sums, int* arch, int n, cudaStream_t stream) {
    warp_sums_kernel<<<blocks_for(n), kThreads, 0, stream>>>(x, sums, arch, n);
    return cudaGetLastError();
}

}  // namespace selftest
