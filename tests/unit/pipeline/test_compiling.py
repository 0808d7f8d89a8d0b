"""What is said of a plan, and what becomes of failures, with an engine that only pretends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fatwheel.config.recipe import Target
from fatwheel.engines.base import Build, JobBroken, JobMade, Limits, Report, Reports
from fatwheel.engines.simulation import Cluster, Load, simulated
from fatwheel.errors import CompileError, FatwheelError, StoppedError, StoreError
from fatwheel.events import Event, JobFinished, Note, Planned, StepStarted
from fatwheel.model import Job
from fatwheel.pipeline.compile import Effort, compile_work, prepared
from fatwheel.storage.cache import Stores
from fatwheel.worker.assemble import Lookup
from fatwheel.worker.slices import Made

from ...helpers.plaintargets import plain_recipe, plain_toolchain
from ...helpers.standins import cuda_unit, front, job

GIB = 1 << 30


class FakeCapture:
    """Answers every job at once: broken, if there is an error for its unit."""

    bounded = True

    def __init__(self, errors: dict[str, FatwheelError]) -> None:
        self.errors = errors
        self.limits: list[Limits] = []

    def open(self, shard: str, limits: Limits, reports: Reports) -> FakeWorker:
        self.limits.append(limits)
        return FakeWorker(self.errors, reports)


class FakeWorker:
    def __init__(self, errors: dict[str, FatwheelError], reports: Reports) -> None:
        self.errors = errors
        self.reports = reports

    def start(self, job: Job) -> None:
        error = self.errors.get(job.unit.name)
        report: Report = JobBroken(job, error) if error else JobMade(job, Made(1.0, 1.0, GIB))
        self.reports.put(report)

    def close(self) -> None:
        pass

    def memory(self) -> int:
        return GIB


Compile = Callable[..., list[Event]]


@pytest.fixture
def compile_(tmp_path: Path) -> Compile:
    """Compile a unit for each name, each taken to need no memory unless it is told."""
    recipe = plain_recipe(tmp_path)
    tools = plain_toolchain(default_torch="")
    target = Target(recipe, tools, "3.11", "2.11.0", ())

    def run(
        *names: str,
        lend: bool = False,
        need: int = 0,
        opened: list[Limits] | None = None,
        until: float | None = None,
        **errors: FatwheelError,
    ) -> list[Event]:
        pending = tuple(
            Job(made.unit, made.front, made.host, need, 1.0)
            for made in (job(cuda_unit(name), front("80")) for name in names)
        )
        events: list[Event] = []
        work = Lookup(pending, units=9, slices=12, hits=12 - len(names), archlist_units=("z",))
        capture: Any = FakeCapture(errors)
        build = Build(
            target, (), unpack=lambda folder: None,  # type: ignore[arg-type, return-value]
            stores=Stores(tmp_path / "store"), scope="", limits=Limits(2, 8 * GIB),
            work=tmp_path, logs=tmp_path,
        )  # fmt: skip
        effort = Effort(shards=2, jobs=None if lend else 2, until=until)
        compile_work(work, build, capture, effort, "fake", "exact", events.append)
        if opened is not None:
            opened += capture.limits
        return events

    return run


def of(events: list[Event], kind: type[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


def test_the_plan_is_said_before_anything_starts(compile_: Compile) -> None:
    events = compile_("a", "b", "c")
    plan = events[0]
    assert isinstance(plan, Planned)
    assert (plan.engine, plan.front, plan.shards, plan.jobs) == ("fake", "exact", 2, 2)
    assert (plan.units, plan.slices, plan.hits, plan.pending) == (9, 12, 9, 3)
    assert (plan.memory, plan.work, plan.archlist_units) == (8 * GIB, 3.0, ("z",))
    assert events[1] == StepStarted("compile", "3 jobs")
    assert len(of(events, JobFinished)) == 3


def test_nothing_starts_where_nothing_is_missing(compile_: Compile) -> None:
    [plan] = compile_()
    assert isinstance(plan, Planned)
    assert (plan.pending, plan.shards) == (0, 0)


def test_jobs_that_must_run_alone_are_named(compile_: Compile) -> None:
    events = compile_("a", need=9 * GIB)
    assert of(events, Note) == [
        Note("a [sm_80] may need 9.0 GiB, more than the build's limit: it runs alone")
    ]
    assert len(of(events, JobFinished)) == 1


def test_a_slot_is_lent_only_where_it_may_be(compile_: Compile) -> None:
    """Three jobs of a second on 2 cores take 2 s; sharing both cores, 1.5 s."""
    for lend, slots in ((False, 2), (True, 3)):
        plan = compile_("a", "b", "c", lend=lend)[0]
        assert isinstance(plan, Planned)
        assert plan.jobs == slots


def test_what_the_time_does_not_allow_is_told(compile_: Compile) -> None:
    with pytest.raises(StoppedError) as caught:
        compile_("a", "b", "c", until=0)
    assert caught.value.what == "the time is up: 3 of 3 jobs left, about 3.0 s of work for one core"
    assert caught.value.exit_code == 17


def test_workers_share_the_memory_that_all_may_use(compile_: Compile) -> None:
    opened: list[Limits] = []
    compile_("a", "b", need=GIB, opened=opened)
    assert opened == [Limits(cpus=2, memory=4 * GIB)] * 2


def test_a_job_larger_than_all_memory_gets_all_of_it(compile_: Compile) -> None:
    opened: list[Limits] = []
    compile_("a", need=9 * GIB, opened=opened)
    assert opened == [Limits(cpus=2, memory=8 * GIB)]


def test_one_failure_is_raised_as_it_is(compile_: Compile) -> None:
    error = CompileError("no", where="a")
    with pytest.raises(CompileError) as caught:
        compile_("a", "b", a=error)
    assert caught.value is error


def test_several_failures_are_one_error(compile_: Compile) -> None:
    with pytest.raises(CompileError) as caught:
        compile_("a", "b", "c", a=CompileError("not this"), b=StoreError("disk is full"))
    assert caught.value.what == "2 of 3 jobs failed"
    assert {"not this", "disk is full"} <= set(caught.value.details)


def test_failures_of_one_kind_stay_of_that_kind(compile_: Compile) -> None:
    with pytest.raises(StoreError, match="2 of 2 jobs failed"):
        compile_("a", "b", a=StoreError("full"), b=StoreError("full"))


@pytest.mark.parametrize(("bounded", "at_a_time"), [(True, 2), (False, 3)])
def test_memory_is_divided_only_among_workers_that_have_limits_of_their_own(
    bounded: bool, at_a_time: int
) -> None:
    """Three jobs of 5 GiB fit into 16; three containers, with room for what else they need, do
    not, and each of two has 8."""
    jobs = [Job(cuda_unit(name), front("80"), False, 5 * GIB, 10.0) for name in "abcdef"]
    within = Limits(4, 16 * GIB)
    ready = prepared(jobs, None, within, 3, lend=False, bounded=bounded)
    assert len(ready.shards) == 3
    cluster = Cluster(1, within)
    outcome = simulated(ready.scheduler, ready.shards, ready.allotment, cluster, Load())
    assert outcome.memory == at_a_time * 5 * GIB
    assert outcome.seconds == 60 / at_a_time
