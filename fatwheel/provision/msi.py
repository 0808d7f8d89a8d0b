"""Reads packages of Windows Installer, as which Microsoft publishes the Windows SDK: which files
they install, and in which cabinets beside the package these are; and reads cabinets.

    NAME.msi    a compound file (MS-CFB), whose streams are the tables of a database

A table is stored by columns; strings stand in a pool, and tables have their numbers. Microsoft does
not document that; here it is as Wine's msi.dll and msitools read it. What the tables mean: Windows
Installer, "Database Tables" (File, Component, Directory, Media).

A cabinet (Microsoft, "Cabinet File Format", MS-CAB) has a header, folders, files, and for each
folder blocks of at most 32 KiB. A folder is one stream of bytes, and each of its files a piece of
it. It is plain, or its blocks are packed with deflate, each as a continuation of the one before
(MSZIP: MS-MCI). What is packed in another way (Quantum, LZX) is refused.
"""

from __future__ import annotations

import struct
import zlib
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
class MsiFile:
    """A file that a package installs. key: its name in its cabinet. path: its folders and its name,
    below the root of all. cabinet: the name of the file that it is packed in."""

    key: str
    path: tuple[str, ...]
    cabinet: str


def files_of(stream: BinaryIO) -> list[MsiFile]:
    """The files of a package. Raises ValueError where it is none, or damaged."""
    data = stream.read(_MOST + 1)
    if len(data) > _MOST:
        raise ValueError(f"it has more than {_MOST} bytes")
    database = _Database(_Compound(data))
    try:
        return list(_installed(database))
    except (KeyError, TypeError, struct.error) as error:
        raise ValueError("its tables do not go together") from error


def _installed(database: _Database) -> Iterator[MsiFile]:
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
        yield MsiFile(str(row["File"]), (*path, name), cabinet)


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


# -- cabinets --------------------------------------------------------------------------------------

MOST_FILES = 100_000
_CABINET = b"MSCF"
_HEADER = struct.Struct("<4s4xI4xI4xBBHHHHH")
_FOLDER, _FILE, _BLOCK = struct.Struct("<IHH"), struct.Struct("<IIHHHH"), struct.Struct("<4xHH")
_BEFORE, _AFTER, _RESERVED = 1, 2, 4  # flags: it goes on in other cabinets; reserves follow
_UTF8 = 0x80  # attribute of a file
_PLAIN, _DEFLATED = 0, 1
_WINDOW = 32 << 10  # bytes: of what came before, and the most that a block unpacks to
_LONGEST_NAME = 1000  # bytes
_SPARE = 12 << 10  # bytes that a block may be longer than what it unpacks to (MS-CAB, CFDATA)


@dataclass(frozen=True)
class Packed:
    """A file in a cabinet: its name there, and where in its folder's bytes it is."""

    name: str
    folder: int
    start: int
    size: int


@dataclass(frozen=True)
class _Folder:
    """Where its blocks begin, how many there are, and how they are packed."""

    start: int
    blocks: int
    method: int


class Cabinet:
    """The files of a cabinet. Raises ValueError where it is none, or one that is not read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        data = self._exactly(_HEADER.size)
        magic, size, files_at, minor, major, folders, count, flags, _, _ = _HEADER.unpack(data)
        if magic != _CABINET or (major, minor) != (1, 3):
            raise ValueError("it is no cabinet")
        if flags & (_BEFORE | _AFTER):
            raise ValueError("it goes on in another cabinet")
        self._size = size
        in_header, in_folder, self._in_block = (
            struct.unpack("<HBB", self._exactly(4)) if flags & _RESERVED else (0, 0, 0)
        )
        self._exactly(in_header)
        self._folders = [self._folder(in_folder) for _ in range(folders)]
        stream.seek(files_at)
        self.files = tuple(self._file() for _ in range(min(count, MOST_FILES)))

    def read(self, wanted: dict[str, Packed]) -> Iterator[tuple[str, bytes]]:
        """The content of files, in pieces, by the keys of `wanted`; a file's pieces follow each
        other, and an empty file has one. Raises ValueError for a damaged cabinet."""
        for number in range(len(self._folders)):
            mine = [(key, one) for key, one in wanted.items() if one.folder == number]
            yield from self._read_folder(number, sorted(mine, key=lambda pair: pair[1].start))

    def _read_folder(
        self, number: int, wanted: list[tuple[str, Packed]]
    ) -> Iterator[tuple[str, bytes]]:
        """Files may share bytes, or overlap; each starts at or after the one before it."""
        held, held_at = b"", 0
        blocks = self._blocks(self._folders[number]) if wanted else iter(())
        for key, one in wanted:
            if one.start < held_at:
                raise ValueError(f"its files overlap: {one.name!r}")
            at, left = one.start, one.size
            while True:
                piece = held[at - held_at : at - held_at + left]
                if piece or not left:
                    yield key, piece
                at, left = at + len(piece), left - len(piece)
                if not left:
                    break
                held_at += len(held)
                held = next(blocks, b"")
                if not held:
                    raise ValueError(f"it ends within {one.name!r}")

    def _blocks(self, folder: _Folder) -> Iterator[bytes]:
        """What each block unpacks to."""
        self._stream.seek(folder.start)
        before = b""
        for _ in range(folder.blocks):
            length, unpacked = _BLOCK.unpack(self._exactly(_BLOCK.size))
            self._exactly(self._in_block)
            if unpacked > _WINDOW or length > unpacked + _SPARE or not unpacked:
                raise ValueError("one of its blocks is damaged")
            data = self._exactly(length)
            if folder.method == _DEFLATED:
                data = _inflated(data, before, unpacked)
            if len(data) != unpacked:
                raise ValueError("one of its blocks is damaged")
            before = data
            yield data

    def _folder(self, reserve: int) -> _Folder:
        start, blocks, kind = _FOLDER.unpack(self._exactly(_FOLDER.size))
        self._exactly(reserve)
        method = kind & 0xF
        if method not in (_PLAIN, _DEFLATED):
            raise ValueError(f"it is packed with a method that is not read ({method})")
        return _Folder(start, blocks, method)

    def _file(self) -> Packed:
        size, start, folder, _, _, attributes = _FILE.unpack(self._exactly(_FILE.size))
        name = self._text()
        if folder >= len(self._folders):
            raise ValueError("it goes on in another cabinet")
        return Packed(
            name.decode("utf-8" if attributes & _UTF8 else "latin-1"), folder, start, size
        )

    def _text(self) -> bytes:
        place = self._stream.tell()
        data = self._stream.read(_LONGEST_NAME)
        text, nul, _ = data.partition(b"\0")
        if not nul:
            raise ValueError("one of its names has no end")
        self._stream.seek(place + len(text) + 1)
        return text

    def _exactly(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            raise ValueError("it ends too soon")
        return data


def _inflated(data: bytes, before: bytes, size: int) -> bytes:
    if not data.startswith(b"CK"):
        raise ValueError("one of its blocks is damaged")
    reader = zlib.decompressobj(-15, zdict=before)
    return reader.decompress(data[2:], size)
