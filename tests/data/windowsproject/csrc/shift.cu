// No external symbol but a template's: nvcc would name its module after the process.
template <int by> __global__ void shift(int *data) { data[threadIdx.x] <<= by; }

void run_shift(int *data) {
    shift<1><<<1, 32>>>(data);
    shift<2><<<1, 32>>>(data);
}
