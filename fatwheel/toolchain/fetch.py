"""Pinned files in folders of downloads: what is there, fetching what is not, and taking it from a
folder of the user (`--find FOLDER`).

    <folder>/<sha256>/<filename>    finished, and what its pin says
    <folder>/incoming/              being written; swept when the writer is dead

A file is accepted by its exact name, its sha256 and, where the pin says it, its size, wherever it
comes from. What is finished stays. No code of a package is run: an sdist is a file like any other.

Mostly nothing is missing, so what talks to the network is imported only then: it takes longer than
all the rest of a build that has nothing to do.

In a folder of the user, a file is the pinned one where its sha256 is; what it is called, and where
it came from, decides nothing. Only files of a pinned size are read, or all of them where a size is
not known. What is found is put in its place as another name of the same file where the disk allows
that, else as a copy.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..config.pinned import Download, Package
from ..errors import ToolchainError, UsageError
from ..events import Emit, Note
from ..storage import cache, files

Pinned = Package | Download


def fetch(pinned: Sequence[Pinned], folder: Path, emit: Emit, *, toolchain: str = "") -> list[Path]:
    """Fetch what is not in `folder` yet; the files' paths, in the order of `pinned`.

    Files that are there are checked again by size and sha256, and fetched anew where they are
    not what they should be. Emits Progress over the bytes of all missing files, from the
    calling thread only. toolchain: the one that the files belong to, for what an error says.

    Raises ToolchainError where a pin is not locked, FetchError (not found, no network, a host that
    a lock must not name), HashMismatchError, StoreError (disk full).
    """
    check_locked(pinned, toolchain)
    missing = [item for item in pinned if not is_fetched(item, folder)]
    if missing:
        check_hosts((item, folder) for item in missing)
        from .download import download

        download(missing, folder, emit)
    return [place(item, folder) for item in pinned]


def check_locked(pinned: Iterable[Pinned], toolchain: str = "") -> None:
    """Raise ToolchainError, with all of them, where the sha256 of a file is not known."""
    unlocked = [item.filename for item in pinned if not item.locked]
    if unlocked:
        from ..config.toolchains import lock_command

        raise ToolchainError(
            "these files are not pinned yet, so they are not fetched",
            where=f"toolchain {toolchain}" if toolchain else None,
            details=unlocked,
            hint=lock_command(toolchain or "NAME"),
        )


def check_hosts(places: Iterable[tuple[Pinned, Path]]) -> None:
    """Raise FetchError, with all of them, for missing files that a lock has at a host of its own.

    places: files with their folders of downloads. Such a lock is from elsewhere.
    """
    foreign = [(pin, folder) for pin, folder in places if pin.url and pin.hosts is not None]
    if foreign:
        from .download import check_access

        check_access(foreign)


def place(pinned: Pinned, folder: Path) -> Path:
    """Where a file is once it is fetched."""
    return folder / pinned.sha256 / pinned.filename


def is_fetched(pinned: Pinned, folder: Path) -> bool:
    """Whether the file exists and matches its pin."""
    path = place(pinned, folder)
    try:
        if path.stat().st_size != pinned.size and pinned.size:
            return False
    except OSError:
        return False
    return files.digest_of(path) == pinned.sha256


# -- --find FOLDER ---------------------------------------------------------------------------------

MAX_FILES = 1_000_000  # looked at in one folder and all those in it
MAX_DEPTH = 50
_SHOWN = 5  # names in a note

# Pins that are missing in a folder of downloads, by sha256.
_Missing = dict[str | None, list[tuple[Pinned, Path]]]


def seed(places: Sequence[tuple[Pinned, Path]], find: Path, emit: Emit) -> tuple[Pinned, ...]:
    """Copy pinned files found below `find` into their download folders, where they are missing.

    The pins that were found, each once. Emits a Note that counts them. Folders below `find` that
    are links are not entered; what cannot be read is passed over.

    Raises UsageError, at --find, where there is no such folder, StoreError where the disk does
    not take the files.
    """
    _check_folder(find)
    missing = _missing(places)
    wanted = len({pin for some in missing.values() for pin, _ in some})
    found: dict[Pinned, None] = {}
    sizes = {pin.size for some in missing.values() for pin, _ in some}
    for path in _plain_files(find, sizes):
        for pin, folder in missing.pop(_digest(path), []):
            if _put(path, pin, folder):
                found[pin] = None
        if not missing:
            break
    emit(Note(_said(find, tuple(found), wanted)))
    return tuple(found)


def _check_folder(find: Path) -> None:
    try:
        with os.scandir(find):
            return
    except OSError as error:
        raise UsageError(
            f"cannot search this folder: {error.strerror or error}",
            where=f"--find {find}",
            hint="valid: a readable folder with the files, under any names",
        ) from error


def _missing(places: Iterable[tuple[Pinned, Path]]) -> _Missing:
    missing: _Missing = {}
    for pin, folder in dict.fromkeys(places):
        if pin.locked and not is_fetched(pin, folder):
            missing.setdefault(pin.sha256, []).append((pin, folder))
    return missing


def _plain_files(find: Path, sizes: set[int]) -> Iterator[Path]:
    """Files of one of these sizes, of which 0 is any, those nearest to the top first."""
    if not sizes:
        return
    left, level = MAX_FILES, [find]
    for _ in range(MAX_DEPTH):
        inner: list[Path] = []
        for folder in level:
            for entry in _entries(folder):
                left -= 1
                if left < 0:
                    return
                if _is_folder(entry):
                    inner.append(Path(entry.path))
                elif (size := _plain_size(entry)) in sizes or (0 in sizes and size > 0):
                    yield Path(entry.path)
        level = inner


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name, so that the same folder gives the same answer."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _plain_size(entry: os.DirEntry[str]) -> int:
    """The size of a file, also behind a link; -1 for anything else: a pipe would never end."""
    try:
        status = entry.stat()
    except OSError:
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def _digest(path: Path) -> str | None:
    """The sha256 of a file; None for one that cannot be read, which is as good as none."""
    try:
        return files.digest_of(path)
    except OSError:
        return None


def _put(path: Path, pin: Pinned, folder: Path) -> bool:
    """Whether the file is in its place now; not where it changed while it was copied."""
    target = place(pin, folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{secrets.token_hex(8)}.part")
        try:
            same = _linked(path, part) or _copied(path, part) == pin.sha256
            if same:
                files.replace(part, target)
        finally:
            files.remove(part)
        files.sync_folder(target.parent)
    except OSError as error:
        raise files.disk_error(
            error, f"keep {pin.filename}", folder, f"{cache.VARIABLE}=FOLDER"
        ) from error
    return same


def _linked(path: Path, part: Path) -> bool:
    """Whether the file has another name now; not on another disk, or if it is somebody else's."""
    try:
        os.link(os.path.realpath(path), part)
    except OSError:
        return False
    return True


def _copied(path: Path, part: Path) -> str:
    """Copy the file; the sha256 of what was copied."""
    with path.open("rb") as source, part.open("xb") as stream:
        digest, _ = files.copy(source, stream)
        files.sync_file(stream)
    return digest


def _said(find: Path, found: Sequence[Pinned], missing: int) -> str:
    if not missing:
        return f"{find} was not searched: all pinned files are already in the cache"
    wanted = "the one missing file" if missing == 1 else f"the {missing} missing files"
    if not found:
        return f"{find} {'does not have' if missing == 1 else 'has none of'} {wanted}"
    names = [pin.filename for pin in found[:_SHOWN]] + ["..."] * (len(found) > _SHOWN)
    count = wanted if missing == 1 else f"{len(found)} of {wanted}"
    return f"{find} has {count}: {', '.join(names)}"
