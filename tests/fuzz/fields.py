"""Where a file keeps its offsets, sizes and counts: what is worth changing first.

Found with as little code as possible, and not with fatwheel's own readers: a place that is none
does no harm. Places are (offset, size) in bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence

Place = tuple[int, int]

_CONTAINER, _WRAPPER = struct.pack("<I", 0xBA55ED50), struct.pack("<I", 0x466243B1)
_CONTAINER_FIELDS = (4, 2, 2, 8)
_ENTRY_FIELDS = (2, 2, 4, 8, 4, 4, 2, 2, 4, 4, 4, 8, 8, 8)
_WRAPPER_FIELDS = (4, 4, 8, 8)

_ELF_HEADER = (1,) * 16 + (2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2)
_ELF_SECTION = (4, 4, 8, 8, 8, 8, 4, 4, 8, 8)
_ELF_PROGRAM = (4, 4, 8, 8, 8, 8, 8, 8)
_ELF_SYMBOL = (4, 1, 1, 2, 8, 8)
# By section type: the fields of a row. Symbols, relocations, dynamic entries, hashes, RELR.
_ELF_ROWS = {
    2: _ELF_SYMBOL, 11: _ELF_SYMBOL, 4: (8, 4, 4, 8), 6: (8, 8), 5: (4,), 0x6FFFFFF6: (4,),
    19: (8,), 0x6FFFFFFF: (2,), 0x6FFFFFFE: (4, 4, 4, 4),
}  # fmt: skip
_MOST_ROWS = 64

_COFF_HEADER = (2, 2, 4, 4, 4, 2, 2)
_BIG_HEADER = (2, 2, 2, 2, 4, 16, 4, 4, 4, 4, 4, 4, 4)
_COFF_SECTION = (8, 4, 4, 4, 4, 4, 4, 2, 2, 4)
_PE_OPTIONAL = (
    2,
    1,
    1,
    4,
    4,
    4,
    4,
    4,
    8,
    4,
    4,
    2,
    2,
    2,
    2,
    2,
    2,
    4,
    4,
    4,
    4,
    2,
    2,
    8,
    8,
    8,
    8,
    4,
    4,
)
_PE_DIRECTORIES = (4,) * 32
_DATA_ROWS = (4,) * 16

_ZIP_FIELDS = {
    b"PK\x03\x04": (4, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2),
    b"PK\x01\x02": (4, 2, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2, 2, 2, 2, 4, 4),
    b"PK\x05\x06": (4, 2, 2, 2, 2, 4, 4, 2),
}

TAR_BLOCK = 512
_TAR_FIELDS = (100, 8, 8, 8, 12, 12, 8, 1, 100, 6, 2, 32, 32, 8, 8, 155)


def places_of(data: bytes) -> tuple[Place, ...]:
    """All of them, whatever the format."""
    found = [place for read in (_fatbin, _elf, _pe, _coff, _zip, _tar) for place in read(data)]
    return tuple(place for place in found if sum(place) <= len(data))


def _row(offset: int, sizes: Sequence[int]) -> Iterator[Place]:
    for size in sizes:
        yield offset, size
        offset += size


def _table(offset: int, sizes: Sequence[int], count: int) -> Iterator[Place]:
    for index in range(min(count, _MOST_ROWS)):
        yield from _row(offset + index * sum(sizes), sizes)


def _number(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")


def _fatbin(data: bytes) -> Iterator[Place]:
    for match in re.finditer(re.escape(_WRAPPER), data):
        yield from _row(match.start(), _WRAPPER_FIELDS)
    for match in re.finditer(re.escape(_CONTAINER), data):
        start = match.start()
        yield from _row(start, _CONTAINER_FIELDS)
        end = start + 16 + _number(data, start + 8, 8)
        position = start + 16
        for _ in range(_MOST_ROWS):
            if position >= end:
                break
            yield from _row(position, _ENTRY_FIELDS)
            position += _number(data, position + 4, 4) + _number(data, position + 8, 8)


def _elf(data: bytes) -> Iterator[Place]:
    if data[:4] != b"\x7fELF":
        return
    yield from _row(0, _ELF_HEADER)
    programs, sections = _number(data, 32, 8), _number(data, 40, 8)
    yield from _table(programs, _ELF_PROGRAM, _number(data, 56, 2))
    yield from _table(sections, _ELF_SECTION, _number(data, 60, 2))
    for index in range(min(_number(data, 60, 2), _MOST_ROWS)):
        row = sections + index * 64
        sizes = _ELF_ROWS.get(_number(data, row + 4, 4))
        if sizes:
            offset, size = _number(data, row + 24, 8), _number(data, row + 32, 8)
            yield from _table(offset, sizes, size // sum(sizes))


def _pe(data: bytes) -> Iterator[Place]:
    header = _number(data, 0x3C, 4)
    if data[:2] != b"MZ" or data[header : header + 4] != b"PE\0\0":
        return
    yield 0x3C, 4
    yield from _row(header + 4, _COFF_HEADER)
    optional = header + 24
    yield from _row(optional, _PE_OPTIONAL)
    yield from _row(optional + 112, _PE_DIRECTORIES)
    sections = optional + _number(data, header + 20, 2)
    count = min(_number(data, header + 6, 2), _MOST_ROWS)
    yield from _table(sections, _COFF_SECTION, count)
    for index in range(16):  # what the directories point to
        address = _number(data, optional + 112 + 8 * index, 4)
        for row in range(sections, sections + 40 * count, 40):
            offset = address - _number(data, row + 12, 4)
            if address and 0 <= offset < _number(data, row + 8, 4):
                yield from _row(_number(data, row + 20, 4) + offset, _DATA_ROWS)


def _coff(data: bytes) -> Iterator[Place]:
    if data[:2] == b"\x64\x86":
        yield from _row(0, _COFF_HEADER)
        yield from _coff_tables(data, 20, _number(data, 2, 2), 18)
    elif data[:4] == b"\0\0\xff\xff":
        yield from _row(0, _BIG_HEADER)
        yield from _coff_tables(data, 56, _number(data, 44, 4), 20)


def _coff_tables(data: bytes, sections: int, count: int, symbol: int) -> Iterator[Place]:
    yield from _table(sections, _COFF_SECTION, count)
    for row in range(sections, sections + 40 * min(count, _MOST_ROWS), 40):
        yield from _table(_number(data, row + 24, 4), (4, 4, 2), _number(data, row + 32, 2))
    place, number = (8, 12) if symbol == 18 else (48, 52)
    sizes = (4, 4, 4, symbol - 16, 2, 1, 1)
    yield from _table(_number(data, place, 4), sizes, _number(data, number, 4))


def _zip(data: bytes) -> Iterator[Place]:
    for magic, sizes in _ZIP_FIELDS.items():
        for match in re.finditer(re.escape(magic), data):
            yield from _row(match.start(), sizes)


def tar_headers(data: bytes) -> Iterator[int]:
    """Where headers of a tar archive are, at most so many as fields are changed in."""
    starts = range(0, min(len(data) - TAR_BLOCK + 1, 4 * _MOST_ROWS * TAR_BLOCK), TAR_BLOCK)
    return (at for at in starts if data[at + 257 : at + 262] == b"ustar")


def _tar(data: bytes) -> Iterator[Place]:
    for at in tar_headers(data):
        yield from _row(at, _TAR_FIELDS)
