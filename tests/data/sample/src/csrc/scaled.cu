// Compiled into both extensions, with another factor: a template, in a name space that no other unit
// can name, and other code for newer architectures.
#include "short.h"

namespace {

template <typename T>
__global__ void scale(T *values, int count) {
    int at = blockIdx.x * blockDim.x + threadIdx.x;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 860
    if (at < count) values[at] *= T(FACTOR);
#else
    if (at < count) values[at] += (FACTOR - 1) * values[at];
#endif
}

}  // namespace

void launch_scaled(float *values, int count) { scale<float><<<1, 32>>>(values, count); }
void launch_scaled(double *values, int count) { scale<double><<<1, 32>>>(values, count); }
