#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#error "this source is for sm_90a alone"
#endif

__global__ void hopper(float *p) { p[threadIdx.x] *= 4; }
