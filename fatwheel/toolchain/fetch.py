"""Pinned files in folders of downloads: what is there, and fetching what is not.

    <folder>/<sha256>/<filename>    finished, and what its pin says
    <folder>/incoming/              being written; swept when the writer is dead

A file is accepted by its exact name, its sha256 and, where the pin says it, its size, wherever it
comes from. What is finished stays. No code of a package is run: an sdist is a file like any other.

Mostly nothing is missing, so what talks to the network is imported only then: it takes longer than
all the rest of a build that has nothing to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..config.model import Download, Package
from ..errors import ToolchainError
from ..events import Emit
from ..storage import files

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
        from .download import check_border

        check_border(foreign)


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
