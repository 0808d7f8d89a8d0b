"""What makes device code what it is: the bytes of a toolchain's CUDA compilers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ..model import Package, Toolchain, TorchBuild


def compiler_id(toolchain: Toolchain, build: TorchBuild) -> str:
    """sha256 over the pins of all that decides device code, wherever it is installed."""
    packages = [p for p in (*toolchain.packages, *build.packages) if p.role == "compiler"]
    archives = sorted(f"{f.name} {f.version} {f.sha256}" for f in toolchain.cuda_files)
    return hashlib.sha256("\n".join([*pins(packages), *archives]).encode()).hexdigest()


def pins(packages: Iterable[Package]) -> list[str]:
    """One line for each package: name, version and sha256, sorted."""
    return sorted(f"{package.name} {package.version} {package.sha256}" for package in packages)
