#include "shared.h"

__global__ void linked_kernel(int *result) { *result = plus_one(twice(20)) + counted; }

extern "C" int run_linked() {
  int *at = nullptr, result = -1;
  int error = cudaMalloc(&at, sizeof result);
  if (error) return 1000 + error;
  linked_kernel<<<1, 1>>>(at);
  error = cudaMemcpy(&result, at, sizeof result, cudaMemcpyDeviceToHost);
  return error ? 1000 + error : result;
}
