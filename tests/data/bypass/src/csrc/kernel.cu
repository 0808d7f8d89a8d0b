__global__ void seen(float *p) { p[threadIdx.x] *= 2; }
