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
from ..errors import EngineError, FatwheelError, OutOfMemoryError
from ..model import Job
from .base import JobBroken, JobKilled, JobMade, Report, Reports, Said, Worker, WorkerLost

_SHOWN = 200  # characters of a line that makes no sense


class Conversation:
    """One worker's jobs.

    limit:   the bytes that it may have, 0 for no limit of its own.
    collect: called before an outcome is reported, to fetch what the worker has made.
    explain: what an error of the worker means to somebody outside of it.
    """

    def __init__(
        self,
        worker: Worker,
        shard: str,
        reports: Reports,
        send: Callable[[str], None],
        limit: int = 0,
        collect: Callable[[], object] = lambda: None,
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
        try:
            self._take(json.loads(line))
        except (AttributeError, KeyError, TypeError, ValueError):
            nonsense = EngineError(
                "its worker says what no worker says", where=self._shard, details=[line[:_SHOWN]]
            )
            self.broken(nonsense)

    def _take(self, message: dict[str, Any]) -> None:
        if "said" in message:
            self._reports.put(Said(self._shard, str(message["said"])))
            return
        if message["id"] is None:  # the worker could not begin
            self.broken(error_of(message))
            return
        with self._lock:
            job = self._jobs[message["id"]]
        report = self._report(job, message)
        try:
            self._collect()
        except FatwheelError as error:
            report = JobBroken(job, error)
        with self._lock:
            there = self._jobs.pop(message["id"], None)
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

    def _report(self, job: Job, outcome: dict[str, Any]) -> Report:
        if outcome["outcome"] == "made":
            return JobMade(job, _cost(outcome))
        if outcome["outcome"] == "killed":
            return JobKilled(job, int(outcome["rss"]), self._limit)
        return JobBroken(job, self._explain(error_of(outcome)))


def _cost(outcome: dict[str, Any]) -> Made:
    return Made(float(outcome["seconds"]), float(outcome["cpu"]), int(outcome["rss"]))


def error_of(outcome: dict[str, Any]) -> FatwheelError:
    """The error that a worker met, as it was raised there."""
    kind = getattr(errors, outcome["class"])
    if not issubclass(kind, FatwheelError):
        raise TypeError(f"{kind} is no error of fatwheel's")
    error: FatwheelError = kind(
        outcome["what"], where=outcome["where"], hint=outcome["hint"], details=outcome["details"]
    )
    return error
