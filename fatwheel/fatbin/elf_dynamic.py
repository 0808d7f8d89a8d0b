"""What a linked ELF file tells the system's loader: segments, imports, exports, relocations.

All of it is found as the loader finds it, through the program headers and the addresses in the
dynamic section, so that it also works where section headers were stripped or edited.

Format: System V ABI, "Object Files" (gabi), chapters Program Header, Dynamic Section, Relocation
and Hash Table; RELR is in the gabi's draft; DT_GNU_HASH as GNU ld writes it. Sizes and offsets
are bytes, addresses those of the file before it is moved. Malformed input ends in FormatError.
"""

from __future__ import annotations

import bisect
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import FormatError
from .elf import SHT_DYNSYM, SYMBOL, Elf, Names, read_elf

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_PHDR = 1, 2, 3, 6
SEGMENT = struct.Struct("<IIQQQQQQ")
R_X86_64_RELATIVE = 8

_PROGRAM_TABLE = struct.Struct("<32xQ14xHH")  # within the ELF header
_DYNAMIC = struct.Struct("<QQ")
_RELA = struct.Struct("<QQQ")
_WORD = struct.Struct("<Q")
_U32 = struct.Struct("<I")
_HASH = struct.Struct("<II")
_GNU_HASH = struct.Struct("<IIII")
_DT_NEEDED, _DT_PLTRELSZ, _DT_HASH, _DT_STRTAB, _DT_SYMTAB = 1, 2, 4, 5, 6
_DT_RELA, _DT_RELASZ, _DT_STRSZ, _DT_JMPREL = 7, 8, 10, 23
_DT_RPATH, _DT_RUNPATH = 15, 29
_DT_RELRSZ, _DT_RELR, _DT_GNU_HASH = 35, 36, 0x6FFFFEF5
_GLOBAL_BINDINGS = (1, 2, 10)  # global, weak, unique
_MAX_SEGMENTS = 256
_MAX_ENTRIES = 1 << 16  # of the dynamic section: one for each library that is needed, and some 30
_MAX_STRINGS = 1 << 30  # bytes of a string table; libtensorflow_cc has 83 MB


@dataclass(frozen=True)
class Segment:
    """One program header: what is loaded from where to where, or a hint about that."""

    type: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    memory_size: int
    align: int

    @property
    def end(self) -> int:
        """Offset behind its last byte in the file."""
        return self.offset + self.file_size

    def packed(self) -> bytes:
        """The program header itself; the fields stand in its order, but for the flags."""
        return SEGMENT.pack(
            self.type,
            self.flags,
            self.offset,
            self.address,
            self.physical,
            self.file_size,
            self.memory_size,
            self.align,
        )


class Relocation(NamedTuple):
    """One address that the loader fills in.

    place:  the address of the 8 bytes that it fills.
    type:   R_X86_64_*; those of RELR are relative.
    symbol: index into the dynamic symbols; 0 for none.
    addend: what is added to the load address, or to the symbol.
    at:     offset in the file of the 8 bytes that hold the addend.
    """

    place: int
    type: int
    symbol: int
    addend: int
    at: int


def read_table(elf: Elf) -> tuple[int, int]:
    """Offset of the program header table, and how many headers it has."""
    offset, size, count = _PROGRAM_TABLE.unpack_from(elf.data)
    if count and size != SEGMENT.size:
        raise FormatError(f"ELF program headers of {size} bytes are not known")
    if count > _MAX_SEGMENTS or offset + count * SEGMENT.size > len(elf.data):
        raise FormatError("the ELF program header table is cut off or too long")
    return offset, count


def read_segments(elf: Elf) -> tuple[Segment, ...]:
    """The program headers in their order; objects have none."""
    offset, count = read_table(elf)
    table = elf.data[offset : offset + count * SEGMENT.size]
    return tuple(Segment(*fields) for fields in SEGMENT.iter_unpack(table))


def needed(elf: Elf) -> tuple[str, ...]:
    """The libraries that the file asks for (DT_NEEDED), in its order."""
    image = LoadedElf(elf)
    if not image.needed:
        return ()
    names = image.names()
    return tuple(names.at(name) for name in image.needed)


def exported(elf: Elf) -> tuple[str, ...]:
    """The names of the global and weak dynamic symbols that are defined here, in its order."""
    image = LoadedElf(elf)
    symbols = image.defined_symbols()
    if not symbols:
        return ()
    names = image.names()
    return tuple(
        names.at(name)
        for name, info, _, section, _, _ in SYMBOL.iter_unpack(symbols)
        if section and info >> 4 in _GLOBAL_BINDINGS
    )


class LoadedElf:
    """A linked file as it will lie in memory, and the loader's tables in it."""

    def __init__(self, elf: Elf) -> None:
        self.segments = read_segments(elf)
        self._elf = elf
        self._loaded = [segment for segment in self.segments if segment.type == PT_LOAD]
        self._starts = [segment.address for segment in self._loaded]
        if self._starts != sorted(self._starts):
            raise FormatError("the ELF segments are not in the order of their addresses")
        dynamic = _read_dynamic(elf, self.segments)
        self.needed = [value for tag, value in dynamic if tag == _DT_NEEDED]
        self._values = dict(dynamic)  # the last of a tag counts, as for loaders

    def from_address(self, address: int) -> tuple[int, int]:
        """Where in the file the byte for an address stands, and where its segment ends there."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index >= 0:
            segment = self._loaded[index]
            offset = segment.offset + address - segment.address
            end = min(segment.end, len(self._elf.data))
            if offset < end:
                return offset, end
        raise FormatError(f"no bytes in the ELF file are loaded to address {address:#x}")

    def offset_of(self, address: int, size: int) -> int:
        """Where in the file the bytes for these addresses stand."""
        offset, end = self.from_address(address)
        if offset + size > end:
            raise FormatError(f"no segment of the ELF file holds {size} bytes at {address:#x}")
        return offset

    def read(self, address: int, size: int) -> memoryview:
        if not size:
            return self._elf.data[:0]
        offset = self.offset_of(address, size)
        return self._elf.data[offset : offset + size]

    def word(self, address: int) -> int:
        """The 8 bytes at an address, as they are in the file."""
        return int(_WORD.unpack_from(self._elf.data, self.offset_of(address, _WORD.size))[0])

    @property
    def strings(self) -> int:
        """The address of the dynamic string table."""
        return self._value(_DT_STRTAB)

    def names(self) -> Names:
        """The dynamic string table."""
        size = self._value(_DT_STRSZ)
        if size > _MAX_STRINGS:
            raise FormatError(f"a dynamic string table of {size} bytes is too long")
        return Names(bytes(self.read(self.strings, size)))

    def symbol(self, index: int) -> tuple[int, int]:
        """Section index (0: of another file) and address of a dynamic symbol."""
        place = self._value(_DT_SYMTAB) + index * SYMBOL.size
        _, _, _, section, address, _ = SYMBOL.unpack(self.read(place, SYMBOL.size))
        return section, address

    def defined_symbols(self) -> memoryview:
        """The dynamic symbols, 24 bytes each, up to the last one that is defined, or further."""
        if _DT_SYMTAB not in self._values:
            return self._elf.data[:0]
        return self.read(self._values[_DT_SYMTAB], self._symbol_count() * SYMBOL.size)

    def relocations(self) -> Iterator[Relocation]:
        """All of them, whatever table they are in."""
        left = len(self._elf.data) // _WORD.size  # no word is relocated twice
        for relocation in self._all_relocations():
            left -= 1
            if left < 0:
                raise FormatError("the ELF file has more relocations than words")
            yield relocation

    def _all_relocations(self) -> Iterator[Relocation]:
        if _DT_RELA in self._values:
            yield from self._rela(self._values[_DT_RELA], self._value(_DT_RELASZ))
        if _DT_JMPREL in self._values:
            yield from self._rela(self._values[_DT_JMPREL], self._value(_DT_PLTRELSZ))
        if _DT_RELR in self._values:
            for place in self._relr(self._values[_DT_RELR], self._value(_DT_RELRSZ)):
                at = self.offset_of(place, _WORD.size)
                (addend,) = _WORD.unpack_from(self._elf.data, at)
                yield Relocation(place, R_X86_64_RELATIVE, 0, addend, at)

    def _rela(self, address: int, size: int) -> Iterator[Relocation]:
        table = self.read(address, size)
        if size % _RELA.size:
            raise FormatError(f"an ELF relocation table of {size} bytes is malformed")
        at = self.offset_of(address, size) if size else 0
        for place, info, addend in _RELA.iter_unpack(table):
            at += _RELA.size
            yield Relocation(place, info & 0xFFFFFFFF, info >> 32, addend, at - _WORD.size)

    def _relr(self, address: int, size: int) -> Iterator[int]:
        """The addresses in a RELR table: an even word is one, and an odd word a map, a bit each,
        of which of the 63 words behind the last one follow."""
        if size % _WORD.size:
            raise FormatError(f"an ELF relocation table of {size} bytes is malformed")
        following = 0
        for (word,) in _WORD.iter_unpack(self.read(address, size)):
            if not word & 1:
                yield word
                following = word + _WORD.size
                continue
            for bit in range(1, 64):
                if word >> bit & 1:
                    yield following + (bit - 1) * _WORD.size
            following += 63 * _WORD.size

    def _symbol_count(self) -> int:
        """How many dynamic symbols there are; only hash tables or a section say so.

        DT_GNU_HASH holds only those that are defined; they stand last.
        """
        if _DT_HASH in self._values:
            _, count = _HASH.unpack(self.read(self._values[_DT_HASH], _HASH.size))
            return int(count)
        if _DT_GNU_HASH in self._values:
            return self._count_hashed(self._values[_DT_GNU_HASH])
        for section in self._elf.sections:
            if section.type == SHT_DYNSYM and section.address == self._values[_DT_SYMTAB]:
                return section.size // SYMBOL.size
        raise FormatError("nothing says how many dynamic symbols the ELF file has")

    def _count_hashed(self, address: int) -> int:
        """One more than the highest symbol that a DT_GNU_HASH table leads to.

        The table: bucket count, first hashed symbol, Bloom filter's words, a shift; the filter;
        the first symbol of each bucket; for each symbol a word that is odd where a bucket ends.
        """
        buckets, first, words, _ = _GNU_HASH.unpack(self.read(address, _GNU_HASH.size))
        start = address + _GNU_HASH.size + words * 8
        symbols = self.read(start, buckets * 4)
        last = max((symbol for (symbol,) in _U32.iter_unpack(symbols)), default=0)
        if last < first:
            return int(first)
        offset, end = self.from_address(start + (buckets + last - first) * 4)
        chain = self._elf.data[offset : end - (end - offset) % 4]
        for index, (word,) in enumerate(_U32.iter_unpack(chain)):
            if word & 1:
                return int(last) + index + 1
        raise FormatError("the ELF hash table of symbols is cut off")

    def value_of(self, tag: int) -> int | None:
        """An entry of the dynamic section; None where there is none."""
        return self._values.get(tag)

    def _value(self, tag: int) -> int:
        if tag not in self._values:
            raise FormatError(f"the ELF dynamic section has no entry {tag:#x}")
        return self._values[tag]


def _read_dynamic(elf: Elf, segments: Sequence[Segment]) -> list[tuple[int, int]]:
    """(tag, value) of each entry, up to the one that ends them."""
    found = [segment for segment in segments if segment.type == PT_DYNAMIC]
    if len(found) > 1:
        raise FormatError(f"{len(found)} ELF dynamic sections, where one may be")
    entries: list[tuple[int, int]] = []
    for segment in found:
        content = elf.data[segment.offset : segment.end]
        for tag, value in _DYNAMIC.iter_unpack(content[: len(content) // 16 * 16]):
            if tag == 0:
                break
            if len(entries) == _MAX_ENTRIES:
                raise FormatError(f"an ELF dynamic section of more than {_MAX_ENTRIES} entries")
            entries.append((tag, value))
    return entries


# -- run-time search paths -------------------------------------------------------------------------


def without_search_paths(data: bytes, unwanted: Callable[[str], bool]) -> bytes:
    """A linked file whose DT_RPATH and DT_RUNPATH have no folder that is `unwanted`, and no empty
    one; the same bytes where there is none. What gets free is filled with zeros: all else stays."""
    elf = read_elf(data)
    image, edited = LoadedElf(elf), bytearray(data)
    entries = [(tag, value) for tag, value in _read_dynamic(elf, image.segments)]
    kept = []
    for tag, value in entries:
        kept.append((tag, value))
        if tag not in (_DT_RPATH, _DT_RUNPATH):
            continue
        offset, end = image.from_address(image.strings + value)
        size = bytes(elf.data[offset:end]).find(b"\0")
        if size < 0:
            raise FormatError("an ELF search path has no end")
        found = bytes(elf.data[offset : offset + size]).split(b":")
        left = [part for part in found if part and not unwanted(os.fsdecode(part))]
        if left == found:
            continue
        edited[offset : offset + size] = b":".join(left).ljust(size, b"\0")
        if not left:
            kept.pop()
    if len(kept) < len(entries):
        [segment] = [segment for segment in image.segments if segment.type == PT_DYNAMIC]
        table = b"".join(_DYNAMIC.pack(*entry) for entry in kept)
        size = len(entries) * _DYNAMIC.size
        edited[segment.offset : segment.offset + size] = table.ljust(size, b"\0")
    return bytes(edited)
