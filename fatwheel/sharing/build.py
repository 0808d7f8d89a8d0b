"""What a build has of a remote: looks for what its store lacks, and leaves there what it makes.

A remote's files are parcels (`sharing.parcel`), called by what they answer:

    SCOPE/texts/…   what is known of one pass over all units: records of texts, and what jobs cost
    SCOPE/seen/…    the same without records: which texts are worth preprocessing here
    SCOPE/slice/…   a slice, and what is kept with it
    SCOPE/host/…    a host object
    wheel/…         a finished wheel

So a build asks for a few texts first, all units' at a time. With them it knows the keys of its
slices, with these those of its host objects: three rounds, each with many requests at a time,
however many units there are. A remote never lists anything.

What comes goes into the build's own store, under the build's own scope; workers and containers only
see that.

Which machines may share: the scope says of which project, and of what the place is made where that
is an image. On machines' own systems, keys cover the compilers byte for byte (CUDA's by their pins;
cc1plus and as) and the whole preprocessed text. Three things they leave open, so that here

- a record of a text counts only where the same headers can be found: `Workplace.surroundings` is
  part of the name of `texts`. Elsewhere texts are preprocessed again, which is what `seen` is for;
- host objects for the processor of the machine (`-march=native`) stay there;
- finished wheels are shared by containers alone: a system's linker and libraries are in no key.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.pool import AsyncResult, ThreadPool
from pathlib import Path
from typing import Any

from .. import text
from ..engines.base import Capture
from ..engines.incoming import add_variant, variants_in
from ..errors import FatwheelError, FormatError, VerifyError
from ..events import Emit, Note
from ..model import Job
from ..storage.documents import read_value
from ..storage.files import Readable, copy, disk_error
from ..storage.store import Store, StoreEntry
from ..worker.assemble import Lookup, Pass
from ..worker.context import digest
from ..worker.slices import cost_key, is_native, passes_of
from .parcel import LIMITS, MOST_HEAD, Item, Parcel, Piece, contents, read_head, write_parcel
from .remote import READ, WRITE, Remote, RemoteError
from .uses import Count

_AT_ONCE = 24  # requests
_MOST_TEXTS = 4 << 30  # bytes of all records of a pass
_MOST_FILE = {"texts": 256 << 20, "seen": 64 << 20}  # bytes; they are packed to a hundredth
_KEY = re.compile("[0-9a-f]{64}")
_KEPT_VARIANTS = 2  # of a text: those of this machine's last builds
_PATIENCE = 600.0  # seconds that a build waits at its end for what is still being written

# What a parcel may have entries of.
_INSIDE = {
    "texts": ("text", "seen", "cost"), "seen": ("seen", "cost"), "slice": ("slice", "abi"),
    "host": ("host",),
}  # fmt: skip


class Shared:
    """A remote, for one build.

    scope: of the build's entries there. surroundings: see `Workplace`. store: the build's own.
    work: a folder for files on their way.
    """

    def __init__(
        self, remote: Remote, scope: str, surroundings: str, store: Store, work: Path, emit: Emit
    ) -> None:
        self.count = Count()
        self._remote = remote
        self._scope = scope
        self._surroundings = surroundings
        self._store = store
        self._work = work
        self._emit = emit
        self._lock = threading.Lock()  # over counts, costs and what follows
        self._asked: set[tuple[str, str]] = set()
        self._costs: dict[str, set[str]] = {}  # keys of costs, by the pass of their jobs
        self._passes: tuple[Pass, ...] = ()
        self._notes: list[str] = []
        # All requests are made by its threads, so that Ctrl-C is heard while one waits. They end
        # with the program: whatever a server does, nobody waits for it then.
        self._pool = ThreadPool(_AT_ONCE)
        self._writing: list[AsyncResult[None]] = []
        self._made_any = False
        remote.tell = self._say

    @property
    def in_words(self) -> str:
        """What became of it all, for the user."""
        count = self.count
        words = (
            f"of the remote, {text.count(count.found, 'parcel')} came ({text.size(count.bytes_in)})"
        )
        if self._remote.writes:
            words += f", and {count.written} went there ({text.size(count.bytes_out)})"
        return words + (f"; {count.refused} refused" if count.refused else "")

    # -- reading ---------------------------------------------------------------------------

    def look_up(self, capture: Capture) -> Lookup:
        """What is left to do when the remote was asked for what the store lacks."""
        found = capture.look_up()
        self._passes = found.passes
        if found.pending and self._fetch_texts(found.passes):
            found = capture.look_again()
        while found.absent and self._fetch(found.absent):
            found = capture.look_again()
        self._tell()
        return found

    def _fetch_texts(self, passes: Sequence[Pass]) -> bool:
        """Whether anything came that says more of these passes' texts."""
        asked = [
            (kind, name, _MOST_TEXTS, frozenset((*one.texts, *one.seen)))
            for one in passes
            for kind, name in (("texts", self._texts_name(one)), ("seen", _seen_name(one)))
        ]
        # One request first: a remote that is not there costs one wait, not one of each thread.
        first, rest = asked[:1], asked[1:]
        return any([*self._pool.map(self._take, first), *self._pool.map(self._take, rest, 1)])

    def _fetch(self, absent: Iterable[tuple[str, str]]) -> bool:
        """Whether any of these came: kind and key each, none that was asked for before."""
        new = [pair for pair in dict.fromkeys(absent) if pair not in self._asked]
        self._asked.update(new)
        asked = [(kind, key, _most_of(kind), frozenset((key,))) for kind, key in new]
        return any(self._pool.map(self._take, asked, 1))

    def _take(self, asked: tuple[str, str, int, frozenset[str]]) -> bool:
        """Bring one parcel into the store: its kind and name, at most so many bytes, and the keys
        that it may have entries for. Whether there was one that may be believed."""
        kind, key, most, keys = asked
        name = f"{kind}/{key}"
        with self._file() as file:
            try:
                if not self._remote.get(f"{self._scope}/{name}", file, _MOST_FILE.get(kind, most)):
                    self._add(absent=not self._remote.ended(READ))
                    return False
                parcel = self._opened(file, name, most, keys)
            except (FormatError, VerifyError) as error:
                self.refuse(name, error)
                return False
            self._add(found=1, bytes_in=file.stat().st_size)
        return bool(parcel.items)

    def _opened(self, file: Path, name: str, most: int, keys: frozenset[str]) -> Parcel:
        """Put a parcel's entries into the store, each after it was found right."""
        inside = _INSIDE[name.partition("/")[0]]
        where = f"{self._remote.shown}: {name}"
        with file.open("rb") as stream:
            parcel = read_head(stream, where, self._remote.trust)
            if (parcel.name, parcel.scope) != (name, self._scope):
                raise FormatError(f"it is {parcel.name} of another build", where=where)
            if parcel.size > most:
                raise FormatError(f"it has {text.size(parcel.size)} of entries", where=where)
            for item in parcel.items:
                if item.kind not in inside or not (item.kind == "cost" or item.key in keys):
                    raise FormatError(f"it has an entry {item.kind}/{item.key[:16]}", where=where)
            for item, data in contents(stream, parcel, where):
                take_entry(item, data, self._store)
        self._note_costs(name, parcel)
        return parcel

    def wheel(self, key: str) -> tuple[Path, Any] | None:
        """A finished wheel's file, below the folder for work, and what is kept with it; nothing of
        either is believed yet. None where there is none."""
        return self._pool.apply(self._wheel, (key,))

    def _wheel(self, key: str) -> tuple[Path, Any] | None:
        name = f"wheel/{key}"
        where = f"{self._remote.shown}: {name}"
        wheel, facts = self._work / f"{key}.whl", None
        with self._file() as file:
            try:
                if not self._remote.get(name, file, LIMITS["wheel"] + MOST_HEAD):
                    self._add(absent=1)
                    return None
                with file.open("rb") as stream:
                    parcel = read_head(stream, where, self._remote.trust)
                    if [(one.kind, one.key) for one in parcel.items] != _wheel_entries(key):
                        raise FormatError("it is not a wheel and its facts", where=where)
                    if (parcel.name, parcel.scope) != (name, ""):
                        raise FormatError(f"it is {parcel.name} of another build", where=where)
                    for item, data in contents(stream, parcel, where):
                        if item.kind == "built":
                            facts = json_of(item, data)
                        else:
                            with wheel.open("wb") as out:
                                copy(data, out)
            except (FormatError, VerifyError) as error:
                self.refuse(name, error)
                return None
            self._add(found=1, bytes_in=file.stat().st_size)
        return wheel, facts

    def refuse(self, name: str, error: FatwheelError) -> None:
        """Say that a parcel is not used, and why."""
        self._add(refused=1)
        self._say(f"{name} of {self._remote.shown} is refused, and made here: {error.what}")

    # -- writing ---------------------------------------------------------------------------

    def made(self, job: Job, entries: Sequence[StoreEntry]) -> None:
        """A job put these entries into the store: they are written while the build goes on."""
        if not self._remote.writes:
            return
        with self._lock:
            self._made_any = True
            for name in passes_of(job):
                self._costs.setdefault(name, set()).add(cost_key(job))
        self._tell()
        for kind, key, _ in entries:
            if not _KEY.fullmatch(key):  # what a worker of processes says is not checked before
                continue
            if kind == "slice":
                self._write_later(kind, key, (("slice", key), ("abi", key)))
            elif kind == "host" and not is_native(job.unit):
                self._write_later(kind, key, ((kind, key),))

    def write_wheel(self, key: str, wheel: Path, facts: Any) -> None:
        """Leave a finished wheel in the remote, if that takes it."""
        if self._remote.writes:
            built = json.dumps(facts, sort_keys=True).encode()
            pieces = [Piece("built", key, built), Piece("wheel", key, wheel)]
            self._pool.apply(self._send, (f"wheel/{key}", "", pieces))

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Ends when what the block made is written; what is known of texts, too, if it raises."""
        try:
            yield
        except BaseException as error:
            self._finish(_PATIENCE if isinstance(error, FatwheelError) else 0.0)
            raise
        self._finish(_PATIENCE)

    def _finish(self, patience: float) -> None:
        if self._made_any and patience:
            for known in self._passes:
                self._write_pass(known)
        until = time.monotonic() + patience
        for one in self._writing:
            one.wait(max(0.0, until - time.monotonic()))
        left = sum(not one.ready() for one in self._writing)
        if left and patience:
            self._say(f"{text.count(left, 'parcel')} did not go to {self._remote.shown} in time")
        self._pool.terminate()
        self._tell()

    def _write_pass(self, one: Pass) -> None:
        seen = [("seen", key) for key in one.seen]
        costs = [("cost", key) for key in sorted(self._costs.get(one.name, ()))]
        texts = [("text", key) for key in one.texts]
        self._write_later("texts", self._texts_name(one), (*texts, *seen, *costs))
        self._write_later("seen", _seen_name(one), (*seen, *costs))

    def _write_later(self, kind: str, key: str, entries: Sequence[tuple[str, str]]) -> None:
        self._writing.append(self._pool.apply_async(self._write, (kind, key, entries)))

    def _write(self, kind: str, key: str, entries: Sequence[tuple[str, str]]) -> None:
        try:
            pieces = [piece for entry in entries for piece in self._pieces(*entry)]
            if pieces:
                self._send(f"{kind}/{key}", self._scope, pieces)
        except FatwheelError as error:
            # Of this machine's disk; the build itself may still end well.
            self._remote.end(WRITE, RemoteError(error.what))

    def _send(self, name: str, scope: str, pieces: Sequence[Piece]) -> None:
        if self._remote.ended(WRITE):
            return
        with self._file() as file:
            with file.open("wb") as out:
                write_parcel(out, name, scope, pieces, self._remote.trust)
            if self._remote.put("/".join(filter(None, (scope, name))), file):
                self._add(written=1, bytes_out=file.stat().st_size)

    def _pieces(self, kind: str, key: str) -> list[Piece]:
        data = self._store.get(kind, key)
        if data is None:
            return []
        if kind == "text":
            with suppress(FormatError):
                variants = variants_in(data)[:_KEPT_VARIANTS]
                return [Piece(kind, key, json.dumps(variants, separators=(",", ":")).encode())]
            return []
        return [Piece(kind, key, data)]

    # -- inside ----------------------------------------------------------------------------

    def _texts_name(self, one: Pass) -> str:
        return digest("texts", sorted(one.texts), self._surroundings)

    @contextmanager
    def _file(self) -> Iterator[Path]:
        file = self._work / secrets.token_hex(8)
        try:
            yield file
        except OSError as error:
            raise disk_error(error, "keep what is shared", file, "FATWHEEL_CACHE=FOLDER") from error
        finally:
            file.unlink(missing_ok=True)

    def _note_costs(self, name: str, parcel: Parcel) -> None:
        """Costs that came with a pass go with it when it is written again."""
        keys = {item.key for item in parcel.items if item.kind == "cost"}
        for one in self._passes:
            if name in (f"texts/{self._texts_name(one)}", f"seen/{_seen_name(one)}"):
                with self._lock:
                    self._costs.setdefault(one.name, set()).update(keys)

    def _say(self, words: str) -> None:
        """Keep a note, from whichever thread, until the build's own thread tells it."""
        with self._lock:
            self._notes.append(words)

    def _tell(self) -> None:
        with self._lock:
            notes, self._notes = self._notes, []
        for words in notes:
            self._emit(Note(words))

    def _add(self, **more: int) -> None:
        with self._lock:
            for name, number in more.items():
                setattr(self.count, name, getattr(self.count, name) + number)


def _seen_name(one: Pass) -> str:
    return digest("seen", sorted(one.texts))


def _most_of(kind: str) -> int:
    """Bytes of all entries of such a parcel, of which one has none that is compressed well."""
    return sum(LIMITS[one] for one in _INSIDE[kind])


def _wheel_entries(key: str) -> list[tuple[str, str]]:
    return [("built", key), ("wheel", key)]


# -- entries that come in --------------------------------------------------------------------------


def take_entry(item: Item, data: Readable, store: Store) -> None:
    """Put an entry into a store that has none of its name, once its digest was found right.

    FormatError where it is not what its kind is.
    """
    if item.kind in ("slice", "abi", "host"):
        if not store.has(item.kind, item.key):
            store.put_stream(item.kind, item.key, data)
    elif item.kind == "text":
        for variant in reversed(variants_in(_whole(data))):
            add_variant(variant, item.key, store)
    else:
        value = json_of(item, data)
        if not (value is True if item.kind == "seen" else _is_cost(value)):
            raise FormatError(f"{item.kind}/{item.key[:16]} is not what it should be")
        if not store.has(item.kind, item.key):
            store.put_json(item.kind, item.key, value)


def json_of(item: Item, data: Readable) -> Any:
    """An entry that is JSON. Raises FormatError."""
    return read_value(_whole(data), f"{item.kind}/{item.key[:16]}")


def _whole(data: Readable) -> bytes:
    """All that a stream has; one of an entry ends at what its kind may have."""
    return b"".join(iter(lambda: data.read(1 << 20), b""))


def _is_cost(value: Any) -> bool:
    match value:
        case {"rss": int(), "cpu": int() | float(), "seconds": int() | float()}:
            return len(value) == 3
    return False
