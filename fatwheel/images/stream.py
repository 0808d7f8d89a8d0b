"""A build context as a tar archive, made while it is sent: gigabytes that are never in memory.

Format: POSIX.1-1988 (ustar), as Python's tarfile writes headers. Owner, mode and time of every
file are fixed, so that an engine which has seen a file before knows it again.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from ..errors import FetchError
from ..provision.finish import MTIME
from .contexts import BuildContext

_CHUNK = 1 << 20

Advance = Callable[[int], None]


def size_of(context: BuildContext) -> int:
    """Bytes of all that a context holds, without what the archive adds."""
    return sum(len(text) for _, text in context.texts) + sum(file.size for file in context.files)


def tar_of(context: BuildContext, places: Mapping[str, Path], advance: Advance) -> Iterator[bytes]:
    """The archive, piece by piece.

    places: for each of the context's files, by its name, where it is. advance is told how many
    bytes of content each piece had. Raises FetchError where a file changes meanwhile.
    """
    for path, text in context.texts:
        yield from _member(path, len(text), io.BytesIO(text), advance)
    for file in context.files:
        place = places[file.filename]
        try:
            with place.open("rb") as stream:
                yield from _member(f"files/{file.filename}", file.size, stream, advance)
        except OSError as error:  # which would be taken for the engine's
            raise FetchError(
                f"cannot read a file for an image: {error.strerror}",
                where=str(place),
                hint="something else changes the cache: run the same command again",
            ) from error
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(name: str, size: int, content: BinaryIO, advance: Advance) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    info.mtime = MTIME
    yield info.tobuf(tarfile.PAX_FORMAT)
    left = size
    while left:
        chunk = content.read(min(left, _CHUNK))
        if not chunk:
            raise FetchError(
                f"{name} became shorter while it was sent to the engine",
                hint="something else changes the cache: run the same command again",
            )
        left -= len(chunk)
        advance(len(chunk))
        yield chunk
    yield bytes(-size % tarfile.BLOCKSIZE)
