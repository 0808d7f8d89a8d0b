"""fatwheel's test extension: one function for every case that makes slices differ.

All tensors are contiguous and on one GPU; results are on the same GPU.
"""

from __future__ import annotations

import torch

from . import _cases as _registers_the_operators  # noqa: F401
from . import _lineinfo

_cases = torch.ops.fatwheel_selftest

SORTED_RUN = 512
WARP = 32


def square(x: torch.Tensor) -> torch.Tensor:
    """x², float32: a unit of templates alone."""
    return _cases.square(x)


def cube(x: torch.Tensor) -> torch.Tensor:
    """x³, float64: the same unit, another instantiation."""
    return _cases.cube(x)


def total(x: torch.Tensor) -> torch.Tensor:
    """The sum of float32 x: cub::DeviceReduce."""
    return _cases.sum(x)


def sort_runs(x: torch.Tensor) -> torch.Tensor:
    """int32 x with each run of SORTED_RUN elements sorted by itself: cub::BlockRadixSort."""
    return _cases.sort_runs(x)


def increment(x: torch.Tensor) -> torch.Tensor:
    """x + 1, float32: a kernel in an anonymous namespace."""
    return _cases.increment(x)


def polynomial(x: torch.Tensor, coefficients: torch.Tensor) -> tuple[torch.Tensor, int]:
    """c₀ + c₁x + c₂x² + c₃x³ and how many elements were evaluated since loading.

    Uses __constant__ and static __device__ data. coefficients: 4 floats on the CPU.
    """
    return _cases.polynomial(x, coefficients)


def warp_sums(x: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Sums of each WARP elements of int32 x, and the __CUDA_ARCH__ of the code that ran."""
    sums, arch = _cases.warp_sums(x)
    return sums, int(arch)


def doubled(x: torch.Tensor) -> torch.Tensor:
    """2x, float32: scaled.cu as the first extension compiles it."""
    return _cases.scaled(x)


def tripled(x: torch.Tensor) -> torch.Tensor:
    """3x, float32: the same scaled.cu as the second extension compiles it."""
    return _by_address(_lineinfo.scaled, x)


def quintupled(x: torch.Tensor) -> torch.Tensor:
    """5x, float32: scaled.cu included by another unit."""
    return _cases.scaled_again(x)


def reversed_(x: torch.Tensor) -> torch.Tensor:
    """x from its last element to its first, float32: a unit compiled with -lineinfo."""
    return _by_address(_lineinfo.reversed, x)


def _by_address(launch, x: torch.Tensor) -> torch.Tensor:
    if not (x.is_cuda and x.is_contiguous() and x.dtype == torch.float32 and x.numel()):
        raise ValueError("x must be a non-empty contiguous float32 tensor on a GPU")
    with torch.cuda.device(x.device):
        y = torch.empty_like(x)
        stream = torch.cuda.current_stream().cuda_stream
        launch(x.data_ptr(), y.data_ptr(), x.numel(), stream)
    return y
