"""Writes files completely or not at all; locks between processes; opens files that users name.

A new file is written under another name in the same file system, brought to disk, and renamed.
So whoever looks at the final name sees the old content or the new one, even if this process is
killed or the machine stops.

Standard library only: this module is imported inside build containers, Windows too.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from .. import text
from ..errors import StoreError, UsageError
from .permissions import open_lock

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

T = TypeVar("T")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONGEST_PATH = 259  # characters of Windows' paths, unless longer ones are allowed
_NAMELESS = (errno.ENOENT, errno.ENOTEMPTY)  # which say nothing without the file's name
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_HELD = (32, 33)  # of Windows: ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION
OF_THE_DISK = (*_FULL, *_FORBIDDEN, errno.EIO)  # errno: nothing that a program does wrong

# Of a name that links, or that no reader can open: ELOOP, or EMLINK on BSD; ENXIO for a socket.
_NO_FILE = (errno.ELOOP, errno.EMLINK, errno.ENXIO)
_READ_PLAIN = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)

_OTHER_KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip

STALE = 86400.0  # seconds: what is older has no writer, unless one is seen to live
_CHUNK = 1 << 20
_WRITTEN = re.compile(r"[0-9a-f]{12}-[0-9]+-[0-9a-f]{16}")  # see `_written`

# Windows refuses to replace or delete a file that some process has open, if only for a moment
# (a reader, a virus scanner). Elsewhere PermissionError is final.
_PATIENCE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if sys.platform == "win32" else ()


class Readable(Protocol):
    """What can be read to its end, piece by piece."""

    def read(self, size: int, /) -> bytes: ...


def tidy(folder: Path) -> None:
    """Delete what killed writers (`replacing`) left in a folder, which need not exist."""
    with suppress(OSError):  # whoever writes there then says what is wrong with it
        for left in folder.glob(".*.part"):
            if _WRITTEN.fullmatch(left.name[1:-5]):
                _remove_if_abandoned(left, left.name[1:])


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes become the file `path` when the block ends well.

    When the block raises, `path` stays as it was and nothing is left beside it; what killed
    writers left there is deleted. The folder must exist. Raises OSError.
    """
    tidy(path.parent)
    part = path.with_name(f".{_written()}.part")
    try:
        with part.open("xb") as stream:
            yield stream
            sync_file(stream)
        replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


class Incoming:
    """A folder for files being written, shared by processes, some of which get killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def file(self) -> Iterator[Path]:
        """A name for a new file; what still has that name at the end is deleted."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / _written()
        try:
            yield part
        finally:
            remove(part)

    def sweep(self) -> None:
        """Delete the files whose writer is dead."""
        for part in leaves(self.folder):
            _remove_if_abandoned(part, part.name)


def _written() -> str:
    """A name for a file while this process writes it."""
    return f"{_machine()}-{os.getpid()}-{secrets.token_hex(8)}"


def _remove_if_abandoned(part: Path, name: str) -> None:
    """Delete a file that nobody writes any more, if that can be. name: as `_written` gave it, or
    longer."""
    with suppress(OSError):
        if _abandoned(part, name):
            remove(part)


def _machine() -> str:
    """What makes a process id unique: the host and, in a container, its own table of ids."""
    table = "/proc/self/ns/pid"
    ids = os.readlink(table) if os.path.islink(table) else ""
    return hashlib.sha256(f"{socket.gethostname()} {ids}".encode()).hexdigest()[:12]


def _abandoned(part: Path, name: str) -> bool:
    machine, _, rest = name.partition("-")
    pid = rest.partition("-")[0]
    if machine == _machine() and pid.isdigit():
        return not _alive(int(pid))  # however long ago: its process may have been stopped
    return time.time() - part.lstat().st_mtime > STALE


if sys.platform == "win32":

    def _alive(pid: int) -> bool:
        return True  # os.kill would end it; and nobody can delete a file that it has open

else:

    def _alive(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):  # or no number of a process
            return False
        except PermissionError:
            return True
        return True


def move(source: Path, target: Path) -> None:
    """Rename a finished file to its place, for good, making the folders on the way."""
    target.parent.mkdir(parents=True, exist_ok=True)
    replace(source, target)
    sync_folder(target.parent)


def replace(source: Path, target: Path) -> None:
    """Rename `source` to `target`, over a file that may be there."""
    patiently(lambda: os.replace(source, target))


def remove(path: Path) -> bool:
    """Delete a file that may be gone already; False where Windows keeps it, because some
    process has it open."""
    try:
        patiently(lambda: path.unlink(missing_ok=True))
    except PermissionError:
        if sys.platform != "win32":
            raise
        return False
    return True


def open_plain(path: Path) -> BinaryIO | None:
    """A file to read, or None where there is none.

    Links, folders, pipes and devices are no files: none is followed, and none is waited for.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        stream = os.fdopen(patiently(lambda: os.open(path, _READ_PLAIN)), "rb")
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in _NO_FILE:  # made into something else just now
            return None
        raise
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    return None


def read_plain(path: Path, most: int) -> bytes | None:
    """Up to so many bytes of what `open_plain` opens, or None."""
    stream = open_plain(path)
    if stream is None:
        return None
    with stream:
        return stream.read(most)


def clear_away(path: Path) -> bool:
    """Delete whatever has a name: a file, a link but not what it points to, a whole folder. False
    where Windows keeps it."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return True
    if stat.S_ISDIR(mode):
        shutil.rmtree(path, ignore_errors=True)
        return not os.path.lexists(path)
    return remove(path)


def leaves(folder: Path, depth: int = sys.maxsize) -> Iterator[Path]:
    """What lies `depth` folders deep in a folder, whatever it is, and on the way there all that is
    no folder, in no order; those deleted meanwhile may be left out, and a missing folder has none.
    """
    try:
        with os.scandir(folder) as entries:
            found = [(Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry in entries]
    except FileNotFoundError:
        return
    for path, is_folder in found:
        if depth and is_folder:
            yield from leaves(path, depth - 1)
        else:
            yield path


def digest_of(path: Path) -> str | None:
    """The sha256 of a file, or None where there is none."""
    try:
        with path.open("rb") as stream:
            return copy(stream, None)[0]
    except FileNotFoundError:
        return None


def copy(source: Readable, out: BinaryIO | None) -> tuple[str, int]:
    """Copy a stream to its end (None: only read it); its sha256 and size in bytes."""
    digest = hashlib.sha256()
    size = 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
        if out is not None:
            out.write(chunk)
    return digest.hexdigest(), size


def sync_file(stream: BinaryIO) -> None:
    """Bring what was written to the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def sync_folder(folder: Path) -> None:
    """Bring a rename in `folder` to the disk. Windows does so by itself and has no call for it."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[io.FileIO]:
    """Hold the file `path` alone, among all processes and threads; wait for it if need be.

    The file is made if it is missing. Its content is the caller's, to read and write in place
    through the unbuffered stream. The system frees the lock when its holder dies. waiting is
    called once if another holds it.
    """
    with os.fdopen(open_lock(path), "r+b", buffering=0) as stream:
        if not _acquired(stream):
            waiting()
            _acquire(stream)
        try:
            yield stream
        finally:
            _release(stream)


if sys.platform == "win32":
    # Windows locks ranges of bytes, past the end too; this one lies behind any content.
    _LOCK_AT = 1 << 30

    def _acquired(stream: io.FileIO) -> bool:
        stream.seek(_LOCK_AT)
        try:
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        stream.seek(0)
        return True

    def _acquire(stream: io.FileIO) -> None:
        while not _acquired(stream):
            time.sleep(0.02)

    def _release(stream: io.FileIO) -> None:
        stream.seek(_LOCK_AT)
        msvcrt.locking(stream.fileno(), msvcrt.LK_UNLCK, 1)

else:

    def _acquired(stream: io.FileIO) -> bool:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _acquire(stream: io.FileIO) -> None:
        fcntl.flock(stream, fcntl.LOCK_EX)

    def _release(stream: io.FileIO) -> None:
        fcntl.flock(stream, fcntl.LOCK_UN)


@contextmanager
def readable(path: Path, valid: str, *, streamed: bool = False) -> Iterator[None]:
    """Turn an OSError of the block into a UsageError: the user named a file that cannot be read.

    valid says what can be, as in `a wheel`. Something else than a file is refused before the block
    begins: a pipe may never say anything, a device never end. streamed: a pipe is read, to its end.
    """
    try:
        kind = _OTHER_KINDS.get(stat.S_IFMT(path.stat().st_mode), "")
        if kind and not (streamed and kind == "a pipe"):
            raise UsageError(
                f"cannot read this file: it is {kind}", where=str(path), hint=f"valid: {valid}"
            )
        yield
    except OSError as error:
        raise UsageError(
            f"cannot read this file: {error.strerror or error}",
            where=str(path),
            hint=f"valid: {valid}",
        ) from error


def check_writable(folder: Path, doing: str, option: str) -> None:
    """Refuse a folder in which nothing can be written, before any work; it need not be there yet.

    StoreError as by `disk_error`.
    """
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise disk_error(error, doing, folder, option) from error


def disk_error(error: OSError, doing: str, where: Path, option: str) -> StoreError:
    """An OSError as a message: what failed, where, how much is free, and the fix.

    option is how the user names another folder: `--out FOLDER`.
    """
    number = error.errno or 0
    hint = None
    if number in _FULL:
        hint = (
            "free some space, for example with `invoke cache --clean`, or use a folder on another "
            f"disk: {option}"
        )
    elif getattr(error, "winerror", None) in _HELD:
        hint = "another program has it open: end that, or exclude the folder from the virus scanner"
    elif number in _FORBIDDEN:
        hint = f"use a folder that you can write to: {option}"
    elif number in (errno.ENOTDIR, errno.EEXIST):
        hint = f"use a folder, not a file: {option}"
    reason = error.strerror or str(error)
    names = [str(name) for name in (error.filename, error.filename2) if name]
    if number in _NAMELESS and names:
        reason = f"{reason}: {' -> '.join(names)}"
    longest = max(map(len, names), default=0)
    if os.name == "nt" and longest > _LONGEST_PATH:  # Windows says that there is no such file
        reason = f"its path has {longest} characters, and Windows takes {_LONGEST_PATH}"
        hint = f"use a folder with a shorter path: {option}; or allow longer ones: `invoke doctor`"
    elif number == errno.ENAMETOOLONG:
        hint = f"use a folder with a shorter path: {option}"
    return StoreError(
        f"cannot {doing}: {reason} ({_free(where)} free there)", where=str(where), hint=hint
    )


def _free(path: Path) -> str:
    """How much the disk of a path, which may not exist, has left."""
    while not os.path.exists(path) and path != path.parent:  # also where its name is too long
        path = path.parent
    return text.size(shutil.disk_usage(path).free)


def patiently(operation: Callable[[], T]) -> T:
    """Do something with a file, for some seconds again and again where Windows refuses it."""
    for pause in _PATIENCE:
        try:
            return operation()
        except PermissionError:
            time.sleep(pause)
    return operation()
