"""The toolchain linux-cuda13.0 without torch and what torch loads: for containers in which things
happen that torch has nothing to do with.

The same compilers and build tools, by the same pins, in images that are made in the same way. In
place of 2.5 GB of wheels there is one that says that it is torch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from fatwheel.config.pinned import Package
from fatwheel.config.toolchains import load_toolchain
from fatwheel.containers.render import FILES
from fatwheel.events import silent
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.fetch import fetch, place

from ..helpers.pinned import pinned
from ..helpers.tinywheels import torch_wheel, write_wheel

ROOT = Path(__file__).resolve().parents[2]
REAL = "linux-cuda13.0"
TOOLCHAIN = "linux-slim"
TORCH = "__version__ = '2.11.0+cu130'\n"
EXTENSION = {"torch/utils/__init__.py": "", "torch/utils/cpp_extension.py": ""}
PYTHONS = ("3.11", "3.13")


@dataclass(frozen=True)
class Slim:
    """folder: has the toolchain in toolchains/, and the sample in kernels/. files: what a cache has
    as the files of images."""

    folder: Path
    files: Path


def make_slim(folder: Path) -> Slim:
    torch = make_toolchain(folder, TOOLCHAIN)
    packages = load_toolchain(TOOLCHAIN, folder / "toolchains").packages
    files = folder / FILES
    for path in fetch(packages, cache_folder() / FILES, silent):
        _put(path, files / path.parent.name)
    for package in torch:
        _put(folder / "wheels" / package.filename, place(package, files).parent)
    return Slim(folder, files)


def make_toolchain(
    folder: Path,
    name: str,
    without: Collection[str] = (),
    more: str = "",
    pythons: Sequence[str] = PYTHONS,
) -> list[Package]:
    """Write toolchains/NAME.toml, and the sample into kernels/; gives the wheels that stand for
    torch, which lie in wheels/.

    without: packages that are left out. more: what comes at the end of the file.
    """
    torch = [
        torch_wheel(folder / "wheels", TORCH),
        write_wheel(folder / "wheels", "torch_utils", "1.0", EXTENSION),
    ]
    content = pinned(REAL)
    content["name"] = name
    content["packages"] = [
        one
        for one in content["packages"]
        if one["role"] != "runtime" and one["name"] not in without
    ]
    content["builds"] = [
        {"python": python, "torch": "2.11.0", "packages": [_table(one) for one in torch]}
        for python in pythons
    ]
    (folder / "toolchains").mkdir()
    (folder / "toolchains" / f"{name}.toml").write_text(tomli_w.dumps(content) + more)
    shutil.copytree(ROOT / "tests" / "data" / "sample", folder / "kernels" / "sample")
    return torch


def _put(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    try:
        os.link(path, folder / path.name)
    except OSError:  # another file system
        shutil.copyfile(path, folder / path.name)


def _table(package: Package) -> dict[str, Any]:
    return {
        "name": package.name,
        "version": package.version,
        "file": package.filename,
        "size": package.size,
        "sha256": package.sha256,
        "role": "runtime",
    }
