#include "factor.h"

static_assert(sizeof(WORDS) == sizeof("a b"), "quotes reach the compiler");

static_assert(NUMBER_799_OF_MANY_MACROS_THAT_SAY_NOTHING == 799, "so does a long command's end");

extern "C" __global__ void scale(float *data, int count) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < count) data[index] = TIMES(data[index]);
}

extern "C" void run_scale(float *data, int count) { scale<<<1, 32>>>(data, count); }
