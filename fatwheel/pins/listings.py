"""What indexes list of a project, each asked once, and what single wheels there hold.

Publishers are asked as often as pip's retries say, and a silent host only once.

Of a wheel only some members are read, METADATA of one with a gigabyte. Where an index offers a
wheel's METADATA beside it (PEP 658), that is read, and its hash checked. Else ranges of the wheel's
bytes are asked for: those of its directory, and of the member.
"""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
from pydantic import ValidationError
from unearth import Link

from ..config import fields
from ..toolchain.access import LISTED, PINNED, Way, origin_of
from ..toolchain.index import Index, IndexSource
from ..toolchain.pipconfig import NotListedError, RefusedError
from ..toolchain.web import Web

Links = Mapping[str, list[Link]]  # by file name


class Listings:
    """Listings of the user's own indexes, and of others that a part names."""

    def __init__(self, index: Index, asker: Asker) -> None:
        self._index = index
        self._asker = asker
        self._known: dict[tuple[str, str], Links | RefusedError] = {}

    def own(self, project: str) -> Links:
        """All wheels that the user's indexes list.

        Raises NotListedError where all say that they have none, RefusedError where one is silent.
        """
        return self._once("", project, self._index.sources)

    def at(self, url: str, project: str) -> Links:
        """What another index lists, but for links that lead to this machine or into its network,
        where a stranger's listing has no business. Raises RefusedError."""
        listed = self._once(url, project, (self._index.source_at(url),))
        if origin_of(url).is_inside:
            return listed
        outside = {file: [*filter(_leads_outside, links)] for file, links in listed.items()}
        return {file: links for file, links in outside.items() if links}

    def length(self, link: Link, way: Way) -> int | None:
        """The size in bytes of a listed file, None where the server does not say it."""
        if link.is_file:
            return link.file_path.stat().st_size
        url = link.url_without_fragment
        return self._asker.ask(url, partial(self._index.length, url, way))

    def _once(self, url: str, project: str, sources: Iterable[IndexSource]) -> Links:
        key = (url, project)
        if key not in self._known:
            self._known[key] = self._listed(project, sources)
        known = self._known[key]
        if isinstance(known, RefusedError):
            raise known
        return known

    def _listed(self, project: str, sources: Iterable[IndexSource]) -> Links | RefusedError:
        found: dict[str, list[Link]] = {}
        refused: list[tuple[IndexSource, RefusedError]] = []
        for source in sources:
            try:
                links = self._asker.ask(source.url, partial(self._index.listed, source, project))
            except RefusedError as error:
                refused.append((source, error))
                continue
            for link in filter(_is_wheel, links):
                found.setdefault(link.filename, []).append(link)
        if found:
            return found
        said = "; ".join(f"{source.shown}: {error}" for source, error in refused) or "no wheel"
        absent = all(isinstance(error, NotListedError) for _, error in refused)
        trouble = NotListedError(said) if absent else RefusedError(said)
        trouble.passing = any(error.passing for _, error in refused)
        return trouble


def _leads_outside(link: Link) -> bool:
    with suppress(httpx2.InvalidURL, ValueError):
        origin = origin_of(link.url_without_fragment)
        return origin.scheme == "https" and not origin.is_inside
    return False


def _is_wheel(link: Link) -> bool:
    """Whether a pin may name the file."""
    try:
        fields.adapter(fields.WheelFile).validate_python(link.filename)
    except ValidationError:
        return False
    return True


def way_to(url: str) -> Way:
    """Who named a file: a part, by its URL, or the user's own index."""
    return PINNED if url else LISTED


T = TypeVar("T")


class Asker:
    """Remembers which hosts did not answer."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._never = threading.Event()  # Ctrl-C reaches this thread by itself
        self._silent: dict[str, str] = {}  # hosts that do not answer, and what happened

    def ask(self, url: str, action: Callable[[], T]) -> T:
        """The action's result; a host that was silent before is not waited for again.

        Raises RefusedError.
        """
        host = urlsplit(url).netloc
        if host in self._silent:
            raise _passing(self._silent[host])
        try:
            return self._web.patiently(action, self._never)
        except RefusedError as error:
            if not error.unreachable:
                raise
            self._silent[host] = f"{host}: {error}"
            raise _passing(self._silent[host]) from error


def _passing(said: str) -> RefusedError:
    error = RefusedError(said)
    error.passing = True
    return error


# -- single members of wheels ----------------------------------------------------------------------

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
