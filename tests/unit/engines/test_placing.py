"""Which worker does which job, without any worker."""

from __future__ import annotations

from queue import Queue

from fatwheel.arch import Arch
from fatwheel.engines.base import Limits, Report, WorkerLost
from fatwheel.engines.placing import Member, Placement, left_by, lost
from fatwheel.errors import EngineError
from fatwheel.model import Front, Job, Stage, Unit

REPORTS: Queue[Report] = Queue()


def job(name: str, memory: int, stage: Stage = "whole") -> Job:
    return Job(Unit(name, "cuda", "", (), ()), Front(Arch(80), ("sm_80",)), False, memory, 1, stage)


class Placed:
    """Workers with so many cores and so much memory, and what was given to each."""

    def __init__(self, *limits: tuple[int, int]) -> None:
        self.members = [Member(Limits(*one)) for one in limits]
        self.placement: Placement[Member] = Placement()

    def add(self, *jobs: Job) -> list[tuple[str, int]]:
        """What is given to whom now."""
        for one in jobs:
            self.placement.add(one, "shard", REPORTS)
        return [
            (task.job.unit.name, self.members.index(member))
            for task, member in self.placement.placed(self.members)
        ]

    def end(self, number: int, name: str) -> None:
        tasks = self.members[number].tasks
        del tasks[next(task for task in tasks if task.job.unit.name == name)]

    @property
    def waiting(self) -> list[str]:
        return [task.job.unit.name for task in self.placement.waiting]


def test_the_freest_worker_is_taken_by_its_cores_then_by_its_memory() -> None:
    placed = Placed((2, 10), (4, 10), (4, 12))
    assert placed.add(job("a", 1)) == [("a", 2)]
    assert placed.add(job("b", 1)) == [("b", 0)], "all of its cores, against three of four"
    assert placed.add(job("c", 1)) == [("c", 1)]
    assert placed.add(job("d", 1)) == [("d", 2)], "three of four cores, and more memory"


def test_a_job_waits_for_a_core_and_for_memory() -> None:
    placed = Placed((2, 10), (1, 4))
    assert placed.add(job("a", 8), job("b", 3), job("c", 3)) == [("a", 0), ("b", 1)]
    assert placed.waiting == ["c"]
    placed.end(1, "b")
    assert placed.add() == [("c", 1)]


def test_a_job_that_waits_keeps_the_nearest_worker_from_those_behind_it() -> None:
    placed = Placed((4, 10))
    assert placed.add(job("a", 8), job("large", 5), job("small", 1)) == [("a", 0)]
    assert placed.waiting == ["large", "small"], "small would take what large waits for"
    placed.end(0, "a")
    assert placed.add() == [("large", 0), ("small", 0)]


def test_a_job_that_is_too_large_for_all_gets_the_largest_to_itself() -> None:
    placed = Placed((4, 10), (4, 20))
    assert placed.add(job("a", 99)) == [("a", 1)]
    assert placed.members[1].free_memory == 0


def test_a_stage_goes_where_its_front_was_if_there_is_room() -> None:
    placed = Placed((1, 10), (8, 99))
    front, ptxas = job("a", 1, "front"), job("a", 1, "ptxas")
    placed.members[0].fronts[left_by(front)] = None
    assert placed.add(ptxas) == [("a", 0)]
    assert placed.add(ptxas) == [("a", 1)], "there is no core left"


def test_jobs_of_a_lost_worker_come_first_and_are_suspected_after_the_second() -> None:
    placed = Placed((2, 10))
    placed.add(job("a", 1), job("b", 1), job("c", 1))
    assert placed.waiting == ["c"]
    again, given_up = placed.placement.lost(placed.members[0])
    assert [task.job.unit.name for task in again] == placed.waiting[:2] == ["a", "b"]
    assert not given_up
    placed.add()
    again, given_up = placed.placement.lost(placed.members[0])
    assert not again
    assert [task.job.unit.name for task in given_up] == ["a", "b"]
    placed.placement.drop("shard")
    placed.add(given_up[0].job)
    assert list(placed.members[0].tasks.values()) == [10], "it is suspected: it runs alone"
    assert placed.add(job("d", 1)) == []


def test_what_is_reported_of_a_suspect() -> None:
    placed = Placed((1, 10))
    placed.add(job("a", 1))
    [task] = placed.members[0].tasks
    report = lost(task, "ben: it is gone", 7)
    assert isinstance(report, WorkerLost)
    assert (report.jobs, report.reason, report.limit) == ((task.job,), "ben: it is gone", 7)
    assert report.failure is EngineError
    report.worker.close()
    assert report.worker.memory() == 0
