#include "shared.h"

__device__ int counted = 1;
__device__ int twice(int value) { return 2 * value; }
