"""Runs the jobs of all shards on an engine: starts, watches and retries them, and collects
failures.

One job's failure stops no other but those that need it: what can be made is made and kept in the
store. A shard's worker
is opened for its first job and ended after its last one. A job that is to run alone gets a worker
of its own, with all that the build may use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, Queue
from typing import Protocol

from .. import text
from ..errors import FatwheelError, OutOfMemoryError
from ..events import (
    CoresIdle,
    Emit,
    JobFailed,
    JobFinished,
    JobsDropped,
    JobStarted,
    MemoryUsed,
    ShardSaid,
)
from ..model import Job, Shard
from ..storage.store import Store, StoreEntry
from ..worker.slices import put_cost
from .base import (
    Allotment,
    JobBroken,
    JobKilled,
    JobMade,
    Limits,
    Report,
    Reports,
    Said,
    Worker,
)
from .schedule import Scheduler

Kept = Callable[[Job, Sequence[StoreEntry]], None]  # is told what a job put into the store
Made = Callable[[JobMade], None]  # is told that a job is made


def kept_here(job: Job, entries: Sequence[StoreEntry]) -> None:
    """For builds that share nothing."""


def keeping(store: Store, kept: Kept = kept_here) -> Made:
    """Keep what each job cost in a store, for later plans, and tell what it put there."""

    def made(report: JobMade) -> None:
        if not report.made.taken:  # what it costs where nothing is known of it
            put_cost(store, report.job, report.made)
        kept(report.job, report.entries)

    return made


class Opens(Protocol):
    """What opens workers: a capture, of which no more is needed here."""

    def open(self, shard: str, limits: Limits, reports: Reports) -> Worker:
        """A new worker for a shard. Raises EngineError where there can be none."""


_SAMPLE_EVERY = 1.0  # seconds between two looks at the memory in use: each reads all of /proc


class JobRun:
    """One run of all shards' jobs; `errors` holds what failed for good, `left` the jobs that were
    not started in time."""

    def __init__(
        self,
        capture: Opens,
        shards: tuple[Shard, ...],
        allotment: Allotment,
        scheduler: Scheduler,
        made: Made,
        emit: Emit,
        until: float | None = None,
        clock: Callable[[], float] | None = None,
        reports: Reports | None = None,
    ) -> None:
        """made: is told of each job that is made. until: when to start no more jobs, by the clock.
        clock, reports: others than time.monotonic and a queue, where time is only computed."""
        self.errors: list[FatwheelError] = []
        self.left: list[Job] = []
        self.taken = 0  # jobs that took code over
        self._until = until
        self._made = made
        self._clock = clock or time.monotonic
        self._capture = capture
        self._allotment = allotment
        self._shard_of: Mapping[Job, str] = {
            job: shard.name for shard in shards for job in shard.jobs
        }
        self._left = {shard.name: set(shard.jobs) for shard in shards}
        self._scheduler = scheduler
        self._emit = emit
        self._reports: Reports = reports or Queue()
        self._workers: dict[str, Worker] = {}
        self._idle: CoresIdle | None = None  # as it was told last
        self._sampled = -_SAMPLE_EVERY  # when the memory was looked at, by the clock

    def run(self) -> None:
        """Run until every job is done, has failed, or is left; workers are always ended."""
        try:
            while not self._scheduler.idle():
                if self._until is not None and self._clock() >= self._until:
                    self.left += self._scheduler.stop()
                else:
                    self._start_what_fits()
                if self._scheduler.running:
                    self._wait_for_report()
        finally:
            self._close_all()

    def _start_what_fits(self) -> None:
        while job := self._scheduler.next(self._fits):
            shard = self._shard_of[job]
            if self._scheduler.is_alone(job):
                self._close_all()
                worker = self._open(shard, self._allotment.whole)
            else:
                worker = self._workers.get(shard) or self._open(shard, self._allotment.each)
            self._emit(JobStarted(job, shard))
            worker.start(job)
        self._tell_of_idle_cores()

    def _tell_of_idle_cores(self) -> None:
        idle, why = self._scheduler.idle_cores()
        found = CoresIdle(idle, self._scheduler.cores, why)
        if found != self._idle:
            self._idle = found
            self._emit(found)

    def _fits(self, job: Job, need: int) -> bool:
        """Whether a job fits into its shard's worker, or that worker can be opened."""
        shard = self._shard_of[job]
        beside = [other for other in self._scheduler.running if self._shard_of[other] == shard]
        if not beside:
            return len(self._busy()) < self._allotment.at_once
        used = sum(map(self._scheduler.need, beside))
        return used + need <= self._allotment.each.memory

    def _busy(self) -> set[str]:
        """The shards that have a running job."""
        return {self._shard_of[job] for job in self._scheduler.running}

    def _open(self, shard: str, limits: Limits) -> Worker:
        """Open a worker for a shard, replacing one that is idle."""
        for idle in set(self._workers) - self._busy():
            if len(self._workers) < self._allotment.at_once:
                break
            self._workers.pop(idle).close()
        self._workers[shard] = self._capture.open(shard, limits, self._reports)
        return self._workers[shard]

    def _close_all(self) -> None:
        workers, self._workers = self._workers, {}
        for worker in workers.values():
            worker.close()

    def _done_with(self, job: Job) -> None:
        """Note that a job is done or has failed for good; end its worker after the last one."""
        shard = self._shard_of[job]
        self._left[shard].discard(job)
        if not self._left[shard] and shard in self._workers:
            self._workers.pop(shard).close()

    def _wait_for_report(self) -> None:
        while True:
            pause = self._sampled + _SAMPLE_EVERY - self._clock()
            if pause <= 0:
                self._emit(MemoryUsed(sum(worker.memory() for worker in self._workers.values())))
                self._sampled = self._clock()
                pause = _SAMPLE_EVERY
            try:
                self._take(self._reports.get(timeout=pause))
                return
            except Empty:
                continue

    def _take(self, report: Report) -> None:
        if isinstance(report, Said):
            self._emit(ShardSaid(report.shard, report.line))
        elif isinstance(report, JobMade):
            made = report.made
            self.taken += made.taken
            self._made(report)
            self._scheduler.finished(report.job)
            self._emit(
                JobFinished(
                    report.job, self._shard_of[report.job], made.seconds, made.cpu, made.rss
                )
            )
            self._done_with(report.job)
        elif isinstance(report, JobKilled):
            reason = "killed for memory"
            if report.rss:
                reason += f" at {text.size(report.rss)}"
            if report.limit:
                reason += f"; its worker's limit is {text.size(report.limit)}"
            self._retry(report.job, report.rss, report.limit, reason, OutOfMemoryError)
        elif isinstance(report, JobBroken):
            self._fail(report.job, report.error, self._scheduler.failed(report.job))
        else:
            if self._workers.get(report.shard) is report.worker:
                del self._workers[report.shard]
            report.worker.close()
            reason = f"its worker was lost: {report.reason}"
            for job in report.jobs:
                self._retry(job, 0, report.limit, reason, report.failure)

    def _retry(
        self, job: Job, rss: int, limit: int, reason: str, failure: type[FatwheelError]
    ) -> None:
        """Run a killed job again alone; the second time it has failed."""
        if self._scheduler.killed_for_memory(job, rss, limit):
            self._emit(JobFailed(job, self._shard_of[job], reason, retry=True))
            return
        hint = "this unit needs more memory" if failure is OutOfMemoryError else None
        error = failure(f"it failed even when run alone: {reason}", where=job.label, hint=hint)
        self._fail(job, error, self._scheduler.without(job))

    def _fail(self, job: Job, error: FatwheelError, dropped: tuple[Job, ...]) -> None:
        """Note that a job failed for good; dropped: those that need it."""
        self.errors.append(error)
        self._emit(JobFailed(job, self._shard_of[job], error.what, retry=False))
        if dropped:
            self._emit(JobsDropped(dropped))
        for gone in (job, *dropped):
            self._done_with(gone)
