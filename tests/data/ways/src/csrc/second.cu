__global__ void second(float *p) { p[threadIdx.x] *= 2; }
void run_second(float *p) { second<<<1, 32>>>(p); }
