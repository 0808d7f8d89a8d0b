"""Computed clusters, against schedules worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fatwheel.arch import Arch
from fatwheel.engines.base import Allotment, Limits
from fatwheel.engines.schedule import Scheduler, critical_path, simulate
from fatwheel.engines.simulation import Cluster, Load, Losses, Network, Outcome, simulated
from fatwheel.errors import EngineError
from fatwheel.model import Front, Job, Shard, Unit

GB = 1 << 30


def job(name: str, seconds: float, memory: int = 1) -> Job:
    """A job of so many seconds and GiB."""
    unit = Unit(name, "cuda", "a.cu", (), ())
    return Job(unit, Front(Arch(80), ("sm_80",)), False, memory * GB, seconds)


def stages(name: str, front: float, *images: float) -> list[Job]:
    unit = Unit(name, "cuda", "a.cu", (), ())
    first = Job(unit, Front(Arch(80), ()), False, GB, front, "front")
    later = [
        Job(unit, Front(Arch(80), (f"sm_{80 + number}",)), False, GB, seconds, "ptxas")
        for number, seconds in enumerate(images)
    ]
    return [first, *later]


def run(jobs: Sequence[Job], cluster: Cluster, load: Load | None = None) -> Outcome:
    """All jobs in one shard, without a slot that is lent."""
    limits = cluster.limits
    scheduler = Scheduler(jobs, limits.cpus, limits.memory, lend=False)
    shards = (Shard("all", tuple(jobs)),)
    return simulated(scheduler, shards, Allotment(1, limits, limits), cluster, load or Load())


def cluster(
    workers: int, cores: int = 1, memory: int = 99, network: Network | None = None,
    losses: Losses | None = None,
) -> Cluster:  # fmt: skip
    each = Limits(cores, memory * GB)
    return Cluster(workers, each, network or Network(), losses or Losses())


def told(outcome: Outcome) -> list[tuple[str, int, float, float]]:
    """What ran where, from when to when."""
    return sorted(
        (one.job.label.replace(" [sm_80]", ""), one.worker, one.start, one.end)
        for one in outcome.runs
    )


def test_longest_first_on_whoever_is_free() -> None:
    outcome = run([job("b", 5), job("a", 9), job("c", 3), job("d", 2)], cluster(2))
    assert told(outcome) == [("a", 1, 0, 9), ("b", 2, 0, 5), ("c", 2, 5, 8), ("d", 2, 8, 10)]
    assert outcome.seconds == 10
    assert (outcome.done, outcome.again, outcome.lost, outcome.errors) == (4, 0, 0, ())


def test_nothing_to_do_takes_no_time() -> None:
    assert run([], cluster(1)).seconds == 0


def test_one_worker_takes_what_the_scheduler_expects() -> None:
    jobs = [job("a", 9, 3), job("b", 8, 4), job("c", 7, 2), job("huge", 6, 9), job("d", 1, 1)]
    expected = simulate(Scheduler(jobs, 2, 6 * GB, lend=False), 2)
    assert run(jobs, cluster(1, cores=2, memory=6)).seconds == expected


def test_memory_of_one_worker_is_not_that_of_all() -> None:
    """Two workers of 4 GiB have 8, in which jobs of 3, 3 and 2 GiB would fit."""
    outcome = run([job("a", 9, 3), job("b", 8, 3), job("c", 7, 2)], cluster(2, cores=2, memory=4))
    assert told(outcome) == [("a", 1, 0, 9), ("b", 2, 0, 8), ("c", 2, 8, 15)]
    assert outcome.memory == 6 * GB


def test_what_follows_a_front_stays_where_that_was_unless_another_core_is_free() -> None:
    """A front of 4 s leaves 30 bytes; a link carries 10 a second, one hop after the other."""
    network = Network(bandwidth=10, of_worker=30)
    outcome = run(stages("a", 4, 8, 7), cluster(2, network=network), Load(left=lambda front: 30))
    # At 4 s, the longer one begins on worker 1. The other is sent: 3 s and 1 s.
    assert told(outcome) == [
        ("a [compute_80] front", 1, 0, 4), ("a [sm_81] ptxas", 2, 8, 15), ("a ptxas", 1, 4, 12),
    ]  # fmt: skip
    assert outcome.sent == 30
    assert outcome.seconds == 15


def test_sources_and_results_pass_one_link_one_after_the_other() -> None:
    """Sources of 20 bytes: 2 s on the first link, 1 s on a worker's, and 1 s on the way.

    Worker 1 is ready at 4 s, and worker 2 at 6 s. Each job keeps the machine that builds busy for
    half a second and is on its way for 1 s. `a` has worker 1 from 5.5 s to 10.5 s, `b`, sent at
    6 s, worker 2 from 7.5 s to 12.5 s. Results of 40 bytes take 2 s on a worker's link, then 4 s
    on the other and 1 s on the way: those of `a` until 17.5 s, and of `b` until 21.5 s, since the
    link is taken from 12.5 s to 16.5 s, and from then to 20.5 s.
    """
    network = Network(bandwidth=10, of_worker=20, latency=1, overhead=0.5)
    load = Load(sources=20, made=lambda job: 40)
    outcome = run([job("a", 5), job("b", 5)], cluster(2, network=network), load)
    assert told(outcome) == [("a", 1, 5.5, 10.5), ("b", 2, 7.5, 12.5)]
    assert outcome.seconds == 21.5
    assert (outcome.sent, outcome.received) == (40, 80)


def test_a_core_is_taken_until_results_are_there() -> None:
    network = Network(of_worker=10)
    outcome = run([job("a", 5), job("b", 4)], cluster(1, network=network),
                  Load(made=lambda job: 20))  # fmt: skip
    assert told(outcome) == [("a", 1, 0, 5), ("b", 1, 7, 11)]
    assert outcome.seconds == 13


# -- losses ----------------------------------------------------------------------------------------


def test_a_lost_workers_job_is_run_again_once_that_is_noticed() -> None:
    """Of two workers one is lost at 5 s, which is noticed at 6 s."""
    for seed in range(4):
        outcome = run([job("a", 9), job("b", 8)], cluster(2, losses=Losses(at=(5,), seed=seed)))
        [lost] = [one for one in outcome.runs if one.lost]
        rest = {"a": 8, "b": 9}[lost.job.unit.name]  # when the other worker is free
        again = {"a": 9, "b": 8}[lost.job.unit.name]
        assert (lost.start, lost.end) == (0, 5)
        assert outcome.seconds == rest + again == 17
        assert (outcome.lost, outcome.again, outcome.done) == (1, 1, 2)
        assert not outcome.errors


def test_the_same_seed_loses_the_same_workers() -> None:
    jobs = [job(str(number), 10 + number) for number in range(20)]

    def lost(seed: int) -> Outcome:
        losses = Losses(rate=0.02, replaced=5, seed=seed)
        return run(jobs, cluster(3, losses=losses))

    assert lost(1) == lost(1)
    assert len({lost(seed).seconds for seed in range(5)}) > 1


def test_another_takes_a_lost_workers_place_and_gets_the_sources() -> None:
    """It is lost at 3 s; another is there at 9 s, and has the sources at 10 s."""
    network = Network(bandwidth=10)
    losses = Losses(at=(3,), replaced=6)
    outcome = run([job("a", 9)], cluster(1, network=network, losses=losses), Load(sources=10))
    assert told(outcome) == [("a", 1, 1, 3), ("a", 2, 10, 19)]
    assert outcome.sent == 20


def test_when_all_are_lost_a_build_waits_half_a_minute_and_fails() -> None:
    outcome = run([job("a", 9), job("b", 9)], cluster(2, losses=Losses(at=(2, 5))))
    [first, second] = outcome.errors
    assert first is second
    assert isinstance(first, EngineError)
    assert first.what == "no worker is left after 6.0 s: all 2 are lost"
    assert "--replaced-after" in (first.hint or "")
    assert outcome.seconds == 36, "lost at 5 s, noticed at 6 s"
    assert (outcome.lost, outcome.done) == (2, 0)


def test_when_all_are_lost_before_the_first_was_ready_a_build_fails_at_once() -> None:
    network = Network(bandwidth=1)
    outcome = run([job("a", 9)], cluster(1, network=network, losses=Losses(at=(2,))),
                  Load(sources=10))  # fmt: skip
    assert [error.what for error in outcome.errors] == [
        "no worker is left after 3.0 s: the one that there was is lost"
    ]
    assert outcome.done == 0


def test_a_job_that_lost_two_workers_runs_alone_after_all_others() -> None:
    """`a` and `b` lose a worker at 10 s and another at 20 s, which is noticed a second later. Both
    run alone then, the one that is reported first before the other, and `c` before both."""
    losses = Losses(at=(10, 20), replaced=0)
    outcome = run([job("a", 50), job("b", 40), job("c", 3)], cluster(1, cores=2, losses=losses))
    assert told(outcome) == [
        ("a", 1, 0, 10), ("a", 2, 11, 20), ("a", 3, 24, 74), ("b", 1, 0, 10), ("b", 2, 11, 20),
        ("b", 3, 74, 114), ("c", 3, 21, 24),
    ]  # fmt: skip
    assert (outcome.again, outcome.done, outcome.errors) == (4, 3, ())


def test_a_job_that_loses_workers_again_when_alone_has_failed() -> None:
    losses = Losses(at=(10, 20, 30, 40), replaced=0)
    outcome = run([job("a", 50), job("b", 50)], cluster(1, cores=2, losses=losses))
    [error] = outcome.errors
    assert error.what == "it failed even when run alone: its worker was lost: worker 4 was lost"
    assert outcome.done == 1, "the other had its turn later"


def test_a_build_whose_workers_are_lost_before_they_are_ready_would_not_end() -> None:
    """Sources take 20 s, and others wait for the link meanwhile; a worker is there for 10 s."""
    network, losses = Network(bandwidth=1), Losses(rate=0.1, replaced=0)
    outcome = run([job("a", 5)], cluster(2, network=network, losses=losses), Load(sources=20))
    [error] = outcome.errors
    assert isinstance(error, EngineError)
    assert error.what.startswith("the build would not end: after ")
    assert outcome.lost == 1201, "a hundred times twelve"
    assert outcome.done == 0


@pytest.mark.parametrize(("images", "path"), [((), 4.0), ((2.0, 6.0, 1.0), 10.0)])
def test_a_path_is_a_front_and_the_longest_of_what_follows(
    images: tuple[float, ...], path: float
) -> None:
    assert critical_path([*stages("a", 4, *images), job("b", 3)]) == path
