"""COFF objects with other device code, or with other bytes in any section.

A file is laid out anew, in its order and without dead bytes, as compilers lay it out: the result
is what they would have written, had they been given these bytes. Raises FormatError for what is
malformed or not supported.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import FormatError
from .coff import (
    BIG_HEADER_SIZE,
    FATBIN_SECTIONS,
    HEADER_SIZE,
    SECTION_SIZE,
    WRAPPER_SECTION,
    Coff,
    Section,
    cut,
    read_coff,
)
from .container import Entry, container_pieces, parse_containers
from .linked import HasKernels, Rewritten, Wrapper, read_wrappers, used_containers

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


def _replaceable(coff: Coff, name: str) -> Section:
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
