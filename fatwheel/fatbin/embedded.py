"""Device code among a library's data, which the library itself gives to the driver.

CUDA's runtime finds containers in a section of their own, through wrappers (`linked`). Some
libraries keep more of them elsewhere, and cubins without a container: arrays in `.data` and
`.rodata` (cuFFT), or sections of their own (`.cask_resource` in cuBLASLt, `.cask_re` in cuTENSOR
for Windows). Nothing in the file says which of them a program loads, or on which GPU.

They are known by their first bytes, and told from other bytes by their structure: a container's
entries fill it to the end, and a cubin's tables and sections are all there. Nothing is
decompressed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..arch import Arch
from ..errors import FormatError
from ..storage.mapped import STEP, let_go
from . import coff, elf, pe
from .container import MAGIC_BYTES, Container, Entry, parse_containers
from .cubin import arch_of_cubin

_CONTAINER = struct.Struct("<IHHQ")
_ENTRY_START, _ENTRY_VERSION = struct.Struct("<HHIQ"), 0x0101
_MIN_ENTRY, _MAX_ENTRY = 64, 4096  # bytes of an entry's header; real ones have 64 to 128
_CUBIN = elf.MAGIC + b"\2\1\1"  # 64 bits, little-endian, version 1
_PROGRAM = 56  # bytes of a program header
_NAME_SHOWN = 100  # characters; no linker's section has so long a name

_PIECE = 1 << 20
_LONGEST = max(len(MAGIC_BYTES), len(_CUBIN))
# Headers that are looked at in a wheel and come to nothing: many times more than in any real one
# (16 in torch).
_MAX_IN_VAIN = 10_000


@dataclass(frozen=True)
class Images:
    """Images of one kind and architecture, in bytes as they are stored."""

    kind: str
    arch: Arch
    compressed: bool
    count: int
    size: int

    @property
    def name(self) -> str:
        """`sm_86` for a cubin, `compute_80` for any other kind."""
        return self.arch.sm if self.kind == "elf" else self.arch.compute


@dataclass(frozen=True)
class EmbeddedCode:
    """Device code in one section; name is '' for what lies outside all sections.

    size: bytes of the containers, and of the cubins that are in none. images: by architecture.
    """

    name: str
    containers: int
    cubins: int
    size: int
    images: tuple[Images, ...]

    @property
    def title(self) -> str:
        """`18,227 containers in .data`."""
        return title_of(self.name, self.containers, self.cubins)


def title_of(place: str, containers: int, cubins: int) -> str:
    """What is in a section, as people read it: `18,227 containers and 1 cubin in .data`."""
    counts = [
        f"{number:,} {noun}{'' if number == 1 else 's'}"
        for number, noun in ((containers, "container"), (cubins, "cubin"))
        if number
    ]
    name = "".join(one if one.isprintable() else "\ufffd" for one in place[:_NAME_SHOWN])
    where = f"in {name}" if name else "outside all sections"
    return f"{' and '.join(counts)} {where}"


def find_embedded(data: memoryview, format_: str, bound: Bound) -> tuple[EmbeddedCode, ...]:
    """The device code outside the sections that are made for it, by section, in the file's order.

    format_: as `binary.Binary` has it. bound: the wheel's. Raises FormatError where the search
    would not end in time.
    """
    found: dict[str, _Tally] = {}
    for name, start, end in _spans(data, format_):
        for size, code in _code_between(data, start, end, bound):
            found.setdefault(name, _Tally()).add(size, code)
    return tuple(tally.place(name) for name, tally in found.items())


def place_of(name: str, containers: Iterable[Container]) -> EmbeddedCode:
    """Containers that are known already, counted in the same way."""
    tally = _Tally()
    for one in containers:
        tally.add(one.size, one.entries)
    return tally.place(name)


def place_of_cubin(cubin: memoryview) -> EmbeddedCode:
    """A cubin that is a file of its own; FormatError where it is malformed."""
    tally = _Tally()
    tally.add(len(cubin), arch_of_cubin(cubin))
    return tally.place("")


def total_size(places: Iterable[EmbeddedCode]) -> int:
    return sum(place.size for place in places)


# What was found: a container's entries, or the architecture of a cubin.
_Code = Sequence[Entry] | Arch


class _Tally:
    """Counts device code without keeping it: there may be very much."""

    def __init__(self) -> None:
        self._containers = self._cubins = self._size = 0
        self._images: dict[tuple[Arch, str, bool], list[int]] = {}

    def add(self, size: int, code: _Code) -> None:
        self._size += size
        if isinstance(code, Arch):
            self._cubins += 1
            self._count(code, "elf", False, size)
            return
        self._containers += 1
        for entry in code:
            self._count(entry.arch, entry.kind, bool(entry.compression), entry.stored)

    def _count(self, arch: Arch, kind: str, compressed: bool, size: int) -> None:
        held = self._images.setdefault((arch, kind, compressed), [0, 0])
        held[0] += 1
        held[1] += size

    def place(self, name: str) -> EmbeddedCode:
        images = tuple(
            Images(kind, arch, compressed, *self._images[arch, kind, compressed])
            for arch, kind, compressed in sorted(self._images)
        )
        return EmbeddedCode(name, self._containers, self._cubins, self._size, images)


class Bound:
    """Bounds what is read in vain, in all files of a wheel together. What is found costs no more
    than its bytes: the search goes on behind it. But what begins like device code and is none may
    share its bytes with others."""

    def __init__(self) -> None:
        self._left = _MAX_IN_VAIN
        self._spent = 0

    def spend(self, headers: int) -> None:
        self._spent += headers

    def settle(self, found: bool) -> None:
        if not found:
            self._left -= self._spent
        self._spent = 0
        if self._left < 0:
            raise FormatError("too much in its data begins like device code and is none")


# -- where to look ---------------------------------------------------------------------------------


def _spans(data: memoryview, format_: str) -> Iterator[tuple[str, int, int]]:
    """Parts of the file that together are all of it, but for the sections of device code: name of
    the section, first byte, end. No byte is in two of them, whatever the section table says."""
    sections = list(_sections(data, format_))
    code = sorted((start, end) for _, start, end, is_code in sections if is_code and start < end)
    others = [(start, end, name) for name, start, end, is_code in sections if not is_code]
    position = 0
    for start, end, name in sorted(others, key=lambda one: one[:2]):
        start, end = min(max(start, position), len(data)), min(end, len(data))
        if start < end:
            yield from _outside(code, "", position, start)
            yield from _outside(code, name, start, end)
            position = end
    if format_ in ("elf", "pe", "coff"):
        yield from _outside(code, "", position, len(data))


def _outside(
    code: Sequence[tuple[int, int]], name: str, start: int, end: int
) -> Iterator[tuple[str, int, int]]:
    """What of a part of the file is in no section of device code."""
    for begin, behind in code:
        if start < min(begin, end):
            yield name, start, min(begin, end)
        start = max(start, behind)
    if start < end:
        yield name, start, end


def _sections(data: memoryview, format_: str) -> Iterator[tuple[str, int, int, bool]]:
    """Name, first byte and end of each section, and whether it is made for device code."""
    match format_:
        case "elf" if bytes(data[4:6]) == _CUBIN[4:6]:  # others are for machines without CUDA
            for one in elf.read_elf(data).sections:
                is_code = one.name in elf.FATBIN_SECTIONS
                yield one.name, one.offset, one.offset + one.in_file, is_code
        case "pe":
            for image in pe.read_pe(data).sections:
                yield image.name, image.offset, image.end, image.name in pe.FATBIN_SECTIONS
        case "coff":
            codes = tuple(name[:8] for name in coff.FATBIN_SECTIONS)
            for obj in coff.read_coff(data).sections:
                end = obj.offset + obj.in_file
                yield obj.name, obj.offset, end, obj.name[:8] in codes


# -- what is there ---------------------------------------------------------------------------------


def _code_between(
    data: memoryview, start: int, end: int, bound: Bound
) -> Iterator[tuple[int, _Code]]:
    """All containers and cubins in a part of the file, with their sizes; what lies in them is not
    looked for."""
    position = start
    for offset in _beginnings(data, start, end):
        if offset < position:
            continue
        bound.spend(1)
        found = _container(data[offset:end], bound) or _cubin(data[offset:end], bound)
        bound.settle(found is not None)
        if found:
            yield found
            position = offset + found[0]


def _beginnings(data: memoryview, start: int, end: int) -> Iterator[int]:
    """Where one may begin. Copies of small pieces are searched: twenty times as fast as to search a
    mapped file, on some Pythons."""
    for place in range(start, end, _PIECE):
        if (place - start) % STEP == 0:
            let_go(data)
        piece = bytes(data[place : min(place + _PIECE + _LONGEST - 1, end)])
        found: list[int] = []
        for beginning in (MAGIC_BYTES, _CUBIN):
            at = piece.find(beginning)
            while 0 <= at < _PIECE:
                found.append(place + at)
                at = piece.find(beginning, at + 1)
        yield from sorted(found)


def _container(view: memoryview, bound: Bound) -> tuple[int, tuple[Entry, ...]] | None:
    """Size and entries of the container that a view begins with; None for anything else. Those
    without entries hold no code."""
    if len(view) < _CONTAINER.size or view[:4] != MAGIC_BYTES:
        return None
    _, version, header, length = _CONTAINER.unpack_from(view)
    size = header + length
    if (version, header) != (1, _CONTAINER.size) or not length or size > len(view):
        return None
    if not _is_filled(view[header:size], bound):
        return None
    try:
        [container] = parse_containers(view[:size])
    except FormatError:
        return None
    return size, container.entries


def _is_filled(view: memoryview, bound: Bound) -> bool:
    """Whether entries stand one behind the other to the very end."""
    position = 0
    while position < len(view):
        bound.spend(1)
        if len(view) - position < _MIN_ENTRY:
            return False
        _, version, header, padded = _ENTRY_START.unpack_from(view, position)
        if version != _ENTRY_VERSION or not _MIN_ENTRY <= header <= _MAX_ENTRY:
            return False
        position += header + padded
    return position == len(view)


def _cubin(view: memoryview, bound: Bound) -> tuple[int, Arch] | None:
    """Size and architecture of the cubin that a view begins with; None for anything else."""
    if len(view) < elf.HEADER.size or view[: len(_CUBIN)] != _CUBIN:
        return None
    header = elf.HEADER.unpack_from(view)
    machine, programs, table, flags = header[2], header[5], header[6], header[7]
    program_count, row, count = header[10], header[11], header[12]
    if machine != elf.EM_CUDA or row != elf.SECTION.size or not count or not flags:
        return None
    size = max(table + count * row, programs + program_count * _PROGRAM)
    if size > len(view):
        return None
    bound.spend(count)
    for section in elf.SECTION.iter_unpack(view[table : table + count * row]):
        if section[1] != elf.SHT_NOBITS:
            size = max(size, section[4] + section[5])
    if size > len(view):
        return None
    bound.spend(size >> 12)  # its names are copied
    try:
        return size, arch_of_cubin(view[:size])
    except FormatError:
        return None
