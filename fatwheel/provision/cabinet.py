"""Reads cabinets, in which the files of Windows Installer's packages are packed.

Format: Microsoft, "Cabinet File Format" (MS-CAB): a header, folders, files, and for each folder
blocks of at most 32 KiB. A folder is one stream of bytes, and each of its files a piece of it. It
is plain, or its blocks are packed with deflate, each as a continuation of the one before (MSZIP:
MS-MCI). What is packed in another way (Quantum, LZX) is refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

MOST_FILES = 100_000
_MAGIC = b"MSCF"
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
        if magic != _MAGIC or (major, minor) != (1, 3):
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
