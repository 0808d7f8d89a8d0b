"""What linked files of every format have in common: wrappers, and containers laid out anew.

A linked program finds its containers through wrappers, 24 bytes each, one per container, in
section `.nvFatBinSegment` (ELF) or `.nvFatBi` (PE):

  0x00 u32 magic 0x466243B1   0x04 u32 version (1; 2 where device code was linked)
  0x08 u64 address of the container   0x10 u64 0, or where device code was linked an address

Measured on CUDA 11.8 to 13.2. In a file the address may be in the relocation that fills the
wrapper instead of in the wrapper itself, so the formats' own modules look it up. Addresses are
those of the loaded file, before it is moved; sizes and offsets are bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ..errors import FormatError
from .container import Container, Entry, container_pieces

S = TypeVar("S")

# Whether an image may have kernels. To tell, it must be decompressed, which this room cannot do
# (`decoders.may_have_kernels` can), so whoever edits files says how.
HasKernels = Callable[[Entry], bool]

MAGIC = 0x466243B1
SIZE = 24
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
        if len(section) - position < SIZE:
            raise FormatError("the wrapper is cut off", where=where)
        magic, version, _, _ = _WRAPPER.unpack_from(section, position)
        if magic != MAGIC:
            raise FormatError(f"no wrapper here: magic {magic:#010x}, not {MAGIC:#x}", where=where)
        if version not in (_PLAIN, _DEVICE_LINKED):
            raise FormatError(f"version {version} of the wrapper is not known", where=where)
        pointer = address + position + POINTER
        target = address_at(pointer)
        if target is not None:
            yield Wrapper(pointer, version, target)
        position += SIZE


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
