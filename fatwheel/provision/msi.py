"""Reads packages of Windows Installer, as which Microsoft publishes the Windows SDK: which files
they install, and in which cabinets beside the package these are.

    NAME.msi    a compound file (MS-CFB), whose streams are the tables of a database

A table is stored by columns; strings stand in a pool, and tables have their numbers. Microsoft does
not document that; here it is as Wine's msi.dll and msitools read it. What the tables mean: Windows
Installer, "Database Tables" (File, Component, Directory, Media).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

_MAGIC = bytes.fromhex("d0cf11e0a1b11ae1")
_MOST = 64 << 20  # bytes of a package, without its cabinets; those of an SDK have at most 2 MB
_MOST_ROWS = 100_000
_MOST_STRINGS = 1_000_000
_DEEPEST = 50  # folders in folders
_LAST_SECTOR = 0xFFFFFFFA  # greater numbers mean something else, such as the end of a stream
_ENTRY = 128  # bytes of a stream's entry
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._"
_TABLE = "\u4840"  # begins the names of tables
_CODE_PAGES = {0: "ascii", 65001: "utf-8"}
_STRING, _BINARY = 0x800, 0x900  # types of columns
_OLDER = 0x8000_0000  # bit of the pool: its strings have numbers of three bytes

_Row = dict[str, int | str]


@dataclass(frozen=True)
class Installed:
    """A file that a package installs. key: its name in its cabinet. path: its folders and its name,
    below the root of all. cabinet: the name of the file that it is packed in."""

    key: str
    path: tuple[str, ...]
    cabinet: str


def files_of(stream: BinaryIO) -> list[Installed]:
    """The files of a package. Raises ValueError where it is none, or damaged."""
    data = stream.read(_MOST + 1)
    if len(data) > _MOST:
        raise ValueError(f"it has more than {_MOST} bytes")
    database = _Database(_Compound(data))
    try:
        return list(_installed(database))
    except (KeyError, TypeError, struct.error) as error:
        raise ValueError("its tables do not go together") from error


def _installed(database: _Database) -> Iterator[Installed]:
    folders = {str(row["Directory"]): row for row in database.table("Directory")}
    components = {
        str(row["Component"]): str(row["Directory_"]) for row in database.table("Component")
    }
    media = sorted(
        (int(row["LastSequence"]), str(row["Cabinet"])) for row in database.table("Media")
    )
    for row in database.table("File"):
        sequence = int(row["Sequence"])
        cabinet = next((name for last, name in media if sequence <= last), "")
        if not cabinet or cabinet.startswith("#"):
            raise ValueError("its files are not in cabinets beside it")
        path = _path_of(components[str(row["Component_"])], folders)
        name = _long(str(row["FileName"]))
        yield Installed(str(row["File"]), (*path, name), cabinet)


def _path_of(folder: str, folders: dict[str, _Row]) -> tuple[str, ...]:
    """The names of a folder and of those that it is in. The root has none: it is anywhere."""
    names: list[str] = []
    for _ in range(_DEEPEST):
        row = folders[folder]
        parent = str(row["Directory_Parent"])
        if parent in ("", folder):
            return tuple(reversed(names))
        name = _long(str(row["DefaultDir"]).partition(":")[0])
        if name != ".":  # it is where its parent is
            names.append(name)
        folder = parent
    raise ValueError("its folders have no root")


def _long(name: str) -> str:
    """Of `SHORT~1.TXT|a long name.txt` the latter."""
    return name.rpartition("|")[2]


# -- tables ----------------------------------------------------------------------------------------


class _Database:
    def __init__(self, compound: _Compound) -> None:
        self._compound = compound
        pool = compound.stream(_TABLE + _encoded("_StringPool"))
        self._reference = 3 if len(pool) >= 4 and _u32(pool, 0) & _OLDER else 2
        self._strings = list(_strings(pool, compound.stream(_TABLE + _encoded("_StringData"))))
        self._columns: dict[str, list[tuple[int, str, int]]] = {}
        for row in self._rows("_Columns", _OF_COLUMNS):
            column = (int(row["Number"]), str(row["Name"]), int(row["Type"]))
            self._columns.setdefault(str(row["Table"]), []).append(column)

    def table(self, name: str) -> list[_Row]:
        """The rows of a table; none where there is no such."""
        columns = sorted(self._columns.get(name, []))
        return list(self._rows(name, [(column, kind) for _, column, kind in columns]))

    def _rows(self, name: str, columns: Sequence[tuple[str, int]]) -> Iterator[_Row]:
        data = self._compound.stream(_TABLE + _encoded(name))
        widths = [self._width(kind) for _, kind in columns]
        count = len(data) // sum(widths) if widths else 0
        if count > _MOST_ROWS:
            raise ValueError(f"its table {name} has more than {_MOST_ROWS} rows")
        starts = [count * sum(widths[:number]) for number in range(len(widths))]
        for number in range(count):
            yield {
                column: self._value(data, start + number * width, width, kind)
                for (column, kind), start, width in zip(columns, starts, widths, strict=True)
            }

    def _width(self, kind: int) -> int:
        if kind & _STRING:
            return 2 if kind & ~0x1000 == _BINARY else self._reference
        return 2 if kind & 0xFF <= 2 else 4

    def _value(self, data: bytes, start: int, width: int, kind: int) -> int | str:
        number = int.from_bytes(data[start : start + width], "little")
        if not kind & _STRING:
            return number ^ (1 << (8 * width - 1)) if number else 0
        if number >= len(self._strings):
            raise ValueError("a string of its tables is missing")
        return self._strings[number]


# Of the one table that tells of all others: the type of numbers, and that of strings.
_OF_COLUMNS = (("Table", 0x3D40), ("Number", 0x2502), ("Name", 0xD40), ("Type", 0x502))


def _strings(pool: bytes, data: bytes) -> Iterator[str]:
    """The strings by their numbers, of which 0 is nothing."""
    words = struct.unpack(f"<{len(pool) // 2}H", pool[: len(pool) // 2 * 2])
    if not 2 <= len(words) <= 2 * _MOST_STRINGS:
        raise ValueError("it has no strings, or too many")
    page = words[0] | (words[1] & 0x7FFF) << 16
    name = _CODE_PAGES.get(page, f"cp{page}")
    yield ""
    place, at = 2, 0
    while place + 1 < len(words):
        length, uses = words[place], words[place + 1]
        place += 2
        if not length and uses and place + 1 < len(words):  # a longer one: of two entries
            length = uses << 16 | words[place]
            place += 2
        try:
            yield data[at : at + length].decode(name)
        except LookupError:
            raise ValueError(f"its code page {page} is not known") from None
        at += length


# -- compound files --------------------------------------------------------------------------------


class _Compound:
    """The streams of a compound file, by their names."""

    def __init__(self, data: bytes) -> None:
        if len(data) < 512 or data[:8] != _MAGIC:
            raise ValueError("it is no package of Windows Installer")
        self._data = data
        self._shift, self._small_shift = _u16(data, 0x1E), _u16(data, 0x20)
        if self._shift not in (9, 12) or self._small_shift != 6:
            raise ValueError("it is no package of Windows Installer")
        self._cutoff = _u32(data, 0x38)
        self._next = self._table()
        self._small_next = _numbers(self._chain(_u32(data, 0x3C)))
        entries = self._chain(_u32(data, 0x30))
        self._entries: dict[str, tuple[int, int]] = {}
        self._small = b""
        for start in range(0, len(entries) - _ENTRY + 1, _ENTRY):
            self._enter(entries[start : start + _ENTRY])

    def stream(self, name: str) -> bytes:
        """Its content; nothing where there is no such."""
        first, size = self._entries.get(name, (_LAST_SECTOR, 0))
        if size >= self._cutoff:
            found = self._chain(first)
        else:
            found = b"".join(
                self._small[one << self._small_shift : (one + 1) << self._small_shift]
                for one in _followed(first, self._small_next)
            )
        if len(found) < size:
            raise ValueError("one of its streams ends too soon")
        return found[:size]

    def _enter(self, entry: bytes) -> None:
        length, kind = _u16(entry, 64), entry[66]
        first, size = _u32(entry, 116), _u32(entry, 120)
        if kind == 5 and not self._small:  # the root, whose content is that of all small streams
            self._small = self._chain(first)[:size]
        elif kind == 2 and 2 <= length <= 64:
            self._entries[entry[: length - 2].decode("utf-16-le", "replace")] = (first, size)

    def _sector(self, number: int) -> bytes:
        start = (number + 1) << self._shift
        return self._data[start : start + (1 << self._shift)]

    def _table(self) -> tuple[int, ...]:
        """For each sector the next one of its stream."""
        sectors = list(_numbers(self._data[0x4C:0x200]))
        more = _u32(self._data, 0x44)
        while more < _LAST_SECTOR:
            *numbers, more = _numbers(self._sector(more)) or (_LAST_SECTOR,)
            sectors += numbers
            if len(sectors) > (len(self._data) >> self._shift) + 1000:
                raise ValueError("its table of sectors has no end")
        return _numbers(b"".join(self._sector(one) for one in sectors if one < _LAST_SECTOR))

    def _chain(self, first: int) -> bytes:
        return b"".join(map(self._sector, _followed(first, self._next)))


def _followed(first: int, following: Sequence[int]) -> Iterator[int]:
    """The numbers of a stream's sectors."""
    for _ in range(len(following) + 1):
        if first >= _LAST_SECTOR:
            return
        if first >= len(following):
            break
        yield first
        first = following[first]
    raise ValueError("one of its streams has no end")


def _encoded(name: str) -> str:
    """A name as streams have it: two characters in one."""
    letters = [_LETTERS.index(letter) for letter in name]
    pairs = zip(letters[::2], letters[1::2], strict=False)
    text = "".join(chr(0x3800 + first + (second << 6)) for first, second in pairs)
    return text + (chr(0x4800 + letters[-1]) if len(letters) % 2 else "")


def _numbers(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])


def _u16(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 2], "little")


def _u32(data: bytes, place: int) -> int:
    return int.from_bytes(data[place : place + 4], "little")
