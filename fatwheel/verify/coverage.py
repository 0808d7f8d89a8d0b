"""Which GPUs a file's device code runs on.

A program fails as soon as a kernel that it needs has no image, so that code for some of the
containers is support in part. Which kernels a program needs, nobody can tell from its bytes. Nor
can anybody tell what a library does with code among its data, or in files that it loads by name: it
may run on a GPU for which nothing else has code.
"""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..arch import JIT, NATIVE, NONE, Arch, coverage, parse_arch, parse_capability
from .contents import DEVICE_ONLY, Archs, Contents, archs_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The architectures of a container, and of each that it was linked from; images that it is without
# on purpose.
_Unit = tuple[Archs, tuple[Archs, ...], frozenset[str]]

PART, UNKNOWN = "part", "unknown"


@dataclass(frozen=True)
class Gpu:
    """GPUs of one compute capability, as people call them (gpus.toml).

    machines: of the computers that have them; () for any. legacy: today's CUDA does not support
    them any more.
    """

    capability: str
    names: tuple[str, ...]
    machines: tuple[str, ...] = ()
    legacy: bool = False


@dataclass(frozen=True)
class Served:
    """How many containers with kernels a GPU runs natively, after compiling PTX, or not at all.
    Those that were built for other GPUs on purpose do not count.

    embedded: whether libraries also load code themselves, which is not counted.
    """

    native: int = 0
    jit: int = 0
    none: int = 0
    embedded: bool = False

    @property
    def how(self) -> str:
        """NATIVE or JIT (the worst of all), PART; UNKNOWN or NONE if no container serves it."""
        if not self.native and not self.jit:
            return UNKNOWN if self.embedded else NONE
        if self.none:
            return PART
        return JIT if self.jit else NATIVE


def units_served(served: Served) -> str:
    """`24 of 30 units`."""
    good = served.native + served.jit
    return f"{good} of {good + served.none} units"


def coverage_of(binaries: Collection[Contents], *, in_wheel: bool = False) -> dict[str, Served]:
    """By compute capability, in ascending order.

    Of all GPUs that computers with such a processor can have today, of older ones that the file
    supports, and of those that images are for and that are not known here. in_wheel: whether
    these are the files of a wheel, where device code by itself is loaded by some library.
    """
    units: Counter[_Unit] = Counter()
    embedded: set[Archs] = set()
    for one in binaries:
        embedded.update(map(archs_of, (place.images for place in one.embedded)))
        if in_wheel and one.is_data:
            embedded.update(unit.archs for unit in one.units)
        else:
            units.update((unit.archs, unit.relocatable, unit.left_out) for unit in one.units)
    named = {image.arch.capability for one in binaries for image in one.images}
    places = (place for one in binaries for place in one.embedded)
    named |= {image.arch.capability for place in places for image in place.images}
    machines = machines_of(binaries)
    return dict(_found(frozenset(units.items()), frozenset(embedded), machines, frozenset(named)))


@functools.lru_cache(1024)  # thousands of files may be for the same GPUs
def _found(
    units: frozenset[tuple[_Unit, int]],
    embedded: frozenset[Archs],
    machines: frozenset[str],
    named: frozenset[str],
) -> Mapping[str, Served]:
    """named: the capabilities that images are for."""
    known = {gpu.capability for gpu in gpus()}
    always = {gpu.capability for gpu in gpus() if not gpu.legacy}
    found = {}
    for capability in sorted({*gpu_names(machines), *(named - known)}, key=parse_capability):
        served = replace(_served(units, capability), embedded=bool(embedded))
        gpu = parse_capability(capability)
        supported = served.how not in (NONE, UNKNOWN) or any(
            coverage(archs.cubins, archs.ptx, gpu) != NONE for archs in embedded
        )
        if supported or capability in always:
            found[capability] = served
    return found


def gpu_names(machines: Collection[str]) -> dict[str, list[str]]:
    """Names of GPUs by compute capability, of those that such computers can have."""
    found: dict[str, list[str]] = {}
    for gpu in gpus():
        if _fits(gpu, machines):
            found.setdefault(gpu.capability, []).extend(gpu.names)
    return found


def machines_of(binaries: Iterable[Contents]) -> frozenset[str]:
    """The processors that the files' host code is for; none for device code alone."""
    return frozenset(one.machine for one in binaries if one.machine != DEVICE_ONLY)


@functools.cache
def gpus() -> tuple[Gpu, ...]:
    """All GPUs that are known here, the oldest first."""
    with Path(__file__).with_name("gpus.toml").open("rb") as stream:
        found = tomllib.load(stream)["gpu"]
    return tuple(
        Gpu(
            one["capability"],
            tuple(one["names"]),
            tuple(one.get("machines", ())),
            one.get("legacy", False),
        )
        for one in found
    )


def _fits(gpu: Gpu, machines: Collection[str]) -> bool:
    return not machines or not gpu.machines or any(machine in gpu.machines for machine in machines)


def _served(units: Iterable[tuple[_Unit, int]], capability: str) -> Served:
    gpu = parse_capability(capability)
    count: Counter[str] = Counter()
    for (archs, relocatable, left_out), number in units:
        how = _coverage(archs, relocatable, gpu)
        # What is for other GPUs on purpose is not missing.
        if how != NONE or not _would_serve(left_out, gpu):
            count[how] += number
    return Served(count[NATIVE], count[JIT], count[NONE])


def _would_serve(images: frozenset[str], gpu: Arch) -> bool:
    cubins = [parse_arch(name) for name in images if name.startswith("sm_")]
    ptx = [parse_arch(name) for name in images if name.startswith("compute_")]
    return coverage(cubins, ptx, gpu) != NONE


def _coverage(archs: Archs, relocatable: tuple[Archs, ...], gpu: Arch) -> str:
    """How a GPU is served: at worst, a driver links linked code anew, from relocatable PTX."""
    served = coverage(archs.cubins, archs.ptx, gpu)
    if served != NONE or not relocatable:
        return served
    again = {coverage(each.cubins, each.ptx, gpu) for each in relocatable}
    return JIT if again == {JIT} else NONE
