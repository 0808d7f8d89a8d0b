"""The scheduler's decisions, against schedules worked out by hand."""

from __future__ import annotations

import pytest

from fatwheel.arch import Arch
from fatwheel.engines.schedule import Scheduler, simulate
from fatwheel.model import Front, Job, Unit

GB = 1 << 30


def job(name: str, seconds: float = 10.0, memory: float = 1.0, unit: str = "") -> Job:
    """A job of so many seconds and GiB, of a unit of its own unless one is named."""
    made = Unit(unit or name, "cuda", "source.cu", (), ())
    return Job(made, Front(Arch(80), (name,)), False, int(memory * GB), seconds)


def name_of(job: Job) -> str:
    assert job.front is not None
    return job.front.codes[0]


def started(scheduler: Scheduler) -> list[str]:
    names = []
    while (job := scheduler.next()) is not None:
        names.append(name_of(job))
    return names


def named(scheduler: Scheduler, name: str) -> Job:
    return next(job for job in scheduler.running if name_of(job) == name)


def test_longest_first() -> None:
    jobs = [job("b", 5), job("a", 9), job("c", 1)]
    scheduler = Scheduler(jobs, slots=2, memory=10 * GB, lend=False)
    assert started(scheduler) == ["a", "b"]
    assert [name_of(job) for job in scheduler.pending] == ["c"]
    scheduler.finished(named(scheduler, "b"))
    assert started(scheduler) == ["c"]
    assert not scheduler.idle()
    scheduler.finished(named(scheduler, "a"))
    scheduler.failed(named(scheduler, "c"))
    assert scheduler.idle()
    assert started(scheduler) == []


def test_memory_is_a_budget() -> None:
    jobs = [job("a", 9, 3), job("b", 8, 3), job("c", 7, 3)]
    scheduler = Scheduler(jobs, slots=3, memory=6 * GB, lend=False)
    assert started(scheduler) == ["a", "b"], "three jobs of 3 GiB do not fit into 6"
    scheduler.finished(named(scheduler, "a"))
    assert started(scheduler) == ["c"]


def test_why_cores_are_idle() -> None:
    jobs = [job("a", 9, 3), job("b", 8, 4), job("c", 7, 2), job("huge", 6, 9)]
    scheduler = Scheduler(jobs, slots=2, memory=6 * GB, lend=False)
    assert started(scheduler) == ["a", "c"]
    assert scheduler.idle_cores() == (0, "")
    scheduler.finished(named(scheduler, "c"))
    assert started(scheduler) == []
    assert scheduler.idle_cores() == (1, "memory"), "b needs 4 GiB beside the 3 of a"
    scheduler.finished(named(scheduler, "a"))
    assert started(scheduler) == ["b"]
    assert scheduler.idle_cores() == (1, "alone"), "huge waits to run alone"
    scheduler.finished(named(scheduler, "b"))
    assert started(scheduler) == ["huge"]
    assert scheduler.idle_cores() == (1, "alone")


def test_cores_are_idle_when_no_job_is_left() -> None:
    scheduler = Scheduler([job("a"), job("b")], slots=3, memory=6 * GB, lend=False)
    assert started(scheduler) == ["a", "b"]
    assert scheduler.idle_cores() == (1, "last")


def stages(name: str, front: float, *images: float) -> list[Job]:
    """The stages of a call, of so many seconds."""
    unit = Unit(name, "cuda", "source.cu", (), ())
    first = Job(unit, Front(Arch(80), ()), False, 0, front, "front")
    return [
        first,
        *(
            Job(unit, Front(Arch(80), (f"{name}{number}",)), False, 0, seconds, "ptxas")
            for number, seconds in enumerate(images)
        ),
    ]


def test_the_longest_path_goes_first() -> None:
    """Not the longest job: what follows a front would end late."""
    first, *later = stages("a", 5, 2, 6)
    scheduler = Scheduler([job("b", 9), *later, first], slots=1, memory=GB, lend=False)
    order = []
    while (one := scheduler.next()) is not None:
        order.append(one.label)
        scheduler.finished(one)
    assert order == ["a [compute_80] front", "b [b]", "a [a1] ptxas", "a [a0] ptxas"]
    assert scheduler.idle()


def test_cores_wait_for_fronts() -> None:
    first, *later = stages("a", 5, 2, 6)
    scheduler = Scheduler([first, *later], slots=2, memory=GB, lend=False)
    assert scheduler.next() == first
    assert scheduler.next() is None
    assert scheduler.idle_cores() == (1, "fronts")
    assert set(scheduler.pending) == set(later)
    assert scheduler.failed(first) == (later[1], later[0])
    assert scheduler.idle()


def test_stages_without_their_front_in_the_list_need_none() -> None:
    """It is in the store."""
    _, *later = stages("a", 5, 2, 6)
    scheduler = Scheduler(later, slots=2, memory=GB, lend=False)
    assert started(scheduler) == ["a1", "a0"]


def test_a_killed_front_teaches_nothing_of_what_follows() -> None:
    first, *later = stages("a", 5, 2)
    scheduler = Scheduler([first, *later, job("b", 9)], slots=2, memory=GB * 2, lend=False)
    assert {scheduler.next(), scheduler.next()} == {first, *scheduler.running}
    assert scheduler.killed_for_memory(first, rss=2 * GB)
    scheduler.finished(named(scheduler, "b"))
    assert scheduler.next() == first
    scheduler.finished(first)
    assert scheduler.next() == later[0]
    assert scheduler.need(later[0]) == 0


def test_a_slot_that_is_lent_is_no_core() -> None:
    jobs = [job(name, 110) for name in "abc"] + [
        job("d", 22),
        *(job(f"s{n}", 11) for n in range(3)),
    ]
    scheduler = Scheduler(jobs, slots=2, memory=60 * GB, lend=True)
    assert len(started(scheduler)) == 3
    assert scheduler.cores == 2
    assert scheduler.idle_cores() == (0, "")


def test_small_jobs_pass_only_in_the_room_that_is_left() -> None:
    """6 GiB: `big` (4) waits for `first` (3). Beside `big` there is room for 2 GiB."""
    jobs = [job("first", 10, 3), job("big", 9, 4), *(job(f"s{n}", 1, 1) for n in range(6))]
    scheduler = Scheduler(jobs, slots=8, memory=6 * GB, lend=False)
    assert started(scheduler) == ["first", "s0", "s1"], "a third small one would keep big waiting"
    scheduler.finished(named(scheduler, "s0"))
    assert started(scheduler) == ["s2"]
    scheduler.finished(named(scheduler, "first"))
    assert started(scheduler) == ["big"]


def test_small_jobs_leave_a_slot_too() -> None:
    jobs = [job("first", 10, 3), job("big", 9, 4), *(job(f"s{n}", 1, 0.1) for n in range(4))]
    scheduler = Scheduler(jobs, slots=3, memory=6 * GB, lend=False)
    assert started(scheduler) == ["first", "s0", "s1"]
    scheduler.finished(named(scheduler, "s0"))
    assert started(scheduler) == ["s2"]
    scheduler.finished(named(scheduler, "first"))
    assert started(scheduler) == ["big"], "the slot that became free belongs to big"


def test_an_oversized_job_runs_alone_and_last() -> None:
    jobs = [job("huge", 99, 7), job("a", 9, 3), job("b", 8, 3)]
    scheduler = Scheduler(jobs, slots=4, memory=6 * GB, lend=False)
    assert [name_of(job) for job in scheduler.oversized] == ["huge"]
    assert started(scheduler) == ["a", "b"]
    scheduler.finished(named(scheduler, "a"))
    assert started(scheduler) == [], "huge must wait until b has ended too"
    scheduler.finished(named(scheduler, "b"))
    assert started(scheduler) == ["huge"]
    assert not scheduler.killed_for_memory(named(scheduler, "huge"), 8 * GB), "it was alone"
    assert scheduler.idle()


def test_a_killed_job_runs_again_alone() -> None:
    jobs = [job("a", 9), job("b", 8), job("c", 7)]
    scheduler = Scheduler(jobs, slots=2, memory=6 * GB, lend=False)
    assert started(scheduler) == ["a", "b"]
    assert scheduler.killed_for_memory(named(scheduler, "a"), 5 * GB)
    assert started(scheduler) == ["c"]
    scheduler.finished(named(scheduler, "b"))
    assert started(scheduler) == []
    scheduler.finished(named(scheduler, "c"))
    assert started(scheduler) == ["a"]
    assert not scheduler.killed_for_memory(named(scheduler, "a"), 6 * GB)
    assert scheduler.idle()


def test_a_kill_teaches_what_the_units_other_jobs_need() -> None:
    """Two slices of unit u, taken to need 1 GiB: one is killed at 4, so the other needs 4."""
    jobs = [job("u", 9, 1), job("v", 8, 2.5), job("u2", 7, 1, unit="u"), job("w", 6, 1)]
    scheduler = Scheduler(jobs, slots=2, memory=6 * GB, lend=False)
    assert started(scheduler) == ["u", "v"]
    scheduler.killed_for_memory(named(scheduler, "u"), 4 * GB)
    assert started(scheduler) == ["w"], "u2 does not fit beside v with 4 GiB"


def test_a_kill_beyond_the_memory_sends_the_units_other_jobs_to_run_alone() -> None:
    jobs = [job("u", 9, 1), job("v", 8, 1), job("u2", 7, 1, unit="u")]
    scheduler = Scheduler(jobs, slots=2, memory=6 * GB, lend=False)
    started(scheduler)
    scheduler.killed_for_memory(named(scheduler, "u"), 7 * GB)
    assert started(scheduler) == []
    scheduler.finished(named(scheduler, "v"))
    assert started(scheduler) == ["u2"]
    scheduler.finished(named(scheduler, "u2"))
    assert started(scheduler) == ["u"]


def test_no_slot_is_a_bug() -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        Scheduler([], 0, GB, lend=False)


# -- workers -----------------------------------------------------------------------------------


def test_a_job_without_room_in_its_worker_lets_others_pass() -> None:
    jobs = [job("a", 9), job("b", 8), job("c", 7)]
    scheduler = Scheduler(jobs, slots=3, memory=10 * GB, lend=False)
    asked: list[tuple[str, int]] = []

    def fits(job: Job, need: int) -> bool:
        asked.append((name_of(job), need))
        return name_of(job) != "a"

    found = [scheduler.next(fits) for _ in range(3)]
    assert [item and name_of(item) for item in found] == ["b", "c", None]
    assert ("a", GB) in asked
    assert [name_of(item) for item in scheduler.pending] == ["a"]
    assert (last := scheduler.next()) is not None
    assert name_of(last) == "a", "it goes on where there is room again"


def test_those_that_pass_a_job_without_room_leave_its_memory_free() -> None:
    """6 GiB: `a` needs 4 and its worker is busy; beside it there is room for 2."""
    jobs = [job("a", 9, 4), job("b", 8, 3), job("c", 7, 2), job("d", 6, 1)]
    scheduler = Scheduler(jobs, slots=4, memory=6 * GB, lend=False)

    def fits(job: Job, need: int) -> bool:
        return name_of(job) != "a"

    assert (first := scheduler.next(fits)) is not None
    assert name_of(first) == "c"
    assert scheduler.next(fits) is None


def test_a_job_that_runs_alone_is_not_asked_about() -> None:
    scheduler = Scheduler([job("large", 9, 7)], slots=1, memory=6 * GB, lend=False)
    found = scheduler.next(lambda job, need: False)
    assert found is not None
    assert scheduler.is_alone(found)
    assert scheduler.need(found) == 6 * GB, "it has everything"


def test_what_a_running_job_needs_is_its_estimate_or_what_was_learned() -> None:
    jobs = [job("u", 9, 1), job("v", 8, 1), job("u2", 7, 1, unit="u")]
    scheduler = Scheduler(jobs, slots=2, memory=6 * GB, lend=False)
    started(scheduler)
    assert scheduler.need(named(scheduler, "v")) == GB
    assert not scheduler.is_alone(named(scheduler, "v"))
    scheduler.killed_for_memory(named(scheduler, "u"), 3 * GB)
    assert started(scheduler) == ["u2"]
    assert scheduler.need(named(scheduler, "u2")) == 3 * GB


@pytest.mark.parametrize(("limit", "again"), [(3, True), (6, False), (0, False)])
def test_a_job_killed_within_a_limit_may_have_more(limit: int, again: bool) -> None:
    """It ran by itself, in a worker that could have so many GiB of 6; 0: all of them."""
    scheduler = Scheduler([job("a", 9, 1)], slots=2, memory=6 * GB, lend=False)
    assert started(scheduler) == ["a"]
    assert scheduler.killed_for_memory(named(scheduler, "a"), 3 * GB, limit * GB) is again
    assert started(scheduler) == (["a"] if again else [])


# -- lending -----------------------------------------------------------------------------------

THREE_LONG = [110, 110, 110, 22, 11, 11, 11, 3, 3, 3]


def jobs_of(seconds: list[float], memory: float = 1.0) -> list[Job]:
    return [job(f"j{place}", length, memory) for place, length in enumerate(seconds)]


def expected_seconds(seconds: list[float], slots: int, lend: bool) -> float:
    return simulate(Scheduler(jobs_of(seconds), slots, 100 * GB, lend), slots)


def test_the_example_of_the_docstring() -> None:
    scheduler = Scheduler(jobs_of(THREE_LONG), 2, 100 * GB, lend=True)
    assert scheduler.slots == 3
    assert started(scheduler) == ["j0", "j1", "j2"]
    assert expected_seconds(THREE_LONG, 2, lend=False) == 220
    # All work is 394 s; the last job, of 3 s, may leave one core idle while it runs.
    assert 197 <= expected_seconds(THREE_LONG, 2, lend=True) <= 200


@pytest.mark.parametrize(
    ("seconds", "cores"),
    [
        ([100, 100], 2),  # both cores are busy to the end
        ([100], 2),  # nothing to share
        ([100, 40, 40], 2),  # the longest job decides, and sharing would slow it down
        ([10] * 100, 4),  # short jobs fill every core
        ([0, 0, 0], 2),  # nothing is known
        ([], 2),
    ],
)
def test_nothing_is_lent_where_nothing_is_won(seconds: list[float], cores: int) -> None:
    assert Scheduler(jobs_of(seconds), cores, 100 * GB, lend=True).slots == cores


def test_nothing_is_lent_that_memory_does_not_allow() -> None:
    assert Scheduler(jobs_of(THREE_LONG, memory=4), 2, 11 * GB, lend=True).slots == 2
    assert Scheduler(jobs_of(THREE_LONG, memory=4), 2, 12 * GB, lend=True).slots == 3


def test_the_users_own_number_of_jobs_is_kept() -> None:
    assert Scheduler(jobs_of(THREE_LONG), 2, 100 * GB, lend=False).slots == 2


def test_an_empty_build_is_done() -> None:
    assert Scheduler([], 2, GB, lend=True).idle()
