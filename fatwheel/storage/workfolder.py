"""A folder of one build's own, how it is removed whatever lies in it, and what becomes of the
folders of builds that were killed."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .cache import VARIABLE, cache_folder
from .files import disk_error, locked

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

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
