"""Properties of the scheduler, in builds whose jobs end, fail and get killed in any order."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fatwheel.arch import Arch
from fatwheel.engines.schedule import Scheduler, fronts_needed, simulate
from fatwheel.model import Front, Job, Stage, Unit
from fatwheel.pipeline.costs import in_stages
from fatwheel.storage.store import Store

BUDGET = 100


def make_job(unit: str, code: str, memory: int, seconds: float) -> Job:
    front = Front(Arch(80), (code,))
    return Job(Unit(unit, "cuda", f"{unit}.cu", (), ()), front, False, memory, seconds)


@st.composite
def job_lists(draw: st.DrawFn, most: int = 14) -> list[Job]:
    sizes = draw(
        st.lists(
            st.tuples(st.integers(0, 130), st.integers(0, 50), st.sampled_from("abc")),
            max_size=most,
        )
    )
    return [
        make_job(unit, str(place), memory, seconds)
        for place, (memory, seconds, unit) in enumerate(sizes)
    ]


@dataclass
class Build:
    """Drives a scheduler as a build does, and checks its promises after every step."""

    scheduler: Scheduler
    jobs: list[Job]
    slots: int
    alone: set[Job] = field(default_factory=set)  # must run alone from now on
    need: dict[Job, int] = field(default_factory=dict)  # at least what it was announced to need
    head: Job | None = None
    older: set[Job] = field(default_factory=set)  # ran when `head` came to the head
    runs: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.need = {job: job.memory for job in self.jobs}

    def start_all(self) -> None:
        while (job := self.scheduler.next()) is not None:
            self.runs.append(job)
            self.check_budget()
        self.check_nobody_starves()

    def check_budget(self) -> None:
        running = self.scheduler.running
        assert len(running) <= self.slots
        if len(running) > 1:
            total = sum(self.need[job] for job in running)
            assert total <= BUDGET, f"{total} of {BUDGET} are in use by {len(running)} jobs"
            assert not self.alone & set(running), "a job that must run alone has company"

    def check_nobody_starves(self) -> None:
        """The job at the head waits at most for those that ran before it came there."""
        pending, running = self.scheduler.pending, set(self.scheduler.running)
        assert running or not pending, "jobs are pending, none is running, none is started"
        head = pending[0] if pending else None
        if head != self.head:
            self.head, self.older = head, running
            return
        self.older &= running
        must_wait = head is None or head in self.alone or self.need[head] > BUDGET
        assert must_wait or self.older, f"{head} was overtaken"

    def end(self, job: Job, how: str, rss: int) -> None:
        if how == "finished":
            self.scheduler.finished(job)
        elif how == "failed":
            self.scheduler.failed(job)
        else:
            self.kill(job, rss)

    def kill(self, job: Job, rss: int) -> None:
        for other in self.scheduler.pending:
            if other.unit == job.unit:
                self.need[other] = max(self.need[other], rss)
        self.head = None  # it may need more than before, so its wait begins anew
        if self.scheduler.killed_for_memory(job, rss):
            assert job not in self.alone, "a job that ran alone must not be retried"
            self.alone.add(job)


@given(job_lists(), st.integers(1, 5), st.booleans(), st.data())
def test_every_job_runs_and_no_promise_is_broken(
    jobs: list[Job], slots: int, lend: bool, data: st.DataObject
) -> None:
    scheduler = Scheduler(jobs, slots, BUDGET, lend)
    assert scheduler.slots in ((slots, slots + 1) if lend else (slots,))
    build = Build(scheduler, jobs, scheduler.slots)
    build.start_all()
    while not scheduler.idle():
        job = data.draw(st.sampled_from(scheduler.running))
        how = data.draw(st.sampled_from(["finished", "finished", "failed", "killed"]))
        build.end(job, how, data.draw(st.integers(0, 150)))
        build.start_all()
    assert set(build.runs) == set(jobs), "a job never ran"
    retried = [job for job in jobs if build.runs.count(job) == 2]
    assert set(retried) == build.alone
    assert len(build.runs) == len(jobs) + len(retried)


@dataclass
class Workers:
    """Jobs run in workers, one for each unit here: so many at a time, each with a limit."""

    scheduler: Scheduler
    at_once: int
    each: int

    def fits(self, job: Job, need: int) -> bool:
        beside = [other for other in self.scheduler.running if other.unit == job.unit]
        if not beside:
            return len({other.unit for other in self.scheduler.running}) < self.at_once
        return sum(map(self.scheduler.need, beside)) + need <= self.each

    def start_all(self) -> list[Job]:
        started = []
        while (job := self.scheduler.next(self.fits)) is not None:
            started.append(job)
            self.check()
        idle = not self.scheduler.running
        assert not (idle and self.scheduler.pending), "jobs are pending and nothing is started"
        return started

    def check(self) -> None:
        running = self.scheduler.running
        needs = {job: self.scheduler.need(job) for job in running}
        assert sum(needs.values()) <= BUDGET
        workers = {job.unit for job in running}
        assert len(workers) <= self.at_once, "more workers than may be open"
        for worker in workers:
            inside = [need for job, need in needs.items() if job.unit == worker]
            assert len(inside) == 1 or sum(inside) <= self.each, "a worker beyond its limit"
        if any(self.scheduler.is_alone(job) for job in running):
            assert len(running) == 1, "a job that must run alone has company"


@given(st.deferred(lambda: job_lists() | staged_jobs()), st.integers(1, 5), st.integers(1, 3),
       st.data())  # fmt: skip
def test_every_job_runs_within_the_limits_of_workers(
    jobs: list[Job], slots: int, at_once: int, data: st.DataObject
) -> None:
    scheduler = Scheduler(jobs, slots, BUDGET, lend=False)
    each = BUDGET // at_once
    workers = Workers(scheduler, at_once, each)
    runs = workers.start_all()
    dropped: set[Job] = set()
    while not scheduler.idle():
        job = data.draw(st.sampled_from(scheduler.running))
        if data.draw(st.sampled_from(["finished", "finished", "killed"])) == "finished":
            scheduler.finished(job)
        else:
            limit = BUDGET if scheduler.is_alone(job) else each
            alone = scheduler.is_alone(job)
            again = scheduler.killed_for_memory(job, data.draw(st.integers(0, 150)), limit)
            assert not (alone and again), "it had everything to itself"
            assert again or limit == BUDGET, "it could have had more"
            dropped.update(() if again else scheduler.without(job))
        runs += workers.start_all()
    assert set(runs) | dropped == set(jobs), "a job never ran"
    assert not set(runs) & dropped
    assert all(runs.count(job) <= 2 for job in jobs)


@given(job_lists(), st.integers(1, 5), st.booleans())
def test_where_everything_fits_nothing_is_asked_for(
    jobs: list[Job], slots: int, lend: bool
) -> None:
    """Without limits of workers the order is what it is without workers."""
    orders = []
    for fits in ((), (lambda job, need: True,)):
        scheduler = Scheduler(jobs, slots, BUDGET, lend)
        order = []
        while not scheduler.idle():
            while (job := scheduler.next(*fits)) is not None:
                order.append(job)
            scheduler.finished(scheduler.running[0])
        orders.append(order)
    assert orders[0] == orders[1]


@given(job_lists(most=30), st.integers(1, 6))
def test_lending_never_makes_the_expected_end_later(jobs: list[Job], slots: int) -> None:
    plain = simulate(Scheduler(jobs, slots, BUDGET, lend=False), slots)
    lent = simulate(Scheduler(jobs, slots, BUDGET, lend=True), slots)
    assert lent <= plain


@given(job_lists(most=30), st.integers(1, 6), st.booleans())
def test_the_expected_end_is_possible(jobs: list[Job], slots: int, lend: bool) -> None:
    """Not before the work and the longest job allow, not after doing one job at a time."""
    total = sum(job.seconds for job in jobs)
    longest = max((job.seconds for job in jobs), default=0)
    expected = simulate(Scheduler(jobs, slots, BUDGET, lend), slots)
    assert max(longest, total / slots) - 1e-6 <= expected <= total + 1e-6


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.integers(1, 3))
def test_longest_first_is_close_to_the_best(seconds: list[int], slots: int) -> None:
    """At most 4/3 - 1/(3 slots) of the best schedule there is (R. L. Graham, 1969), found by
    trying all of them. Memory plays no part here."""
    jobs = [make_job("u", str(place), 0, length) for place, length in enumerate(seconds)]
    best = min(
        max(
            sum(length for length, at in zip(seconds, places, strict=True) if at == slot)
            for slot in range(slots)
        )
        for places in itertools.product(range(slots), repeat=len(seconds))
    )
    expected = simulate(Scheduler(jobs, slots, BUDGET, lend=False), slots)
    assert best - 1e-6 <= expected <= best * (4 / 3 - 1 / (3 * slots)) + 1e-6


# -- stages ----------------------------------------------------------------------------------------


def stage(unit: str, name: str, stage_: Stage, memory: int, seconds: float) -> Job:
    codes = () if stage_ in ("front", "host") else (name,)
    host = stage_ == "host"
    front = Front(Arch(80), codes)
    return Job(Unit(unit, "cuda", f"{unit}.cu", (), ()), front, host, memory, seconds, stage_)


@st.composite
def staged_jobs(draw: st.DrawFn, most: int = 5, memory: int = 130) -> list[Job]:
    """Calls in stages, calls of which only late stages are left, and whole ones."""
    cost = st.tuples(st.integers(0, memory), st.integers(0, 50))
    jobs = [
        make_job(f"whole{place}", "sm_80", *costs)
        for place, costs in enumerate(draw(st.lists(cost, max_size=most)))
    ]
    for place in range(draw(st.integers(0, most))):
        unit = f"unit{place}"
        if draw(st.booleans()):
            jobs.append(stage(unit, "", "front", *draw(cost)))
        for number, costs in enumerate(draw(st.lists(cost, min_size=1, max_size=3))):
            jobs.append(stage(unit, f"sm_{number}", "ptxas", *costs))
        if draw(st.booleans()):
            jobs.append(stage(unit, "", "host", *draw(cost)))
    return draw(st.permutations(jobs))


@given(staged_jobs(), st.integers(1, 5), st.booleans(), st.data())
def test_stages_run_after_their_front_and_never_if_it_failed(
    jobs: list[Job], slots: int, lend: bool, data: st.DataObject
) -> None:
    needs = fronts_needed(jobs)
    scheduler = Scheduler(jobs, slots, BUDGET, lend)
    done: set[Job] = set()
    failed: set[Job] = set()
    dropped: set[Job] = set()
    runs: list[Job] = []
    alone: set[Job] = set()

    def start() -> None:
        while (job := scheduler.next()) is not None:
            assert job not in needs or needs[job] in done, "it started before its front was done"
            runs.append(job)
            running = scheduler.running
            assert len(running) <= scheduler.slots
            used = sum(map(scheduler.need, running))
            assert len(running) == 1 or used <= BUDGET, f"{used} of {BUDGET} are in use"
            assert len(running) == 1 or not alone & set(running), "it must run alone"
        assert scheduler.running or not scheduler.pending, "jobs are left and none is started"

    start()
    while not scheduler.idle():
        job = data.draw(st.sampled_from(scheduler.running))
        how = data.draw(st.sampled_from(["finished", "finished", "failed", "killed"]))
        if how == "finished":
            scheduler.finished(job)
            done.add(job)
        elif how == "failed":
            failed.add(job)
            dropped.update(scheduler.failed(job))
        elif scheduler.killed_for_memory(job, data.draw(st.integers(0, 150))):
            alone.add(job)
        else:
            failed.add(job)
            dropped.update(scheduler.without(job))
        start()
    assert dropped == {job for job, front in needs.items() if front in failed}
    assert not dropped & set(runs), "its front failed"
    assert set(runs) | dropped == set(jobs), "a job was forgotten"
    assert all(runs.count(job) == 1 + (job in alone) for job in set(runs))


@given(staged_jobs(most=8, memory=0), st.integers(1, 6))
def test_stages_end_within_the_bound_of_list_scheduling(jobs: list[Job], slots: int) -> None:
    """At most 2 - 1/slots of what work and the longest path allow (R. L. Graham, 1966), whatever
    the order in which jobs are listed. Memory plays no part here."""
    needs = fronts_needed(jobs)
    longest = max((job.seconds + (needs[job].seconds if job in needs else 0) for job in jobs),
                  default=0)  # fmt: skip
    best = max(longest, sum(job.seconds for job in jobs) / slots)
    expected = simulate(Scheduler(jobs, slots, BUDGET, lend=False), slots)
    assert best - 1e-6 <= expected <= best * (2 - 1 / slots) + 1e-6


@st.composite
def calls(draw: st.DrawFn) -> list[Job]:
    """Whole calls for some images, some with a host object."""
    codes = ("sm_80", "sm_86", "sm_89", "compute_80")
    found = []
    for place in range(draw(st.integers(0, 8))):
        unit = Unit(f"unit{place}", "cuda", "a.cu", (), ())
        front = Front(Arch(80), codes[: draw(st.integers(1, 4))])
        memory, seconds = draw(st.integers(0, 130)), draw(st.integers(0, 500))
        found.append(Job(unit, front, draw(st.booleans()), memory, seconds))
    return found


@given(calls(), st.integers(1, 8), st.booleans())
def test_taking_calls_apart_never_makes_the_expected_end_later(
    jobs: list[Job], cores: int, lend: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), 1 << 20)
        taken = in_stages(jobs, store, cores, BUDGET, lend)
    before, after = (
        simulate(Scheduler(some, cores, BUDGET, lend), cores) for some in (jobs, taken)
    )
    assert after <= before
    assert len(taken) == len(jobs) or after < before * 0.99
    images = [(job.unit, code) for job in taken if job.front for code in job.front.codes]
    assert sorted(map(str, images)) == sorted(
        str((job.unit, code)) for job in jobs if job.front for code in job.front.codes
    )
    assert sum(job.host for job in taken) == sum(job.host for job in jobs)
