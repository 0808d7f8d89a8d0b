"""What is said to a worker and heard from it, with lines that go to a list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from queue import Queue
from typing import Any

import pytest

from fatwheel.engines import conversation
from fatwheel.engines.base import (
    JobBroken,
    JobKilled,
    JobMade,
    Report,
    Reports,
    Said,
    Worker,
    WorkerLost,
)
from fatwheel.engines.conversation import Conversation
from fatwheel.errors import EngineError, FatwheelError, OutOfMemoryError, StoreError
from fatwheel.model import Job
from fatwheel.storage.store import StoreEntry
from fatwheel.worker.context import job_from_wire

from ...helpers.standins import cuda_unit, front, job

GIB = 1 << 30
MADE = {"outcome": "made", "seconds": 2.5, "cpu": 2.0, "rss": GIB, "taken": False, "entries": []}
FAILED = {
    "outcome": "failed", "class": "CompileError", "what": "nvcc failed", "where": "a [sm_80]",
    "hint": "cd /x", "details": ["line 1", "line 2"],
}  # fmt: skip


class FakeWorker:
    def start(self, job: Job) -> None: ...

    def close(self) -> None: ...

    def memory(self) -> int:
        return 0


class Talk:
    """A conversation, what was sent, and what was reported."""

    def __init__(self, **more: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        self.reports: Reports = Queue()
        self.worker: Worker = FakeWorker()
        self.talk = Conversation(
            self.worker, "1:compute_80", self.reports, self._send, limit=6 * GIB, **more
        )

    def _send(self, line: str) -> None:
        assert line.endswith("\n")
        assert line.count("\n") == 1
        self.sent.append(json.loads(line))

    def start(self, *names: str) -> list[Job]:
        work = [job(cuda_unit(name), front("80")) for name in names]
        for item in work:
            self.talk.start(item)
        return work

    def hear(self, number: int | None, outcome: dict[str, Any]) -> None:
        self.talk.heard(json.dumps({"id": number, **outcome}))

    def reported(self) -> list[Report]:
        return [self.reports.get_nowait() for _ in range(self.reports.qsize())]


def test_jobs_go_out_with_numbers_of_their_own() -> None:
    talk = Talk()
    work = talk.start("a", "b", "a")
    assert [job_from_wire(line["job"]) for line in talk.sent] == work
    assert len({line["id"] for line in talk.sent}) == 3
    assert talk.reported() == []


def test_each_outcome_is_that_of_its_job() -> None:
    talk = Talk()
    first, second = talk.start("a", "b")
    talk.hear(talk.sent[1]["id"], MADE)
    talk.hear(talk.sent[0]["id"], FAILED)
    made, broken = talk.reported()
    assert isinstance(made, JobMade)
    assert made.job is second
    assert (made.made.seconds, made.made.cpu, made.made.rss) == (2.5, 2.0, GIB)
    assert isinstance(broken, JobBroken)
    assert broken.job is first


def test_a_job_killed_for_memory_is_reported_with_its_workers_limit() -> None:
    talk = Talk()
    [work] = talk.start("a")
    talk.hear(1, {"outcome": "killed", "rss": 5 * GIB})
    assert talk.reported() == [JobKilled(work, 5 * GIB, 6 * GIB)]


def test_what_a_worker_says_is_no_outcome() -> None:
    talk = Talk()
    [work] = talk.start("a")
    talk.talk.heard(json.dumps({"said": "a [sm_80]: begun"}))
    assert talk.reported() == [Said("1:compute_80", "a [sm_80]: begun")]
    talk.hear(1, MADE)
    [made] = talk.reported()
    assert isinstance(made, JobMade)
    assert made.job is work


def test_what_was_made_is_collected_before_it_is_reported() -> None:
    order: list[tuple[Job, Sequence[StoreEntry], int]] = []

    def collect(job: Job, entries: Sequence[StoreEntry]) -> None:
        order.append((job, entries, talk.reports.qsize()))

    talk = Talk(collect=collect)
    [work] = talk.start("a")
    talk.hear(1, {**MADE, "entries": [["slice", "ab", "cd"]]})
    assert order == [(work, [("slice", "ab", "cd")], 0)]
    assert len(talk.reported()) == 1


def test_nothing_is_collected_of_a_job_that_failed() -> None:
    def collect(job: Job, entries: Sequence[StoreEntry]) -> None:
        raise AssertionError(entries)

    talk = Talk(collect=collect)
    talk.start("a", "b")
    talk.hear(1, FAILED)
    talk.hear(2, {"outcome": "killed", "rss": 1})
    assert len(talk.reported()) == 2


def test_what_cannot_be_collected_was_not_made() -> None:
    def collect(job: Job, entries: Sequence[StoreEntry]) -> None:
        raise StoreError("the disk is full")

    talk = Talk(collect=collect)
    [work] = talk.start("a")
    talk.hear(1, MADE)
    [broken] = talk.reported()
    assert isinstance(broken, JobBroken)
    assert (broken.job, broken.error.what) == (work, "the disk is full")
    assert broken.error.where == "a [sm_80]", "the job is named"


# -- workers that end ----------------------------------------------------------------------------


def test_a_lost_worker_gives_back_what_it_had() -> None:
    talk = Talk()
    first, second = talk.start("a", "b")
    talk.hear(1, MADE)
    talk.reported()
    talk.talk.lost("ended by SIGKILL")
    assert talk.reported() == [
        WorkerLost(
            talk.worker, "1:compute_80", (second,), "ended by SIGKILL", OutOfMemoryError, 6 * GIB
        )
    ]
    assert first is not second


def test_a_job_for_a_lost_worker_is_given_back_too_and_no_other_again() -> None:
    talk = Talk()
    talk.start("a")
    talk.talk.lost("gone", EngineError)
    talk.reported()
    [late] = talk.start("b")
    [report] = talk.reported()
    assert isinstance(report, WorkerLost)
    assert (report.jobs, report.reason, report.failure) == ((late,), "gone", EngineError)


def test_a_worker_that_cannot_begin_breaks_the_jobs_that_it_has_and_those_to_come() -> None:
    """Nobody would ever answer them."""
    talk = Talk()
    [early] = talk.start("a")
    talk.hear(None, {**FAILED, "class": "StoreError", "what": "no room"})
    [late] = talk.start("b")
    reports = talk.reported()
    assert all(isinstance(report, JobBroken) for report in reports)
    assert [report.job for report in reports if isinstance(report, JobBroken)] == [early, late]
    assert {type(r.error) for r in reports if isinstance(r, JobBroken)} == {StoreError}


def test_a_worker_that_cannot_begin_before_it_has_a_job_breaks_the_first() -> None:
    talk = Talk()
    talk.hear(None, FAILED)
    assert talk.reported() == []
    [work] = talk.start("a")
    [report] = talk.reported()
    assert isinstance(report, JobBroken)
    assert report.job is work


@pytest.mark.parametrize(
    "line",
    [
        "no JSON", "[]", "3", "{}", '{"id": 99, "outcome": "made"}', '{"id": 1}',
        '{"id": 1, "outcome": "made"}', '{"id": null, "outcome": "failed"}',
        json.dumps({"id": 1, **FAILED, "class": "NoSuchError"}),
        json.dumps({"id": 1, **FAILED, "class": "annotations"}),
        json.dumps({"id": 1, **FAILED, "class": 3}),
        json.dumps({"id": {}, **FAILED}),
        json.dumps({"id": 1, **MADE, "seconds": "long"}),
        json.dumps({"id": 1, **MADE, "rss": None}),
        json.dumps({"id": 1, **MADE, "entries": [["slice", "ab"]]}),
        "[" * 100_000, '{"said": ' + "[" * 100_000, '{"id": ' + "1" * 5000,
    ],
)  # fmt: skip
def test_nonsense_from_a_worker_leaves_no_job_without_an_answer(line: str) -> None:
    """Builds of strangers run beside it."""
    talk = Talk()
    work = talk.start("a", "b")
    talk.talk.heard(line)
    reports = talk.reported()
    assert [report.job for report in reports if isinstance(report, JobBroken)] == work
    for report in reports:
        assert isinstance(report, JobBroken)
        assert isinstance(report.error, FatwheelError)
    [late] = talk.start("c")
    [report] = talk.reported()
    assert isinstance(report, JobBroken)
    assert report.job is late


def test_a_worker_that_talks_nonsense_is_not_listened_to_any_more() -> None:
    talk = Talk()
    [work] = talk.start("a")
    talk.talk.heard("nonsense")
    talk.hear(1, MADE)
    talk.talk.heard(json.dumps({"said": "still here"}))
    [report] = talk.reported()
    assert isinstance(report, JobBroken)
    assert report.job is work
    assert report.error.where == "1:compute_80"


def test_a_worker_that_never_stops_talking_fills_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conversation, "_WAITING", 10)
    talk = Talk()
    [work] = talk.start("a")
    for number in range(1000):
        talk.talk.heard(json.dumps({"said": f"line {number}"}))
    talk.hear(1, MADE)
    *said, made = talk.reported()
    assert len(said) == 10
    assert isinstance(made, JobMade)
    assert made.job is work
