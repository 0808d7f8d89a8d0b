"""The content-addressed store of slices, host objects, texts, costs and wheels.

    objects/ab/<sha256>      bytes, named by their own digest
    refs/<kind>/ab/<key>     which object answers a key (see `vault`)
    incoming/                files being written; one whose writer is dead is deleted
    lock                     held while an object and its ref are published, and while things
                             are deleted; holds the approximate sum of the objects' sizes

Every process that shares a folder may read, put and evict at any time. Readers take no lock:
bytes are checked against their name whenever a key is asked for, and whatever is missing, damaged
or not even a file is reported as absent, so that the caller makes it again; a put then replaces
it. A killed process leaves at worst an object without a ref, which the next eviction deletes.

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .files import Incoming, Readable, clear_away, copy, disk_error, leaves, sync_file
from .vault import Ref, Vault, ref_text, write_total

TOUCH_AFTER = 60.0  # seconds: uses closer together are not worth a write
RECENT = 3600.0  # seconds: what was used since then goes only if the limit demands it
LOW_WATER = 0.9  # of the limit: how far an automatic eviction goes, so that few are needed

StoreEntry = tuple[str, str, str]  # of a store: kind, key, sha256

_KIND = re.compile(r"[a-z]+")
_KEY = re.compile(r"[0-9a-f]{8,128}")


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


class Store:
    """A store under the folder `root`, kept to about `limit` bytes of objects.

    With a scope, every entry belongs to it: those of other scopes are neither seen nor written,
    though all of them share objects, the limit and the housekeeping.

    Nothing is created before the first put. kind is a lower-case word (`slice`), key lower-case
    hex digits; anything else is a bug and a ValueError. Every method raises StoreError where the
    folder cannot be used.

    written: every entry that `put` of this object put.
    """

    def __init__(self, root: Path, limit: int, scope: str = "") -> None:
        self.root = root
        self.limit = limit
        self.scope = scope
        self.written: list[StoreEntry] = []
        self._vault = Vault(root)
        self._incoming = Incoming(root / "incoming")
        self._swept = False

    # -- reading ---------------------------------------------------------------------------

    def get(self, kind: str, key: str) -> bytes | None:
        """The bytes under a key, checked; None where there are none or they are damaged."""
        path = self._ref_path(kind, key)
        with self._errors("read the store"):
            ref = self._vault.ref(path)
            data = self._vault.read(ref) if ref else None
            if ref is None or data is None:
                self._drop(path)
                return None
            self._touch(ref)
            return data

    def copy_out(self, kind: str, key: str, path: Path) -> bool:
        """Write a key's bytes to `path`, atomically; False where absent. Raises OSError."""
        ref_path = self._ref_path(kind, key)
        ref = self._vault.ref(ref_path)
        if ref is not None and self._vault.copy(ref, path):
            self._touch(ref)
            return True
        self._drop(ref_path)
        return False

    def file(self, kind: str, key: str) -> Path | None:
        """The store's own file with the bytes under a key, checked; None as for `get`. Other bytes
        get another file."""
        ref = self._sound(kind, key)
        if ref is None:
            return None
        self._touch(ref)
        return self._vault.object(ref.sha256)

    def digest(self, kind: str, key: str) -> str | None:
        """The sha256 of the bytes under a key, which are read and checked; None as for `get`. That
        is no use of them."""
        ref = self._sound(kind, key)
        return ref.sha256 if ref else None

    def has(self, kind: str, key: str) -> bool:
        """Whether there is something sound under a key: what `get` would give now."""
        return self.digest(kind, key) is not None

    def get_json(self, kind: str, key: str) -> Any:
        """What `put_json` put under a key, or None. It may have any shape."""
        data = self.get(kind, key)
        try:
            return None if data is None else json.loads(data)
        except (ValueError, RecursionError):
            return None

    # -- writing ---------------------------------------------------------------------------

    def put(self, kind: str, key: str, data: bytes) -> str:
        """Keep `data` under a key, in place of what was there; its sha256."""
        sha256 = self._put(self._ref_path(kind, key), io.BytesIO(data))
        self.written.append((kind, key, sha256))
        return sha256

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
            clear_away(path)

    # -- housekeeping ----------------------------------------------------------------------

    def usage(self) -> list[Usage]:
        """What each kind holds, by name."""
        kinds: dict[str, list[Ref]] = {}
        with self._errors("read the store"):
            for path in self._vault.ref_places():
                ref = self._vault.ref(path)
                if ref is not None:
                    kinds.setdefault(self._vault.named(path)[0], []).append(ref)
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
        places = leaves(self._kind_folder(kind), 1) if kind else self._vault.ref_places()
        with self._errors("clean the store"):
            for path in places:
                clear_away(path)
        return self._shrink(sys.maxsize, sys.maxsize, keep=None)

    def check(self) -> list[Damage]:
        """Read every entry; those that are damaged. They are deleted, and what no entry needs."""
        found = []
        with self._errors("check the store"):
            for path in self._vault.ref_places():
                reason = self._vault.fault(path)
                if reason:
                    self._vault.drop(path)
                    found.append(Damage(*self._vault.named(path), reason))
        self._shrink(sys.maxsize, sys.maxsize, keep=None)
        return found

    # -- inside ----------------------------------------------------------------------------

    def _kind_folder(self, kind: str) -> Path:
        if not _KIND.fullmatch(kind):
            raise ValueError(f"{kind!r} is not a kind of the store")
        return self._vault.refs / kind

    def _ref_path(self, kind: str, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key of the store")
        if self.scope:
            key = hashlib.sha256(f"{self.scope} {key}".encode()).hexdigest()
        return self._kind_folder(kind) / key[:2] / key

    def _sound(self, kind: str, key: str) -> Ref | None:
        """The ref of a key whose bytes are as they were put."""
        path = self._ref_path(kind, key)
        with self._errors("read the store"):
            ref = self._vault.ref(path)
            sound = ref and self._vault.measured(ref.sha256) == (ref.sha256, ref.size)
            return ref if sound else None

    def _drop(self, ref_path: Path) -> None:
        """An entry turned out to be damaged, or is not there."""
        self._vault.drop(ref_path)

    def _touch(self, ref: Ref) -> None:
        """Note that a ref was used."""
        if abs(time.time() - ref.used) > TOUCH_AFTER:
            # Gone since, or a store that may only be read: then there is nothing to note.
            with suppress(OSError):
                os.utime(ref.path)

    def _put(self, ref_path: Path, source: Readable) -> str:
        with self._errors("write to the store"):
            if not self._swept:
                self._incoming.sweep()
                self._swept = True
            with self._incoming.file() as part:
                with part.open("xb") as stream:
                    sha256, size = copy(source, stream)
                    self._sync(stream)
                total = self._publish(part, sha256, size, ref_path)
        if total > self.limit:
            self._shrink(self.limit, int(self.limit * LOW_WATER), keep=ref_path)
        return sha256

    def _publish(self, part: Path, sha256: str, size: int, ref_path: Path) -> int:
        """Give a finished file its name and its ref; the approximate size of the store.

        Under the lock, or an eviction could delete the object between these two steps.
        """
        with self._vault.locked() as ledger:
            total = self._vault.total(ledger)
            if self._vault.measured(sha256) != (sha256, size):
                # Counted before it is there: a kill in between makes the next scan come early,
                # never late.
                total += size
                write_total(ledger, total)
                self._vault.place(part, self._vault.object(sha256))
            ref = self._vault.ref(ref_path)
            if ref is not None and (ref.sha256, ref.size) == (sha256, size):
                self._touch(ref)
            else:
                self._write_ref(ref_path, sha256, size)
            return total

    def _write_ref(self, ref_path: Path, sha256: str, size: int) -> None:
        with self._incoming.file() as part:
            with part.open("xb") as stream:
                stream.write(ref_text(ref_path, sha256, size))
                self._sync(stream)
            self._vault.place(part, ref_path)

    def _sync(self, stream: BinaryIO) -> None:
        """Bring what was written to the disk before it gets its name."""
        sync_file(stream)

    def _shrink(self, limit: int, low: int, keep: Path | None) -> int:
        """Delete what is damaged or named by no ref, then, least recently used first, old entries
        down to `low` bytes and recent ones down to `limit`, but never `keep`; bytes freed."""
        if not self.root.is_dir():
            return 0
        vault = self._vault
        with self._errors("clean the store"), vault.locked() as ledger:
            self._incoming.sweep()
            refs = sorted(self._sound_refs(), key=lambda ref: ref.used)
            sizes = {path: path.lstat().st_size for path in vault.object_places()}
            before = total = sum(sizes.values())
            holders = Counter(vault.object(ref.sha256) for ref in refs)
            for path in set(sizes) - set(holders):
                total -= sizes[path] if clear_away(path) else 0
            recent = time.time() - RECENT
            for ref in refs:
                if total <= (low if ref.used < recent else limit):
                    break
                if ref.path == keep or not clear_away(ref.path):
                    continue
                path = vault.object(ref.sha256)
                holders[path] -= 1
                if not holders[path] and clear_away(path):
                    total -= sizes.get(path, 0)
            write_total(ledger, total)
            return before - total

    def _sound_refs(self) -> Iterator[Ref]:
        """All refs; what only lies in the place of one is deleted."""
        for path in self._vault.ref_places():
            ref = self._vault.ref(path)
            if ref is not None:
                yield ref
            else:
                clear_away(path)

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Turn an OSError into a StoreError that says where, how much is free, and the fix."""
        try:
            yield
        except OSError as error:
            raise disk_error(error, doing, self.root, "FATWHEEL_CACHE=FOLDER") from error


# -- branches --------------------------------------------------------------------------------------

# In a container the branch lies in the folder that comes in, and goes with it: what was made for a
# job is taken from there one by one (see `engines.incoming`). A rebuild has a branch of its own,
# too.


class Branch(Store):
    """A store of its own under `root` that also answers what `trunks` hold, the first one first.
    It never changes those. It lasts as long as its build, or less.
    """

    def __init__(self, root: Path, trunks: Sequence[Path], scope: str = "") -> None:
        super().__init__(root, sys.maxsize, scope)
        self._trunks = [_Trunk(trunk, sys.maxsize, scope) for trunk in trunks]
        self._removed: set[tuple[str, str]] = set()

    def get(self, kind: str, key: str) -> bytes | None:
        found = super().get(kind, key)
        for trunk in self._behind(kind, key) if found is None else ():
            found = trunk.get(kind, key)
            if found is not None:
                break
        return found

    def copy_out(self, kind: str, key: str, path: Path) -> bool:
        return super().copy_out(kind, key, path) or any(
            trunk.copy_out(kind, key, path) for trunk in self._behind(kind, key)
        )

    def file(self, kind: str, key: str) -> Path | None:
        found = super().file(kind, key)
        for trunk in self._behind(kind, key) if found is None else ():
            found = found or trunk.file(kind, key)
        return found

    def digest(self, kind: str, key: str) -> str | None:
        found = super().digest(kind, key)
        for trunk in self._behind(kind, key) if found is None else ():
            found = found or trunk.digest(kind, key)
        return found

    def remove(self, kind: str, key: str) -> None:
        self._removed.add((kind, key))
        super().remove(kind, key)

    def _sync(self, stream: BinaryIO) -> None:
        """It goes with its build: who would look into it after a crash of the machine?"""

    def _behind(self, kind: str, key: str) -> list[_Trunk]:
        """The trunks that may answer for a key: none for one that was removed here."""
        return [] if (kind, key) in self._removed else self._trunks


class _Trunk(Store):
    """A store that is read and left as it is: what is damaged stays, and no use is noted."""

    def _drop(self, ref_path: Path) -> None:
        pass

    def _touch(self, ref: Ref) -> None:
        pass
