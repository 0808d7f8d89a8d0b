__global__ void unseen(float *p) { p[threadIdx.x] *= 3; }
