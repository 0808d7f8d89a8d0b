"""Locks of real toolchains and recipes for tests, and what is to be seen in them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from fatwheel.arch import ArchRequest, parse_arch
from fatwheel.config.load import load_recipe
from fatwheel.config.pinned import Download, Package, Sdist
from fatwheel.config.recipe import Recipe, SourcePin, Target
from fatwheel.config.toolchain import (
    Base,
    Containers,
    InstalledFile,
    InstalledMsvc,
    InstalledTools,
    LockedInterpreter,
    LockedMsvc,
    Toolchain,
    TorchBuild,
)
from fatwheel.config.toolchains import list_toolchains
from fatwheel.model import Host
from fatwheel.provenance.lock import BuildLock, lock_of

from .toolchains import shipped_toolchain

ROOT = Path(__file__).resolve().parents[2]
TOOLCHAINS = list_toolchains(ROOT / "toolchains")
LINUX, WINDOWS = "linux-cuda13.0", "windows-msvc17.8-cuda12.3"
GXX = Host("g++ 12.2.0", "c0" * 32, "3.11.7")
CL = Host("cl 19.38.33130", "c1" * 32, "3.11.9")


@lru_cache
def some_lock(toolchain: str = LINUX, kernel: str = "causal-conv1d") -> BuildLock:
    """That of a build of this recipe for the toolchain's default torch and its first Python."""
    chain = shipped_toolchain(toolchain)
    build = next(one for one in chain.builds if one.torch == chain.default_torch)
    recipe = load_recipe(kernel, ROOT / "kernels")
    archs = (ArchRequest(parse_arch("80")),)
    target = Target(recipe, chain, build.python, build.torch, archs)
    return lock_of(target, CL if chain.msvc else GXX)


def _wheel(name: str, version: str, digit: str, role: str = "runtime") -> Package:
    file = f"{name}-{version}-py3-none-any.whl"
    return Package(name, version, file, 5, digit * 64, role, f"https://host/{file}")


def _download(name: str, digit: str) -> Download:
    return Download(
        name, "1.2.3", f"https://host/a/{name}-1.2.3.zip", f"{name}-1.2.3.zip", 9, digit * 64
    )


def full_lock(folder: bool = False) -> BuildLock:
    """A lock in which nothing is empty, which a real one cannot be."""
    sdist = Sdist(
        "demo", "1.0", "demo-1.0.tar.gz", 7, "5" * 64, "source", "https://host/demo-1.0.tar.gz"
    )
    where = Path("kernels/demo")
    recipe = Recipe(
        name="demo", project="demo", version="1.0", archs=(), memory=1, seconds=1.0, costs=(),
        source=SourcePin(None if folder else sdist, "src" if folder else "", "5" * 64),
        environment={"FORCE_CUDA": "1"}, imports=("demo.ops",), stub_commands=("git",),
        runtime=(_wheel("einops", "0.8.2", "1"),), epoch=1_700_000_000, folder=where,
        digest="2" * 64, subdirectory="python/demo",
    )  # fmt: skip
    toolchain = Toolchain(
        name="tools", platform="win-amd64", cuda="12.3", nvcc="12.3.107", digest="3" * 64,
        archs=(parse_arch("80"), parse_arch("90a")), gcc=(9, 13), default_torch="2.1.0",
        packages=(_wheel("ninja", "1.0", "4", "build"),),
        builds=(TorchBuild("2.1.0", "3.11", (_wheel("torch", "2.1.0+cu121", "6"),)),),
        cuda_files=(_download("cuda_nvcc", "7"),),
        interpreters=(LockedInterpreter("3.11", _download("cpython", "8")),),
        msvc=LockedMsvc(
            "17.8.2", "19.38.33130", "14.38", "https://host/terms", (_download("headers", "9"),)
        ),
        containers=Containers("windows", 20348, (Base("a/b:c", f"sha256:{'a' * 64}", ("3.11",)),)),
    )  # fmt: skip
    host = Host("g++ 12.2.0", "b" * 64, "3.11.7")
    return BuildLock(
        recipe=recipe, toolchain=toolchain, python="3.11", torch="2.1.0", host=host,
        fatwheel="0.1.0",
    )  # fmt: skip


def installed_msvc_lock() -> BuildLock:
    """That of a build with a machine's own MSVC 14.44."""
    lock = some_lock(WINDOWS)
    assert lock.toolchain.msvc
    files = (InstalledFile("cl.exe", "1" * 64), InstalledFile("link.exe", "2" * 64))
    msvc = replace(
        lock.toolchain.msvc, visual_studio="17.14.5", cl="19.44.35207", toolset="14.44",
        payloads=(), installed=InstalledMsvc(sdk="10.0.26100.0", files=files),
    )  # fmt: skip
    return replace(lock, toolchain=replace(lock.toolchain, msvc=msvc))


def device_from_linux_lock() -> BuildLock:
    """That of a build in Wine whose device code is made by a compiler for Linux."""
    lock = some_lock(WINDOWS)
    package = Package(
        name="nvidia-nvvm", version="12.3.107", role="compiler", size=1, sha256="1" * 64,
        filename="nvidia_nvvm-12.3.107-py3-none-manylinux2014_x86_64.whl",
    )  # fmt: skip
    return replace(lock, toolchain=replace(lock.toolchain, device_packages=(package,)))


def installed_lock() -> BuildLock:
    """That of a build of the sample's kind with a machine's own CUDA 13.0 and torch 2.11.0."""
    lock = some_lock(kernel="selftest")
    files = (InstalledFile("nvcc", "1" * 64), InstalledFile("cudafe++", "2" * 64))
    toolchain = Toolchain(
        name="system-cuda13.0", platform="linux-x86_64", cuda="13.0", nvcc="13.0.88",
        digest="3" * 64, archs=lock.toolchain.archs, gcc=(9, 15), packages=(),
        builds=(TorchBuild(lock.torch, lock.python, ()),), default_torch=lock.torch,
        installed=InstalledTools(torch="2.11.0+cu130", torch_cuda="13.0", files=files),
    )  # fmt: skip
    return replace(lock, toolchain=toolchain)
