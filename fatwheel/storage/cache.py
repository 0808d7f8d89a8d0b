"""The cache folder: downloads, environments and the store, all of which can be made again.

Here is which stores a build uses: the user's, or one of its own that reads the user's besides; and
how the cache is shown, checked and cleaned (`invoke cache`).
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from ..errors import StoreError
from .permissions import gap_of
from .store import Branch, Damage, Store, Usage

VARIABLE = "FATWHEEL_CACHE"
_ANOTHER = f"use another folder: {VARIABLE}=/path/to/folder"


def cache_folder() -> Path:
    """The chosen folder; made if it is missing, so that nobody else can open it.

    Raises StoreError where it cannot be made or written, has a name that builds cannot use, or
    is one into which every user of the machine can write.
    """
    folder = chosen_folder()
    mistake = mistake_in(folder)
    if mistake:
        raise _unusable(folder, mistake)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise _unusable(folder, "no permission to write there")
    others_in(folder)
    return folder.resolve()


def others_in(folder: Path) -> str:
    """Which other users can change what is built from a folder, and how to keep them out; else ''.

    Raises StoreError where that is every user of this machine.
    """
    gap = gap_of(folder) if folder.exists() else None
    if gap is None:
        return ""
    if gap.everybody and gap.folder == folder.resolve():
        raise StoreError(
            f"{gap.who} can write there, and so could run code as you",
            where=str(folder),
            hint=f"close it: {gap.mend}" if gap.mend else f"{_ANOTHER}, in a folder of your own",
        )
    mend = gap.mend or _ANOTHER
    return (
        f"{gap.who} can write to {gap.folder}, and so could change what you build. To prevent "
        f"this: {mend}"
    )


def chosen_folder() -> Path:
    """FATWHEEL_CACHE, or else the user's cache directory. It need not exist."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("fatwheel"))


def downloads_folder() -> Path:
    """Where fetched files are kept."""
    return cache_folder() / "downloads"


def mistake_in(folder: Path) -> str:
    """Why projects' own builds would stumble over the folder's path; else ''.

    torch splits the compiler's path at spaces, PATH is split at colons. On Windows, where names of
    users have spaces, builds see all of it by other paths (`worker.roots`).
    """
    if os.name != "nt" and re.search(r"[\s:]", str(folder.resolve())):
        return "its path must not contain a space or a colon"
    return ""


def _unusable(folder: Path, reason: str) -> StoreError:
    return StoreError(
        f"the cache folder cannot be used: {reason}",
        where=str(folder),
        hint=f"use a folder on a disk with free space: {VARIABLE}=/path/to/folder",
    )


STORE_VARIABLE = "FATWHEEL_STORE"  # names another folder for the store
LIMIT = 30 << 30  # bytes; `invoke cache --limit` shrinks it for once


@dataclass(frozen=True)
class Stores:
    """own: the folder of the store that a build writes to. trunk: that of one which it reads
    besides, or None."""

    own: Path
    trunk: Path | None = None

    @property
    def trunks(self) -> tuple[Path, ...]:
        return (self.trunk,) if self.trunk else ()

    def open(self, scope: str = "") -> Store:
        """What belongs to a scope (see `pipeline.scope`), or, without one, finished wheels."""
        if self.trunk:
            return Branch(self.own, self.trunks, scope)
        return Store(self.own, LIMIT, scope)


def users_stores() -> Stores:
    """What builds use: the store of this user alone."""
    return Stores(store_folder())


def open_store() -> Store:
    """The user's store of finished wheels; what belongs to a scope is not seen through it."""
    return users_stores().open()


def store_folder() -> Path:
    named = os.environ.get(STORE_VARIABLE)
    return Path(named).absolute() if named else cache_folder() / "store"


@dataclass(frozen=True)
class CacheReport:
    """What the cache holds: a Usage per kind of the store and per other folder of the cache.

    damaged: entries that a check found damaged, and deleted.
    """

    folder: Path
    usage: tuple[Usage, ...]
    damaged: tuple[Damage, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As `invoke cache --json` prints it (cache.schema.json)."""
        return {
            "folder": str(self.folder),
            "kinds": [asdict(usage) for usage in self.usage],
            "damaged": [asdict(damage) for damage in self.damaged],
        }


def tend_cache(*, check: bool, limit: int | None, clean: bool) -> CacheReport:
    """Do what was asked for, in this order, and say what is left. Raises StoreError.

    check: read every entry of the store and delete damaged ones. limit: delete what was used
    least recently, down to so many bytes. clean: empty the store. Downloads and environments
    are only counted: a running build may be using them.
    """
    store = open_store()
    damaged = tuple(store.check()) if check else ()
    if limit is not None:
        store.evict(limit)
    if clean:
        store.clear()
    folder = cache_folder()
    others = sorted(path for path in folder.iterdir() if path.is_dir() and path != store.root)
    seen: set[tuple[int, int]] = set()
    usage = (*store.usage(), *(_folder_usage(path, seen) for path in others))
    return CacheReport(folder, usage, damaged)


def _folder_usage(folder: Path, seen: set[tuple[int, int]]) -> Usage:
    """A folder counted as one kind; its entries are what lies directly in it.

    A file with several names (environments share theirs) counts where it is seen first.
    """
    size = 0
    for place, _, names in os.walk(folder):
        for found in map(_stat, (os.path.join(place, name) for name in names)):
            if found and (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                size += found.st_size
    entries = [found.st_mtime for found in map(_stat, folder.iterdir()) if found]
    now = time.time()
    return Usage(
        folder.name, len(entries), size, min(entries, default=now), max(entries, default=now)
    )


def _stat(path: Path | str) -> os.stat_result | None:
    """None where it was deleted since it was listed."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
