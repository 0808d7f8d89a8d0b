"""What every engine offers, and how a machine is divided among the workers of a build.

Workers share the build's memory and slots: jobs are admitted one by one, over all workers
(`engines.schedule`). Where a worker is a container it has a hard limit too. All limits of the
workers that are open at a time fit into the memory of the build; so where the machine is small,
fewer are open at a time, and each has what its largest job needs.
"""

from __future__ import annotations

import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Protocol

from ..errors import FatwheelError, OutOfMemoryError
from ..model import Job
from ..worker.slices import Made

# A container's limit also counts its Python, its temporary files and some of its page cache.
_ROOM = 1.25
_BASE = 256 << 20  # bytes


def gib(size: int) -> str:
    """Bytes as shown in messages about limits: `6.7 GiB`."""
    return f"{size / 2**30:.1f} GiB"


@dataclass(frozen=True)
class Limits:
    """What one worker may use: processors, and bytes of memory."""

    cpus: int
    memory: int


@dataclass(frozen=True)
class Allotment:
    """at_once: workers that may be open at a time. each: the limits of one of them.
    whole: those of a worker that is alone."""

    at_once: int
    each: Limits
    whole: Limits


def allot(shards: int, largest: int, slots: int, memory: int) -> Allotment:
    """Divide `memory` bytes among as many workers as can run their largest job (bytes) in it."""
    need = int(largest * _ROOM) + _BASE
    at_once = max(1, min(shards, memory // need))
    return Allotment(at_once, Limits(slots, memory // at_once), Limits(slots, memory))


# -- engines and workers ---------------------------------------------------------------------------

# An engine opens one worker a shard; a worker takes jobs at any time and reports each outcome to
# the queue it was opened with. Engines decide nothing: `engines.run` does.


@dataclass(frozen=True)
class JobMade:
    job: Job
    made: Made


@dataclass(frozen=True)
class JobKilled:
    """The compiler was killed for memory, at a peak of rss bytes.

    limit: the bytes that its worker may have, 0 where it has no limit of its own.
    """

    job: Job
    rss: int
    limit: int = 0


@dataclass(frozen=True)
class JobBroken:
    """The job ended with an error."""

    job: Job
    error: FatwheelError


@dataclass(frozen=True)
class WorkerLost:
    """The worker itself ended; the jobs that it had are not done.

    A worker may report this again, for jobs that were given to it when it was gone. failure is
    what it is called if it happens to a job again that runs alone. limit is as for JobKilled.
    """

    worker: Worker
    shard: str
    jobs: tuple[Job, ...]
    reason: str
    failure: type[FatwheelError] = OutOfMemoryError
    limit: int = 0


@dataclass(frozen=True)
class Said:
    """A line of a worker's log, as it is written."""

    shard: str
    line: str


Report = Said | JobMade | JobKilled | JobBroken | WorkerLost
Reports = Queue[Report]


class Worker(Protocol):
    """One shard's worker."""

    def start(self, job: Job) -> None:
        """Begin a job; its outcome goes to the reports."""

    def close(self) -> None:
        """End the worker and whatever it still does."""

    def memory(self) -> int:
        """Bytes resident now, over all its compilers."""


class Engine(Protocol):
    """Where shards run."""

    @property
    def name(self) -> str: ...

    def open(self, shard: str, limits: Limits, reports: Reports) -> Worker:
        """A new worker for a shard. Raises EngineError where there can be none."""


# -- logs ------------------------------------------------------------------------------------------

# What the logs of a build are called, and how long they are kept.


_LONGEST = 100  # characters: a shard is called after all its fronts, and by a number first
_KEPT = 50  # builds whose logs are kept


def shard_purpose(name: str) -> str:
    """What the worker of a shard is called in logs, labels and plans."""
    return f"shard {name}"


def log_name(purpose: str) -> str:
    """A purpose as the name of a file on any system: `shard-1-compute_80.log`."""
    return re.sub(r"[^\w.+-]+", "-", purpose)[:_LONGEST] + ".log"


def new_logs(parent: Path, name: str) -> Path:
    """A folder for the logs of a new build; the oldest ones go. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    old = sorted(parent.iterdir(), key=lambda folder: folder.lstat().st_mtime)
    for folder in old[: max(0, len(old) + 1 - _KEPT)]:
        shutil.rmtree(folder, ignore_errors=True)
    folder = parent / f"{name}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)  # compilers quote sources
    return folder
