"""Maps files into memory, to be read only, and gives that memory back.

What was read of a mapped file counts as this process's memory until it is given back.

Standard library only: `fatbin` needs it.
"""

from __future__ import annotations

import hashlib
import mmap
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from ..errors import FormatError
from .files import readable

# Bytes to read from a mapped file before it is worth letting go of them.
STEP = 16 << 20
_CHUNK = 1 << 20


def map_file(stream: IO[bytes]) -> memoryview:
    """The bytes of an open file, which must not be empty, to be read only.

    The mapping outlives the stream, and goes with its last view. Raises OSError.
    """
    return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def map_path(path: Path, valid: str) -> memoryview:
    """The bytes of a file; UsageError as of `files.readable`, FormatError if it is empty."""
    with readable(path, valid), path.open("rb") as stream:
        if path.stat().st_size == 0:
            raise FormatError("the file is empty", where=str(path))
        return map_file(stream)


class Reading:
    """Gives back the memory of mapped files while they are read, however many take turns."""

    def __init__(self) -> None:
        self._size = 0
        self._views: dict[int, memoryview] = {}

    def has_read(self, view: memoryview) -> None:
        """These bytes were read, and will hardly be soon again."""
        self._views[id(view.obj)] = view
        self._size += len(view)
        if self._size > STEP:
            for one in self._views.values():
                let_go(one)
            self._size = 0
            self._views.clear()


def in_chunks(pieces: Iterable[bytes | memoryview]) -> Iterator[memoryview]:
    """Pieces one after the other, in chunks that do not cost memory."""
    reading = Reading()
    for piece in pieces:
        view = memoryview(piece)
        for start in range(0, len(view), _CHUNK):
            chunk = view[start : start + _CHUNK]
            yield chunk
            reading.has_read(chunk)


def digest_of_pieces(pieces: Iterable[bytes | memoryview]) -> str:
    """The sha256 of the pieces one after the other."""
    digest = hashlib.sha256()
    for chunk in in_chunks(pieces):
        digest.update(chunk)
    return digest.hexdigest()


def let_go(view: memoryview) -> None:
    """Give back the memory of a mapped file that `view` is, or is a part of.

    It can be read again, which takes the system a moment. Views of anything else, and systems that
    cannot do this, are left alone.
    """
    if sys.platform != "win32" and isinstance(view.obj, mmap.mmap):
        view.obj.madvise(mmap.MADV_DONTNEED)
