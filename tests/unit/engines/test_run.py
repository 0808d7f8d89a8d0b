"""What is done with reports, with an engine that only pretends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fatwheel.engines import run as run_module
from fatwheel.engines.base import (
    Allotment,
    JobBroken,
    JobKilled,
    JobMade,
    Limits,
    Report,
    Reports,
    Said,
    WorkerLost,
)
from fatwheel.engines.run import JobRun, keeping
from fatwheel.engines.schedule import Scheduler
from fatwheel.errors import CompileError, EngineError, OutOfMemoryError
from fatwheel.events import (
    CoresIdle,
    Event,
    JobFailed,
    JobFinished,
    JobsDropped,
    JobStarted,
    MemoryUsed,
    ShardSaid,
)
from fatwheel.model import Job, Shard
from fatwheel.pipeline.costs import apart
from fatwheel.storage.store import Store
from fatwheel.worker.slices import Made, cost_key

from ...helpers.standins import cuda_unit, front, job

GIB = 1 << 30
Answer = Callable[["FakeWorker", Job], Report]


class FakeWorker:
    """Answers each job at once, or when it is told to."""

    def __init__(self, engine: FakeEngine, shard: str, limits: Limits, reports: Reports) -> None:
        self.engine = engine
        self.shard = shard
        self.limits = limits
        self.reports = reports
        self.closed = 0

    def start(self, job: Job) -> None:
        self.engine.started.append(job.unit.name)
        self.reports.put(self.engine.answer(self, job))

    def close(self) -> None:
        self.closed += 1

    def memory(self) -> int:
        return GIB


class Costs(Store):
    """A store that only remembers what is put."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"), 0)
        self.put_: dict[tuple[str, str], Any] = {}

    def put_json(self, kind: str, key: str, value: Any) -> str:
        self.put_[kind, key] = value
        return ""


class FakeEngine:
    name = "fake"

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.workers: list[FakeWorker] = []
        self.started: list[str] = []

    def open(self, shard: str, limits: Limits, reports: Reports) -> FakeWorker:
        self.workers.append(FakeWorker(self, shard, limits, reports))
        return self.workers[-1]

    def of(self, shard: str) -> list[FakeWorker]:
        return [worker for worker in self.workers if worker.shard == shard]


class Run:
    """A run of these jobs: one shard for each first letter of a unit's name."""

    def __init__(
        self,
        jobs: list[Job],
        answer: Answer,
        slots: int = 2,
        at_once: int = 9,
        each: int = 100,
        whole: int = 100,
        until: float | None = None,
    ) -> None:
        """each, whole: GiB that one worker may have."""
        self.events: list[Event] = []
        self.engine = FakeEngine(answer)
        self.store = Costs()
        names = sorted({job.unit.name[0] for job in jobs})
        shards = tuple(
            Shard(name, tuple(job for job in jobs if job.unit.name[0] == name)) for name in names
        )
        scheduler = Scheduler(jobs, slots, whole * GIB, lend=False)
        allotment = Allotment(at_once, Limits(slots, each * GIB), Limits(slots, whole * GIB))
        self.run = JobRun(
            self.engine,
            shards,
            allotment,
            scheduler,
            keeping(self.store),
            self.events.append,
            until,
        )
        self.run.run()

    def of(self, kind: type[Event]) -> list[str]:
        return [event.job.unit.name for event in self.events if isinstance(event, kind)]  # type: ignore[union-attr]


def jobs(*names: str, need: int = 0) -> list[Job]:
    """A job for each unit; need in GiB."""
    return [replace(job(cuda_unit(name), front("80")), memory=need * GIB) for name in names]


def made(worker: FakeWorker, job: Job) -> Report:
    return JobMade(job, Made(seconds=2, cpu=1.5, rss=GIB))


def test_every_job_is_started_once_on_its_shards_worker() -> None:
    run = Run(jobs("a1", "a2", "b1"), made)
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


def test_what_a_job_cost_is_kept() -> None:
    work = jobs("a1", "b1")

    def answer(worker: FakeWorker, job: Job) -> Report:
        return made(worker, job) if job is work[0] else JobBroken(job, CompileError("no"))

    run = Run(work, answer)
    cost = {"seconds": 2, "cpu": 1.5, "rss": GIB}
    assert run.store.put_ == {("cost", cost_key(work[0])): cost}
    assert run.run.taken == 0


def test_what_taking_over_cost_is_not() -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        return JobMade(job, Made(seconds=2, cpu=1.5, rss=GIB, taken=True))

    run = Run(jobs("a1", "b1"), answer)
    assert run.store.put_ == {}
    assert run.run.taken == 2


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time.monotonic() says to the run; tests move it."""
    now = [0.0]
    monkeypatch.setattr(run_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_when_the_time_is_up_running_jobs_are_finished_and_no_more_started(
    clock: list[float],
) -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        clock[0] += 10
        return made(worker, job)

    run = Run(jobs("a1", "a2", "a3", "b1", "b2"), answer, until=15)
    assert run.engine.started == run.of(JobFinished) == ["a1", "a2"]
    assert [job.unit.name for job in run.run.left] == ["a3", "b1", "b2"]
    assert run.run.errors == []
    assert all(worker.closed for worker in run.engine.workers)


def test_what_is_killed_when_the_time_is_up_is_left_and_has_not_failed(clock: list[float]) -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        clock[0] += 10
        return JobKilled(job, rss=GIB) if job.unit.name == "a1" else made(worker, job)

    run = Run(jobs("a1", "a2", "a3"), answer, until=15)
    assert run.engine.started == ["a1", "a2"]
    assert sorted(job.unit.name for job in run.run.left) == ["a1", "a3"]
    assert run.run.errors == []


def test_nothing_is_started_after_the_time(clock: list[float]) -> None:
    clock[0] = 20
    run = Run(jobs("a1", "a2"), made, until=15)
    assert run.engine.workers == []
    assert len(run.run.left) == 2


def test_workers_are_closed_at_the_end() -> None:
    run = Run(jobs("a1", "b1"), made)
    assert [worker.closed for worker in run.engine.workers] == [1, 1]


def test_memory_in_use_is_the_sum_over_workers() -> None:
    run = Run(jobs("a1", "b1", "c1"), made, slots=3)
    assert max(event.rss for event in run.events if isinstance(event, MemoryUsed)) == 3 * GIB


def test_memory_is_sampled_while_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
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
        FakeEngine,
        "open",
        lambda self, shard, limits, reports: Patient(self, shard, limits, reports),
    )
    run = Run(jobs("a1"), made)
    assert len(samples) >= 5
    assert run.of(JobFinished) == ["a1"]


def test_idle_cores_are_told_when_they_change() -> None:
    run = Run(jobs("a1", "a2", "a3"), made, slots=2)
    told = [event for event in run.events if isinstance(event, CoresIdle)]
    assert told == [CoresIdle(0, 2, ""), CoresIdle(1, 2, "last")]
    started = [event for event in run.events if isinstance(event, (JobStarted, CoresIdle))]
    assert started.index(told[0]) == 2, "after what could be started"


def test_one_failure_stops_no_other_job() -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        if job.unit.name == "a1":
            return JobBroken(job, CompileError("no", where="a1"))
        return made(worker, job)

    run = Run(jobs("a1", "a2", "a3", "b1"), answer, slots=1)
    assert [str(error) for error in run.run.errors] == ["a1: no"]
    assert sorted(run.of(JobFinished)) == ["a2", "a3", "b1"]
    assert run.of(JobFailed) == ["a1"]


def in_stages(name: str) -> list[Job]:
    """A front, two images and a host object of one unit."""
    return list(apart(job(cuda_unit(name), front("80", "sm_80", "sm_86"), host=True)))


def test_stages_start_when_their_front_is_done() -> None:
    run = Run(in_stages("a"), made)
    started = [event.job.label for event in run.events if isinstance(event, JobStarted)]
    assert started[0] == "a [compute_80] front"
    assert sorted(started[1:]) == ["a [compute_80] host", "a [sm_80] ptxas", "a [sm_86] ptxas"]
    assert CoresIdle(1, 2, "fronts") in run.events


@pytest.mark.parametrize("killed", [False, True])
def test_what_needs_a_failed_front_is_dropped_and_no_failure_of_its_own(killed: bool) -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        if job.stage == "front" and job.unit.name == "a1":
            failure = JobBroken(job, CompileError("no", where="a1"))
            return JobKilled(job, GIB) if killed else failure
        return made(worker, job)

    jobs = [*in_stages("a1"), *in_stages("b1")]
    run = Run(jobs, answer)
    assert len(run.run.errors) == 1
    [dropped] = [event for event in run.events if isinstance(event, JobsDropped)]
    assert {one.label for one in dropped.jobs} == {one.label for one in jobs[1:4]}
    assert run.of(JobFinished) == ["b1"] * 4


def test_a_worker_whose_jobs_were_dropped_ends() -> None:
    waiting = []

    def answer(worker: FakeWorker, job: Job) -> Report:
        if job.unit.name == "a1":
            return JobBroken(job, CompileError("no", where="a1"))
        if job.stage != "front":
            waiting.extend(one.shard for one in worker.engine.of("a") if not one.closed)
        return made(worker, job)

    Run([*in_stages("a1"), *in_stages("b1")], answer)
    assert not waiting, "it has nothing to do any more"


def test_all_failures_are_collected() -> None:
    run = Run(
        jobs("a1", "a2", "b1"),
        lambda worker, job: JobBroken(job, CompileError("no", where=job.unit.name)),
    )  # fmt: skip
    assert sorted(str(error) for error in run.run.errors) == ["a1: no", "a2: no", "b1: no"]


def test_a_job_killed_for_memory_runs_again_alone() -> None:
    killed: list[str] = []

    def answer(worker: FakeWorker, job: Job) -> Report:
        if job.unit.name == "a1" and not killed:
            killed.append(job.unit.name)
            return JobKilled(job, 5 * GIB)
        return made(worker, job)

    run = Run(jobs("a1", "a2", "a3"), answer, slots=2)
    assert run.run.errors == []
    assert run.engine.started[-1] == "a1", "it runs after all others"
    assert run.engine.started.count("a1") == 2
    [failed] = [event for event in run.events if isinstance(event, JobFailed)]
    assert failed.retry
    assert "5.0 GiB" in failed.reason
    assert sorted(run.of(JobFinished)) == ["a1", "a2", "a3"]


def test_a_job_killed_when_it_runs_alone_has_failed_with_the_figure() -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        return JobKilled(job, 6 * GIB) if job.unit.name == "a1" else made(worker, job)

    run = Run(jobs("a1", "a2"), answer, slots=2)
    assert run.engine.started.count("a1") == 2
    [error] = run.run.errors
    assert type(error) is OutOfMemoryError
    assert "6.0 GiB" in str(error)
    assert "a1 [sm_80]" in str(error)
    assert run.of(JobFinished) == ["a2"]
    last = [event for event in run.events if isinstance(event, JobFailed)][-1]
    assert not last.retry


def test_the_jobs_of_a_lost_worker_run_again_on_a_new_one() -> None:
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

    run = Run(jobs("a1", "a2", "a3"), answer, slots=2)
    assert run.run.errors == []
    assert sorted(run.of(JobFinished)) == ["a1", "a2", "a3"]
    assert len(run.engine.workers) == 2
    assert all(worker.closed for worker in run.engine.workers)
    [failed] = [event for event in run.events if isinstance(event, JobFailed)]
    assert failed.retry
    assert failed.reason == "its worker was lost: ended by SIGKILL"


def test_a_worker_that_is_lost_twice_costs_its_new_one_nothing() -> None:
    """A dead worker may report again, for a job that it was given when it was gone."""
    given: list[tuple[int, str]] = []

    def answer(worker: FakeWorker, job: Job) -> Report:
        number = worker.engine.workers.index(worker)
        given.append((number, job.unit.name))
        first = worker.engine.workers[0]
        if worker is first:
            return WorkerLost(worker, worker.shard, (job,), "ended by SIGKILL")
        first.reports.put(WorkerLost(first, first.shard, (), "ended by SIGKILL"))
        return made(worker, job)

    run = Run(jobs("a1", "a2", "a3", "a4"), answer, slots=2)
    assert run.run.errors == []
    assert given[:4] == [(0, "a1"), (0, "a2"), (1, "a3"), (1, "a4")], (
        "the second report closed the new worker"
    )
    assert given[4:] == [(2, "a1"), (3, "a2")], "each alone, in a worker of its own"


def test_workers_that_always_end_do_not_go_on_for_ever() -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        return WorkerLost(worker, worker.shard, (job,), "exit code 1")

    run = Run(jobs("a1", "a2", "b1"), answer, slots=2)
    assert len(run.run.errors) == 3
    assert all("exit code 1" in str(error) for error in run.run.errors)


def test_an_interrupt_closes_the_workers() -> None:
    workers: list[FakeWorker] = []

    def answer(worker: FakeWorker, job: Job) -> Report:
        workers.append(worker)
        if len(workers) == 2:
            raise KeyboardInterrupt
        return made(worker, job)

    with pytest.raises(KeyboardInterrupt):
        Run(jobs("a1", "b1"), answer)
    assert [worker.closed for worker in workers] == [1, 1]


def test_what_a_worker_says_is_passed_on() -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        worker.reports.put(Said(worker.shard, "a1: begun"))
        return made(worker, job)

    run = Run(jobs("a1"), answer)
    said = [event for event in run.events if isinstance(event, ShardSaid)]
    assert [(event.shard, event.line) for event in said] == [("a", "a1: begun")]
    assert run.of(JobFinished) == ["a1"]


# -- limits ------------------------------------------------------------------------------------


def test_a_worker_gets_its_share() -> None:
    run = Run(jobs("a1", "b1"), made, at_once=2, each=50)
    assert [worker.limits for worker in run.engine.workers] == [Limits(2, 50 * GIB)] * 2


def test_a_worker_ends_after_its_last_job() -> None:
    """So that its memory is free for others: b's worker is not there yet when a's has ended."""
    closed: list[int] = []

    def answer(worker: FakeWorker, job: Job) -> Report:
        closed.append(sum(other.closed for other in worker.engine.workers))
        return made(worker, job)

    run = Run(jobs("a1", "a2", "b1"), answer, slots=1)
    assert run.engine.started == ["a1", "a2", "b1"]
    assert closed == [0, 0, 1]


def test_a_worker_ends_after_its_last_job_even_if_that_failed() -> None:
    closed: list[int] = []

    def answer(worker: FakeWorker, job: Job) -> Report:
        closed.append(sum(other.closed for other in worker.engine.workers))
        if job.unit.name == "a1":
            return JobBroken(job, CompileError("no"))
        return made(worker, job)

    Run(jobs("a1", "b1"), answer, slots=1)
    assert closed == [0, 1]


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_no_more_workers_are_open_than_may_be(at_once: int) -> None:
    """Shards take turns: longest first mixes their jobs."""
    names = [f"{shard}{number}" for number in range(4) for shard in "abcd"]
    work = [replace(item, seconds=100 - place) for place, item in enumerate(jobs(*names, need=1))]
    open_: list[int] = []

    def answer(worker: FakeWorker, job: Job) -> Report:
        open_.append(sum(not other.closed for other in worker.engine.workers))
        return made(worker, job)

    run = Run(work, answer, slots=4, at_once=at_once, each=100 // at_once)
    assert run.run.errors == []
    assert sorted(run.of(JobFinished)) == sorted(names)
    assert max(open_) <= at_once
    assert all(worker.closed for worker in run.engine.workers)


def test_an_idle_worker_makes_room_for_another_shard() -> None:
    """One at a time, one slot: a1, b1, a2 by their seconds, so a's worker is opened twice."""
    work = [
        replace(item, seconds=seconds)
        for item, seconds in zip(jobs("a1", "b1", "a2"), (9, 8, 7), strict=True)
    ]
    run = Run(work, made, slots=1, at_once=1)
    assert run.engine.started == ["a1", "b1", "a2"]
    assert [worker.shard for worker in run.engine.workers] == ["a", "b", "a"]
    assert all(worker.closed == 1 for worker in run.engine.workers)


def test_a_shards_jobs_share_its_workers_limit() -> None:
    """4 slots, jobs of 4 GiB, workers of 10: two of a shard beside each other, no third."""
    beside: list[int] = []
    waiting: list[tuple[FakeWorker, Job]] = []

    def answer(worker: FakeWorker, job: Job) -> Report:
        """Nothing is made before the run has nothing more to start."""
        waiting.append((worker, job))
        return Said(worker.shard, "begun")

    class Later(FakeWorker):
        def memory(self) -> int:
            if waiting:
                beside.append(len(waiting))
                for worker, job in waiting:
                    self.reports.put(made(worker, job))
                waiting.clear()
            return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            FakeEngine, "open",
            lambda self, shard, limits, reports: Later(self, shard, limits, reports),
        )  # fmt: skip
        run = Run(jobs("a1", "a2", "a3", "a4", need=4), answer, slots=4, at_once=2, each=10)
    assert sorted(run.of(JobFinished)) == ["a1", "a2", "a3", "a4"]
    assert max(beside) == 2


def test_a_job_that_runs_alone_has_a_worker_with_everything() -> None:
    """a2 needs more than available: every other worker is closed first."""
    large = jobs("a2", need=101)
    others: list[bool] = []

    def answer(worker: FakeWorker, job: Job) -> Report:
        if job.unit.name == "a2":
            others.extend(not other.closed for other in worker.engine.workers[:-1])
        return made(worker, job)

    run = Run([*jobs("a1", "b1", need=1), *large], answer, at_once=2, each=50)
    assert run.run.errors == []
    assert run.engine.started[-1] == "a2"
    assert run.engine.workers[-1].limits == Limits(2, 100 * GIB)
    assert others
    assert not any(others), "a worker was left beside the one that has all memory"


def test_one_at_a_time_with_only_jobs_left_that_run_alone() -> None:
    """The open worker's shard has jobs left, which is no reason to wait for it."""
    run = Run(
        [*jobs("a1", "b1", need=1), *jobs("a2", "b2", "a3", need=101)],
        made, slots=2, at_once=1, each=100,
    )  # fmt: skip
    assert run.run.errors == []
    assert sorted(run.of(JobFinished)) == ["a1", "a2", "a3", "b1", "b2"]
    assert sum(not worker.closed for worker in run.engine.workers) == 0


def test_a_job_killed_at_its_workers_limit_is_tried_with_everything() -> None:
    """Nothing ran beside it, but it had 50 GiB of 100."""

    def answer(worker: FakeWorker, job: Job) -> Report:
        if worker.limits.memory < 60 * GIB:
            return JobKilled(job, 50 * GIB, worker.limits.memory)
        return made(worker, job)

    run = Run(jobs("a1"), answer, at_once=2, each=50)
    assert run.run.errors == []
    assert [worker.limits.memory // GIB for worker in run.engine.workers] == [50, 100]
    [failed] = [event for event in run.events if isinstance(event, JobFailed)]
    assert failed.retry
    assert "50.0 GiB" in failed.reason


def test_a_job_lost_with_its_limited_worker_is_tried_with_everything() -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        limit = worker.limits.memory
        if limit < 60 * GIB:
            return WorkerLost(worker, worker.shard, (job,), "out of memory", limit=limit)
        return made(worker, job)

    run = Run(jobs("a1"), answer, at_once=2, each=50)
    assert run.run.errors == []
    assert run.of(JobFinished) == ["a1"]


def test_a_job_killed_with_everything_has_failed_with_the_limit() -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        return JobKilled(job, worker.limits.memory - GIB, worker.limits.memory)

    run = Run(jobs("a1"), answer, at_once=2, each=50)
    assert run.engine.started == ["a1", "a1"]
    [error] = run.run.errors
    assert type(error) is OutOfMemoryError
    assert "99.0 GiB" in str(error)
    assert "100.0 GiB" in str(error)


def test_a_worker_lost_for_another_reason_is_called_by_its_name() -> None:
    def answer(worker: FakeWorker, job: Job) -> Report:
        return WorkerLost(worker, worker.shard, (job,), "the engine is gone", EngineError)

    run = Run(jobs("a1"), answer)
    [error] = run.run.errors
    assert type(error) is EngineError
    assert "the engine is gone" in str(error)
    assert "memory" not in str(error)


def test_a_worker_that_cannot_be_opened_ends_the_run_and_the_others() -> None:
    def refuse(self: FakeEngine, shard: str, limits: Limits, reports: Reports) -> FakeWorker:
        if shard == "b":
            raise EngineError("no more containers")
        self.workers.append(FakeWorker(self, shard, limits, reports))
        opened.append(self.workers[-1])
        return self.workers[-1]

    opened: list[FakeWorker] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeEngine, "open", refuse)
        with pytest.raises(EngineError, match="no more containers"):
            Run(jobs("a1", "b1"), made)
    assert [worker.closed for worker in opened] == [1]
