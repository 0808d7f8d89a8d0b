"""What is done with reports, with an engine that only pretends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.build.context import Context
from fatwheel.build.schedule import Scheduler
from fatwheel.build.slices import Made
from fatwheel.engines import run as run_module
from fatwheel.engines.base import JobBroken, JobKilled, JobMade, Report, Reports, WorkerLost
from fatwheel.engines.run import JobRun
from fatwheel.errors import CompileError, OutOfMemoryError
from fatwheel.events import Event, JobFailed, JobFinished, JobStarted, MemoryUsed
from fatwheel.model import Job, Shard

from .standins import cuda_unit, front, job, make_context

GIB = 1 << 30
Answer = Callable[["FakeWorker", Job], Report]


class FakeWorker:
    """Answers each job at once, or when it is told to."""

    def __init__(self, engine: FakeEngine, shard: str, reports: Reports) -> None:
        self.engine = engine
        self.shard = shard
        self.reports = reports
        self.closed = 0

    def start(self, job: Job) -> None:
        self.engine.started.append(job.unit.name)
        self.reports.put(self.engine.answer(self, job))

    def close(self) -> None:
        self.closed += 1

    def memory(self) -> int:
        return GIB


class FakeEngine:
    name = "fake"

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.workers: list[FakeWorker] = []
        self.started: list[str] = []

    def open(self, shard: str, context: Context, reports: Reports) -> FakeWorker:
        self.workers.append(FakeWorker(self, shard, reports))
        return self.workers[-1]


class Run:
    """A run of these jobs: one shard for each first letter of a unit's name."""

    def __init__(self, folder: Path, jobs: list[Job], answer: Answer, slots: int = 2) -> None:
        self.events: list[Event] = []
        self.engine = FakeEngine(answer)
        names = sorted({job.unit.name[0] for job in jobs})
        shards = tuple(
            Shard(name, tuple(job for job in jobs if job.unit.name[0] == name)) for name in names
        )
        scheduler = Scheduler(jobs, slots, 100 * GIB, lend=False)
        self.run = JobRun(self.engine, make_context(folder), shards, scheduler, self.events.append)
        self.run.run()

    def of(self, kind: type[Event]) -> list[str]:
        return [event.job.unit.name for event in self.events if isinstance(event, kind)]  # type: ignore[union-attr]


def jobs(*names: str) -> list[Job]:
    return [job(cuda_unit(name), front("80")) for name in names]


def made(worker: FakeWorker, job: Job) -> Report:
    return JobMade(job, Made(seconds=2, cpu=1.5, rss=GIB))


def test_every_job_is_started_once_on_its_shards_worker(tmp_path: Path) -> None:
    run = Run(tmp_path, jobs("a1", "a2", "b1"), made)
    assert run.run.errors == []
    assert sorted(run.engine.started) == ["a1", "a2", "b1"]
    assert sorted(worker.shard for worker in run.engine.workers) == ["a", "b"]
    assert sorted(run.of(JobStarted)) == sorted(run.of(JobFinished)) == ["a1", "a2", "b1"]
    finished = next(event for event in run.events if isinstance(event, JobFinished))
    assert (finished.seconds, finished.cpu, finished.rss) == (2, 1.5, GIB)
    started = {
        (event.job.unit.name, event.shard) for event in run.events if isinstance(event, JobStarted)
    }
    assert started == {("a1", "a"), ("a2", "a"), ("b1", "b")}


def test_workers_are_closed_at_the_end(tmp_path: Path) -> None:
    run = Run(tmp_path, jobs("a1", "b1"), made)
    assert [worker.closed for worker in run.engine.workers] == [1, 1]


def test_memory_in_use_is_the_sum_over_workers(tmp_path: Path) -> None:
    run = Run(tmp_path, jobs("a1", "b1", "c1"), made, slots=3)
    assert max(event.rss for event in run.events if isinstance(event, MemoryUsed)) == 3 * GIB


def test_memory_is_sampled_while_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "_SAMPLE_EVERY", 0.01)
    waiting: list[tuple[FakeWorker, Job]] = []

    class Patient(FakeWorker):
        def start(self, job: Job) -> None:
            waiting.append((self, job))

        def memory(self) -> int:
            samples.append(1)
            if len(samples) == 5:
                self.reports.put(made(*waiting[0]))
            return 0

    samples: list[int] = []
    monkeypatch.setattr(
        FakeEngine, "open", lambda self, shard, context, reports: Patient(self, shard, reports)
    )
    run = Run(tmp_path, jobs("a1"), made)
    assert len(samples) >= 5
    assert run.of(JobFinished) == ["a1"]


def test_one_failure_stops_no_other_job(tmp_path: Path) -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        if job.unit.name == "a1":
            return JobBroken(job, CompileError("no", where="a1"))
        return made(worker, job)

    run = Run(tmp_path, jobs("a1", "a2", "a3", "b1"), answer, slots=1)
    assert [str(error) for error in run.run.errors] == ["a1: no"]
    assert sorted(run.of(JobFinished)) == ["a2", "a3", "b1"]
    assert run.of(JobFailed) == ["a1"]


def test_all_failures_are_collected(tmp_path: Path) -> None:
    run = Run(
        tmp_path, jobs("a1", "a2", "b1"),
        lambda worker, job: JobBroken(job, CompileError("no", where=job.unit.name)),
    )  # fmt: skip
    assert sorted(str(error) for error in run.run.errors) == ["a1: no", "a2: no", "b1: no"]


def test_a_job_killed_for_memory_runs_again_alone(tmp_path: Path) -> None:
    killed: list[str] = []

    def answer(worker: FakeWorker, job: Job) -> Report:
        if job.unit.name == "a1" and not killed:
            killed.append(job.unit.name)
            return JobKilled(job, 5 * GIB)
        return made(worker, job)

    run = Run(tmp_path, jobs("a1", "a2", "a3"), answer, slots=2)
    assert run.run.errors == []
    assert run.engine.started[-1] == "a1", "it runs after all others"
    assert run.engine.started.count("a1") == 2
    [failed] = [event for event in run.events if isinstance(event, JobFailed)]
    assert failed.retry
    assert "5.0 GiB" in failed.reason
    assert sorted(run.of(JobFinished)) == ["a1", "a2", "a3"]


def test_a_job_killed_when_it_runs_alone_has_failed_with_the_figure(tmp_path: Path) -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        return JobKilled(job, 6 * GIB) if job.unit.name == "a1" else made(worker, job)

    run = Run(tmp_path, jobs("a1", "a2"), answer, slots=2)
    assert run.engine.started.count("a1") == 2
    [error] = run.run.errors
    assert type(error) is OutOfMemoryError
    assert "6.0 GiB" in str(error)
    assert "a1 [sm_80]" in str(error)
    assert run.of(JobFinished) == ["a2"]
    last = [event for event in run.events if isinstance(event, JobFailed)][-1]
    assert not last.retry


def test_the_jobs_of_a_lost_worker_run_again_on_a_new_one(tmp_path: Path) -> None:
    lost: list[FakeWorker] = []
    given: list[Job] = []

    def answer(worker: FakeWorker, job: Job) -> Report:
        given.append(job)
        if len(given) == 1:
            return made(worker, job)
        if not lost:
            lost.append(worker)
            return WorkerLost(worker, worker.shard, (job,), "ended by SIGKILL")
        return made(worker, job)

    run = Run(tmp_path, jobs("a1", "a2", "a3"), answer, slots=2)
    assert run.run.errors == []
    assert sorted(run.of(JobFinished)) == ["a1", "a2", "a3"]
    assert len(run.engine.workers) == 2
    assert all(worker.closed for worker in run.engine.workers)
    [failed] = [event for event in run.events if isinstance(event, JobFailed)]
    assert failed.retry
    assert failed.reason == "its worker was lost: ended by SIGKILL"


def test_a_worker_that_is_lost_twice_costs_its_new_one_nothing(tmp_path: Path) -> None:
    """A dead worker may report again, for a job that it was given when it was gone."""

    def answer(worker: FakeWorker, job: Job) -> Report:
        first = worker.engine.workers[0]
        if worker is first:
            return WorkerLost(worker, worker.shard, (job,), "ended by SIGKILL")
        first.reports.put(WorkerLost(first, first.shard, (), "ended by SIGKILL"))
        return made(worker, job)

    run = Run(tmp_path, jobs("a1", "a2"), answer, slots=2)
    assert run.run.errors == []
    assert len(run.engine.workers) == 2, "the second report closed the new worker"


def test_workers_that_always_end_do_not_go_on_for_ever(tmp_path: Path) -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        return WorkerLost(worker, worker.shard, (job,), "exit code 1")

    run = Run(tmp_path, jobs("a1", "a2", "b1"), answer, slots=2)
    assert len(run.run.errors) == 3
    assert all("exit code 1" in str(error) for error in run.run.errors)


def test_an_interrupt_closes_the_workers(tmp_path: Path) -> None:
    workers: list[FakeWorker] = []

    def answer(worker: FakeWorker, job: Job) -> Report:
        workers.append(worker)
        if len(workers) == 2:
            raise KeyboardInterrupt
        return made(worker, job)

    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path, jobs("a1", "b1"), answer)
    assert [worker.closed for worker in workers] == [1, 1]
