// CUB: its inline-namespace names and its host-side dispatch are built from __CUDA_ARCH_LIST__,
// so this unit's slices agree only if every compile sees the same list.

#include "launchers.h"

#include <cub/block/block_load.cuh>
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_store.cuh>
#include <cub/device/device_reduce.cuh>

namespace selftest {

size_t sum_workspace(int n) {
    size_t bytes = 0;
    const float* x = nullptr;
    float* total = nullptr;
    cub::DeviceReduce::Sum(nullptr, bytes, x, total, n);
    return bytes;
}

cudaError_t sum(const float* x, float* total, int n, void* workspace, size_t bytes,
                cudaStream_t stream) {
    return cub::DeviceReduce::Sum(workspace, bytes, x, total, n, stream);
}

constexpr int kItems = kSortedRun / kThreads;

__global__ void sort_runs_kernel(const int* x, int* y) {
    using Load = cub::BlockLoad<int, kThreads, kItems, cub::BLOCK_LOAD_TRANSPOSE>;
    using Store = cub::BlockStore<int, kThreads, kItems, cub::BLOCK_STORE_TRANSPOSE>;
    using Sort = cub::BlockRadixSort<int, kThreads, kItems>;
    __shared__ union {
        typename Load::TempStorage load;
        typename Sort::TempStorage sort;
        typename Store::TempStorage store;
    } shared;

    int keys[kItems];
    Load(shared.load).Load(x + blockIdx.x * kSortedRun, keys);
    __syncthreads();
    Sort(shared.sort).Sort(keys);
    __syncthreads();
    Store(shared.store).Store(y + blockIdx.x * kSortedRun, keys);
}

cudaError_t sort_runs(const int* x, int* y, int n, cudaStream_t stream) {
    sort_runs_kernel<<<n / kSortedRun, kThreads, 0, stream>>>(x, y);
    return cudaGetLastError();
}

}  // namespace selftest
