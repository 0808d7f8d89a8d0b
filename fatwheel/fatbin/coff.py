"""COFF objects, `.obj`, also those of `cl /bigobj`: a bounded reader, and an editor that gives them
other device code, or other bytes in any section.

An edited file is laid out anew, in its order and without dead bytes, as compilers lay it out: the
result is what they would have written, had they been given these bytes.

Format: Microsoft, "PE Format", chapters COFF File Header, Section Table, Other Contents of the
File; ANON_OBJECT_HEADER_BIGOBJ is in winnt.h alone. Sizes and offsets are bytes. FormatError for
what is malformed or, when it is edited, not supported.
"""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import FormatError
from .container import (
    Entry,
    HasKernels,
    Rewritten,
    Wrapper,
    container_pieces,
    parse_containers,
    read_wrappers,
    used_containers,
)

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
class CoffSection:
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
class CoffSymbol:
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
    sections: tuple[CoffSection, ...]
    strings: memoryview = field(repr=False)
    data: memoryview = field(repr=False)

    def named(self, name: str) -> tuple[CoffSection, ...]:
        """The sections of that name, in the file's order.

        As linkers see them: their files have 8 characters for a name, and cut longer ones.
        """
        return tuple(section for section in self.sections if section.name[:_NAME] == name[:_NAME])

    def content(self, section: CoffSection) -> memoryview:
        """A section's bytes; FormatError if they lie outside the file."""
        return cut(self.data, section.offset, section.in_file, f"COFF section {section.name}")

    def relocations(self, section: CoffSection) -> memoryview:
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

    def symbols(self) -> Iterator[CoffSymbol]:
        """All symbols, in order."""
        table = self.symbol_table
        layout = _symbol_layout(self.big)
        position = 0
        while position < len(table):
            _, *numbers = layout.unpack_from(table, position)
            symbol = CoffSymbol(position + layout.size, *numbers)
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


def _read_sections(rows: memoryview, names: _Names) -> Iterator[CoffSection]:
    for index, row in enumerate(_SECTION.iter_unpack(rows), start=1):
        name, _, _, size, offset, relocations, _, relocation_count, line_count, flags = row
        yield CoffSection(
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


# Where a header's fields stand that change.
_SYMBOLS_AT, _BIG_SYMBOLS_AT = 8, 48
_SIZE_AT, _CONTENT_AT, _RELOCATIONS_AT = 16, 20, 24
# Where a section's own symbol says its length and checksum.
_LENGTH_AT, _CHECKSUM_AT = 0, 8
_NUMBER = struct.Struct("<I")
_MAX_FILE = 2**32 - 1
# "For object files, the value should be aligned on a 4-byte boundary for best performance."
_STEP = 4

_Pieces = Sequence[bytes | memoryview]


@dataclass(frozen=True)
class _Part:
    """Bytes that a header points to: where its 32-bit pointer stands, and what it says."""

    pointer: int
    offset: int
    size: int


def replace_section(obj: bytes | memoryview, contents: Mapping[str, bytes]) -> bytes:
    """An object with new contents for the named sections, of any size.

    Nothing else changes but pointers, and what the replaced sections' own symbols say of them.
    FormatError for sections that are not there, not unique, relocated, or pointed into.
    """
    coff = read_coff(obj)
    new = {_replaceable(coff, name).index: (content,) for name, content in contents.items()}
    return b"".join(_lay_out(coff, new))


def rewrite_object(
    coff: Coff, contents: Sequence[Sequence[Entry]], has_kernels: HasKernels
) -> Rewritten:
    """The object with these entries in its container; contents has one sequence per container.

    FormatError for relocatable or linked device code, for more than one container, and where
    nothing shows how the program finds it.
    """
    code, relocatable = FATBIN_SECTIONS
    if coff.named(relocatable):
        raise FormatError(
            "relocatable device code (nvcc -rdc=true) cannot be edited",
            where=f"section {relocatable}",
            hint="build the object without separate compilation",
        )
    section = _replaceable(coff, code)
    containers = parse_containers(coff.content(section))
    if len(contents) != len(containers):
        raise ValueError(f"{len(contents)} contents for {len(containers)} containers")
    if [container.offset for container in containers] != [0]:
        raise FormatError(
            f"{len(containers)} containers, where only one at the section's start can be edited",
            where=f"section {code}",
        )
    used_containers(_wrappers(coff), {0: containers[0].entries}, (), has_kernels)
    return Rewritten(_lay_out(coff, {section.index: container_pieces(contents[0])}))


def _wrappers(coff: Coff) -> list[Wrapper]:
    """The wrappers, with targets as offsets in the fatbin's section.

    A wrapper's pointer holds what the linker adds to a symbol's address, and the fatbin's
    symbols are all at its start.
    """
    found: list[Wrapper] = []
    for section in coff.named(WRAPPER_SECTION):
        content = coff.content(section)

        def added_at(position: int, content: memoryview = content) -> int:
            return int.from_bytes(content[position : position + 8], "little")

        found += read_wrappers(content, 0, added_at)
    return found


def _replaceable(coff: Coff, name: str) -> CoffSection:
    found = coff.named(name)
    where = f"COFF section {name}"
    if len(found) != 1:
        raise FormatError(f"{len(found)} sections have this name, not one", where=where)
    section = found[0]
    if section.size and not section.in_file:
        raise FormatError("it has no bytes in the file", where=where)
    if section.relocation_count:
        raise FormatError("it is relocated, so its bytes cannot be replaced", where=where)
    if any(symbol.value for symbol in coff.symbols() if symbol.section == section.index):
        raise FormatError("symbols point into it, to bytes that would be others", where=where)
    return section


def _lay_out(coff: Coff, new: Mapping[int, _Pieces]) -> tuple[bytes | memoryview, ...]:
    """The file in pieces, with new bytes for the sections with these indices."""
    head = bytearray(coff.data[: _end_of_headers(coff)])
    contents: dict[int, _Pieces] = {_symbols_at(coff): _describe(coff, new)}
    for index, pieces in new.items():
        row = _row(coff, index)
        contents[row + _CONTENT_AT] = pieces
        _NUMBER.pack_into(head, row + _SIZE_AT, _length(pieces))
    laid: list[bytes | memoryview] = []
    end = len(head)
    for part in _in_file_order(coff, new):
        pieces = contents.get(part.pointer, (coff.data[part.offset : part.offset + part.size],))
        # As early as leaves the offset modulo 4 as it was.
        padding = (part.offset - end) % _STEP
        laid += [bytes(padding), *pieces]
        _NUMBER.pack_into(head, part.pointer, end + padding)
        end += padding + _length(pieces)
        if end > _MAX_FILE:
            raise FormatError("the object would have more than 4 GiB, the most that COFF can hold")
    return (bytes(head), *laid)


def _in_file_order(coff: Coff, new: Mapping[int, _Pieces]) -> list[_Part]:
    """The parts sorted by offset; FormatError if two share bytes.

    (That would let a small file grow without bound when it is laid out anew.)
    """
    parts = sorted(_parts(coff, new), key=lambda part: (part.offset, part.size, part.pointer))
    end = _end_of_headers(coff)
    for part in parts:
        where = f"COFF part at byte {part.offset}"
        if part.size:
            cut(coff.data, part.offset, part.size, where)
            if part.offset < end:
                raise FormatError("it overlaps another part", where=where)
            end = part.offset + part.size
    return parts


def _parts(coff: Coff, new: Mapping[int, _Pieces]) -> Iterator[_Part]:
    for section in coff.sections:
        row = _row(coff, section.index)
        if section.line_count:
            raise FormatError(
                "line numbers in COFF's own format, long out of use, are not supported",
                where=f"COFF section {section.name}",
            )
        if section.offset or section.index in new:
            # An empty section may have no place yet: it gets the first one.
            offset = section.offset or _end_of_headers(coff)
            yield _Part(row + _CONTENT_AT, offset, section.in_file)
        if section.relocation_count:
            size = len(coff.relocations(section))
            yield _Part(row + _RELOCATIONS_AT, section.relocations, size)
    if coff.symbols_offset:
        size = len(coff.symbol_table) + len(coff.strings)
        yield _Part(_symbols_at(coff), coff.symbols_offset, size)


def _describe(coff: Coff, new: Mapping[int, _Pieces]) -> _Pieces:
    """Symbols and strings, with what the replaced sections' own symbols say of them put right."""
    table = bytearray(coff.symbol_table)
    definitions = [symbol for symbol in coff.symbols() if symbol.defines_section]
    # Compilers that write checksums write them for all sections. (Linkers look at them only
    # where they must choose between sections of the same name.)
    checksums = any(
        any(_NUMBER.unpack_from(table, symbol.record + _CHECKSUM_AT))
        for symbol in definitions
        if symbol.section not in new
    )
    for symbol in definitions:
        if symbol.section in new:
            pieces = new[symbol.section]
            checksum = _checksum(pieces) if checksums else 0
            _NUMBER.pack_into(table, symbol.record + _LENGTH_AT, _length(pieces))
            _NUMBER.pack_into(table, symbol.record + _CHECKSUM_AT, checksum)
    return (bytes(table), coff.strings)


def _checksum(pieces: _Pieces) -> int:
    """As compilers write it: CRC-32 without the inversions before and after it."""
    crc = 0xFFFF_FFFF
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return crc ^ 0xFFFF_FFFF


def _end_of_headers(coff: Coff) -> int:
    return _row(coff, len(coff.sections) + 1)


def _row(coff: Coff, index: int) -> int:
    """Where the header of a section stands."""
    table = BIG_HEADER_SIZE if coff.big else HEADER_SIZE
    return table + (index - 1) * SECTION_SIZE


def _symbols_at(coff: Coff) -> int:
    return _BIG_SYMBOLS_AT if coff.big else _SYMBOLS_AT


def _length(pieces: _Pieces) -> int:
    return sum(len(piece) for piece in pieces)
