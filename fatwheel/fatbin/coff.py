"""A bounded reader of COFF objects: `.obj`, also those of `cl /bigobj`.

Format: Microsoft, "PE Format", chapters COFF File Header, Section Table, Other Contents of the
File; ANON_OBJECT_HEADER_BIGOBJ is in winnt.h alone. Sizes and offsets are bytes. Malformed input
ends in FormatError.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import FormatError

# nvcc's objects have `.nv_fatbin`, `__nv_relfatbin` and `.nvFatBinSegment`; see `Coff.named`.
FATBIN_SECTIONS = (".nv_fatb", "__nv_rel")
WRAPPER_SECTION = ".nvFatBi"
HEADER_SIZE, BIG_HEADER_SIZE, SECTION_SIZE = 20, 56, 40

# machine, sections, time, symbol table, symbols, size of an optional header, flags
_HEADER = struct.Struct("<HHIIIHH")
# 0, 0xFFFF, version, machine, time, class, 4 numbers on CLR data, sections, symbol table, symbols
_BIG_HEADER = struct.Struct("<HHHHI16sIIIIIII")
_ANONYMOUS = b"\0\0\xff\xff"
# The UUID D1BAA1C7-BAEE-4BA9-AF20-FAF66AA4DCB8, its first three numbers little-endian.
_BIG_CLASS = bytes.fromhex("c7a1bad1 eeba a94b af20 faf66aa4dcb8")
# name, virtual size and address, size and offset of bytes, relocations, lines, counts, flags
_SECTION = struct.Struct("<8sIIIIIIHHI")
_RELOCATION = struct.Struct("<IIH")
# name, value, section, type, storage class, number of auxiliary records
_SYMBOL = struct.Struct("<8sIHHBB")
_BIG_SYMBOL = struct.Struct("<8sIIHBB")

_MACHINES = {0x14C: "x86", 0x8664: "x86_64", 0xAA64: "aarch64"}
_NAME = 8  # characters of a section's name in a linked file
_LINKED = 0x2  # IMAGE_FILE_EXECUTABLE_IMAGE
_UNINITIALIZED, _MANY_RELOCATIONS = 0x80, 0x0100_0000
_CLASS_STATIC = 3
# Higher section numbers of small objects have special meanings.
_MAX_SMALL = 0xFEFF
# Both bound memory: far more than any compiler makes.
_MAX_SECTIONS = 500_000
_MAX_NAMES = 64 << 20


@dataclass(frozen=True)
class Section:
    """One section header; index counts from 1, as symbols do, and offset 0 means no bytes."""

    index: int
    name: str
    size: int
    offset: int
    relocations: int
    relocation_count: int
    line_count: int
    flags: int

    @property
    def in_file(self) -> int:
        """Bytes that the section takes in the file."""
        return self.size if self.offset and not self.flags & _UNINITIALIZED else 0


@dataclass(frozen=True)
class Symbol:
    """One symbol; record is where its first auxiliary record starts in the symbol table."""

    record: int
    value: int
    section: int
    type: int
    storage: int
    auxiliary: int

    @property
    def defines_section(self) -> bool:
        """Whether its record is of "Auxiliary Format 5: Section Definitions"."""
        named = self.storage == _CLASS_STATIC and self.type == 0 and self.value == 0
        return named and self.auxiliary > 0


@dataclass(frozen=True)
class Coff:
    """An object's header and sections.

    symbols_offset is 0 if there are none; strings is the string table, which follows them.
    """

    machine: str
    big: bool
    symbols_offset: int
    symbol_count: int
    sections: tuple[Section, ...]
    strings: memoryview = field(repr=False)
    data: memoryview = field(repr=False)

    def named(self, name: str) -> tuple[Section, ...]:
        """The sections of that name, in the file's order.

        As linkers see them: their files have 8 characters for a name, and cut longer ones.
        """
        return tuple(section for section in self.sections if section.name[:_NAME] == name[:_NAME])

    def content(self, section: Section) -> memoryview:
        """A section's bytes; FormatError if they lie outside the file."""
        return cut(self.data, section.offset, section.in_file, f"COFF section {section.name}")

    def relocations(self, section: Section) -> memoryview:
        """A section's relocation table; a long one says its length in its first entry."""
        where = f"relocations of COFF section {section.name}"
        count = section.relocation_count
        if section.flags & _MANY_RELOCATIONS and count == 0xFFFF:
            first = cut(self.data, section.relocations, _RELOCATION.size, where)
            count = _RELOCATION.unpack(first)[0]
        return cut(self.data, section.relocations, count * _RELOCATION.size, where)

    @property
    def symbol_table(self) -> memoryview:
        """The symbols with their auxiliary records."""
        size = self.symbol_count * _symbol_layout(self.big).size
        return cut(self.data, self.symbols_offset, size, "COFF symbol table")

    def symbols(self) -> Iterator[Symbol]:
        """All symbols, in order."""
        table = self.symbol_table
        layout = _symbol_layout(self.big)
        position = 0
        while position < len(table):
            _, *numbers = layout.unpack_from(table, position)
            symbol = Symbol(position + layout.size, *numbers)
            position += (1 + symbol.auxiliary) * layout.size
            if position > len(table):
                raise FormatError("the last symbol is cut off", where="COFF symbol table")
            yield symbol


def is_coff(head: bytes) -> bool:
    """Whether a file that begins so is an object; plausible numbers are all there is to go by."""
    if head[:4] == _ANONYMOUS:
        return True
    if len(head) < HEADER_SIZE:
        return False
    machine, count, _, symbols, _, optional, flags = _HEADER.unpack_from(head)
    tables = HEADER_SIZE + count * SECTION_SIZE
    plausible = 0 < count <= _MAX_SMALL and (symbols == 0 or symbols >= tables)
    return machine in _MACHINES and plausible and optional == 0 and not flags & _LINKED


def read_coff(data: bytes | memoryview) -> Coff:
    """Read the header and the section table; contents are read when asked for."""
    view = memoryview(data)
    if not is_coff(bytes(view[:HEADER_SIZE])):
        raise FormatError("not a COFF object")
    big = bytes(view[:4]) == _ANONYMOUS
    machine, count, symbols, symbol_count = _read_big_header(view) if big else _read_header(view)
    if count > _MAX_SECTIONS:
        raise FormatError(f"{count} sections are more than any object has")
    table = BIG_HEADER_SIZE if big else HEADER_SIZE
    rows = cut(view, table, count * SECTION_SIZE, "COFF section table")
    strings = _string_table(view, symbols, symbol_count * _symbol_layout(big).size)
    return Coff(
        machine=_MACHINES.get(machine, f"machine {machine:#x}"),
        big=big,
        symbols_offset=symbols,
        symbol_count=symbol_count if symbols else 0,
        sections=tuple(_read_sections(rows, _Names(bytes(strings)))),
        strings=strings,
        data=view,
    )


def cut(view: memoryview, offset: int, size: int, where: str) -> memoryview:
    """A piece of a file; FormatError if it is not all there."""
    if offset + size > len(view):
        raise FormatError(
            f"it ends at byte {offset + size}, but the file has only {len(view)}", where=where
        )
    return view[offset : offset + size]


def _symbol_layout(big: bool) -> struct.Struct:
    return _BIG_SYMBOL if big else _SYMBOL


def _read_header(view: memoryview) -> tuple[int, int, int, int]:
    """Machine, number of sections, offset of the symbol table, number of symbols."""
    machine, count, _, symbols, symbol_count, _, _ = _HEADER.unpack_from(view)
    return machine, count, symbols, symbol_count


def _read_big_header(view: memoryview) -> tuple[int, int, int, int]:
    """The same of an object with more sections than 16 bits can count."""
    fields = _BIG_HEADER.unpack(cut(view, 0, BIG_HEADER_SIZE, "COFF header"))
    version, machine, class_id = fields[2], fields[3], fields[5]
    if version < 2 or class_id != _BIG_CLASS:
        raise FormatError(
            "this object for Windows holds no machine code",
            hint="was it compiled for link-time code generation (cl /GL)? compile it without",
        )
    _, _, clr_size, _, count, symbols, symbol_count = fields[6:]
    if clr_size:
        raise FormatError("objects with CLR (.NET) metadata are not supported")
    return machine, count, symbols, symbol_count


def _string_table(view: memoryview, symbols: int, symbols_size: int) -> memoryview:
    """What follows the symbols: long names, after the table's own size in 4 bytes."""
    if not symbols:
        return view[:0]
    cut(view, symbols, symbols_size, "COFF symbol table")
    start = symbols + symbols_size
    if start == len(view):
        return view[:0]
    (size,) = struct.unpack("<I", cut(view, start, 4, "COFF string table"))
    # Some tools write 0 where nothing follows.
    return cut(view, start, max(size, 4), "COFF string table")


def _read_sections(rows: memoryview, names: _Names) -> Iterator[Section]:
    for index, row in enumerate(_SECTION.iter_unpack(rows), start=1):
        name, _, _, size, offset, relocations, _, relocation_count, line_count, flags = row
        yield Section(
            index, names.of(name), size, offset, relocations, relocation_count, line_count, flags
        )


class _Names:
    """Names of sections, with a limit on what is read in all: long names may share bytes."""

    def __init__(self, table: bytes) -> None:
        self._table = table
        self._left = _MAX_NAMES

    def of(self, field: bytes) -> str:
        """The name in a header's 8 bytes, or where in the string table they say that it is."""
        short = field.rstrip(b"\0")
        if not short.startswith(b"/"):
            return short.decode("utf-8", "backslashreplace")
        offset = _long_name_offset(short)
        end = self._table.find(b"\0", offset)
        if offset < 4 or end < 0:
            raise FormatError("a COFF name lies outside its string table")
        self._left -= end - offset
        if self._left < 0:
            raise FormatError(f"the COFF names are longer than {_MAX_NAMES} bytes in all")
        return self._table[offset:end].decode("utf-8", "backslashreplace")


def _long_name_offset(field: bytes) -> int:
    if re.fullmatch(rb"/[0-9]{1,7}", field):
        return int(field[1:])
    if re.fullmatch(rb"//[A-Za-z0-9+/]{6}", field):
        # Six base64 digits of 6 bits each, the highest first; decoders want eight.
        return int.from_bytes(base64.b64decode(b"AA" + field[2:]), "big")
    raise FormatError(f"{field!r} is no name of a COFF section")
