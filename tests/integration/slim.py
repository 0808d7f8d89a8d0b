"""The toolchain linux-cuda13.0 without torch and what torch loads: for containers in which things
happen that torch has nothing to do with.

The same compilers and build tools, by the same pins, in images that are made in the same way. In
place of 2.5 GB of wheels there is one that says that it is torch.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from fatwheel.config.load import load_toolchain
from fatwheel.containers.render import FILES
from fatwheel.events import silent
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.fetch import fetch, place

from ..helpers.tinywheels import torch_wheel, write_wheel

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT / "toolchains" / "linux-cuda13.0.toml"
TOOLCHAIN = "linux-slim"
TORCH = "__version__ = '2.11.0+cu130'\n"
EXTENSION = {"torch/utils/__init__.py": "", "torch/utils/cpp_extension.py": ""}
PYTHONS = ("3.11", "3.13")
BUILD = """
[[builds]]
python = "{python}"
torch = "2.11.0"
"""
PACKAGE = """
[[builds.packages]]
name = "{0.name}"
version = "{0.version}"
file = "{0.filename}"
size = {0.size}
sha256 = "{0.sha256}"
role = "runtime"
"""


@dataclass(frozen=True)
class Slim:
    """folder: has the toolchain in toolchains/, and the sample in kernels/. files: what a cache has
    as the files of images."""

    folder: Path
    files: Path


def make_slim(folder: Path) -> Slim:
    torch = [
        torch_wheel(folder / "wheels", TORCH),
        write_wheel(folder / "wheels", "torch_utils", "1.0", EXTENSION),
    ]
    head, *tables = REAL.read_text().replace("linux-cuda13.0", TOOLCHAIN, 1).split("\n[[")
    kept = [head, *(table for table in tables if _is_kept(table))]
    text = "\n[[".join(kept) + "\n"
    for python in PYTHONS:
        text += BUILD.format(python=python) + "".join(map(PACKAGE.format, torch))
    toolchains = folder / "toolchains"
    toolchains.mkdir()
    (toolchains / f"{TOOLCHAIN}.toml").write_text(text)
    shutil.copytree(ROOT / "tests" / "data" / "sample", folder / "kernels" / "sample")

    packages = load_toolchain(TOOLCHAIN, toolchains).packages
    files = folder / FILES
    for path in fetch(packages, cache_folder() / FILES, silent):
        _put(path, files / path.parent.name)
    for package in torch:
        _put(folder / "wheels" / package.filename, place(package, files).parent)
    return Slim(folder, files)


def _put(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    try:
        os.link(path, folder / path.name)
    except OSError:  # another file system
        shutil.copyfile(path, folder / path.name)


def _is_kept(table: str) -> bool:
    return not table.startswith("builds") and 'role = "runtime"' not in table
