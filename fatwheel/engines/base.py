"""What every engine offers: workers that do jobs, one per shard.

An engine opens one worker a shard; a worker takes jobs at any time and reports each outcome to
the queue it was opened with. Engines decide nothing: `engines.run` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from queue import Queue
from typing import Protocol

from ..build.slices import Made
from ..errors import FatwheelError, OutOfMemoryError
from ..model import Job
from .allot import Limits


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
