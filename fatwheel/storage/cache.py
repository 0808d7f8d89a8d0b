"""The cache folder: downloads, environments, folders of builds and the store, all of which can be
made again.

Here is which stores a build uses: the user's, or one of its own that reads the user's besides; how
the cache is shown, checked and cleaned (`invoke cache`); and a folder of one build's own: how it is
removed whatever lies in it, and what becomes of the folders of builds that were killed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from ..errors import StoreError
from .files import disk_error, locked
from .permissions import gap_of
from .store import Branch, Damage, Store, Usage

if sys.platform == "win32":
    import ctypes
    import msvcrt
else:
    import fcntl


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
    users have spaces, builds see all of it by other paths (`worker.roots`): by junctions, which
    lead to no other machine.
    """
    if os.name != "nt" and re.search(r"[\s:]", str(folder.resolve())):
        return "its path must not contain a space or a colon"
    if _is_remote(folder):
        return "it is on a network drive"
    return ""


if sys.platform == "win32":
    _DRIVE_REMOTE = 4  # "GetDriveTypeW function (fileapi.h)"

    def _is_remote(folder: Path) -> bool:
        drive = os.path.splitdrive(os.path.abspath(folder))[0]
        kind = ctypes.WinDLL("kernel32").GetDriveTypeW(ctypes.c_wchar_p(f"{drive}\\"))
        return bool(kind == _DRIVE_REMOTE)
else:

    def _is_remote(folder: Path) -> bool:
        return False


def _unusable(folder: Path, reason: str) -> StoreError:
    return StoreError(
        f"the cache folder cannot be used: {reason}",
        where=str(folder),
        hint=f"use a folder on a disk of this machine with free space: {VARIABLE}=/path/to/folder",
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
        """As `invoke cache --json` prints it (cache.schema.json), which adds the remote."""
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


# -- folders of builds -----------------------------------------------------------------------------

_PREFIX = "build-"


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder of this build's own; those of builds that were killed are removed.

    Raises StoreError.
    """
    parent = cache_folder() / "work"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with locked(parent / "lock"):
            for old in parent.glob(f"{_PREFIX}*"):
                if is_abandoned(old):
                    remove_tree(old)
            work = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            held = _hold(work)
    except OSError as error:
        raise disk_error(error, "make a work folder", parent, f"{VARIABLE}=FOLDER") from error
    try:
        yield work
    finally:
        if sys.platform == "win32":
            os.close(held)  # an open file cannot be deleted there
            remove_tree(work)
        else:
            remove_tree(work)
            os.close(held)


def is_abandoned(folder: Path) -> bool:
    """Whether the build that a work folder belongs to is gone, however it ended.

    A process id would not tell: the cache may be shared with other machines and containers.
    """
    try:
        os.close(_hold(folder))
    except FileNotFoundError:
        return True
    except (BlockingIOError, PermissionError):
        return False
    return True


if sys.platform == "win32":

    def _hold(folder: Path) -> int:
        """Lock a folder for as long as this process lives; BlockingIOError if another one does."""
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:  # of one kind on Windows, of another in Wine
            os.close(handle)
            raise BlockingIOError(error.errno, "another process holds it") from error
        return handle

else:

    def _hold(folder: Path) -> int:
        """Lock a folder for as long as this process lives; BlockingIOError if another one does."""
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return handle


def remove_tree(folder: Path) -> None:
    """Delete a folder with all that is in it, and no more: no link is followed.

    Strangers may have filled it: with folders that nobody may enter, a hundred thousand files,
    thousands of folders in each other. What cannot be deleted stays; nothing is raised.
    """
    with suppress(OSError):
        _raze(folder)


if sys.platform == "win32":

    def _raze(folder: Path) -> None:
        def retry(remove: Callable[[str], object], path: str, error: object) -> None:
            with suppress(OSError):
                os.chmod(path, stat.S_IWRITE)
                remove(path)

        with suppress(RecursionError):
            shutil.rmtree(folder, onerror=retry)  # which follows neither links nor junctions

else:
    _ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

    def _raze(folder: Path) -> None:
        _unlock(str(folder), None)
        top = os.open(folder, _ENTER)
        try:
            names = os.listdir(top)
            while names:
                before = set(names)
                for name in names:
                    with suppress(OSError):
                        _flatten(name, top)
                names = os.listdir(top)
                if before.issuperset(names):
                    break  # nothing of it can be deleted
        finally:
            os.close(top)
        folder.rmdir()

    def _flatten(name: str, top: int) -> None:
        """Delete what has this name in the open folder `top`; folders in it move up, so that
        none is ever deep. Raises OSError."""
        if not _is_folder(name, top):
            os.unlink(name, dir_fd=top)
            return
        _unlock(name, top)
        inner = os.open(name, _ENTER, dir_fd=top)
        try:
            for child in os.listdir(inner):
                if _is_folder(child, inner):
                    _unlock(child, inner)  # else it would not move
                    aside = f"aside-{secrets.token_hex(8)}"
                    os.rename(child, aside, src_dir_fd=inner, dst_dir_fd=top)
                else:
                    os.unlink(child, dir_fd=inner)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=top)

    def _is_folder(name: str, parent: int) -> bool:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)

    def _unlock(name: str, parent: int | None) -> None:
        """Let its owner into a folder. Linux alone can do so without following a link."""
        held = os.open(name, _ENTER | getattr(os, "O_PATH", 0), dir_fd=parent)
        with suppress(OSError):
            os.chmod(f"/proc/self/fd/{held}" if hasattr(os, "O_PATH") else held, 0o700)
        os.close(held)
