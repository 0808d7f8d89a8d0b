"""Downloads pinned files, from their URLs or from the user's own package index, and verifies them.

A download that was interrupted goes on from there the next time; a connection that breaks off is
taken up at the byte where it broke.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import httpx2
from unearth import Link

from ..config.pinned import DebianFile, Package
from ..errors import FetchError, HashMismatchError
from ..events import Emit, Progress
from ..storage import cache, files
from ..text import clean
from . import debian
from .access import AccessRules, Way, origin_of, way_of
from .fetch import Pinned, is_fetched, place
from .index import Index, IndexSource
from .pipconfig import PipConfig, RefusedError, TransientError, read_pip_config, redacted
from .web import Web

WORKERS = 4  # connections at once
_TICK = 0.1  # seconds between two looks at the workers
_PATIENCE = 2.0  # seconds that a worker gets to end after a failure or Ctrl-C
_LARGEST = 32 << 30  # bytes of a file whose size is not pinned
_MOST_SAID = 160  # characters of a URL that is none

_PIPS = (
    "what pip is configured with: python -m pip config list (index-url, extra-index-url, "
    "find-links, proxy, cert)"
)
_MIRRORS = f"the mirror: a snapshot of Debian has what others dropped, {debian.VARIABLE}=URL"

LABEL = "download"
# What to do where a pin is gone from its source for good.
_ELSEWHERE = (
    "if you have a file with that sha256, put it into a folder, under any name: `invoke build "
    "--find FOLDER` takes it from there, and so does `invoke rebuild`"
)

T = TypeVar("T")


def download(pinned: Sequence[Pinned], folder: Path, emit: Emit) -> None:
    """Download files into `folder`, which has none of them.

    Emits Progress over the bytes of all, from the calling thread only. Raises FetchError,
    HashMismatchError, StoreError (disk full).
    """
    _Run(pinned, folder).run(emit)


def check_access(places: Iterable[tuple[Pinned, Path]]) -> None:
    """Raise FetchError for missing files of a lock at hosts that it must not name, with all."""
    rules = AccessRules(read_pip_config())
    absent = {
        pin.filename: pin
        for pin, folder in places
        if not rules.may_name(pin) and not is_fetched(pin, folder)
    }
    if absent:
        raise FetchError(
            "the lock names files on hosts from which no toolchain or recipe here fetches",
            details=[f"{name}: {_place_of(pin)}" for name, pin in absent.items()],
            hint="a lock from elsewhere can name any host, so nothing was fetched. If you have "
            "these files, put them into a folder, under any names: `invoke rebuild WHEEL "
            "--find FOLDER`; if you trust the host, pin them in your own toolchain file: "
            "docs/toolchains.md",
        )


def _place_of(pin: Pinned) -> str:
    """The host of a pin's URL, with the scheme where that is not https."""
    try:
        origin = origin_of(pin.url)
    except (ValueError, httpx2.InvalidURL):
        return clean(redacted(pin.url))[:_MOST_SAID]
    return origin.name if origin.scheme == "https" else clean(f"{origin.scheme}://{origin.name}")


def _asked(item: Pinned) -> str:
    """Who is asked for a file, and how to ask another."""
    return _MIRRORS if isinstance(item, DebianFile) else _PIPS


def _pinned(pin: Pinned) -> str:
    return f"sha256 {pin.sha256}, {f'{pin.size} bytes' if pin.size else 'of any size'}"


class TooLongError(Exception):
    """More bytes came than the file has."""


class PartialFile:
    """Bytes received, in an empty stream; most: how many there may be.

    announced: how many the server says there are, 0 while it has not said it.
    """

    def __init__(self, stream: BinaryIO, most: int) -> None:
        self._stream = stream
        self._most = most
        self._digest = hashlib.sha256()
        self.size = 0
        self.announced = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def receive(self, web: Web, link: Link, way: Way, on_size: Callable[[int], None]) -> None:
        """One try to get what is still missing. on_size is told how many bytes there are.

        Raises TransientError, after which the next try goes on from there, RefusedError, or
        TooLongError; OSError where the disk gives up.
        """
        with web.resumed(link, self.size, way) as arriving:
            self._go_on_from(arriving.start)
            self.announced = arriving.whole
            if self.announced > self._most:
                raise TooLongError
            for chunk in arriving.chunks:
                self._write(chunk)
                on_size(self.size)

    def _go_on_from(self, start: int) -> None:
        if start == self.size:
            return
        if start:
            raise RefusedError(f"it was asked for byte {self.size} and sends byte {start}")
        self._stream.seek(0)
        self._stream.truncate()
        self._digest = hashlib.sha256()
        self.size = 0

    def _write(self, chunk: bytes) -> None:
        if self.size + len(chunk) > self._most:
            raise TooLongError
        self._stream.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)


class _Stopped(Exception):
    """This worker should end: another failed, or the user pressed Ctrl-C."""


class _Run:
    """One run: workers take files from a queue, the calling thread reports."""

    def __init__(self, pinned: Sequence[Pinned], folder: Path) -> None:
        self.folder = folder
        self.incoming = files.Incoming(folder / "incoming")
        # Bytes by sha256: as pinned or, where that is unknown, as the server says.
        self.sizes = {item.sha256: item.size for item in pinned}
        # Largest first, so that no worker is left alone with a large file at the end.
        self.queue = deque(sorted(pinned, key=lambda item: -(item.size or _LARGEST)))
        self.received: dict[str, int] = {}  # bytes by sha256
        self.failures: list[BaseException] = []
        self.stop = threading.Event()

    def run(self, emit: Emit) -> None:
        """Fetch all, or raise what went wrong first."""
        self.incoming.sweep()
        config = read_pip_config()
        self.web = self._client(config)
        # Daemons, because a thread that waits for a silent server must not hold up Ctrl-C.
        workers = [
            threading.Thread(target=self._work, name=f"fetch-{number}", daemon=True)
            for number in range(min(WORKERS, len(self.queue)))
        ]
        try:
            for worker in workers:
                worker.start()
            self._report(workers, emit)
        finally:
            self.stop.set()
            for worker in workers:
                worker.join(_PATIENCE)
            self.web.close()
        if self.failures:
            raise self.failures[0]

    def _client(self, config: PipConfig) -> Web:
        """Without an index where none is needed: the user may have none configured."""
        self.sources: tuple[IndexSource, ...] = ()
        if all(item.url for item in self.queue):
            return Web(config)
        index = Index(config)
        self.sources = index.sources
        self.links = index.links
        return index

    def _report(self, workers: Sequence[threading.Thread], emit: Emit) -> None:
        shown = -1
        while True:
            running = [worker for worker in workers if worker.is_alive()]
            done = sum(self.received.copy().values())
            if done != shown and not self.failures:
                emit(Progress(LABEL, done, max(done, sum(self.sizes.copy().values()))))
                shown = done
            if not running or self.failures:
                return
            running[0].join(_TICK)

    def _work(self) -> None:
        try:
            while not self.stop.is_set():
                try:
                    item = self.queue.popleft()
                except IndexError:
                    return
                self._fetch_one(item)
        except _Stopped:
            pass
        except BaseException as error:  # handed to the calling thread, which raises it
            self.failures.append(error)
            self.stop.set()

    def _fetch_one(self, item: Pinned) -> None:
        """Try its URL, or every link of every source, until one yields the pinned file."""
        looked: list[str] = []
        wrong: HashMismatchError | None = None
        for link in self._links_of(item, looked):
            try:
                self._download(link, item)
                return
            except HashMismatchError as error:
                wrong = error
                looked.append(f"{link.redacted}: a different file")
            except RefusedError as error:
                looked.append(f"{link.redacted}: {error}")
        if wrong is not None:
            raise wrong
        raise FetchError(
            f"cannot fetch {item.filename} ({f'{item.name} {item.version}'.strip()})",
            details=[
                f"pinned: {_pinned(item)}",
                "tried:",
                *(f"  {line}" for line in looked),
            ],
            hint=f"check the network, and {_asked(item)}; {_ELSEWHERE}",
        )

    def _links_of(self, item: Pinned, looked: list[str]) -> Iterator[Link]:
        if item.url:
            yield Link(item.url)
            return
        assert isinstance(item, Package)  # a Download has a URL
        for source in self.sources:
            try:
                yield from self._patiently(partial(self.links, source, item))
            except RefusedError as error:
                looked.append(f"{source.shown}: {error}")

    def _patiently(self, action: Callable[[], T]) -> T:
        """The action's result; tried again, after a pause, while the failure may pass."""
        try:
            return self.web.patiently(action, self.stop)
        except RefusedError:
            if self.stop.is_set():
                raise _Stopped from None
            raise

    def _download(self, link: Link, item: Pinned) -> None:
        """A file from one link. Raises HashMismatchError or RefusedError."""
        self.received[item.sha256] = 0
        try:
            with self.incoming.file() as path:
                with path.open("xb") as stream:
                    part = PartialFile(stream, item.size or _LARGEST)
                    self._patiently(partial(self._receive, link, item, part))
                    files.sync_file(stream)
                if part.sha256 != item.sha256:
                    raise self._mismatch(link, item, f"sha256 {part.sha256}")
                files.move(path, place(item, self.folder))
        except TooLongError:
            size = item.size or _LARGEST
            raise self._mismatch(link, item, f"more than {size} bytes") from None
        except OSError as error:
            raise files.disk_error(
                error, f"keep {item.filename}", self.folder, f"{cache.VARIABLE}=FOLDER"
            ) from error

    def _receive(self, link: Link, item: Pinned, part: PartialFile) -> None:
        """One try. Raises TransientError, RefusedError or TooLongError."""

        def note(size: int) -> None:
            if self.stop.is_set():
                raise _Stopped
            self.received[item.sha256] = size
            self.sizes[item.sha256] = item.size or part.announced

        part.receive(self.web, link, way_of(item), note)
        if part.size < item.size:
            raise TransientError(f"ended after {part.size} of {item.size} bytes")

    def _mismatch(self, link: Link, item: Pinned, received: str) -> HashMismatchError:
        self.received[item.sha256] = 0
        if item.url:
            advice = "the file at this URL has changed, or a proxy replaced it: find out which"
        else:
            advice = "the index, a mirror or the pin is wrong: compare with another index"
        return HashMismatchError(
            f"{item.filename} does not match its pin",
            where=link.redacted,
            details=[
                f"pinned:   {_pinned(item)}",
                f"received: {received}",
            ],
            hint=f"the download was removed; {advice} before changing the pin; {_ELSEWHERE}",
        )
