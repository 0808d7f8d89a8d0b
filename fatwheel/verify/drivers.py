"""Which NVIDIA driver device code needs, by NVIDIA's published tables (drivers.toml).

Per GPU, the newest of these decides: the driver for the CUDA that made the machine code, and for
that of the runtime which the library asks for; the driver that understands the PTX, where the GPU
has no machine code; the driver that reads the images' compression; the first that knows the GPU.
What cannot be told from the bytes and these tables is not claimed.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arch import NONE, Arch, parse_arch, parse_capability, runs_by_jit, runs_natively
from ..fatbin.cubin import Version
from ..fatbin.images import is_integrated
from ..storage.documents import read_toml
from .contents import UNKNOWN, Contents, Image, KernelContainer, coverage_of

LINUX, WINDOWS = "linux", "windows"
CUDA, PTX, COMPRESSION, GPU = "cuda", "ptx", "compression", "gpu"
_WINDOWS_FORMATS = ("pe", "coff")
_FORMAT_OF = {"win": "pe"}  # by the first part of a platform's name


@dataclass(frozen=True)
class Need:
    """The oldest driver that will do, as its system counts them, and why: `CUDA 12`.

    kind: 'cuda', 'ptx', 'compression', or 'gpu' where no code would run with less.
    """

    driver: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Release:
    """A CUDA release: its PTX, and its driver by system, which was the first to know `archs`."""

    cuda: Version
    ptx: Version
    drivers: Mapping[str, str]
    archs: frozenset[int]


@dataclass(frozen=True)
class Tables:
    """drivers.toml. majors: the oldest driver by system for any CUDA of a major version."""

    majors: Mapping[int, Mapping[str, str]]
    releases: tuple[Release, ...]
    compressions: Mapping[str, Version]

    def for_cuda(self, major: int, system: str) -> Need | None:
        """What machine code and the runtime of a CUDA need; None where it is not known."""
        drivers = self.majors.get(major)
        return Need(drivers[system], CUDA, f"CUDA {major}") if drivers else None

    def for_ptx(self, version: Version, system: str) -> Need | None:
        """What PTX of a version needs."""
        for release in self.releases:
            if release.ptx >= version:
                return Need(release.drivers[system], PTX, f"PTX {_dotted(version)}")
        return None

    def for_compression(self, name: str, system: str) -> Need | None:
        """What images in this compression need; None where every driver reads it."""
        for release in self.releases:
            if release.cuda == self.compressions.get(name):
                return Need(release.drivers[system], COMPRESSION, f"{name} compression")
        return None

    def for_gpu(self, gpu: Arch, system: str) -> Need | None:
        """What a GPU needs, whatever the code; None where it is older than these tables."""
        for release in self.releases:
            if gpu.number in release.archs:
                return Need(release.drivers[system], GPU, f"the first for {gpu.capability}")
        return None

    def cuda_with(self, driver: str, system: str) -> Version | None:
        """The oldest CUDA that comes with a driver no older than this; None where it is newer than
        these tables."""
        needed = _numbers(driver)
        for release in self.releases:
            if _numbers(release.drivers[system]) >= needed:
                return release.cuda
        return None

    def ptx_of(self, cuda: Version) -> Version | None:
        """The PTX that a CUDA release writes; None for one that is newer than these tables."""
        if cuda > self.releases[-1].cuda:
            return None
        written = [release.ptx for release in self.releases if release.cuda <= cuda]
        return written[-1] if written else None


@functools.cache
def tables() -> Tables:
    return parse_tables(read_toml(Path(__file__).with_name("drivers.toml"))[1])


def parse_tables(found: Mapping[str, Any]) -> Tables:
    """The tables of a document like drivers.toml."""
    return Tables(
        {one["cuda"]: _drivers(one) for one in found["major"]},
        tuple(
            Release(
                _version(one["cuda"]), _version(one["ptx"]), _drivers(one),
                frozenset(one.get("archs", ())),
            )
            for one in found["release"]
        ),
        {name: _version(cuda) for name, cuda in found["compression"].items()},
    )  # fmt: skip


def system_of(contents: Contents) -> str:
    """The system whose drivers count: that of the host code, Linux for device code alone."""
    return WINDOWS if contents.format in _WINDOWS_FORMATS else LINUX


def newest(needs: Iterable[Need]) -> Need | None:
    """The one that decides; the first of several that ask for the same driver."""
    return max(needs, key=_number, default=None)


def _number(need: Need) -> tuple[int, ...]:
    return _numbers(need.driver)


def _numbers(driver: str) -> tuple[int, ...]:
    return tuple(map(int, driver.split(".")))


# -- what is in a file, and what a build makes -----------------------------------------------------


def needs_of(contents: Contents, runtimes: Collection[str] = ()) -> dict[str, Need]:
    """By the compute capability of each GPU that a file serves: the driver for all its code there.

    runtimes: the major versions of the CUDA runtimes that it asks for. A GPU is left out where the
    file does not tell what made its code, and where it is part of a Jetson: these have other
    drivers.
    """
    served = [gpu for gpu, how in coverage_of([contents]).items() if how.how not in (NONE, UNKNOWN)]
    units = {(frozenset(map(_relevant, unit.images)), unit.relocatable) for unit in contents.units}
    found = {}
    for capability in served:
        gpu = parse_capability(capability)
        if is_integrated(gpu):
            continue
        needs: list[Need | None] = []
        for images, relocatable in units:
            needs += _of_unit(images, bool(relocatable), gpu, system_of(contents))
        needs += [tables().for_cuda(int(major), system_of(contents)) for major in sorted(runtimes)]
        if None not in needs and (own := tables().for_gpu(gpu, system_of(contents))):
            needs.append(own)
        known = [need for need in needs if need]
        if len(known) == len(needs) and (most := newest(known)):
            found[capability] = most
    return found


def planned(codes: Iterable[str], cuda: str, platform: str) -> Contents:
    """A library of one unit with these images (`sm_80`, `compute_80`), as a CUDA makes them.

    platform: as toolchains name it, `linux-x86_64` or `win-amd64`.
    """
    made_by = _version(".".join(cuda.split(".")[:2]))
    versions = {"elf": made_by, "ptx": tables().ptx_of(made_by)}
    images = tuple(
        Image(kind, parse_arch(code), 0, "", versions[kind])
        for code in codes
        for kind in ["elf" if code.startswith("sm_") else "ptx"]
    )
    system, _, machine = platform.partition("-")
    unit = KernelContainer(0, ("kernel",), images)
    return Contents("", _FORMAT_OF.get(system, "elf"), machine, 1, images, (unit,))


_Relevant = tuple[str, Arch, str, Version | None]  # of an image: kind, arch, compression, version


def _relevant(image: Image) -> _Relevant:
    return image.kind, image.arch, image.compression, image.version


def _of_unit(
    images: Collection[_Relevant], relinked: bool, gpu: Arch, system: str
) -> Iterator[Need | None]:
    """What the images need that a GPU loads of a unit; None for one of which it is not known."""
    cubins = [one for one in images if one[0] == "elf" and runs_natively(one[1], gpu)]
    ptx = [one for one in images if one[0] == "ptx" and runs_by_jit(one[1], gpu)]
    usable = cubins or ptx
    if not usable and relinked:
        yield None
    best = max((arch.number for _, arch, _, _ in usable), default=0)
    for kind, arch, compression, version in usable:
        if arch.number != best:
            continue
        if version is None:
            yield None
        elif kind == "elf":
            yield tables().for_cuda(version[0], system)
        else:
            yield tables().for_ptx(version, system)
        if need := tables().for_compression(compression, system):
            yield need


def in_words(needs: Mapping[str, Need]) -> str:
    """`driver 525.60.13 or newer (CUDA 12); on 8.9 PTX 8.7 needs 570.26`; '' if nothing is known.

    What a GPU needs for itself is not spoken of.
    """
    by_code = {gpu: need for gpu, need in needs.items() if need.kind != GPU} or needs
    least = min(by_code.values(), key=_number, default=None)
    if least is None:
        return ""
    parts = [f"driver {least.driver} or newer ({least.reason})"]
    for need in dict.fromkeys(by_code.values()):
        if need.driver != least.driver:
            gpus = ", ".join(gpu for gpu, its in by_code.items() if its == need)
            parts.append(f"on {gpus} {need.reason} needs {need.driver}")
    return "; ".join(parts)


def jit_in_words(gpus: Collection[str]) -> str:
    """What to know of GPUs that run PTX alone, by their compute capabilities; '' for none."""
    if not gpus:
        return ""
    return (
        f"all or some code for {', '.join(gpus)} is PTX alone: the driver compiles it before its "
        "first use, which takes minutes for large projects"
    )


def _drivers(one: Mapping[str, Any]) -> dict[str, str]:
    return {system: one[system] for system in (LINUX, WINDOWS)}


def _version(text: str) -> Version:
    major, minor = text.split(".")
    return int(major), int(minor)


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
