"""Writes build contexts into folders and archives, with the pinned files that images are made of.

    <cache>/image-files/<sha256>/<filename>     fetched and checked
    <cache>/image-files/lock                    held while anything is fetched, or built of them

They stay after a build, because images for another Python need most of them again. The folder may
be deleted while no build runs.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..config.toolchain import Cell, Toolchain
from ..config.toolchains import lock_command
from ..errors import FetchError, ToolchainError, UsageError
from ..events import Emit
from ..provision.archives import MTIME
from ..storage.cache import VARIABLE
from ..storage.files import disk_error
from ..toolchain.debian import on_mirror
from ..toolchain.fetch import fetch
from ..toolchain.homes import check_accepted
from ..toolchain.unpack import one_at_a_time
from .contexts import SUMS, WINE, BuildContext, contexts_of, wine_context

FILES = "image-files"


def check_locked(contexts: Sequence[BuildContext], toolchain: Toolchain) -> None:
    """Raise ToolchainError if a file or a base image has no digest yet."""
    unlocked = list(dict.fromkeys(name for context in contexts for name in context.unlocked))
    if unlocked:
        raise ToolchainError(
            "these files and images are not pinned yet, so nothing can be built from them",
            where=f"toolchain {toolchain.name}",
            details=unlocked,
            hint=lock_command(toolchain.name),
        )


def fetched(context: BuildContext, cache: Path, emit: Emit) -> dict[str, Path]:
    """Fetch a context's files, unless they are there already, and check them; their paths by name.

    Raises what `toolchain.fetch` raises.
    """
    paths = fetch(on_mirror(context.files, cache / FILES), cache / FILES, emit)
    return {path.name: path for path in paths}


@contextmanager
def alone(cache: Path, emit: Emit) -> Iterator[None]:
    """Hold the lock on these files and on image builds; tell the user if that means waiting.

    Raises StoreError if the disk is full or access is denied.
    """
    folder = cache / FILES
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder, "making images", emit):
            yield
    except OSError as error:
        doing = "keep the files of images"
        raise disk_error(error, doing, cache, f"{VARIABLE}=FOLDER") from error


# -- build contexts in folders ---------------------------------------------------------------------

# OUT/TOOLCHAIN/toolchain-0123456789abcdef/       one folder per image, called like its tag
#         Dockerfile, provision/, requirements/ …     the texts
#         files/SHA256SUMS                            of the files beside it: `sha256sum --check`
#         context.json                                tag, base, files with their URLs
#
# A folder appears complete or not at all. `invoke build --plan` prints the commands to build them.


DOCUMENT = "context.json"


@dataclass(frozen=True)
class Rendered:
    """A build context in a folder. complete: its files lie there too, so it can be built."""

    context: BuildContext
    folder: Path
    complete: bool

    def to_json(self) -> dict[str, Any]:
        return {**described(self.context), "folder": str(self.folder), "complete": self.complete}


def render(
    cells: Sequence[Cell],
    bases: Mapping[str, str],
    out: Path,
    cache: Path | None,
    emit: Emit,
    *,
    wine: bool = False,
) -> list[Rendered]:
    """Write the contexts of all images of these toolchains; bases as for `contexts_of`. wine: of
    those with Wine in their place.

    cache: where files are fetched to, which then lie in the contexts; None: they are only listed.
    Raises what `contexts_of` and `fetch` raise, ToolchainError where files that should be fetched
    are not pinned yet, StoreError where the folder cannot be written.
    """
    found: dict[str, tuple[Cell, BuildContext]] = {}
    for cell in cells:
        for context in _contexts(cell, bases, wine):
            found.setdefault(context.tag, (cell, context))
    contexts = [context for _, context in found.values()]
    if cache is None:
        return [_write(context, out, {}) for context in contexts]
    for cell, context in found.values():
        check_locked([context], cell.toolchain)
        if context.kind != WINE:
            check_accepted(cell.toolchain.msvc, cache)
    with alone(cache, emit):
        return [_write(context, out, fetched(context, cache, emit)) for context in contexts]


def _contexts(cell: Cell, bases: Mapping[str, str], wine: bool) -> tuple[BuildContext, ...]:
    if not wine:
        return contexts_of(cell.toolchain, cell.python, cell.torch, bases)
    if cell.toolchain.wine is None:
        raise UsageError(
            f"toolchain {cell.toolchain.name} has no image with Wine",
            where="--wine",
            hint="toolchains for Windows have one: --platform windows-x86_64",
        )
    return (wine_context(cell.toolchain, bases),)


def described(context: BuildContext) -> dict[str, Any]:
    """A context as JSON: what it is called, and what it needs."""
    return {
        "kind": context.kind,
        "tag": context.tag,
        "base": context.base,
        "unlocked": list(context.unlocked),
        "files": [
            {
                "name": file.name,
                "version": file.version,
                "file": f"files/{file.filename}",
                "size": file.size,
                "sha256": file.sha256,
                "url": file.url,
            }
            for file in context.files
        ],
    }


def _write(context: BuildContext, out: Path, places: Mapping[str, Path]) -> Rendered:
    repository, _, name = context.tag.partition(":")
    folder = out / repository.rpartition("/")[2] / name
    part = folder.with_name(f".{secrets.token_hex(8)}.part")
    try:
        part.mkdir(parents=True)
        _fill(part, context, places)
        _replace(part, folder)
    except OSError as error:
        raise disk_error(error, "write a build context", out, "--out FOLDER") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Rendered(context, folder, bool(places) or not context.files)


def _fill(part: Path, context: BuildContext, places: Mapping[str, Path]) -> None:
    for path, text in context.texts:
        target = part / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text)
    files = part / "files"
    files.mkdir()
    for name, place in places.items():
        _link(place, files / name)
    sums = [f"{file.sha256}  {file.filename}\n" for file in context.files if file.locked]
    (files / SUMS).write_text("".join(sums), encoding="utf-8")
    document = json.dumps(described(context), indent=2) + "\n"
    (part / DOCUMENT).write_text(document, encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copyfile(source, target)


def _replace(part: Path, folder: Path) -> None:
    """Put the new folder in the place of one that may be there."""
    old = folder.with_name(f".{secrets.token_hex(8)}.part")
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


# -- build contexts as archives --------------------------------------------------------------------

# Format: POSIX.1-1988 (ustar), as Python's tarfile writes headers. Owner, mode and time of every
# file are fixed, so that an engine which has seen a file before knows it again. The SDK's own
# archives (`docker.utils.build`) keep the files' times, and are written to the disk as a whole
# before any of their gigabytes is sent.

_CHUNK = 1 << 20

Advance = Callable[[int], None]


def size_of(context: BuildContext) -> int:
    """Bytes of all that a context holds, as far as that is known; without what the archive adds."""
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
                size = file.size or os.fstat(stream.fileno()).st_size
                yield from _member(f"files/{file.filename}", size, stream, advance)
        except OSError as error:  # which would be taken for the engine's
            raise FetchError(
                f"cannot read a file that goes into an image: {error.strerror}",
                where=str(place),
                hint="something else is changing the cache: run the same command again",
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
                f"{name} was truncated while it was sent to the engine",
                hint="something else is changing the cache: run the same command again",
            )
        left -= len(chunk)
        advance(len(chunk))
        yield chunk
    yield bytes(-size % tarfile.BLOCKSIZE)
