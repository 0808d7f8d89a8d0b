// Kernels of every kind that inspect and stitch must see: templates, an anonymous namespace,
// device functions that are no kernels, large and odd parameters, device data.

struct Odd {
    char c;
    double d;
    int x[3];
};

struct Large {
    int values[1100];
};

__device__ int table[4] = {1, 2, 3, 4};
__constant__ float factors[7];

__device__ __noinline__ float helper(float x) {
    float sum = 0;
    for (int i = 0; i < static_cast<int>(x); i++) sum += x * i;
    return sum;
}

template <int N>
__global__ void scale(float* p, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) p[i] *= N;
}

namespace {
__global__ void hidden(double* p) { p[threadIdx.x] += 1; }
}  // namespace

__global__ void nothing() { table[0] = threadIdx.x; }

__global__ void many(Odd s, const float* __restrict__ in, short h, Large b,
                     const __grid_constant__ Odd t, float* out) {
    __shared__ float sums[33];
    sums[threadIdx.x] = helper(in[0]) + s.d + factors[3] + b.values[h] + t.x[1];
    __syncthreads();
    out[1] = sums[0];
}

extern "C" __global__ void plain(int i, long j, void* p) { static_cast<long*>(p)[i] = j; }

void launch(float* p, int n, double* d) {
    scale<3><<<1, 32>>>(p, n);
    scale<5><<<1, 32>>>(p, n);
    hidden<<<1, 2>>>(d);
}
