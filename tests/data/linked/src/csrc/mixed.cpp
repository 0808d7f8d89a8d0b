#include <cuda_runtime.h>

void launch_mixed(int *result);

extern "C" int run_mixed() {
  int *at = nullptr, result = -1;
  int error = cudaMalloc(reinterpret_cast<void **>(&at), sizeof result);
  if (error) return 1000 + error;
  launch_mixed(at);
  error = cudaMemcpy(&result, at, sizeof result, cudaMemcpyDeviceToHost);
  return error ? 1000 + error : result;
}
