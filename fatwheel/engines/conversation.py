"""What a build and a worker say to each other: jobs in, outcomes out (see `build.shard`).

However the lines travel, this knows which jobs a worker still has, and reports each once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from .. import errors
from ..build.slices import Made
from ..errors import FatwheelError, OutOfMemoryError
from ..model import Job
from .base import JobBroken, JobKilled, JobMade, Report, Reports, Said, Worker, WorkerLost


class Conversation:
    """One worker's jobs.

    limit:   the bytes that it may have, 0 for no limit of its own.
    collect: called before an outcome is reported, to fetch what the worker has made.
    """

    def __init__(
        self,
        worker: Worker,
        shard: str,
        reports: Reports,
        send: Callable[[str], None],
        limit: int = 0,
        collect: Callable[[], object] = lambda: None,
    ) -> None:
        self._worker = worker
        self._shard = shard
        self._reports = reports
        self._send = send
        self._limit = limit
        self._collect = collect
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
        """An outcome came in, or a line of the worker's log."""
        outcome = json.loads(line)
        if "said" in outcome:
            self._reports.put(Said(self._shard, outcome["said"]))
            return
        if outcome["id"] is None:  # the worker could not begin
            self.broken(error_of(outcome))
            return
        with self._lock:
            job = self._jobs.pop(outcome["id"])
        try:
            self._collect()
            self._reports.put(self._report(job, outcome))
        except FatwheelError as error:
            self._reports.put(JobBroken(job, error))

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

    def _report(self, job: Job, outcome: dict[str, Any]) -> Report:
        if outcome["outcome"] == "made":
            return JobMade(job, Made(outcome["seconds"], outcome["cpu"], outcome["rss"]))
        if outcome["outcome"] == "killed":
            return JobKilled(job, outcome["rss"], self._limit)
        return JobBroken(job, error_of(outcome))


def error_of(outcome: dict[str, Any]) -> FatwheelError:
    """The error that a worker met, as it was raised there."""
    kind: type[FatwheelError] = getattr(errors, outcome["class"])
    return kind(
        outcome["what"], where=outcome["where"], hint=outcome["hint"], details=outcome["details"]
    )
