"""Pinned files, from the user's own package index into a folder of downloads.

    <folder>/<sha256>/<filename>    finished, and what its pin says
    <folder>/incoming/              being written; swept when the writer is dead

A file is accepted by its exact name, size and sha256, wherever it comes from. What is finished
stays, so a fetch that was interrupted goes on from there. No code of a package is run: an sdist
is a file like any other.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

from unearth import Link

from .. import cache, files
from ..errors import FetchError, HashMismatchError
from ..events import Emit, Progress
from ..model import Package
from .index import Index, RefusedError, Source, TransientError
from .pipconfig import read_pip_config

WORKERS = 4  # connections at once
_TICK = 0.1  # seconds between two looks at the workers
_PATIENCE = 2.0  # seconds that a worker gets to end after a failure or Ctrl-C

LABEL = "download"

T = TypeVar("T")


def fetch(packages: Sequence[Package], folder: Path, emit: Emit) -> list[Path]:
    """Fetch what is not in `folder` yet; the files' paths, in the order of `packages`.

    Files that are there are checked again by size and sha256, and fetched anew where they are
    not what they should be. Emits Progress over the bytes of all missing files, from the
    calling thread only.

    Raises FetchError (not found, no network), HashMismatchError, StoreError (disk full).
    """
    missing = [package for package in packages if not is_fetched(package, folder)]
    if missing:
        _Fetch(missing, folder).run(emit)
    return [place(package, folder) for package in packages]


def place(package: Package, folder: Path) -> Path:
    """Where a package's file is once it is fetched."""
    return folder / package.sha256 / package.filename


def is_fetched(package: Package, folder: Path) -> bool:
    """Whether the file is there and is what its pin says."""
    path = place(package, folder)
    try:
        if path.stat().st_size != package.size:
            return False
    except OSError:
        return False
    return files.digest_of(path) == package.sha256


class _Stopped(Exception):
    """This worker should end: another failed, or the user pressed Ctrl-C."""


class _Fetch:
    """One run: workers take packages from a queue, the calling thread reports."""

    def __init__(self, packages: Sequence[Package], folder: Path) -> None:
        self.folder = folder
        self.incoming = files.Incoming(folder / "incoming")
        self.total = sum(package.size for package in packages)
        # Largest first, so that no worker is left alone with a large file at the end.
        self.queue = deque(sorted(packages, key=lambda package: -package.size))
        self.received: dict[str, int] = {}  # bytes by sha256
        self.failures: list[BaseException] = []
        self.stop = threading.Event()

    def run(self, emit: Emit) -> None:
        """Fetch all, or raise what went wrong first."""
        self.incoming.sweep()
        self.index = Index(read_pip_config())
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
            self.index.close()
        if self.failures:
            raise self.failures[0]

    def _report(self, workers: Sequence[threading.Thread], emit: Emit) -> None:
        shown = -1
        while True:
            running = [worker for worker in workers if worker.is_alive()]
            done = sum(self.received.copy().values())
            if done != shown and not self.failures:
                emit(Progress(LABEL, done, self.total))
                shown = done
            if not running or self.failures:
                return
            running[0].join(_TICK)

    def _work(self) -> None:
        try:
            while not self.stop.is_set():
                try:
                    package = self.queue.popleft()
                except IndexError:
                    return
                self._fetch_one(package)
        except _Stopped:
            pass
        except BaseException as error:  # handed to the calling thread, which raises it
            self.failures.append(error)
            self.stop.set()

    def _fetch_one(self, package: Package) -> None:
        """Try every link of every source until one yields the pinned file."""
        looked: list[str] = []
        wrong: HashMismatchError | None = None
        for source in self.index.sources:
            for link in self._listed(source, package, looked):
                try:
                    self._patiently(partial(self._download, link, package))
                    return
                except HashMismatchError as error:
                    wrong = error
                    looked.append(f"{link.redacted}: another file")
                except RefusedError as error:
                    looked.append(f"{link.redacted}: {error}")
        if wrong is not None:
            raise wrong
        raise FetchError(
            f"cannot fetch {package.filename}",
            details=["looked here:", *(f"  {line}" for line in looked)],
            hint=(
                "check the network, and what pip is configured with: python -m pip config list "
                "(index-url, extra-index-url, find-links, proxy, cert)"
            ),
        )

    def _listed(self, source: Source, package: Package, looked: list[str]) -> list[Link]:
        try:
            return self._patiently(partial(self.index.links, source, package))
        except RefusedError as error:
            looked.append(f"{source.shown}: {error}")
            return []

    def _patiently(self, action: Callable[[], T]) -> T:
        """The action's result; tried again, after a pause, while the failure may pass."""
        trouble: TransientError | None = None
        for _ in self.index.tries(self.stop):
            try:
                return action()
            except TransientError as error:
                trouble = error
        if self.stop.is_set():
            raise _Stopped
        raise RefusedError(f"{trouble} ({self.index.config.retries + 1} tries)")

    def _download(self, link: Link, package: Package) -> None:
        """One try at one link. Raises HashMismatchError, RefusedError or TransientError."""
        target = place(package, self.folder)
        self.received[package.sha256] = 0
        try:
            with self.incoming.file() as part:
                with part.open("xb") as stream, self.index.opened(link) as chunks:
                    digest = self._receive(chunks, stream, package)
                    files.sync_file(stream)
                self._check(digest, link, package)
                files.move(part, target)
        except OSError as error:
            raise files.disk_error(
                error, f"keep {package.filename}", self.folder, f"{cache.VARIABLE}=FOLDER"
            ) from error

    def _receive(self, chunks: Iterator[bytes], stream: BinaryIO, package: Package) -> str:
        """Write the chunks; their sha256. Ends early when there are more bytes than pinned."""
        digest = hashlib.sha256()
        size = 0
        for chunk in chunks:
            if self.stop.is_set():
                raise _Stopped
            digest.update(chunk)
            size += len(chunk)
            if size > package.size:
                return f"{digest.hexdigest()} (of the first {size} bytes; it has more)"
            stream.write(chunk)
            self.received[package.sha256] = size
        if size < package.size:
            raise TransientError(f"ended after {size} of {package.size} bytes")
        return digest.hexdigest()

    def _check(self, digest: str, link: Link, package: Package) -> None:
        if digest != package.sha256:
            self.received[package.sha256] = 0
            raise HashMismatchError(
                f"{package.filename} is not the file that was pinned",
                where=link.redacted,
                details=[
                    f"pinned:   sha256 {package.sha256}, {package.size} bytes",
                    f"received: sha256 {digest}",
                ],
                hint=(
                    "the download was removed; the index, a mirror or the pin is wrong: compare "
                    "with another index before changing the pin"
                ),
            )
