extern __device__ int counted;
__device__ int twice(int value);
__device__ int plus_one(int value);
