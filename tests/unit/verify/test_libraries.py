"""Libraries by their names: names as they stand in wheels of torch, NVIDIA and others."""

from __future__ import annotations

import pytest

from fatwheel.verify.libraries import imports_of


def origin(name: str, *shipped: str) -> tuple[str, str]:
    [found] = imports_of([name], shipped)
    assert found.name == name
    return found.origin, found.version


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("libcudart.so.13", "13"),
        ("libcudart.so.12", "12"),
        ("libcudart.so.11.0", "11"),
        ("cudart64_12.dll", "12"),
        ("cudart64_110.dll", "11"),
        ("CUDART64_101.DLL", "10"),
        ("libcublas.so.12", ""),
        ("libcublasLt.so.12", ""),
        ("libcudnn.so.9", ""),
        ("libcufft.so.11", ""),
        ("libnvrtc.so.12", ""),
        ("libnccl.so.2", ""),
        ("libnvToolsExt.so.1", ""),
        ("libnvJitLink.so.13", ""),
        ("cublas64_12.dll", ""),
        ("cublasLt64_11.dll", ""),
        ("cudnn64_8.dll", ""),
        ("cudnn_ops_infer64_8.dll", ""),
        ("nvrtc64_120_0.dll", ""),
        ("curand64_10.dll", ""),
    ],
)
def test_libraries_of_cuda(name: str, version: str) -> None:
    assert origin(name) == ("cuda", version)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("libcuda.so.1", "driver"),
        ("nvcuda.dll", "driver"),
        ("libnvidia-ml.so.1", "driver"),
        ("libc10.so", "torch"),
        ("libtorch_python.so", "torch"),
        ("c10_cuda.dll", "torch"),
        ("torch_cpu.dll", "torch"),
        ("libc.so.6", "system"),
        ("libstdc++.so.6", "system"),
        ("ld-linux-x86-64.so.2", "system"),
        ("libc.musl-x86_64.so.1", "system"),
        ("KERNEL32.dll", "system"),
        ("VCRUNTIME140_1.dll", "system"),
        ("MSVCP140.dll", "system"),
        ("api-ms-win-crt-heap-l1-1-0.dll", "system"),
        ("libopencv_core.so.406", "unknown"),
        ("foo.dll", "unknown"),
        ("xlibc.so.6", "unknown"),
        ("libcudart.so.12.evil", "unknown"),
    ],
)
def test_other_libraries(name: str, expected: str) -> None:
    assert origin(name) == (expected, "")


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("python311.dll", "3.11"),
        ("python39.dll", "3.9"),
        ("python313t.dll", "3.13"),
        ("python3.dll", "3"),
        ("libpython3.10.so.1.0", "3.10"),
        ("libpython3.so", "3"),
    ],
)
def test_pythons(name: str, version: str) -> None:
    assert origin(name) == ("python", version)


def test_what_is_shipped_is_not_looked_for_elsewhere() -> None:
    assert origin("CUDART64_12.dll", "cudart64_12.dll") == ("wheel", "")
    assert origin("libfoo-1234.so.2", "libfoo-1234.so.2") == ("wheel", "")
