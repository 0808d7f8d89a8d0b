"""Linked ELF files, and objects, with other device code in them.

In a linked file the containers move to a new segment (`elf_layout`), and whatever points to one
follows: symbols, and the pointers in wrappers. These the loader relocates (by the addend of a
RELA entry, or by the word that is there with RELR), or, in a program that is not moved, they hold
the address as it is. Measured with GNU ld, gold and lld, and libraries also before and after
patchelf. GNU strip cannot follow: strip first.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import FormatError
from .container import (
    Container,
    Entry,
    HasKernels,
    Rewritten,
    Wrapper,
    lay_in_place,
    lay_out,
    only,
    parse_containers,
    read_wrappers,
    used_containers,
    write_container,
)
from .elf import (
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    ET_REL,
    FATBIN_SECTIONS,
    SHT_DYNSYM,
    SHT_SYMTAB,
    SYMBOL,
    Elf,
    ElfSection,
    replace_section,
)
from .elf_dynamic import PT_INTERP, R_X86_64_RELATIVE, LoadedElf, Relocation
from .elf_layout import host_pieces, plan

_WRAPPERS = ".nvFatBinSegment"
_WORD = struct.Struct("<Q")
_ADDRESSES = 1 << 64
_SYMBOL_ADDRESS = 8  # where it stands in a symbol
_STT_SECTION = 3
# x86-64 psABI, relocation types: those that put an address of this file into memory.
_R_IRELATIVE = 37
_FOLLOWING = (1, 6, 7)  # 64, GLOB_DAT, JUMP_SLOT: the whole address of a symbol
_NAMED_ADDRESSES = (*_FOLLOWING, 2, 10, 11, 24)  # and PC32, 32, 32S, PC64


def rewrite_object(
    elf: Elf, contents: Sequence[Sequence[Entry]], has_kernels: HasKernels
) -> Rewritten:
    """An object, as nvcc makes them, with other entries in its one container."""
    held = _device_code(elf)
    if len(contents) != len(held.moving):
        raise ValueError(f"contents for {len(contents)} containers, of {len(held.moving)}")
    if len(held.moving) != 1:
        raise FormatError(
            f"{len(held.moving)} fatbin containers in one object, not one",
            hint="was it linked from several objects (ld -r)? Edit those, or the finished library",
        )
    # Whatever a wrapper of this object points to can only be this container.
    wrappers = [
        wrapper
        for section in elf.named(_WRAPPERS)
        for wrapper in read_wrappers(elf.content(section), section.address, lambda _: 0)
    ]
    used_containers(wrappers, {0: held.moving[0].entries}, (), has_kernels)
    return Rewritten((replace_section(elf.data, {held.code.name: write_container(contents[0])}),))


def rewrite_linked(
    elf: Elf, contents: Sequence[Sequence[Entry]], has_kernels: HasKernels
) -> Rewritten:
    """A library or program with other entries in its containers, one sequence for each.

    Relocatable containers, whose contents come behind the others', stay at their places.
    Containers without kernels that no wrapper points to are left out; where there are no others,
    the file stays as it is. The addresses of all else stay.
    """
    if elf.machine != EM_X86_64 or elf.type not in (ET_DYN, ET_EXEC):
        raise FormatError(
            f"device code in linked files for {elf.machine_name} cannot be replaced",
            hint="supported: libraries and programs for x86_64",
        )
    held = _device_code(elf)
    count = len(held.moving) + len(held.staying)
    if len(contents) != count:
        raise ValueError(f"contents for {len(contents)} containers, of {count}")
    moving, staying = contents[: len(held.moving)], contents[len(held.moving) :]
    code = held.code
    old = {code.address + container.offset: container.entries for container in held.moving}
    image = LoadedElf(elf)
    pointers = _Pointers(elf, image, code)
    elsewhere = [held.relocatable.addresses] if held.relocatable else []
    used = used_containers(pointers.wrappers(), old, elsewhere, has_kernels)
    if not used and not held.staying:
        return Rewritten((elf.data,), unchanged=True)
    pointers.refuse_others({place for places in used.values() for place in places})
    layout = plan(elf, code)
    offsets, pieces = lay_out(_chosen(dict(zip(old, moving, strict=True)), used))
    new = (layout.code_address + offset for offset in offsets)
    moves = _Moves(code, layout.code_address, old.keys(), dict(zip(used, new, strict=True)))
    changes = dict(_moved_symbols(elf, moves))
    for address, places in used.items():
        changes |= pointers.moved(places, moves.new[address])
    size = sum(len(piece) for piece in pieces)
    in_place = dict(held.in_place(staying))
    host = host_pieces(elf, layout, code, size, {**changes, **in_place})
    return Rewritten((*host, *pieces), tuple(_notes(image)))


@dataclass(frozen=True)
class _DeviceCode:
    """The section with device code that runs, and that which it was linked from, if any; and the
    containers of each: the former's move, the latter's stay."""

    code: ElfSection
    moving: tuple[Container, ...]
    relocatable: ElfSection | None
    staying: tuple[Container, ...]

    def in_place(
        self, contents: Sequence[Sequence[Entry]]
    ) -> Iterator[tuple[int, bytes | memoryview]]:
        """(offset in the file, new bytes) of relocatable containers with these entries."""
        if self.relocatable:
            for offset, piece in lay_in_place(self.staying, self.relocatable.size, contents):
                yield self.relocatable.offset + offset, piece


def _device_code(elf: Elf) -> _DeviceCode:
    code, relocatable = (only(elf.named(name), name) for name in FATBIN_SECTIONS)
    if relocatable and (elf.type == ET_REL or not code):
        raise FormatError(
            "relocatable device code (nvcc -rdc=true, -dc or -dlto) cannot be replaced",
            where=f"ELF section {FATBIN_SECTIONS[1]}",
            hint="build without separate compilation",
        )
    if not code:
        raise FormatError(f"no section is named {FATBIN_SECTIONS[0]}: it holds no device code")
    moving = parse_containers(elf.content(code))
    if not moving:
        raise FormatError("it holds no device code", where=f"ELF section {code.name}")
    staying = parse_containers(elf.content(relocatable)) if relocatable else ()
    return _DeviceCode(code, moving, relocatable, staying)


def _chosen(
    contents: Mapping[int, Sequence[Entry]], used: Mapping[int, object]
) -> list[Sequence[Entry]]:
    """The contents of the containers that are used, in their order."""
    chosen = [entries for address, entries in contents.items() if address in used]
    if not chosen:
        raise FormatError("it holds no device code that it uses")
    return chosen


@dataclass(frozen=True)
class _Moves:
    """Where device code was and will be.

    code:  its section as it was.
    start: the address of the section as it will be.
    old:   the addresses of all containers as they were.
    new:   of those that are kept, the new addresses.
    """

    code: ElfSection
    start: int
    old: Collection[int]
    new: Mapping[int, int]

    def of_symbol(self, kind: int, address: int) -> int:
        """The new address of one of the section's symbols; kind is STT_*.

        Symbols of containers that are left out go to the start of the section.
        """
        if kind == _STT_SECTION and address == self.code.address:
            return self.start
        if address in self.old:
            return self.new.get(address, self.start)
        raise FormatError(
            f"a symbol is at {address:#x}, where no container starts",
            where=f"ELF section {self.code.name}",
        )


def _moved_symbols(elf: Elf, moves: _Moves) -> Iterator[tuple[int, bytes]]:
    """(offset in the file, new address) of the symbols of device code.

    Their sizes stay: nvcc gives them none.
    """
    for table in elf.sections:
        if table.type not in (SHT_SYMTAB, SHT_DYNSYM):
            continue
        entries = elf.content(table)
        if len(entries) % SYMBOL.size:
            raise FormatError("malformed symbol table", where=f"ELF section {table.name}")
        for index, (_, info, _, section, address, _) in enumerate(SYMBOL.iter_unpack(entries)):
            if section == moves.code.index:
                place = table.offset + index * SYMBOL.size + _SYMBOL_ADDRESS
                yield place, _WORD.pack(moves.of_symbol(info & 15, address))


class _Pointers:
    """The pointers of wrappers, and any others to device code, as the loader fills them in."""

    def __init__(self, elf: Elf, image: LoadedElf, code: ElfSection) -> None:
        self._elf = elf
        self._image = image
        self._code = code
        self._sections = elf.named(_WRAPPERS)
        self._relocations: dict[int, Relocation] = {}
        for relocation in image.relocations():
            self._keep(relocation)

    def wrappers(self) -> list[Wrapper]:
        return [
            wrapper
            for section in self._sections
            for wrapper in read_wrappers(self._elf.content(section), section.address, self._address)
        ]

    def refuse_others(self, wrappers: Collection[int]) -> None:
        """FormatError if anything but the pointers at these places depends on device code."""
        for place, relocation in self._relocations.items():
            if not self._is_code(self._target(relocation)):
                continue
            may_move = self._follows(relocation) if relocation.symbol else place in wrappers
            if not may_move:
                raise FormatError(
                    "it points into device code and is no wrapper, so that code cannot be moved",
                    where=f"pointer at address {place:#x}",
                )

    def moved(self, places: Iterable[int], address: int) -> Iterator[tuple[int, bytes]]:
        """(offset in the file, new bytes) that make the pointers there hold the address."""
        new = _WORD.pack(address)
        for place in places:
            relocation = self._relocations.get(place)
            if relocation is None:
                yield self._image.offset_of(place, _WORD.size), new
            elif not relocation.symbol:
                yield relocation.at, new
                # With RELA, linkers write the address here, too, or leave zeros.
                if self._image.word(place):
                    yield self._image.offset_of(place, _WORD.size), new

    def _keep(self, relocation: Relocation) -> None:
        """Remember a relocation if it has to do with wrappers or device code."""
        place = relocation.place
        if self._is_code(place) or self._is_code(place + _WORD.size - 1):
            raise FormatError("it is relocated", where=f"ELF section {self._code.name}")
        in_wrapper = any(s.address <= place < s.address + s.size for s in self._sections)
        if not in_wrapper and not self._is_code(self._target(relocation)):
            return
        if place in self._relocations:
            raise FormatError("it is relocated twice", where=f"pointer at address {place:#x}")
        self._relocations[place] = relocation

    def _address(self, place: int) -> int | None:
        """The address that the pointer of a wrapper will hold; None for a null pointer."""
        relocation = self._relocations.get(place)
        word = self._image.word(place) if relocation is None else 0
        if relocation is None and (word == 0 or self._elf.type == ET_EXEC):
            return word or None
        target = self._target(relocation) if relocation else None
        if target is None:
            raise FormatError(
                "it is not relocated in any way that is known here",
                where=f"pointer at address {place:#x}",
            )
        return target

    def _target(self, relocation: Relocation) -> int | None:
        """The address that is filled in; None if it is not one of this file's."""
        if relocation.type in (R_X86_64_RELATIVE, _R_IRELATIVE):
            return relocation.addend
        if relocation.type not in _NAMED_ADDRESSES:
            return None
        section, address = self._image.symbol(relocation.symbol)
        return (address + relocation.addend) % _ADDRESSES if section else None

    def _follows(self, relocation: Relocation) -> bool:
        """Whether the relocation stays right because its symbol moves."""
        section, _ = self._image.symbol(relocation.symbol)
        whole = relocation.type in _FOLLOWING and not relocation.addend
        return whole and section == self._code.index

    def _is_code(self, address: int | None) -> bool:
        start = self._code.address
        return address is not None and start <= address < start + self._code.size


def _notes(image: LoadedElf) -> Iterator[str]:
    if any(segment.type == PT_INTERP for segment in image.segments):
        yield (
            "this program now needs Linux 5.18 or newer, and patchelf would break it: its program "
            "headers have moved"
        )
