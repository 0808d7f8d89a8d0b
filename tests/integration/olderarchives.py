"""CUDA 12.4 made to look like NVIDIA's archives: the compilers of Debian's package, which are
NVIDIA's own files at other places, and headers and libraries from wheels."""

from __future__ import annotations

import re
import tarfile
import zipfile
from pathlib import Path

from fatwheel.events import silent
from fatwheel.storage.cache import cache_folder
from fatwheel.toolchain.fetch import fetch

from ..helpers.cudaarchives import Archives, Member, write_archive
from .debianimage import image_tar
from .test_older_nvcc import RECIPE, VERSION

_TOOLKIT = "usr/lib/nvidia-cuda-toolkit"
_PLACES = {
    f"{_TOOLKIT}/bin/nvcc": "bin/nvcc",
    f"{_TOOLKIT}/bin/cicc": "nvvm/bin/cicc",
    f"{_TOOLKIT}/libdevice/libdevice.10.bc": "nvvm/libdevice/libdevice.10.bc",
    "usr/bin/cudafe++": "bin/cudafe++",
    "usr/bin/fatbinary": "bin/fatbinary",
    "usr/bin/ptxas": "bin/ptxas",
}
# Debian's says Debian's places.
_PROFILE = b"""
TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
PATH += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES += "-I$(TOP)/$(_TARGET_DIR_)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/$(_TARGET_DIR_)/lib$(_TARGET_SIZE_)"
"""
_NAMES = {"nvcc": "cuda_nvcc", "runtime": "cuda_cudart", "cccl": "cuda_cccl"}
# What a toolchain of it says otherwise than linux-cuda13.0.
KEYS = {
    "cuda": '"12.4"', "nvcc": f'"{VERSION}"', "gcc": "[9, 13]",
    "archs": '["75", "80", "86", "89", "90", "90a"]',
}  # fmt: skip


def make_older_archives(folder: Path, url: str) -> Archives:
    """The archives in `folder`, and their pins, whose URLs begin with `url`."""
    made = []
    packages = [package for package, _ in RECIPE.wheels]
    wheels = fetch(packages, cache_folder() / "downloads", silent)
    for (package, below), wheel in zip(RECIPE.wheels, wheels, strict=True):
        part = package.name.split("-")[2]
        members = _of_wheel(wheel, below, libraries=part == "runtime")
        if part == "nvcc":
            members |= {"bin/nvcc.profile": (_PROFILE, 0o644), **_of_debian()}
        version = package.version.partition(".post")[0]
        made.append(write_archive(_NAMES[part], version, members, folder, url))
    return Archives(folder, tuple(made))


def _of_debian() -> dict[str, Member]:
    members: dict[str, Member] = {}
    with tarfile.open(image_tar(RECIPE)) as tar:
        for info in tar:
            place = _PLACES.get(info.name.removeprefix("./"))
            content = tar.extractfile(info) if place else None
            if place and content:
                members[place] = content.read(), 0o755
    assert set(members) == {*_PLACES.values()}, f"Debian's package has only {sorted(members)}"
    return members


def _of_wheel(wheel: Path, below: str, *, libraries: bool) -> dict[str, Member]:
    members: dict[str, Member] = {}
    with zipfile.ZipFile(wheel) as packed:
        for name in packed.namelist():
            if name.startswith(f"{below}/") and not name.endswith(("/", "__init__.py")):
                members[f"include/{name[len(below) + 1 :]}"] = packed.read(name), 0o644
            if libraries and (found := re.search(r"/(lib/lib[^/]+\.so[.\d]*)$", name)):
                members[found[1]] = packed.read(name), 0o755
    return members
