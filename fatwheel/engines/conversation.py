"""What a build and a worker say to each other: jobs in, outcomes out (see `build.shard`).

However the lines travel, this knows which jobs a worker still has, and reports each once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from ..branch import Entry
from ..errors import FatwheelError, OutOfMemoryError
from ..model import Job
from .base import JobBroken, JobKilled, JobMade, Report, Reports, Said, Worker, WorkerLost
from .messages import FailedLine, KilledLine, MadeLine, SaidLine, nonsense, worker_line

_WAITING = 10_000  # reports that wait to be read: beyond that, what is only said is left out


def nothing_to_collect(job: Job, entries: Sequence[Entry]) -> None:
    """Of a worker that writes to the store itself."""


class Conversation:
    """One worker's jobs.

    limit:   the bytes that it may have, 0 for no limit of its own.
    collect: called before a job is reported as made, with what it put into a branch of the
             store. What that raises is how the job failed.
    explain: what an error of the worker means to somebody outside of it.
    """

    def __init__(
        self,
        worker: Worker,
        shard: str,
        reports: Reports,
        send: Callable[[str], None],
        limit: int = 0,
        collect: Callable[[Job, Sequence[Entry]], None] = nothing_to_collect,
        explain: Callable[[FatwheelError], FatwheelError] = lambda error: error,
    ) -> None:
        self._worker = worker
        self._shard = shard
        self._reports = reports
        self._send = send
        self._limit = limit
        self._collect = collect
        self._explain = explain
        self._lock = threading.Lock()  # over what follows
        self._jobs: dict[int, Job] = {}
        self._count = 0
        self._lost: tuple[str, type[FatwheelError]] | None = None
        self._error: FatwheelError | None = None

    def say(self, message: dict[str, Any]) -> None:
        """Send one line; a worker that is gone is reported by whoever listens to it."""
        self._send(json.dumps(message) + "\n")

    def start(self, job: Job) -> None:
        """Give the worker a job; where it is gone already, report that."""
        with self._lock:
            self._count += 1
            number = self._count
            self._jobs[number] = job
        self.say({"id": number, "job": asdict(job)})
        if self._lost is not None:
            self.lost(*self._lost)
        elif self._error is not None:
            self.broken(self._error)

    def heard(self, line: str) -> None:
        """An outcome came in, or a line of the worker's log.

        Nonsense ends the conversation: builds of strangers run beside a worker.
        """
        if self._error is not None:
            return
        try:
            self._take(line)
        except FatwheelError as error:
            self.broken(error.within(self._shard))

    def _take(self, line: str) -> None:
        message = worker_line(line)
        if isinstance(message, SaidLine):
            if self._reports.qsize() < _WAITING:
                self._reports.put(Said(self._shard, message.said))
            return
        if message.id is None:  # the worker could not begin
            self.broken(message.error if isinstance(message, FailedLine) else nonsense(line))
            return
        with self._lock:
            job = self._jobs.get(message.id)
        if job is None:
            raise nonsense(line)
        report = self._report(job, message)
        with self._lock:
            there = self._jobs.pop(message.id, None)
        if there is not None:
            self._reports.put(report)

    def broken(self, error: FatwheelError) -> None:
        """No job of this worker will be done, now or later, for one reason."""
        with self._lock:
            self._error = error
            jobs, self._jobs = tuple(self._jobs.values()), {}
        for job in jobs:
            self._reports.put(JobBroken(job, error))

    def lost(self, reason: str, failure: type[FatwheelError] = OutOfMemoryError) -> None:
        """Give back the jobs that no one will do, each once."""
        with self._lock:
            self._lost = (reason, failure)
            jobs, self._jobs = tuple(self._jobs.values()), {}
        self._reports.put(WorkerLost(self._worker, self._shard, jobs, reason, failure, self._limit))

    def _report(self, job: Job, message: MadeLine | KilledLine | FailedLine) -> Report:
        if isinstance(message, KilledLine):
            return JobKilled(job, message.rss, self._limit)
        if isinstance(message, FailedLine):
            return JobBroken(job, self._explain(message.error))
        try:
            self._collect(job, message.entries)
        except FatwheelError as error:
            return JobBroken(job, error.within(job.label))
        return JobMade(job, message.made)
