"""Runs the jobs of all shards on an engine: admits, watches, retries, collects what failed.

One job's failure stops no other: what can be made is made and kept in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from queue import Empty, Queue

from ..build.context import Context
from ..build.schedule import Scheduler
from ..errors import FatwheelError, OutOfMemoryError
from ..events import Emit, JobFailed, JobFinished, JobStarted, MemoryUsed
from ..model import Job, Shard
from .base import Engine, JobBroken, JobKilled, JobMade, Report, Reports, Worker

_SAMPLE_EVERY = 0.5  # seconds between two looks at the memory in use


class JobRun:
    """One run of all shards' jobs; `errors` holds what failed for good."""

    def __init__(
        self,
        engine: Engine,
        context: Context,
        shards: tuple[Shard, ...],
        scheduler: Scheduler,
        emit: Emit,
    ) -> None:
        self.errors: list[FatwheelError] = []
        self._engine = engine
        self._context = context
        self._shard_of: Mapping[Job, str] = {
            job: shard.name for shard in shards for job in shard.jobs
        }
        self._scheduler = scheduler
        self._emit = emit
        self._reports: Reports = Queue()
        self._workers: dict[str, Worker] = {}

    def run(self) -> None:
        """Until every job is made or has failed; workers are ended however this returns."""
        try:
            while not self._scheduler.idle():
                self._start_what_fits()
                self._wait_for_report()
        finally:
            for worker in self._workers.values():
                worker.close()

    def _start_what_fits(self) -> None:
        while job := self._scheduler.next():
            shard = self._shard_of[job]
            if shard not in self._workers:
                self._workers[shard] = self._engine.open(shard, self._context, self._reports)
            self._emit(JobStarted(job, shard))
            self._workers[shard].start(job)

    def _wait_for_report(self) -> None:
        while True:
            self._emit(MemoryUsed(sum(worker.memory() for worker in self._workers.values())))
            try:
                self._take(self._reports.get(timeout=_SAMPLE_EVERY))
                return
            except Empty:
                continue

    def _take(self, report: Report) -> None:
        if isinstance(report, JobMade):
            made = report.made
            self._scheduler.finished(report.job)
            self._emit(
                JobFinished(
                    report.job, self._shard_of[report.job], made.seconds, made.cpu, made.rss
                )
            )
        elif isinstance(report, JobKilled):
            peak = f"{report.rss / 2**30:.1f} GiB"
            self._retry(report.job, report.rss, f"killed for memory at {peak}")
        elif isinstance(report, JobBroken):
            self._scheduler.failed(report.job)
            self._fail(report.job, report.error)
        else:
            if self._workers.get(report.shard) is report.worker:
                del self._workers[report.shard]
            report.worker.close()
            for job in report.jobs:
                self._retry(job, 0, f"its worker was lost: {report.reason}")

    def _retry(self, job: Job, rss: int, reason: str) -> None:
        """Run a killed job again alone; the second time it has failed."""
        if self._scheduler.killed_for_memory(job, rss):
            self._emit(JobFailed(job, self._shard_of[job], reason, retry=True))
            return
        self._fail(
            job,
            OutOfMemoryError(
                f"it did not survive even alone: {reason}",
                where=job.label,
                hint="this unit needs a machine with more memory",
            ),
        )

    def _fail(self, job: Job, error: FatwheelError) -> None:
        self.errors.append(error)
        self._emit(JobFailed(job, self._shard_of[job], error.what, retry=False))
