"""What device code a file holds, and which GPUs it serves: `invoke inspect`.

Everything is read from the bytes, never from the file's name. The result's shape is fixed by
`schema/inspect.schema.json`.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..arch import CAPABILITIES, Arch, coverage, parse_capability
from ..decoders import DECODERS
from ..errors import FormatError, UsageError
from ..fatbin import container, cubin, elf
from ..fatbin.stitch import FATBIN_SECTION, RELOCATABLE_SECTION
from ..wheels.archive import Wheel, open_wheel

_MACHINES = {3: "x86", 21: "ppc64", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}
_HEAD = 4096
# Of one binary, decompressed: four times the largest known (torch), so that a bomb ends in time.
_MAX_DECOMPRESSED = 16 << 30
_MAX_NAMES = 1 << 30


@dataclass(frozen=True)
class Image:
    """Images of one kind, architecture and compression in one binary; size is bytes stored."""

    kind: str
    arch: Arch
    compressed: bool


@dataclass
class Binary:
    """One binary of a wheel, or the file itself.

    groups: per container with kernels, the architectures of its cubins and of its PTX.
    """

    path: str
    format: str
    machine: str
    containers: int = 0
    kernels: set[str] = field(default_factory=set)
    count: Counter[Image] = field(default_factory=Counter)
    size: Counter[Image] = field(default_factory=Counter)
    groups: list[tuple[frozenset[Arch], frozenset[Arch]]] = field(default_factory=list)

    def add_container(self, images: Iterable[tuple[Image, int, tuple[str, ...]]]) -> None:
        """Count a container's images: each with its stored size and its kernels' names."""
        seen = list(images)
        names = [name for _, _, kernels in seen for name in kernels]
        for image, size, _ in seen:
            self.count[image] += 1
            self.size[image] += size
        self.kernels.update(names)
        if names:
            cubins = frozenset(image.arch for image, _, _ in seen if image.kind == "elf")
            ptx = frozenset(image.arch for image, _, _ in seen if image.kind == "ptx")
            self.groups.append((cubins, ptx))


def inspect_file(path: Path) -> dict[str, Any]:
    """What is in a wheel, ELF object or library, fatbin or cubin, as `--json` prints it.

    UsageError if there is no such file, FormatError if it is none of these or damaged.
    """
    data = _map_file(path)
    if bytes(data[:4]) == b"PK\x03\x04":
        return _inspect_wheel(path)
    try:
        binary = _inspect_binary(path.name, data)
    except FormatError as error:
        raise _located(error, str(path)) from error
    return _report(path, None, [binary])


def coverage_of(binaries: Iterable[Binary]) -> dict[str, str]:
    """Per GPU capability 'native', 'jit' or 'none'; the worst container with kernels decides.

    A program fails as soon as one kernel that it needs has no image, so the best container is of
    no use. Without any kernels, nothing is served.
    """
    groups = {group for binary in binaries for group in binary.groups}
    ranks = ("none", "jit", "native")
    return {
        capability: min(
            (coverage(cubins, ptx, parse_capability(capability)) for cubins, ptx in groups),
            key=ranks.index,
            default="none",
        )
        for capability in CAPABILITIES
    }


def _map_file(path: Path) -> memoryview:
    """The file's bytes, mapped; the mapping goes with its last view."""
    try:
        with path.open("rb") as stream:
            if path.stat().st_size == 0:
                raise FormatError("the file is empty", where=str(path))
            return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise UsageError(
            f"cannot read this file: {error.strerror or error}",
            where=str(path),
            hint="valid: a wheel, .so, .o, .fatbin or .cubin",
        ) from error


def _inspect_wheel(path: Path) -> dict[str, Any]:
    with open_wheel(path) as wheel:
        binaries = []
        for member in wheel.members:
            if _is_binary(wheel.start(member.name, _HEAD)):
                with wheel.mapped(member.name) as data:
                    binaries.append(_inspect_member(member.name, data))
        return _report(path, wheel, binaries)


def _inspect_member(name: str, data: memoryview) -> Binary:
    try:
        return _inspect_binary(name, data)
    except FormatError as error:
        raise _located(error, name) from error


def _is_binary(head: bytes) -> bool:
    """Whether a wheel's member may hold device code that a program loads."""
    return head[:4] in (elf.MAGIC, container.MAGIC_BYTES) or _is_pe(head)


def _is_pe(head: bytes) -> bool:
    offset = int.from_bytes(head[0x3C:0x40], "little")
    return head[:2] == b"MZ" and head[offset : offset + 4] == b"PE\0\0"


def _inspect_binary(name: str, data: memoryview) -> Binary:
    """Tell the format from the bytes and read it; FormatError for what is not supported."""
    head = bytes(data[:_HEAD])
    if head[:4] == elf.MAGIC:
        return _inspect_elf(name, data)
    if head[:4] == container.MAGIC_BYTES:
        binary = Binary(name, "fatbin", "cuda")
        _add_containers(binary, container.parse_containers(data))
        return binary
    if _is_pe(head):
        raise FormatError("PE files (.pyd, .dll, .exe) are not supported yet")
    if head[:8] == b"!<arch>\n":
        raise FormatError(
            "static libraries are not supported", hint="extract the objects first: ar x FILE"
        )
    raise FormatError(
        "not a kind of file that is known here",
        hint="valid: a wheel, or a 64-bit ELF object or library, a fatbin or a cubin",
    )


def _inspect_elf(name: str, data: memoryview) -> Binary:
    file = elf.read_elf(data)
    if file.machine == elf.EM_CUDA:
        return _inspect_cubin(name, data)
    if not file.sections:
        raise FormatError("it has no section table, so its device code cannot be found")
    binary = Binary(name, "elf", _MACHINES.get(file.machine, f"machine {file.machine}"))
    # Where device code was linked, the executable code is what runs; the relocatable code that
    # it was linked from stays in the file. NVIDIA's cuobjdump chooses in the same way.
    sections = file.named(FATBIN_SECTION) or file.named(RELOCATABLE_SECTION)
    if len(sections) > 1:
        raise FormatError(f"{len(sections)} sections named {sections[0].name}, where one may be")
    for section in sections:
        _add_containers(binary, container.parse_containers(file.content(section)))
    return binary


def _inspect_cubin(name: str, data: memoryview) -> Binary:
    binary = Binary(name, "cubin", "cuda")
    image = Image("elf", cubin.arch_of_cubin(data), compressed=False)
    binary.add_container([(image, len(data), cubin.kernel_names_of_cubin(data))])
    return binary


def _add_containers(binary: Binary, containers: tuple[container.Container, ...]) -> None:
    total = sum(entry.uncompressed for found in containers for entry in found.entries)
    if total > _MAX_DECOMPRESSED:
        raise FormatError(f"its images claim {total} bytes uncompressed: too many to read")
    binary.containers = len(containers)
    for found in containers:
        where = f"fatbin container at offset {found.offset:#x}"
        try:
            binary.add_container([_read_image(entry) for entry in found.entries])
        except FormatError as error:
            raise _located(error, where) from error
        if sum(map(len, binary.kernels)) > _MAX_NAMES:
            raise FormatError("its kernels' names are too long", where=where)


def _read_image(entry: container.Entry) -> tuple[Image, int, tuple[str, ...]]:
    names: tuple[str, ...] = ()
    if entry.kind == "elf":
        names = cubin.kernel_names_of_cubin(container.payload(entry, DECODERS))
    elif entry.kind == "ptx":
        names = cubin.kernel_names_of_ptx(container.payload(entry, DECODERS))
    image = Image(entry.kind, entry.arch, compressed=bool(entry.compression))
    return image, entry.stored, names


def _located(error: FormatError, place: str) -> FormatError:
    where = f"{place}: {error.where}" if error.where else place
    return FormatError(error.what, where=where, hint=error.hint, details=error.details)


def _report(path: Path, wheel: Wheel | None, binaries: list[Binary]) -> dict[str, Any]:
    return {
        "file": path.name,
        "wheel": wheel and {"name": wheel.name, "version": wheel.version, "tags": list(wheel.tags)},
        "binaries": [_report_binary(binary) for binary in binaries],
        "coverage": coverage_of(binaries),
    }


def _report_binary(binary: Binary) -> dict[str, Any]:
    ordered = sorted(binary.count, key=lambda image: (image.arch, image.kind, image.compressed))
    return {
        "path": binary.path,
        "format": binary.format,
        "machine": binary.machine,
        "containers": binary.containers,
        "kernels": len(binary.kernels),
        "images": [
            {
                "kind": image.kind,
                "arch": image.arch.sm if image.kind == "elf" else image.arch.compute,
                "count": binary.count[image],
                "bytes": binary.size[image],
                "compressed": image.compressed,
            }
            for image in ordered
        ],
    }
