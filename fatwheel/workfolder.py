"""A folder of one build's own, and what becomes of the folders of builds that were killed."""

from __future__ import annotations

import os
import shutil
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
def work_folder(rescue: Callable[[Path], None]) -> Iterator[Path]:
    """A folder of this build's own; those of builds that were killed are removed.

    rescue gets the folder of such a build before that. Raises StoreError.
    """
    parent = cache_folder() / "work"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with locked(parent / "lock"):
            for old in parent.glob(f"{_PREFIX}*"):
                _remove_if_abandoned(old, rescue)
            work = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            held = _hold(work)
    except OSError as error:
        raise disk_error(error, "make a work folder", parent, f"{VARIABLE}=FOLDER") from error
    try:
        yield work
    finally:
        if sys.platform == "win32":
            os.close(held)  # an open file cannot be deleted there
            shutil.rmtree(work, ignore_errors=True)
        else:
            shutil.rmtree(work, ignore_errors=True)
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


def _remove_if_abandoned(folder: Path, rescue: Callable[[Path], None]) -> None:
    if is_abandoned(folder):
        rescue(folder)
        with suppress(FileNotFoundError):
            shutil.rmtree(folder, ignore_errors=True)


if sys.platform == "win32":

    def _hold(folder: Path) -> int:
        """Lock a folder for as long as this process lives; PermissionError if another one does."""
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            os.close(handle)
            raise
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
