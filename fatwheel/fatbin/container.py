"""Fatbin containers and their entries (images): read them, and write them back verbatim.

A `.fatbin` file, or a binary's `.nv_fatbin` section, is a row of containers with zero padding
between them. The format is NVIDIA's and unpublished; this reading was measured on CUDA 11.8 to
13.2 against `cuobjdump`:

container header, 16 bytes: u32 magic, u16 version (1), u16 header size (16), u64 size of entries
entry header, 64 bytes or more, all little-endian:
  0x00 u16 kind   0x02 u16 0x0101   0x04 u32 header size   0x08 u64 padded payload size
  0x10 u32 compressed size (0: not compressed)   0x14 u32 offset of options
  0x18 u16 minor, u16 major (PTX ISA or cubin version)   0x1C u32 architecture number
  0x20 u32, u32 offset and length of an identifier   0x28 u64 flags   0x38 u64 uncompressed size

Entries are always copied whole: a header rebuilt from a cubin would lose the a/f suffix and the
fields that newer CUDA versions add.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ..arch import NUMBERS, Arch
from ..errors import FormatError
from ..storage.mapped import Reading

MAGIC = 0xBA55ED50
MAGIC_BYTES = struct.pack("<I", MAGIC)

# How the header of every container begins.
HEADER_START = struct.pack("<IHH", MAGIC, 1, 16)

_CONTAINER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")
_KINDS = {1: "ptx", 2: "elf", 8: "lto"}

_FLAG_LZ4 = 0x2000
_FLAG_ZSTD = 0x8000
_FLAG_ARCH_SPECIFIC = 0x100000
_FLAG_FAMILY_SPECIFIC = 0x200000

# The CUDA runtime addresses a container with 32-bit offsets, and so do linkers' relocations.
MAX_CONTAINER = 2**31 - 1
# More than any real binary has (the largest have some ten thousand); bounds memory.
MAX_PARTS = 500_000
# Of all images of a section together: how many times its size they may become. Real ones stay
# below 20.
MAX_RATIO = 100
# Below this total, in bytes, the ratio does not matter.
_SMALL = 64 << 20
# Of a mapped file the system reads so many bytes where one of them is needed.
_READ_AT_ONCE = 65536


@dataclass(frozen=True)
class Entry:
    """One image of a container.

    kind:         'elf' (cubin), 'ptx', 'lto' (LTO-IR) or 'other'.
    arch:         what it was made for, with its a/f suffix.
    compression:  '', 'lz4', 'zstd' or 'unknown'.
    stored:       payload size in bytes as it lies in the file, without padding.
    uncompressed: payload size in bytes once decompressed.
    raw:          header, payload and padding, as they are in the file.
    """

    kind: str
    arch: Arch
    flags: int
    header_size: int
    compression: str
    stored: int
    uncompressed: int
    raw: memoryview = field(repr=False)


@dataclass(frozen=True)
class Container:
    """One container; offset is where its header starts in what was read, size includes it."""

    offset: int
    size: int
    entries: tuple[Entry, ...]


def parse_containers(data: bytes | memoryview) -> tuple[Container, ...]:
    """All containers of a section or `.fatbin` file, in order; () if it is empty or all zeros.

    Entries refer to `data`, which is not copied. Raises FormatError, by offset.
    """
    view = memoryview(data)
    containers: list[Container] = []
    parts = 0
    reading = Reading()
    position = _skip_zeros(view, 0, reading)
    while position < len(view):
        container = _read_container(view, position, reading)
        containers.append(container)
        parts += 1 + len(container.entries)
        if parts > MAX_PARTS:
            raise FormatError(f"more than {MAX_PARTS} containers and images in one section")
        position = _skip_zeros(view, position + container.size, reading)
    _check_expansion(containers, len(view))
    return tuple(containers)


def _check_expansion(containers: Iterable[Container], size: int) -> None:
    """Refuse a bomb: whoever reads all images must not need out of all proportion to the file."""
    total = sum(
        entry.uncompressed
        for found in containers
        for entry in found.entries
        if entry.compression in ("lz4", "zstd")  # of others nothing is decompressed
    )
    if total > max(size * MAX_RATIO, _SMALL):
        raise FormatError(
            f"{size} bytes of device code claim to be {total} once decompressed",
            hint=f"accepted are {MAX_RATIO} times as much",
        )


def write_container(entries: Iterable[Entry]) -> bytes:
    """One container with these entries, copied verbatim in the given order."""
    return b"".join(container_pieces(entries))


def container_pieces(entries: Iterable[Entry]) -> tuple[bytes | memoryview, ...]:
    """The same without a copy: the container's header, then the entries' own bytes."""
    parts = [entry.raw for entry in entries]
    size = sum(len(part) for part in parts)
    if size + _CONTAINER.size > MAX_CONTAINER:
        raise FormatError(
            f"a fatbin container of {size} bytes is too large",
            hint=f"CUDA addresses at most {MAX_CONTAINER} bytes; build for fewer architectures",
        )
    return (_CONTAINER.pack(MAGIC, 1, _CONTAINER.size, size), *parts)


def _skip_zeros(view: memoryview, position: int, reading: Reading) -> int:
    """Where the next byte that is not zero stands, or the end."""
    while position < len(view):
        part = view[position : position + _READ_AT_ONCE]
        reading.has_read(part)
        step = bytes(part)
        rest = step.lstrip(b"\0")
        position += len(step) - len(rest)
        if rest:
            break
    return position


def _read_container(view: memoryview, offset: int, reading: Reading) -> Container:
    where = f"fatbin container at offset {offset:#x}"
    if len(view) - offset < _CONTAINER.size:
        raise FormatError("the container header is cut off", where=where)
    magic, version, header_size, size = _CONTAINER.unpack_from(view, offset)
    if magic != MAGIC:
        raise FormatError(f"no container here: magic {magic:#010x}, not {MAGIC:#x}", where=where)
    if version != 1 or header_size != _CONTAINER.size:
        raise FormatError(
            f"container version {version} with a header of {header_size} bytes is not known",
            where=where,
        )
    start = offset + header_size
    if size > len(view) - start:
        raise FormatError(
            f"the container claims {size} bytes of images, {len(view) - start} are there",
            where=where,
        )
    entries = tuple(_read_entries(view[start : start + size], where, reading))
    return Container(offset, header_size + size, entries)


def _read_entries(view: memoryview, where: str, reading: Reading) -> Iterator[Entry]:
    position = 0
    for _ in range(MAX_PARTS):
        if position == len(view):
            return
        try:
            entry = _read_entry(view, position)
        except FormatError as error:
            raise FormatError(error.what, where=f"{where}, entry at {position:#x}") from error
        yield entry
        reading.has_read(entry.raw[:_READ_AT_ONCE])
        position += len(entry.raw)
    raise FormatError(f"more than {MAX_PARTS} images in one container", where=where)


def _read_entry(view: memoryview, position: int) -> Entry:
    room = len(view) - position
    if room < _ENTRY.size:
        raise FormatError("the entry's header is cut off")
    header = _ENTRY.unpack_from(view, position)
    kind, _, header_size, padded, compressed = header[:5]
    number, flags, uncompressed = header[8], header[11], header[13]
    if not _ENTRY.size <= header_size <= room:
        raise FormatError(f"the entry's header cannot be {header_size} bytes")
    if padded > room - header_size:
        raise FormatError(f"the image claims {padded} bytes, {room - header_size} are there")
    if compressed > padded:
        raise FormatError(f"{compressed} compressed bytes do not fit into the image's {padded}")
    if kind in _KINDS and number not in NUMBERS:
        raise FormatError(f"the image is for architecture {number}, which cannot be")
    return Entry(
        kind=_KINDS.get(kind, "other"),
        arch=Arch(number, _suffix(flags)),
        flags=flags,
        header_size=header_size,
        compression=_compression(flags) if compressed else "",
        stored=compressed or padded,
        uncompressed=uncompressed if compressed else padded,
        raw=view[position : position + header_size + padded],
    )


def _suffix(flags: int) -> str:
    if flags & _FLAG_FAMILY_SPECIFIC:
        return "f"
    return "a" if flags & _FLAG_ARCH_SPECIFIC else ""


def _compression(flags: int) -> str:
    if flags & _FLAG_ZSTD:
        return "zstd"
    return "lz4" if flags & _FLAG_LZ4 else "unknown"


# -- containers in linked files --------------------------------------------------------------------

# A linked program finds its containers through wrappers, 24 bytes each, one per container, in
# section `.nvFatBinSegment` (ELF) or `.nvFatBi` (PE):
#
#   0x00 u32 magic 0x466243B1   0x04 u32 version (1; 2 where device code was linked)
#   0x08 u64 address of the container   0x10 u64 0, or where device code was linked an address
#
# Measured on CUDA 11.8 to 13.2. In a file the address may be in the relocation that fills the
# wrapper instead of in the wrapper itself, so the formats' own modules look it up. Addresses are
# those of the loaded file, before it is moved; sizes and offsets are bytes.


S = TypeVar("S")

# Whether an image may have kernels. To tell, it must be decompressed, which this room cannot do
# (`decoders.may_have_kernels` can), so whoever edits files says how.
HasKernels = Callable[[Entry], bool]

_WRAPPER_MAGIC = 0x466243B1
POINTER = 8  # where the container's address stands in a wrapper

_WRAPPER = struct.Struct("<IIQQ")
_PLAIN, _DEVICE_LINKED = 1, 2
# Containers hold 8-byte fields; nvcc aligns their section to 8, too.
_ALIGN = 8


@dataclass(frozen=True)
class Wrapper:
    """One wrapper: the address of its pointer, its version, and the address it points to."""

    pointer: int
    version: int
    target: int


@dataclass(frozen=True)
class Rewritten:
    """A file with other device code, in pieces that mostly are views of the old file.

    notes are sentences for the user: what was lost on the way, such as a signature. unchanged:
    whether it is the file as it was, since its program uses none of its containers.
    """

    pieces: tuple[bytes | memoryview, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    unchanged: bool = False

    @property
    def size(self) -> int:
        return sum(len(piece) for piece in self.pieces)


def read_wrappers(
    section: memoryview, address: int, address_at: Callable[[int], int | None]
) -> tuple[Wrapper, ...]:
    """The wrappers in a section that is loaded at `address`, in order.

    address_at gives the address that a pointer will hold once the file is loaded at its own
    address; None for a null pointer, whose wrapper is left out: a linker that drops a container
    leaves such behind (NCCL's in torch 1.13). Raises FormatError for anything that is neither a
    wrapper nor zeros.
    """
    return tuple(_wrappers(section, address, address_at))


def _wrappers(
    section: memoryview, address: int, address_at: Callable[[int], int | None]
) -> Iterator[Wrapper]:
    position = 0
    while position < len(section):
        if not any(section[position : position + 8]):  # padding is in steps of the alignment
            position += 8
            continue
        where = f"fatbin wrapper at address {address + position:#x}"
        if len(section) - position < _WRAPPER.size:
            raise FormatError("the wrapper is cut off", where=where)
        magic, version, _, _ = _WRAPPER.unpack_from(section, position)
        if magic != _WRAPPER_MAGIC:
            raise FormatError(
                f"no wrapper here: magic {magic:#010x}, not {_WRAPPER_MAGIC:#x}", where=where
            )
        if version not in (_PLAIN, _DEVICE_LINKED):
            raise FormatError(f"version {version} of the wrapper is not known", where=where)
        pointer = address + position + POINTER
        target = address_at(pointer)
        if target is not None:
            yield Wrapper(pointer, version, target)
        position += _WRAPPER.size


def only(sections: Sequence[S], name: str) -> S | None:
    """The section of that name, None if there is none; FormatError if there are several."""
    if len(sections) > 1:
        raise FormatError(f"{len(sections)} sections named {name}, where one may be")
    return sections[0] if sections else None


def used_containers(
    wrappers: Sequence[Wrapper],
    containers: Mapping[int, Sequence[Entry]],
    relocatable: Collection[range],
    has_kernels: HasKernels,
) -> dict[int, tuple[int, ...]]:
    """Which containers a program uses: by their address, the addresses of pointers to them.

    containers: the entries of every container of the section that is edited, by its address.
    relocatable: the addresses of relocatable device code. Where device code was linked, it has
    wrappers of its own; its containers stay where they are (`lay_in_place`).
    has_kernels: asked of the images that no wrapper points to.

    Refuses, with FormatError, what could not be edited without breaking the program: wrappers that
    point elsewhere, containers with kernels that no wrapper points to. Containers without
    kernels that no wrapper points to are left out: linkers leave such behind.
    """
    pointers: dict[int, list[int]] = {}
    for wrapper in wrappers:
        if any(wrapper.target in addresses for addresses in relocatable):
            continue
        if wrapper.target not in containers:
            raise FormatError(
                f"no container is at address {wrapper.target:#x}",
                where=f"fatbin wrapper at address {wrapper.pointer - POINTER:#x}",
            )
        pointers.setdefault(wrapper.target, []).append(wrapper.pointer)
    for address, entries in containers.items():
        if address not in pointers and any(map(has_kernels, entries)):
            raise FormatError(
                "nothing shows how the program finds this container, so it cannot be moved",
                where=f"fatbin container at address {address:#x}",
            )
    return {address: tuple(pointers[address]) for address in containers if address in pointers}


def lay_out(
    contents: Sequence[Sequence[Entry]],
) -> tuple[tuple[int, ...], tuple[bytes | memoryview, ...]]:
    """Containers one after the other: the offset of each, and the pieces that hold them."""
    offsets: list[int] = []
    pieces: list[bytes | memoryview] = []
    end = 0
    for entries in contents:
        padding = -end % _ALIGN
        container = container_pieces(entries)
        offsets.append(end + padding)
        pieces += [bytes(padding), *container]
        end += padding + sum(len(piece) for piece in container)
    return tuple(offsets), tuple(pieces)


def lay_in_place(
    containers: Sequence[Container], size: int, contents: Sequence[Sequence[Entry]]
) -> tuple[tuple[int, bytes | memoryview], ...]:
    """The new bytes, by offset, of a section of `size` bytes whose containers stay where they are.

    Zeros fill what a container needs no more; as much is there for it later on. Raises FormatError
    where the images need more room than their container has.
    """
    starts = [container.offset for container in containers]
    ends = [*starts[1:], size][: len(starts)]
    pieces: list[tuple[int, bytes | memoryview]] = []
    for container, end, entries in zip(containers, ends, contents, strict=True):
        position = container.offset
        for piece in container_pieces(entries):
            pieces.append((position, piece))
            position += len(piece)
        if position > end:
            raise FormatError(
                f"{position - container.offset} bytes of relocatable device code do not fit into "
                f"the {end - container.offset} of their container",
                where=f"relocatable fatbin container at offset {container.offset:#x}",
            )
        pieces.append((position, bytes(end - position)))
    return tuple((offset, piece) for offset, piece in pieces if len(piece))
