"""The contents of a binary: its containers, their images and kernels.

Read once, container by container, so that a library of a gigabyte costs little memory. What is
malformed ends in FormatError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from ..arch import Arch
from ..decoders import MAX_DECOMPRESSED, kernels_of, payload
from ..errors import FormatError
from ..fatbin import cubin
from ..fatbin.binary import Binary
from ..fatbin.container import Entry
from ..fatbin.cubin import Version, cuda_of_cubin, version_of_ptx
from ..fatbin.embedded import Bound, Images, Place, find_embedded, place_of
from ..fatbin.parity import Described, is_readable
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
class Unit:
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
    units: tuple[Unit, ...]
    embedded: tuple[Place, ...] = ()
    relocatable: tuple[Place, ...] = ()

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
    path: str, binary: Binary, containers: Iterable[Container], embedded: tuple[Place, ...] = ()
) -> Contents:
    """What all containers hold together, as they come, and what was found elsewhere in the file."""
    images: list[Image] = []
    units: list[Unit] = []
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
            units.append(Unit(number, tuple(kernels), here, linked_from if linked else ()))
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
