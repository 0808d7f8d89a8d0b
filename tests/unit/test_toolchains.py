"""The pins of toolchains/: what can be known without fetching them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.tags import cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from fatwheel.load import list_toolchains, load_toolchain
from fatwheel.model import Package, Toolchain, TorchBuild

FOLDER = Path(__file__).resolve().parents[2] / "toolchains"
TOOLCHAINS = [load_toolchain(name, FOLDER) for name in list_toolchains(FOLDER)]
BUILDS = [(toolchain, build) for toolchain in TOOLCHAINS for build in toolchain.builds]

each_toolchain = pytest.mark.parametrize("toolchain", TOOLCHAINS, ids=lambda t: t.name)
each_build = pytest.mark.parametrize(
    ("toolchain", "build"), BUILDS, ids=[f"{t.name}-{b.python}" for t, b in BUILDS]
)


def all_of(toolchain: Toolchain, build: TorchBuild) -> tuple[Package, ...]:
    return (*toolchain.packages, *build.packages)


@each_toolchain
def test_every_wheel_is_of_the_package_and_version_that_its_pin_says(toolchain: Toolchain) -> None:
    for package in (*toolchain.packages, *(p for b in toolchain.builds for p in b.packages)):
        name, version, _, _ = parse_wheel_filename(package.filename)
        assert (canonicalize_name(package.name), package.version) == (name, str(version))


@each_build
def test_every_wheel_runs_on_its_python(toolchain: Toolchain, build: TorchBuild) -> None:
    minor = int(build.python.partition(".")[2])
    # What CPython 3.x takes on a system with glibc 2.28, the oldest that torch supports.
    platforms = [f"manylinux_2_{glibc}_x86_64" for glibc in range(28, 4, -1)]
    platforms += [f"manylinux{year}_x86_64" for year in ("2014", "2010", "1")]
    good = {f"{tag.interpreter}-{tag.abi}" for tag in cpython_tags((3, minor), platforms=platforms)}
    good |= {"py3-none", "py2.py3-none"}
    for package in all_of(toolchain, build):
        tags = parse_wheel_filename(package.filename)[3]
        assert {f"{tag.interpreter}-{tag.abi}" for tag in tags} & good, package.filename
        assert {tag.platform for tag in tags} & {*platforms, "any"}, package.filename


@each_build
def test_no_package_is_pinned_twice_and_the_needed_ones_are(
    toolchain: Toolchain, build: TorchBuild
) -> None:
    names = [package.name for package in all_of(toolchain, build)]
    assert len(names) == len(set(names))
    roles = {package.name: package.role for package in all_of(toolchain, build)}
    versions = {package.name: package.version for package in all_of(toolchain, build)}
    assert versions["nvidia-cuda-nvcc"] == toolchain.nvcc
    assert versions["torch"] == build.torch
    assert {name for name, role in roles.items() if role == "compiler"} >= {
        "nvidia-cuda-nvcc",  # nvcc, cudafe++, ptxas, fatbinary
        "nvidia-nvvm",  # cicc, libdevice
        "nvidia-cuda-crt",
        "nvidia-cuda-runtime",
        "nvidia-cuda-cccl",
    }
    assert roles["torch"] == "runtime"


@each_toolchain
def test_the_file_names_no_place(toolchain: Toolchain) -> None:
    text = (FOLDER / f"{toolchain.name}.toml").read_text(encoding="utf-8")
    assert not re.search(r"://", text), "where files come from is the user's pip configuration's"
