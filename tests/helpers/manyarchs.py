"""Wheels with device code for many architectures, and who runs it: CUDA's rules, written down here
from NVIDIA's documentation, without fatwheel.

The images are NVIDIA's tools' (data/device/README.md). A wheel's library has two containers, to
which its wrappers lead once it is loaded.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path

from .cudawheels import DATA, fatbin
from .cudawheels import images as entries_of
from .elflibraries import LIBRARY, link
from .tinywheels import Draft

MODULE = "demo/_C.so"
_HEADER = struct.Struct("<HHIQIIHHIIIQ")  # of an image, up to its flags


def name_of(entry: bytes) -> str:
    """`sm_90a`, `compute_80`."""
    fields = _HEADER.unpack_from(entry)
    suffix = {0: "", 0x100000: "a", 0x200000: "f"}[fields[11] & 0x300000]
    return f"{ {1: 'compute', 2: 'sm'}[fields[0]] }_{fields[8]}{suffix}".replace(" ", "")


POOLS = {
    packed: {
        name_of(entry): entry
        for entry in entries_of((DATA / f"cuda12.9-{packed}.fatbin").read_bytes())
    }
    for packed in ("lz4", "zstd")
}
# CUDA 12 made the cubins: any driver of it runs them. Drivers since these CUDAs compile PTX of the
# `.version`s 6.4, 8.0 and 8.4 ("PTX ISA", release notes); those since 12.4 read zstd.
CUBINS = 12, 0
PTX = {"compute_75": (10, 1), "compute_80": (12, 0), "compute_90": (12, 4)}
COMPRESSED = {"lz4": (0, 0), "zstd": (12, 4)}


def container(names: Iterable[str], packed: str = "lz4") -> bytes:
    return fatbin([POOLS[packed][name] for name in names])


def containers_in(data: bytes) -> list[list[str]]:
    """What containers hold that lie one after the other."""
    found, position = [], 0
    while position < len(data):
        end = position + 16 + struct.unpack_from("<Q", data, position + 8)[0]
        found.append([name_of(entry) for entry in entries_of(data[position:end])])
        position = end
    return found


def draft(
    tool: Callable[[str], str],
    folder: Path,
    first: bytes,
    second: bytes,
    *,
    version: str = "1.0",
    tag: str = "py3-none-linux_x86_64",
    project: str = "demo",
) -> Draft:
    """A wheel with a library that has these containers; folder is for making it."""
    folder.mkdir(parents=True, exist_ok=True)
    library = link(tool, folder, LIBRARY, first=first, second=second)
    files = {f"{project}/__init__.py": b"", MODULE.replace("demo", project): library}
    return Draft(project, version, tag, files)


# -- CUDA's rules ----------------------------------------------------------------------------------


def runs(image: str, gpu: str) -> bool:
    """CUDA C++ Programming Guide, "Binary Compatibility", "PTX Compatibility", "Family-Specific
    Features": machine code for X.Y runs on X.Z with Z >= Y; PTX for X.Y wherever a driver compiles
    it, which is on X.Y and above; with `a` both run on X.Y alone."""
    kind, _, number = image.partition("_")
    major, minor = (int(part) for part in gpu.split("."))
    exact, family = number.endswith("a"), number.endswith("f")
    digits = number.rstrip("af")
    its = int(digits[:-1]), int(digits[-1])
    if exact:
        return its == (major, minor)
    if kind == "sm" or family:
        return its[0] == major and its[1] <= minor
    return its <= (major, minor)


def loaded(container: Iterable[str], gpu: str) -> set[str]:
    """The best that a GPU runs of a container: machine code before PTX, then the newest; between
    90 and 90a the driver chooses. Nothing, where it runs none."""
    usable = [image for image in container if runs(image, gpu)]
    best = [image for image in usable if image.startswith("sm_")] or usable
    newest = max((int(image.partition("_")[2].rstrip("af")) for image in best), default=0)
    return {image for image in best if int(image.partition("_")[2].rstrip("af")) == newest}


def needed(images: Iterable[str], packed: str = "lz4") -> tuple[int, int]:
    """The CUDA that a driver must at least be for, to run these."""
    return max(COMPRESSED[packed], *(PTX.get(image, CUBINS) for image in images))
