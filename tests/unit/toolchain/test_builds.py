from __future__ import annotations

import dataclasses
import hashlib

import pytest

from fatwheel.config.pinned import Download, Package
from fatwheel.config.toolchain import Toolchain, TorchBuild
from fatwheel.toolchain.interpreters import compiler_id, pins

NVCC = Package("nvidia-cuda-nvcc", "13.0.88", "nvcc.whl", 1, "aa" * 32, "compiler")
CRT = Package("nvidia-cuda-crt", "13.0.88", "crt.whl", 1, "bb" * 32, "compiler")
NINJA = Package("ninja", "1.13", "ninja.whl", 1, "cc" * 32, "build")
TORCH = Package("torch", "2.11.0", "torch.whl", 1, "dd" * 32, "runtime")
CUDA = Download("cuda_nvcc", "12.3.107", "https://x/n.zip", "n.zip", 1, "ee" * 32)
BUILD = TorchBuild("2.11.0", "3.11", (TORCH,))


def toolchain(*packages: Package, cuda_files: tuple[Download, ...] = ()) -> Toolchain:
    return Toolchain(
        name="tools", platform="linux-x86_64", cuda="13.0", nvcc="13.0.88", archs=(), gcc=(9, 15),
        packages=packages, builds=(BUILD,), digest="", default_torch="2.11.0",
        cuda_files=cuda_files,
    )  # fmt: skip


def test_the_id_is_over_the_pins_of_the_compilers() -> None:
    lines = [f"nvidia-cuda-crt 13.0.88 {'bb' * 32}", f"nvidia-cuda-nvcc 13.0.88 {'aa' * 32}"]
    known = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert compiler_id(toolchain(NVCC, NINJA, CRT), BUILD) == known
    assert compiler_id(toolchain(CRT, NVCC), BUILD) == known, "whatever the order"


def test_what_is_no_compiler_does_not_count() -> None:
    other = dataclasses.replace(BUILD, packages=(dataclasses.replace(TORCH, sha256="00" * 32),))
    assert compiler_id(toolchain(NVCC, NINJA), BUILD) == compiler_id(toolchain(NVCC), other)


def test_a_compiler_may_come_with_torch() -> None:
    build = dataclasses.replace(BUILD, packages=(TORCH, CRT))
    assert compiler_id(toolchain(NVCC), build) == compiler_id(toolchain(NVCC, CRT), BUILD)


@pytest.mark.parametrize(
    "change", [{"sha256": "00" * 32}, {"version": "13.0.89"}, {"name": "nvidia-nvvm"}]
)
def test_another_compiler_is_another_id(change: dict[str, str]) -> None:
    assert compiler_id(toolchain(dataclasses.replace(NVCC, **change)), BUILD) != compiler_id(  # type: ignore[arg-type]
        toolchain(NVCC), BUILD
    )


def test_cuda_that_comes_as_archives_counts_wherever_it_lies() -> None:
    found = compiler_id(toolchain(cuda_files=(CUDA,)), BUILD)
    assert found != compiler_id(toolchain(), BUILD)
    mirrored = dataclasses.replace(CUDA, url="https://y/n.zip", filename="other.zip")
    assert compiler_id(toolchain(cuda_files=(mirrored,)), BUILD) == found
    changed = dataclasses.replace(CUDA, sha256="00" * 32)
    assert compiler_id(toolchain(cuda_files=(changed,)), BUILD) != found


def test_pins_are_one_sorted_line_each() -> None:
    assert pins([NVCC, CRT]) == [
        f"nvidia-cuda-crt 13.0.88 {'bb' * 32}", f"nvidia-cuda-nvcc 13.0.88 {'aa' * 32}",
    ]  # fmt: skip
