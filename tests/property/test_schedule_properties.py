"""Properties of the scheduler, in builds whose jobs end, fail and get killed in any order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from fatwheel.arch import Arch
from fatwheel.engines.schedule import Scheduler, simulate
from fatwheel.model import Front, Job, Unit

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


@given(job_lists(), st.integers(1, 5), st.integers(1, 3), st.data())
def test_every_job_runs_within_the_limits_of_workers(
    jobs: list[Job], slots: int, at_once: int, data: st.DataObject
) -> None:
    scheduler = Scheduler(jobs, slots, BUDGET, lend=False)
    each = BUDGET // at_once
    workers = Workers(scheduler, at_once, each)
    runs = workers.start_all()
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
        runs += workers.start_all()
    assert set(runs) == set(jobs), "a job never ran"
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
