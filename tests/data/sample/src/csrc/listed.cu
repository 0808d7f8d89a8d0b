// As some of CUDA's own headers do, it reads the list of all architectures.

#include "short.h"

struct Sum {
    static constexpr int list[] = {__CUDA_ARCH_LIST__};
    static constexpr int count = sizeof(list) / sizeof(int);
};

__global__ void listed(int *values) { values[threadIdx.x] += Sum::count; }

void launch_listed(int *values) { listed<<<1, 32>>>(values); }
