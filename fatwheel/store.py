"""The content-addressed store that slices, host objects, texts, costs and wheels live in.

    objects/ab/<sha256>      bytes, named by their own digest
    refs/<kind>/ab/<key>     {"sha256", "size"}: which object answers a key
    incoming/                files being written; one whose writer is dead is deleted
    lock                     held while an object and its ref are published, and while things
                             are deleted; holds the approximate sum of the objects' sizes

Every process that shares a folder may read, put and evict at any time. Readers take no lock:
bytes are checked against their name on every read, and whatever is missing or damaged is
reported as absent, so that the caller makes it again. A killed process leaves at worst an
object without a ref, which the next eviction deletes.

A ref's modification time says when it was last used: least recently used goes first.

Standard library only: this module is imported inside build containers, Windows too.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import (
    Incoming,
    Readable,
    copy,
    digest_of,
    disk_error,
    files_below,
    locked,
    move,
    read,
    remove,
    replacing,
    sync_file,
)

TOUCH_AFTER = 60.0  # seconds: uses closer together are not worth a write
RECENT = 3600.0  # seconds: what was used since then goes only if the limit demands it
LOW_WATER = 0.9  # of the limit: how far an automatic eviction goes, so that few are needed

_KIND = re.compile(r"[a-z]+")
_KEY = re.compile(r"[0-9a-f]{8,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LEDGER_WIDTH = 20  # digits: written in place, so always as many


@dataclass(frozen=True)
class Usage:
    """What one kind holds: bytes (an object shared with another kind counts in both), and when
    its entries were last used, in seconds since 1970."""

    kind: str
    entries: int
    bytes: int
    oldest: float
    newest: float


@dataclass(frozen=True)
class Damage:
    """An entry that was found damaged, and deleted."""

    kind: str
    key: str
    reason: str


@dataclass(frozen=True)
class _Ref:
    """A ref as found on disk."""

    path: Path
    sha256: str
    size: int
    used: float


class _DamagedError(Exception):
    """An object is not what its name says, found while it was being copied."""


class Store:
    """A store under the folder `root`, kept to about `limit` bytes of objects.

    With a scope, every entry belongs to it: those of other scopes are neither seen nor written,
    though all of them share objects, the limit and the housekeeping.

    Nothing is created before the first put. kind is a lower-case word (`slice`), key lower-case
    hex digits; anything else is a bug and a ValueError. Every method raises StoreError where the
    folder cannot be used.
    """

    def __init__(self, root: Path, limit: int, scope: str = "") -> None:
        self.root = root
        self.limit = limit
        self.scope = scope
        self._incoming = Incoming(root / "incoming")
        self._swept = False

    # -- reading ---------------------------------------------------------------------------

    def get(self, kind: str, key: str) -> bytes | None:
        """The bytes under a key, checked; None where there are none or they are damaged."""
        path = self._ref_path(kind, key)
        with self._errors("read the store"):
            ref = _read_ref(path)
            if ref is not None:
                data = read(self._object(ref.sha256))
                if data is not None and hashlib.sha256(data).hexdigest() == ref.sha256:
                    _touch(ref)
                    return data
            self._drop(path)
            return None

    def copy_out(self, kind: str, key: str, path: Path) -> bool:
        """Write a key's bytes to `path`, atomically; False where absent. Raises OSError."""
        ref_path = self._ref_path(kind, key)
        ref = _read_ref(ref_path)
        if ref is not None and self._copy(ref, path):
            _touch(ref)
            return True
        self._drop(ref_path)
        return False

    def digest(self, kind: str, key: str) -> str | None:
        """The sha256 of what is under a key; its bytes are not read, only seen to be there."""
        path = self._ref_path(kind, key)
        with self._errors("read the store"):
            ref = _read_ref(path)
            return ref.sha256 if ref is not None and self._present(ref) else None

    def has(self, kind: str, key: str) -> bool:
        """Whether there is something under a key; cheap, its bytes are not read."""
        return self.digest(kind, key) is not None

    def get_json(self, kind: str, key: str) -> Any:
        """What `put_json` put under a key, or None."""
        data = self.get(kind, key)
        return None if data is None else json.loads(data)

    # -- writing ---------------------------------------------------------------------------

    def put(self, kind: str, key: str, data: bytes) -> str:
        """Keep `data` under a key, in place of what was there; its sha256."""
        return self._put(self._ref_path(kind, key), io.BytesIO(data))

    def put_file(self, kind: str, key: str, path: Path) -> str:
        """Keep a file's bytes under a key; their sha256. OSError where `path` is unreadable."""
        with path.open("rb") as source:
            return self._put(self._ref_path(kind, key), source)

    def put_stream(self, kind: str, key: str, source: Readable) -> str:
        """Keep what a stream gives under a key; its sha256. What reading raises is raised, and
        nothing is kept then."""
        return self._put(self._ref_path(kind, key), source)

    def put_json(self, kind: str, key: str, value: Any) -> str:
        """Keep a JSON value under a key; the sha256 of its canonical text."""
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        return self.put(kind, key, text.encode())

    def remove(self, kind: str, key: str) -> None:
        """Forget a key; its object goes with the next eviction, unless another key names it."""
        path = self._ref_path(kind, key)
        with self._errors("delete from the store"):
            remove(path)

    # -- housekeeping ----------------------------------------------------------------------

    def usage(self) -> list[Usage]:
        """What each kind holds, by name."""
        kinds: dict[str, list[_Ref]] = {}
        with self._errors("read the store"):
            for ref in self._refs():
                kinds.setdefault(_kind_of(ref.path), []).append(ref)
        return [
            Usage(
                kind,
                entries=len(refs),
                bytes=sum({ref.sha256: ref.size for ref in refs}.values()),
                oldest=min(ref.used for ref in refs),
                newest=max(ref.used for ref in refs),
            )
            for kind, refs in sorted(kinds.items())
        ]

    def evict(self, limit: int) -> int:
        """Delete, least recently used first, until at most `limit` bytes are left; bytes freed."""
        return self._shrink(limit, limit, keep=None)

    def clear(self, kind: str | None = None) -> int:
        """Delete everything, or everything of one kind; bytes freed."""
        folder = self.root / "refs" if kind is None else self._kind_folder(kind)
        with self._errors("clean the store"):
            for path in files_below(folder):
                remove(path)
        return self._shrink(sys.maxsize, sys.maxsize, keep=None)

    def check(self) -> list[Damage]:
        """Read every entry; those that are damaged, which are deleted."""
        with self._errors("check the store"):
            found = []
            for path in files_below(self.root / "refs"):
                reason = self._fault(path)
                if reason:
                    self._drop(path)
                    found.append(Damage(_kind_of(path), path.name, reason))
            return found

    # -- inside ----------------------------------------------------------------------------

    def _kind_folder(self, kind: str) -> Path:
        if not _KIND.fullmatch(kind):
            raise ValueError(f"{kind!r} is not a kind of the store")
        return self.root / "refs" / kind

    def _ref_path(self, kind: str, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key of the store")
        if self.scope:
            key = hashlib.sha256(f"{self.scope} {key}".encode()).hexdigest()
        return self._kind_folder(kind) / key[:2] / key

    def _object(self, sha256: str) -> Path:
        return self.root / "objects" / sha256[:2] / sha256

    def _present(self, ref: _Ref) -> bool:
        try:
            return self._object(ref.sha256).stat().st_size == ref.size
        except FileNotFoundError:
            return False

    def _intact(self, sha256: str) -> bool:
        return digest_of(self._object(sha256)) == sha256

    def _fault(self, ref_path: Path) -> str | None:
        """What is wrong with an entry, if anything is."""
        if not ref_path.exists():
            return None  # deleted since it was listed
        ref = _read_ref(ref_path)
        if ref is None:
            return "its ref cannot be read"
        if not self._present(ref):
            return f"object {ref.sha256} is missing or has another size"
        return None if self._intact(ref.sha256) else f"object {ref.sha256} has other bytes"

    def _copy(self, ref: _Ref, path: Path) -> bool:
        try:
            source = self._object(ref.sha256).open("rb")
        except FileNotFoundError:
            return False
        with source, suppress(_DamagedError):
            with replacing(path) as out:
                if copy(source, out)[0] != ref.sha256:
                    raise _DamagedError
            return True
        return False

    def _put(self, ref_path: Path, source: Readable) -> str:
        with self._errors("write to the store"):
            if not self._swept:
                self._incoming.sweep()
                self._swept = True
            with self._incoming.file() as part:
                with part.open("xb") as stream:
                    sha256, size = copy(source, stream)
                    sync_file(stream)
                total = self._publish(part, sha256, size, ref_path)
        if total > self.limit:
            self._shrink(self.limit, int(self.limit * LOW_WATER), keep=ref_path)
        return sha256

    def _publish(self, part: Path, sha256: str, size: int, ref_path: Path) -> int:
        """Give a finished file its name and its ref; the approximate size of the store.

        Under the lock, or an eviction could delete the object between these two steps.
        """
        with locked(self.root / "lock") as ledger:
            total = self._total(ledger)
            if not self._intact(sha256):
                # Counted before it is there: a kill in between makes the next scan come early,
                # never late.
                total += size
                _write_total(ledger, total)
                move(part, self._object(sha256))
            ref = _read_ref(ref_path)
            if ref is not None and ref.sha256 == sha256:
                _touch(ref)
            else:
                self._write_ref(ref_path, sha256, size)
            return total

    def _write_ref(self, ref_path: Path, sha256: str, size: int) -> None:
        with self._incoming.file() as part:
            with part.open("xb") as stream:
                stream.write(json.dumps({"sha256": sha256, "size": size}).encode())
                sync_file(stream)
            move(part, ref_path)

    def _drop(self, ref_path: Path) -> None:
        """Delete a damaged or dangling entry, unless it was put again meanwhile.

        Where that is not possible (a store that may only be read) the entry is just absent.
        """
        try:
            if not ref_path.exists():
                return
            with locked(self.root / "lock"):
                ref = _read_ref(ref_path)
                if ref is not None and self._intact(ref.sha256):
                    return
                remove(ref_path)
                if ref is not None:
                    remove(self._object(ref.sha256))
        except OSError:
            return

    def _shrink(self, limit: int, low: int, keep: Path | None) -> int:
        """Delete what no ref names, then, least recently used first, old entries down to `low`
        bytes and recent ones down to `limit`, but never `keep`; bytes freed."""
        if not self.root.is_dir():
            return 0
        with self._errors("clean the store"), locked(self.root / "lock") as ledger:
            self._incoming.sweep()
            refs = sorted(self._refs(), key=lambda ref: ref.used)
            sizes = {path.name: path.stat().st_size for path in files_below(self.root / "objects")}
            before = sum(sizes.values())
            holders = Counter(ref.sha256 for ref in refs)
            total = before
            for sha256 in set(sizes) - set(holders):
                total -= self._delete(sha256, sizes)
            recent = time.time() - RECENT
            for ref in refs:
                if total <= (low if ref.used < recent else limit):
                    break
                if ref.path == keep or not remove(ref.path):
                    continue
                holders[ref.sha256] -= 1
                if not holders[ref.sha256]:
                    total -= self._delete(ref.sha256, sizes)
            _write_total(ledger, total)
            return before - total

    def _delete(self, sha256: str, sizes: dict[str, int]) -> int:
        """Delete an object of one of `sizes`; bytes freed."""
        return sizes.get(sha256, 0) if remove(self._object(sha256)) else 0

    def _refs(self) -> Iterator[_Ref]:
        for path in files_below(self.root / "refs"):
            ref = _read_ref(path)
            if ref is not None:
                yield ref

    def _total(self, ledger: io.FileIO) -> int:
        text = ledger.read(_LEDGER_WIDTH)
        if text.isdigit():
            return int(text)
        return sum(path.stat().st_size for path in files_below(self.root / "objects"))

    @contextmanager
    def _errors(self, doing: str, where: Path | None = None) -> Iterator[None]:
        """Turn an OSError into a StoreError that says where, how much is free, and the fix."""
        try:
            yield
        except OSError as error:
            raise disk_error(error, doing, where or self.root, "FATWHEEL_CACHE=FOLDER") from error


def _kind_of(ref_path: Path) -> str:
    return ref_path.parent.parent.name


def _read_ref(path: Path) -> _Ref | None:
    """A ref, or None where there is none or its text is damaged."""
    text = read(path)
    try:
        if text is not None:
            fields = json.loads(text)
            sha256, size = fields["sha256"], fields["size"]
            if _SHA256.fullmatch(sha256) and isinstance(size, int):
                return _Ref(path, sha256, size, used=path.stat().st_mtime)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return None


def _touch(ref: _Ref) -> None:
    """Note that a ref was used."""
    if abs(time.time() - ref.used) > TOUCH_AFTER:
        # Gone since, or a store that may only be read: then there is nothing to note.
        with suppress(OSError):
            os.utime(ref.path)


def _write_total(ledger: io.FileIO, total: int) -> None:
    ledger.seek(0)
    ledger.write(f"{total:0{_LEDGER_WIDTH}d}".encode())
