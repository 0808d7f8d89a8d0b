#include "shared.h"

static __device__ int hidden = 1;
__device__ int plus_one(int value) { return value + hidden; }
