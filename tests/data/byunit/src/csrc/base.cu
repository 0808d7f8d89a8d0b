__global__ void base(float *p) { p[threadIdx.x] *= 2; }
