"""The events that a build emits while it runs; `cli` shows them.

Sizes are bytes, times are seconds. No event carries formatting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config.recipe import Target
    from .model import Job
    from .worker.assemble import Reason


@dataclass(frozen=True)
class Planned:
    """What will be built, before it starts.

    slices: units × archs in all; hits: those that the store already has; pending: the jobs that
    will run for the rest; work: seconds of compiling expected on one core; jobs: how many run at
    a time; memory: the budget; archlist_units: units that must be compiled again because their
    text depends on the list of architectures; reasons: why others are.
    """

    targets: tuple[Target, ...]
    engine: str
    front: str
    shards: int
    jobs: int
    memory: int
    units: int
    slices: int
    hits: int
    work: float
    archlist_units: tuple[str, ...] = ()
    pending: int = 0
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class StepStarted:
    """A step of the pipeline began: 'toolchain', 'source', 'capture', 'compile', 'assemble',
    'pack', 'check'."""

    step: str
    detail: str = ""


@dataclass(frozen=True)
class StepFinished:
    step: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class Progress:
    """Bytes done of a download or an installation; total is 0 where unknown."""

    label: str
    done: int
    total: int


@dataclass(frozen=True)
class JobStarted:
    job: Job
    shard: str


@dataclass(frozen=True)
class JobFinished:
    """A job ended well: wall seconds, CPU seconds, peak RSS in bytes."""

    job: Job
    shard: str
    seconds: float
    cpu: float
    rss: int


@dataclass(frozen=True)
class JobFailed:
    """A job ended badly; retry is true where it will run again alone."""

    job: Job
    shard: str
    reason: str
    retry: bool


@dataclass(frozen=True)
class JobsDropped:
    """Jobs that will not run, since one that they need failed."""

    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class CoresIdle:
    """From now on so many of the cores have no job, because of `why`: 'memory', 'fronts', 'alone'
    or 'last' (see `engines.schedule`); '' where all have one."""

    idle: int
    cores: int
    why: str


@dataclass(frozen=True)
class ShardSaid:
    """A line of a shard's log, as it is written."""

    shard: str
    line: str


@dataclass(frozen=True)
class MemoryUsed:
    """Sum of the running jobs' resident memory, sampled about twice a second."""

    rss: int


@dataclass(frozen=True)
class Note:
    """One sentence the user should see."""

    text: str


@dataclass(frozen=True)
class WheelMade:
    """A finished wheel. hits and compiled count slices; seconds is the whole target's time."""

    path: str
    size: int
    sha256: str
    archs: str
    seconds: float
    hits: int
    compiled: int


Event = (
    Planned
    | StepStarted
    | StepFinished
    | Progress
    | JobStarted
    | JobFinished
    | JobFailed
    | JobsDropped
    | CoresIdle
    | ShardSaid
    | MemoryUsed
    | Note
    | WheelMade
)
Emit = Callable[[Event], None]


def silent(event: Event) -> None:
    """An Emit for callers that show nothing."""


@contextmanager
def step(emit: Emit, name: str, detail: str = "") -> Iterator[None]:
    """Report a step of the pipeline and how long it took."""
    started = time.monotonic()
    emit(StepStarted(name, detail))
    yield
    emit(StepFinished(name, time.monotonic() - started, detail))
