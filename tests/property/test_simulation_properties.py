"""Properties of computed clusters: what no build can do better, and what none does."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatwheel.arch import Arch
from fatwheel.engines.base import Allotment, Limits
from fatwheel.engines.schedule import Scheduler, critical_path, fronts_needed
from fatwheel.engines.simulation import Cluster, Load, Losses, Network, Outcome, simulated
from fatwheel.errors import EngineError
from fatwheel.model import Front, Job, Shard, Unit


@st.composite
def job_lists(draw: st.DrawFn, most: int = 10, memory: int = 12) -> list[Job]:
    """Whole calls, and fronts with what follows them."""
    found: list[Job] = []
    for number in range(draw(st.integers(1, most))):
        unit = Unit(f"unit{number}", "cuda", "", (), ())
        later = draw(st.integers(0, 2)) if len(found) < most - 2 else 0
        seconds = draw(st.integers(1, 9))
        need = draw(st.integers(0, memory))
        front = Front(Arch(80), () if later else ("sm_80",))
        found.append(Job(unit, front, False, need, seconds, "front" if later else "whole"))
        found += [
            Job(unit, Front(Arch(80), (f"sm_{80 + image}",)), False, draw(st.integers(0, memory)),
                draw(st.integers(1, 9)), "ptxas")
            for image in range(later)
        ]  # fmt: skip
    return found


def run(jobs: Sequence[Job], cluster: Cluster, load: Load, *, lend: bool) -> Outcome:
    limits = cluster.limits
    scheduler = Scheduler(jobs, limits.cpus, limits.memory, lend)
    within = Limits(scheduler.slots, limits.memory)
    shards = (Shard("even", tuple(jobs[::2])), Shard("odd", tuple(jobs[1::2])))
    return simulated(scheduler, shards, Allotment(2, within, within), cluster, load)


NETWORKS = st.one_of(
    st.just(Network()),
    st.builds(Network, st.integers(1, 50), st.integers(1, 50), st.integers(0, 2), st.floats(0, 1)),
)
LOADS = st.builds(
    lambda sources, left, made: Load(sources, lambda front: left, lambda job: made),
    st.integers(0, 20), st.integers(0, 20), st.integers(0, 20),
)  # fmt: skip
LOSSES = st.one_of(
    st.just(Losses()),
    st.builds(
        Losses, st.lists(st.floats(0, 60), max_size=5).map(tuple), st.sampled_from([0, 0.01, 0.1]),
        st.one_of(st.none(), st.floats(0, 50)), st.integers(0, 9),
    ),
)  # fmt: skip
CORES = st.integers(1, 3)


@given(
    job_lists(), st.integers(1, 4), CORES, NETWORKS, LOADS, LOSSES, st.booleans()
)  # fmt: skip
def test_what_always_holds(
    jobs: list[Job], workers: int, cores: int, network: Network, load: Load, losses: Losses,
    lend: bool,
) -> None:  # fmt: skip
    cluster = Cluster(workers, Limits(cores, 10), network, losses)
    outcome = run(jobs, cluster, load, lend=lend)
    no_room_for_more(outcome, cluster)
    fronts_come_first(jobs, outcome)
    assert outcome.again == sum(one.lost for one in outcome.runs)
    if outcome.errors:
        assert all(isinstance(error, EngineError) for error in outcome.errors)
        assert outcome.lost, "nothing else can go wrong"
        return
    assert outcome.done == len(jobs)
    assert outcome.seconds >= critical_path(jobs)
    if losses.replaced is None:  # else there may be more of them for a while
        work = sum(one.end - one.start for one in outcome.runs)
        assert outcome.seconds >= work / (workers * cores) - 1e-6
    assert outcome.seconds >= outcome.received / network.bandwidth - 1e-6
    assert outcome.seconds >= len(outcome.runs) * network.overhead - 1e-6
    if not outcome.lost:
        assert len(outcome.runs) == len(jobs)


def no_room_for_more(outcome: Outcome, cluster: Cluster) -> None:
    """No worker ever runs more jobs than it has cores, or such as need more than it has."""
    for worker in {one.worker for one in outcome.runs}:
        own = [one for one in outcome.runs if one.worker == worker]
        for start in {one.start for one in own}:
            at_once = [one for one in own if one.start <= start < one.end]
            assert len(at_once) <= cluster.each.cpus
            assert sum(one.need for one in at_once) <= cluster.each.memory


def fronts_come_first(jobs: Sequence[Job], outcome: Outcome) -> None:
    """Nothing that follows a front begins before that ended well."""
    ends = {one.job: one.end for one in reversed(outcome.runs) if not one.lost}
    needs = fronts_needed(jobs)
    for one in outcome.runs:
        if one.job in needs:
            assert one.start >= ends[needs[one.job]]


@given(job_lists(), st.integers(1, 4), CORES, NETWORKS, LOADS, LOSSES)
def test_the_same_comes_of_the_same(
    jobs: list[Job], workers: int, cores: int, network: Network, load: Load, losses: Losses
) -> None:
    cluster = Cluster(workers, Limits(cores, 10), network, losses)

    def told() -> tuple[object, ...]:
        found = run(jobs, cluster, load, lend=True)
        return found.seconds, found.runs, found.sent, found.received, list(map(str, found.errors))

    assert told() == told()


@given(job_lists(most=14, memory=0), st.integers(1, 8), CORES)
def test_where_only_cores_limit_no_build_takes_longer_than_grahams_bound(
    jobs: list[Job], workers: int, cores: int
) -> None:
    """R. L. Graham, Bounds on multiprocessing timing anomalies (1969): a core is never idle while a
    job could run, so that beside the work on all cores there is at most the critical path."""
    outcome = run(jobs, Cluster(workers, Limits(cores, 10)), Load(), lend=False)
    number = workers * cores
    work, path = sum(job.seconds for job in jobs), critical_path(jobs)
    assert max(path, work / number) <= outcome.seconds + 1e-9
    assert outcome.seconds <= work / number + path * (1 - 1 / number) + 1e-9


@given(job_lists(most=5, memory=0).filter(lambda jobs: len(jobs) <= 6), st.integers(1, 3))
def test_tiny_builds_against_the_best_of_all_schedules(jobs: list[Job], workers: int) -> None:
    best = min(serial(order, workers) for order in itertools.permutations(jobs))
    outcome = run(jobs, Cluster(workers, Limits(1, 10)), Load(), lend=False)
    assert best <= outcome.seconds <= best * (2 - 1 / workers) + 1e-9
    if workers == 1:
        assert outcome.seconds == best


def serial(order: Sequence[Job], cores: int) -> float:
    """The end of all jobs where each, in this order, starts as early as it can. The best of all
    orders is the best of all schedules."""
    needs, ends, free = fronts_needed(order), dict[Job, float](), [0.0] * cores
    left = list(order)
    while left:
        job = next(one for one in left if needs.get(one) not in left)
        left.remove(job)
        core = min(range(cores), key=lambda number: free[number])
        start = max(free[core], ends.get(needs[job], 0.0) if job in needs else 0.0)
        ends[job] = free[core] = start + job.seconds
    return max(ends.values())


@pytest.mark.parametrize("workers", [1, 7, 1000])
def test_all_workers_of_a_cluster_can_be_lost(workers: int) -> None:
    jobs = [Job(Unit(str(n), "cuda", "", (), ()), Front(Arch(80), ("sm_80",)), False, 1, 99)
            for n in range(20)]  # fmt: skip
    losses = Losses(at=tuple(range(1, workers + 1)))
    cluster = Cluster(workers, Limits(1, 10), Network(), losses)
    outcome = run(jobs, cluster, Load(), lend=False)
    if workers < 1000:
        assert outcome.errors[0].what.startswith("no worker is left after")
        assert outcome.lost == workers
    else:
        assert outcome.done == 20, "more than it takes"
