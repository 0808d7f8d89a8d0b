"""Which worker of a cluster does which job, and what becomes of the jobs of one that is lost.

No network and no clock: `engines.pool` asks it for the workers of a Dask cluster, and
`engines.simulation` for workers that are only computed. Not safe for threads by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ..arch import Arch
from ..errors import EngineError
from ..model import Job, Unit
from ..worker.stages import follows_front
from .base import Limits, Reports, Worker, WorkerLost

LOOK = 1.0  # seconds between two looks at which workers there are
PATIENCE = 30.0  # seconds for which a build waits for another worker when all are lost
_MOST_LOST = 2  # workers that a job may lose before it is suspected


# A front that a build runs: its unit, and its virtual architecture.
LeftBy = tuple[Unit, Arch]


def left_by(job: Job) -> LeftBy:
    """The front of a CUDA unit's job."""
    assert job.front is not None
    return job.unit, job.front.virtual


@dataclass(eq=False)
class Task:
    """A job on its way. alone: it gets the largest worker to itself. lost: so many workers of its
    were."""

    job: Job
    shard: str
    reports: Reports
    alone: bool
    lost: int = 0

    @property
    def front(self) -> LeftBy | None:
        """The front that the job begins with what it left of, if that is a stage that does."""
        return left_by(self.job) if follows_front(self.job) else None


@dataclass(eq=False)
class Member:
    """A worker, and what one build does there.

    tasks: with the bytes that each may need. fronts: those of which it has what they left, or it
    is on its way; what stands for that is known to whoever sends it.
    """

    limits: Limits
    tasks: dict[Task, int] = field(default_factory=dict, kw_only=True)
    fronts: dict[LeftBy, Any] = field(default_factory=dict, kw_only=True)

    @property
    def free_cores(self) -> int:
        return self.limits.cpus - len(self.tasks)

    @property
    def free_memory(self) -> int:
        return self.limits.memory - sum(self.tasks.values())

    @property
    def freedom(self) -> tuple[float, int]:
        """The more of it is free, the larger."""
        return self.free_cores / self.limits.cpus, self.free_memory


M = TypeVar("M", bound=Member)


class Placement(Generic[M]):
    """The jobs that wait for a worker. `waiting`: in the order in which they are served."""

    def __init__(self) -> None:
        self.waiting: list[Task] = []
        self._suspects: set[Job] = set()  # jobs that were killed, or lost their workers

    def add(self, job: Job, shard: str, reports: Reports) -> None:
        """A job is to be done by some worker."""
        self.waiting.append(Task(job, shard, reports, job in self._suspects))

    def drop(self, shard: str) -> None:
        """Forget the waiting jobs of a shard."""
        self.waiting = [task for task in self.waiting if task.shard != shard]

    def suspect(self, job: Job) -> None:
        """Let a job have the largest worker to itself if it runs again."""
        self._suspects.add(job)

    def placed(self, ready: Sequence[M]) -> Iterator[tuple[Task, M]]:
        """Give every job that waits to a worker that has room for it, the freest one.

        Where none has, the job keeps the worker that is nearest to it: else those behind it would
        take what gets free there, again and again.
        """
        if not (ready and self.waiting):
            return
        largest = max(one.limits.memory for one in ready)
        kept: set[M] = set()
        for task in list(self.waiting):
            need = largest if task.alone else min(largest, task.job.memory)
            large = [one for one in ready if one.limits.memory >= need and one not in kept]
            able = [one for one in large if one.free_cores > 0 and one.free_memory >= need]
            if able:
                self.waiting.remove(task)
                # What a front left is large: it travels only to make use of a free core.
                best = max(able, key=lambda one: (task.front in one.fronts, one.freedom))
                best.tasks[task] = need
                yield task, best
            elif large:
                kept.add(max(large, key=lambda one: one.free_memory))

    def lost(self, member: M) -> tuple[list[Task], list[Task]]:
        """A worker is lost: its jobs that wait for another one now, and those that are suspected,
        since it was not the first worker that they lost."""
        tasks, member.tasks = list(member.tasks), {}
        again: list[Task] = []
        given_up: list[Task] = []
        for task in tasks:
            task.lost += 1
            if task.lost < _MOST_LOST:
                again.append(task)
            else:
                self.suspect(task.job)
                given_up.append(task)
        self.waiting[:0] = again
        return again, given_up


def lost(task: Task, reason: str, limit: int = 0) -> WorkerLost:
    """What is reported of a job that is suspected. limit: as for `JobKilled`."""
    return WorkerLost(_LOST, task.shard, (task.job,), reason, EngineError, limit)


class _Lost:
    """Stands for a worker that is gone: its shard's others go on."""

    def start(self, job: Job) -> None:
        raise AssertionError("it takes no jobs")

    def close(self) -> None:
        """There is nothing to end."""

    def memory(self) -> int:
        return 0


_LOST: Worker = _Lost()
