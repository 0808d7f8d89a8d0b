__global__ void custom(float *p) { p[threadIdx.x] *= 4; }
void run_custom(float *p) { custom<<<1, 1>>>(p); }
