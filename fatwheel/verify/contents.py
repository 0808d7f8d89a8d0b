"""The contents of a binary, its containers, their images and kernels; and on which GPUs they run.

Read once, container by container, so that a library of a gigabyte costs little memory. What is
malformed ends in FormatError.

A program fails as soon as a kernel that it needs has no image, so that code for some of the
containers is support in part. Which kernels a program needs, nobody can tell from its bytes. Nor
can anybody tell what a library does with code among its data, or in files that it loads by name: it
may run on a GPU for which nothing else has code.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ..arch import JIT, NATIVE, NONE, Arch, coverage, parse_arch, parse_capability
from ..decoders import MAX_DECOMPRESSED, kernels_of, payload
from ..errors import FormatError
from ..fatbin import cubin
from ..fatbin.binary import Binary
from ..fatbin.container import Entry
from ..fatbin.cubin import Version, cuda_of_cubin, version_of_ptx
from ..fatbin.embedded import Bound, EmbeddedCode, Images, find_embedded, place_of
from ..fatbin.images import Described, is_readable
from ..storage.documents import read_toml
from ..storage.mapped import STEP, let_go

DEVICE_ONLY = "cuda"  # the machine of a file without host code
_MAX_NAMES = 1 << 30  # characters of all kernels' names in one binary
_RELOCATABLE = "__nv_relfatbin"  # their section; Windows cuts its name


@dataclass(frozen=True)
class Image:
    """One image: 'elf' (a cubin), 'ptx', 'lto' or 'other'; size is bytes as they are stored.

    compression: '', 'lz4', 'zstd' or 'unknown'. version: of the CUDA that made a cubin, or of the
    PTX; None where that is not known.
    """

    kind: str
    arch: Arch
    size: int
    compression: str
    version: Version | None = None

    @property
    def name(self) -> str:
        """`sm_86` for a cubin, `compute_80` for any other kind."""
        return self.arch.sm if self.kind == "elf" else self.arch.compute


@dataclass(frozen=True)
class Read:
    """An image and its kernels; these are empty where its kind cannot be read."""

    image: Image
    kernels: Described


@dataclass(frozen=True)
class Archs:
    """The architectures of a container's cubins, and of its PTX."""

    cubins: frozenset[Arch]
    ptx: frozenset[Arch]


@dataclass(frozen=True)
class KernelContainer:
    """A container with kernels: its place in the file from 0 on, None for a cubin's own code.

    kernels are distinct, in the order of their names. relocatable are the architectures in each
    container that this one was linked from, if it was. left_out: images that other units have and
    that this one was not built for on purpose, as the wheel's record says.
    """

    container: int | None
    kernels: tuple[str, ...]
    images: tuple[Image, ...]
    relocatable: tuple[Archs, ...] = ()
    left_out: frozenset[str] = frozenset()

    @property
    def archs(self) -> Archs:
        """The architectures of its own images."""
        return archs_of(self.images)


@dataclass(frozen=True)
class Contents:
    """What one binary holds; images are those of all containers, also of those without kernels.

    embedded:    code among its data, which it gives to the driver itself.
    relocatable: code that its linked code was made from; no or one place.
    """

    path: str
    format: str
    machine: str
    containers: int
    images: tuple[Image, ...]
    units: tuple[KernelContainer, ...]
    embedded: tuple[EmbeddedCode, ...] = ()
    relocatable: tuple[EmbeddedCode, ...] = ()

    @property
    def linkable(self) -> frozenset[str]:
        """The PTX that its linked code was made from: drivers link it anew."""
        images = (image for place in self.relocatable for image in place.images)
        return frozenset(image.name for image in images if image.kind == "ptx")

    @property
    def is_data(self) -> bool:
        """Whether it is device code alone: in a wheel, a file that some library loads by name."""
        return self.machine == DEVICE_ONLY


# One container's images, or a cubin by itself.
Container = tuple[int | None, list[Read]]
# An image's kind, what messages call it, its bytes -> its kernels.
ReadImage = Callable[[str, str, bytes | memoryview], Described]


def read_contents(path: str, data: memoryview, binary: Binary, bound: Bound) -> Contents:
    """What a binary at `path` holds, as `read_binary` read it; of its kernels only the names are
    looked at. bound: of the search for more among its data."""
    containers = read_containers(data, binary, names_of)
    return sum_up(path, binary, containers, find_embedded(data, binary.format, bound))


def names_of(kind: str, title: str, image: bytes | memoryview) -> Described:
    """The kernels of a cubin ('elf') or PTX by name, without their layouts."""
    read = cubin.kernel_names_of_cubin if kind == "elf" else cubin.kernel_names_of_ptx
    return Described(title, frozenset(read(image)), None)


def layouts_of(kind: str, title: str, image: bytes | memoryview) -> Described:
    """The same, and the layouts of their parameters where it is a cubin."""
    if kind != "elf":
        return names_of(kind, title, image)
    layouts = cubin.kernels_of_cubin(image)
    return Described(title, frozenset(layouts), layouts)


def read_containers(data: memoryview, binary: Binary, read: ReadImage) -> Iterator[Container]:
    """The images of each container of a binary, and what `read` finds in them."""
    if binary.format == "cubin":
        yield None, [_read_cubin(data)]
    held = (*binary.containers, *binary.relocatable)
    total = sum(entry.uncompressed for found in held for entry in found.entries)
    if total > MAX_DECOMPRESSED:
        raise FormatError(f"its images claim {total} bytes uncompressed, too many to read")
    read_so_far = 0
    for number, found in enumerate(binary.containers):
        read_so_far += found.size
        if read_so_far > STEP:
            let_go(data)
            read_so_far = 0
        try:
            yield number, [_read(entry, read) for entry in found.entries]
        except FormatError as error:
            raise error.within(f"fatbin container at offset {found.offset:#x}") from error


def sum_up(
    path: str,
    binary: Binary,
    containers: Iterable[Container],
    embedded: tuple[EmbeddedCode, ...] = (),
) -> Contents:
    """What all containers hold together, as they come, and what was found elsewhere in the file."""
    images: list[Image] = []
    units: list[KernelContainer] = []
    names = 0
    kernels_linked, linked_from = _relocatable(binary)
    for number, found in containers:
        here = tuple(read.image for read in found)
        images += here
        kernels = sorted(set().union(*(read.kernels.kernels for read in found)))
        names += sum(map(len, kernels))
        if names > _MAX_NAMES:
            raise FormatError("its kernels' names are too long")
        if kernels:
            linked = kernels_linked.issuperset(kernels)
            units.append(
                KernelContainer(number, tuple(kernels), here, linked_from if linked else ())
            )
    return Contents(
        path,
        binary.format,
        binary.machine,
        len(binary.containers),
        tuple(images),
        tuple(units),
        embedded,
        (place_of(_RELOCATABLE, binary.relocatable),) if binary.relocatable else (),
    )


def _relocatable(binary: Binary) -> tuple[frozenset[str], tuple[Archs, ...]]:
    """The kernels of relocatable device code, and the architectures in each of its containers."""
    containers = [container.entries for container in binary.relocatable]
    kernels = frozenset().union(*(kernels_of(entries) for entries in containers))
    return kernels, tuple(archs_of(map(_image, entries)) for entries in containers)


def archs_of(images: Iterable[Image | Images]) -> Archs:
    """The architectures of these images."""
    found = [(image.kind, image.arch) for image in images]
    return Archs(
        frozenset(arch for kind, arch in found if kind == "elf"),
        frozenset(arch for kind, arch in found if kind == "ptx"),
    )


def _read(entry: Entry, read: ReadImage) -> Read:
    image = _image(entry)
    if not is_readable(entry):
        return Read(image, Described(image.name, frozenset(), None))
    data = payload(entry)
    version = cuda_of_cubin(data) if entry.kind == "elf" else version_of_ptx(data)
    return Read(replace(image, version=version), read(entry.kind, image.name, data))


def _image(entry: Entry) -> Image:
    return Image(entry.kind, entry.arch, entry.stored, entry.compression)


def _read_cubin(data: memoryview) -> Read:
    arch, layouts = cubin.arch_and_kernels(data)
    image = Image("elf", arch, len(data), "", cuda_of_cubin(data))
    return Read(image, Described(image.name, frozenset(layouts), layouts))


# -- which GPUs run it -----------------------------------------------------------------------------

# The architectures of a container, and of each that it was linked from; images that it is without
# on purpose.
_CoveredUnit = tuple[Archs, tuple[Archs, ...], frozenset[str]]

PART, UNKNOWN = "part", "unknown"


@dataclass(frozen=True)
class GpuModel:
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
    units: Counter[_CoveredUnit] = Counter()
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
    units: frozenset[tuple[_CoveredUnit, int]],
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
def gpus() -> tuple[GpuModel, ...]:
    """All GPUs that are known here, the oldest first."""
    found = read_toml(Path(__file__).with_name("gpus.toml"))[1]["gpu"]
    return tuple(
        GpuModel(
            one["capability"],
            tuple(one["names"]),
            tuple(one.get("machines", ())),
            one.get("legacy", False),
        )
        for one in found
    )


def _fits(gpu: GpuModel, machines: Collection[str]) -> bool:
    return not machines or not gpu.machines or any(machine in gpu.machines for machine in machines)


def _served(units: Iterable[tuple[_CoveredUnit, int]], capability: str) -> Served:
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
