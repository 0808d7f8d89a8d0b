"""How a store lies on disk: objects, refs, and the lock with its ledger.

A ref says which object answers a key:

    {"entry": "slice/ab/<key>", "sha256": "<64 hex digits>", "size": <bytes>}

It names its own place, so that one that lies in another's answers nothing. What is not byte for
byte as `ref_text` has it is no ref at all. Nothing here trusts what it finds: what lies in the
place of an object or of a ref may be damaged, a link, a pipe or a folder, and is then as nothing.

Standard library only: this module is imported inside build containers, Windows too.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from .files import clear_away, copy, leaves, locked, move, open_plain, replacing

T = TypeVar("T")

_TEXT = re.compile(
    rb'\{"entry": "(?P<entry>[a-z]+/[0-9a-f]{2}/[0-9a-f]{8,128})", '
    rb'"sha256": "(?P<sha256>[0-9a-f]{64})", "size": (?P<size>0|[1-9][0-9]{0,17})\}'
)
_MOST = 512  # bytes: more than any ref has
_LEDGER_WIDTH = 20  # digits: written in place, so always as many; then a digest of them
_LEDGER_SIZE = _LEDGER_WIDTH + 8


@dataclass(frozen=True)
class Ref:
    """A ref as found on disk: its object's sha256 and size in bytes; used: when it was last, in
    seconds since 1970."""

    path: Path
    sha256: str
    size: int
    used: float


class _DamagedError(Exception):
    """An object's content does not match its name; found while copying it."""


class Vault:
    """The files of a store below `root`. Every method raises OSError where the disk fails.

    What changes anything but the ledger is to be done by whoever holds the lock.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.refs = root / "refs"
        self.objects = root / "objects"

    def object(self, sha256: str) -> Path:
        """Where the object of a name lies."""
        return self.objects / sha256[:2] / sha256

    def ref_places(self) -> Iterator[Path]:
        """All paths where refs belong, including foreign files."""
        return leaves(self.refs, 2)

    def object_places(self) -> Iterator[Path]:
        """All paths where objects belong, including foreign files."""
        return leaves(self.objects, 1)

    def named(self, path: Path) -> tuple[str, str]:
        """The kind and the key of a ref, by where it lies."""
        return path.relative_to(self.refs).parts[0], path.name

    # -- reading ---------------------------------------------------------------------------

    def ref(self, path: Path) -> Ref | None:
        """The ref at a path; None if there is none."""
        return self._there(read_ref, path)

    def read(self, ref: Ref) -> bytes | None:
        """An object's bytes, or None where they are not those of the ref."""
        stream = self._there(open_plain, self.object(ref.sha256))
        if stream is None:
            return None
        with stream:
            if os.fstat(stream.fileno()).st_size != ref.size:
                return None
            data = stream.read(ref.size)
        return data if hashlib.sha256(data).hexdigest() == ref.sha256 else None

    def copy(self, ref: Ref, path: Path) -> bool:
        """Copy an object to `path`, atomically; False where its bytes are not those of the ref."""
        source = self._there(open_plain, self.object(ref.sha256))
        if source is None:
            return False
        with source, suppress(_DamagedError):
            with replacing(path) as out:
                if copy(source, out) != (ref.sha256, ref.size):
                    raise _DamagedError
            return True
        return False

    def measured(self, sha256: str) -> tuple[str, int] | None:
        """The sha256 and size of what has an object's name, if that is a file."""
        stream = self._there(open_plain, self.object(sha256))
        if stream is None:
            return None
        with stream:
            return copy(stream, None)

    def fault(self, path: Path) -> str | None:
        """What is wrong with an entry, if anything is."""
        if not os.path.lexists(path):
            return None  # deleted since it was listed
        ref = self.ref(path)
        if ref is None:
            return "its ref cannot be read"
        measured = self.measured(ref.sha256)
        if measured is None:
            return f"object {ref.sha256} is missing"
        if measured[0] != ref.sha256:
            return f"object {ref.sha256} has different content"
        return None if measured[1] == ref.size else "its ref and its object differ in size"

    def _there(self, look: Callable[[Path], T | None], path: Path) -> T | None:
        """What is found at a path; nothing, too, where a file stands in for one of its folders."""
        try:
            return look(path)
        except NotADirectoryError:
            if self.root.is_dir():
                return None
            raise

    # -- writing ---------------------------------------------------------------------------

    def place(self, part: Path, target: Path) -> None:
        """Give a finished file its name, whatever has that, or the name of one of its folders."""
        try:
            move(part, target)
        except OSError:
            depth = len(target.relative_to(self.root).parts)
            amiss = [folder for folder in target.parents[: depth - 1] if not folder.is_dir()]
            amiss += [target] if target.is_dir() else []
            if not any(map(os.path.lexists, amiss)):
                raise
            for path in amiss:
                clear_away(path)
            move(part, target)

    def drop(self, path: Path) -> None:
        """Delete a damaged or dangling entry, unless it was put again meanwhile.

        Where that is not possible (a store that may only be read) the entry is just absent.
        """
        with suppress(OSError):
            if not os.path.lexists(path):
                return
            with self.locked():
                ref = self.ref(path)
                measured = self.measured(ref.sha256) if ref else None
                if ref and measured == (ref.sha256, ref.size):
                    return
                clear_away(path)
                if ref and (measured is None or measured[0] != ref.sha256):
                    clear_away(self.object(ref.sha256))

    @contextmanager
    def locked(self) -> Iterator[io.FileIO]:
        """Hold the store's lock, and its ledger."""
        path = self.root / "lock"
        if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
            clear_away(path)
        with locked(path) as ledger:
            yield ledger

    def total(self, ledger: io.FileIO) -> int:
        """The approximate sum of all objects' bytes."""
        text = ledger.read(_LEDGER_SIZE)
        digits = text[:_LEDGER_WIDTH]
        if digits.isdigit() and text == _ledger_text(int(digits)):
            return int(digits)
        return sum(path.lstat().st_size for path in self.object_places())


def ref_text(path: Path, sha256: str, size: int) -> bytes:
    """What is written in a ref."""
    return f'{{"entry": "{_entry(path)}", "sha256": "{sha256}", "size": {size}}}'.encode()


def read_ref(path: Path) -> Ref | None:
    """Read a ref; None if it is missing or damaged. Raises OSError."""
    stream = open_plain(path)
    if stream is None:
        return None
    with stream:
        found = _TEXT.fullmatch(stream.read(_MOST))
        used = os.fstat(stream.fileno()).st_mtime
    if found is None or found["entry"].decode() != _entry(path):
        return None
    return Ref(path, found["sha256"].decode(), int(found["size"]), used)


def _entry(path: Path) -> str:
    return "/".join(path.parts[-3:])


def write_total(ledger: io.FileIO, total: int) -> None:
    """Note the sum of all objects' bytes."""
    ledger.seek(0)
    ledger.write(_ledger_text(total))


def _ledger_text(total: int) -> bytes:
    """The ledger's content: a damaged one must not pass for another sum."""
    digits = f"{total:0{_LEDGER_WIDTH}d}".encode()
    return digits + hashlib.sha256(digits).hexdigest()[: _LEDGER_SIZE - _LEDGER_WIDTH].encode()
