#define TEXT(list...) TEXT_OF(list)
#define TEXT_OF(list...) #list

extern "C" const char ampere_list[] = "list " TEXT(__CUDA_ARCH_LIST__);
__global__ void ampere(float *p) { p[threadIdx.x] *= 3; }
