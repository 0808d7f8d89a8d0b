"""One Python with one torch of a toolchain, and what makes its device code what it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ..errors import UsageError
from ..model import Package, Toolchain, TorchBuild


def build_of(toolchain: Toolchain, python: str, torch: str) -> TorchBuild:
    """The build for a Python (`3.11`) and a torch (`2.11.0`); UsageError where there is none."""
    for build in toolchain.builds:
        if (build.python, build.torch) == (python, torch):
            return build
    served = [f"Python {build.python} with torch {build.torch}" for build in toolchain.builds]
    raise UsageError(
        f"toolchain {toolchain.name} does not serve Python {python} with torch {torch}",
        hint="it serves: " + ", ".join(served),
    )


def compiler_id(toolchain: Toolchain, build: TorchBuild) -> str:
    """sha256 over the pins of all that decides device code, wherever it is installed."""
    packages = [p for p in (*toolchain.packages, *build.packages) if p.role == "compiler"]
    archives = sorted(f"{f.name} {f.version} {f.sha256}" for f in toolchain.cuda_files)
    return hashlib.sha256("\n".join([*pins(packages), *archives]).encode()).hexdigest()


def pins(packages: Iterable[Package]) -> list[str]:
    """One line for each package: name, version and sha256, sorted."""
    return sorted(f"{package.name} {package.version} {package.sha256}" for package in packages)
