"""A third engine, as docs/architecture.md describes one: its jobs run in the tests' own process."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fatwheel.config.recipe import Target
from fatwheel.config.toolchain import Toolchain
from fatwheel.engines.base import Engine, JobBroken, JobKilled, JobMade, Report, Reports
from fatwheel.engines.local import LocalWorkplace, Tools
from fatwheel.errors import FatwheelError
from fatwheel.events import Emit
from fatwheel.model import Job
from fatwheel.worker.context import Context
from fatwheel.worker.preprocess import Texts
from fatwheel.worker.slices import KilledForMemoryError, run_job


class InlineEngine(Engine):
    name = "inline"

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    def obstacle(self, toolchain: Toolchain) -> str:
        return ""

    def prepare(self, target: Target, emit: Emit) -> LocalWorkplace:
        return LocalWorkplace(self._tools, InlineWorker)


class InlineWorker:
    def __init__(self, shard: str, context: Context, log: Path, reports: Reports) -> None:
        self._context = context
        self._reports = reports
        self._threads = ThreadPoolExecutor()

    def start(self, job: Job) -> None:
        self._threads.submit(lambda: self._reports.put(self._outcome(job)))

    def _outcome(self, job: Job) -> Report:
        store = self._context.store()
        try:
            made = run_job(self._context, store, Texts(self._context, store), job)
        except KilledForMemoryError as error:
            return JobKilled(job, error.rss)
        except FatwheelError as error:
            return JobBroken(job, error)
        return JobMade(job, made, tuple(store.written))

    def close(self) -> None:
        self._threads.shutdown()

    def memory(self) -> int:
        return 0
