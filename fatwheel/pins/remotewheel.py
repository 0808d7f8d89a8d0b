"""Reads single members of wheels that stay where they are: METADATA of one with a gigabyte.

Where an index offers a wheel's METADATA beside it (PEP 658), that is read, and its hash checked.
Else ranges of the wheel's bytes are asked for: those of its directory, and of the member.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from unearth import Link

from ..toolchain.errands import Way
from ..toolchain.pipconfig import RefusedError
from ..toolchain.web import Web
from .listings import Asker

_PIECE = 1 << 18  # bytes asked for at a time
_MOST = 32 << 20  # bytes of a wheel's directory, or of METADATA
# What `zipfile` lets escape on a wheel that is malformed; a RuntimeError if it is encrypted.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError, OSError)


class RemoteWheels:
    """Reads wheels by their links. All of it raises RefusedError."""

    def __init__(self, web: Web, asker: Asker) -> None:
        self._web = web
        self._asker = asker

    def metadata(self, link: Link, way: Way) -> bytes:
        """A wheel's METADATA. way: who named the link."""
        beside = link.dist_info_link
        if beside is None or link.is_file:
            with self._opened(link, way) as archive:
                return _metadata_in(archive)
        url = beside.url_without_fragment
        content = self._asker.ask(url, partial(self._web.read, url, way))
        said = link.dist_info_metadata
        listed = said.get("sha256") if isinstance(said, dict) else None
        received = hashlib.sha256(content).hexdigest()
        if listed not in (None, received):
            raise RefusedError(f"its METADATA has sha256 {received}, not the listed one")
        return content

    def names(self, link: Link, way: Way) -> list[str]:
        """The members of a wheel."""
        with self._opened(link, way) as archive:
            return archive.namelist()

    @contextmanager
    def _opened(self, link: Link, way: Way) -> Iterator[zipfile.ZipFile]:
        try:
            with self._stream(link, way) as stream, zipfile.ZipFile(stream) as archive:
                yield archive
        except _UNREADABLE as error:
            raise RefusedError(f"{link.filename} cannot be read as a wheel: {error}") from error

    def _stream(self, link: Link, way: Way) -> io.BufferedIOBase:
        if link.is_file:
            return link.file_path.open("rb")
        url = link.url_without_fragment
        size = self._asker.ask(url, partial(self._web.length, url, way))
        if size is None:
            raise RefusedError(f"the server does not say the size of {link.filename}")

        def piece(start: int, most: int) -> bytes:
            return self._asker.ask(url, partial(self._web.piece, url, start, most, way))

        return _Limited(_Ranges(piece, size), _PIECE)


def _metadata_in(archive: zipfile.ZipFile) -> bytes:
    for entry in archive.infolist():
        if entry.filename.count("/") == 1 and entry.filename.endswith(".dist-info/METADATA"):
            with archive.open(entry) as stream:
                return stream.read(_MOST)
    raise zipfile.BadZipFile("it has no METADATA")


class _Limited(io.BufferedReader):
    """`zipfile` reads a directory at once, however long the wheel says that it is."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size and size > _MOST:
            raise OSError(f"a part of it is longer than {_MOST >> 20} MiB")
        return super().read(size)


class _Ranges(io.RawIOBase):
    """A file of which each read asks for a range of bytes."""

    def __init__(self, piece: Callable[[int, int], bytes], size: int) -> None:
        self._piece = piece
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("it is too short")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        most = min(len(view), self._size - self._position, _MOST)
        if most <= 0:
            return 0
        content = self._piece(self._position, most)
        view[: len(content)] = content
        self._position += len(content)
        return len(content)
