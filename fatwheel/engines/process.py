"""The `process` engine: a shard's worker is a process on this machine.

The worker ends when its input ends, so it never outlives the build, however that ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from .. import errors
from ..build.context import Context
from ..build.slices import Made
from ..model import Job
from .base import JobBroken, JobKilled, JobMade, Report, Reports, Worker, WorkerLost

_PACKAGE = Path(__file__).resolve().parents[2]
_START = (
    f"import sys; sys.path.insert(0, {str(_PACKAGE)!r}); "
    "from fatwheel.build.shard import main; main()"
)


class ProcessEngine:
    """Workers are processes that talk JSON lines (see `build.shard`)."""

    name = "process"

    def open(self, shard: str, context: Context, reports: Reports) -> Worker:
        return _ProcessWorker(shard, context, reports)


class _ProcessWorker:
    def __init__(self, shard: str, context: Context, reports: Reports) -> None:
        self._shard = shard
        self._reports = reports
        self._lock = threading.Lock()  # over what follows
        self._jobs: dict[int, Job] = {}
        self._count = 0
        self._lost: str | None = None
        self._closing = False
        # A session of its own: Ctrl-C at the terminal reaches the build, which ends its workers.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _START],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self._send(context.to_wire())
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, job: Job) -> None:
        with self._lock:
            self._count += 1
            number = self._count
            self._jobs[number] = job
        self._send({"id": number, "job": asdict(job)})
        if self._lost is not None:
            self._report_loss()

    def close(self) -> None:
        self._closing = True
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._end_group()
            self._process.wait()

    def memory(self) -> int:
        total = 0
        with suppress(psutil.Error):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.Error):
                    total += process.memory_info().rss
        return total

    def _send(self, message: dict[str, Any]) -> None:
        # A worker that is gone is reported by _listen.
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):  # else it was killed while it wrote
                outcome = json.loads(line)
                with self._lock:
                    job = self._jobs.pop(outcome["id"])
                self._reports.put(_report(job, outcome))
        # Its compilers would go on without it. It is not reaped yet, so its number is still its.
        self._end_group()
        code = self._process.wait()
        self._lost = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if not self._closing:
            self._report_loss()

    def _report_loss(self) -> None:
        """Give back the jobs that no one will do, each once."""
        with self._lock:
            jobs, self._jobs = tuple(self._jobs.values()), {}
        self._reports.put(WorkerLost(self, self._shard, jobs, self._lost or ""))

    def _end_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def _report(job: Job, outcome: dict[str, Any]) -> Report:
    if outcome["outcome"] == "made":
        return JobMade(job, Made(outcome["seconds"], outcome["cpu"], outcome["rss"]))
    if outcome["outcome"] == "killed":
        return JobKilled(job, outcome["rss"])
    kind: type[errors.FatwheelError] = getattr(errors, outcome["class"])
    return JobBroken(
        job,
        kind(
            outcome["what"],
            where=outcome["where"],
            hint=outcome["hint"],
            details=outcome["details"],
        ),
    )
