static __global__ void plain_kernel(int *result) { *result = 42; }

extern "C" int run_plain() {
  int *at = nullptr, result = -1;
  int error = cudaMalloc(&at, sizeof result);
  if (error) return 1000 + error;
  plain_kernel<<<1, 1>>>(at);
  error = cudaMemcpy(&result, at, sizeof result, cudaMemcpyDeviceToHost);
  return error ? 1000 + error : result;
}
