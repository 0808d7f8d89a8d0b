__global__ void more(float *p) { p[threadIdx.x] *= 3; }
void run_scale(float *p);
void run_more(float *p) {
  more<<<1, 1>>>(p);
  run_scale(p);
}
