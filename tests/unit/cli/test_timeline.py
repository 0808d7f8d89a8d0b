"""What a timeline says of a build's events, worked out by hand; as a page and as a trace."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fatwheel.arch import parse_arch, parse_arch_list
from fatwheel.cli import timelinefiles
from fatwheel.cli.timeline import JobSpan, Recording, Timeline, timeline_of
from fatwheel.cli.timelinefiles import recorded, timeline_page, timeline_trace
from fatwheel.config.recipe import Recipe, SourcePin, Target
from fatwheel.config.toolchain import Toolchain
from fatwheel.errors import CompileError, StoreError, UsageError
from fatwheel.events import (
    CoresIdle,
    Event,
    JobFailed,
    JobFinished,
    JobStarted,
    MemoryUsed,
    Planned,
    StepFinished,
    StepStarted,
    WheelMade,
    silent,
)
from fatwheel.model import Front, Job, Unit

from ...helpers.commandline import exit_code_of, load_tasks
from ...helpers.pages import ReadPage

GIB = 1 << 30
ARCH = parse_arch("80")
HOSTILE = "</script><img src=x onerror=alert(1)><!--"
Run = Callable[..., int]


def job(name: str, *codes: str, host: bool = False) -> Job:
    front = Front(ARCH, codes) if codes else None
    return Job(Unit(name, "cuda", "a.cu", (), ()), front, host or not codes, 3 * GIB, 20.0)


def plan(python: str, hits: int = 2) -> Planned:
    recipe = Recipe(
        name="demo", project="demo", version="1.0", source=SourcePin(folder="src"), archs=("80",),
        environment={}, imports=(), memory=GIB, seconds=10, costs=(), epoch=0, folder=Path("."),
        digest="",
    )  # fmt: skip
    toolchain = Toolchain(
        name="linux", platform="linux_x86_64", cuda="13.0", nvcc="13.0.88", archs=(ARCH,),
        gcc=(6, 15), packages=(), builds=(), digest="", default_torch="2.11.0",
    )  # fmt: skip
    target = Target(recipe, toolchain, python, "2.11.0", parse_arch_list("80", [ARCH]))
    return Planned(
        (target,), "process", "exact", shards=2, jobs=2, memory=4 * GIB, units=3, slices=6,
        hits=hits, work=60.0, pending=3,
    )  # fmt: skip


def wheel(python: str) -> WheelMade:
    path = f"/home/someone/dist/demo-1.0-cp{python.replace('.', '')}.whl"
    return WheelMade(path, 10 << 20, "0" * 64, "80,86", 50.0, hits=2, compiled=4)


def test_stages_are_told_apart() -> None:
    front = Front(ARCH, ())
    stages = [
        replace(HOST, front=front, host=False, stage="front"), replace(LONG, stage="ptxas"),
        replace(HOST, front=front, stage="host"),
    ]  # fmt: skip
    assert [JobSpan(0, 1, 0, one, "w").kind for one in stages] == ["front", "ptxas", "C++"]


LONG, SHARED, HOST = job("csrc/long", "sm_80", host=True), job("csrc/b", "sm_80", "sm_86"), job("c")
# Two cores, two wheels. The second comes from the store.
NOTED: list[tuple[float, Event]] = [
    (1.0, StepStarted("toolchain", "linux, Python 3.11")),
    (3.0, StepFinished("toolchain", 2.0, "linux, Python 3.11")),
    (4.0, StepStarted("capture")),
    (9.0, StepFinished("capture", 5.0)),
    (10.0, plan("3.11")),
    (10.0, StepStarted("compile", "3 jobs")),
    (12.0, JobStarted(LONG, "1:compute_80")),
    (12.0, CoresIdle(1, 2, "memory")),
    (15.0, MemoryUsed(2 * GIB)),
    (20.0, JobFinished(LONG, "1:compute_80", 7.5, 7.0, 3 * GIB)),
    (21.0, JobStarted(SHARED, "1:compute_80")),
    (21.0, JobStarted(HOST, "2:host")),
    (21.0, CoresIdle(0, 2, "")),
    (25.0, JobFinished(HOST, "2:host", 3.5, 3.0, GIB)),
    (25.0, CoresIdle(1, 2, "last")),
    (30.0, JobFinished(SHARED, "1:compute_80", 8.5, 8.0, 2 * GIB)),
    (30.0, StepFinished("compile", 20.0, "3 jobs")),
    (30.0, StepStarted("assemble")),
    (34.0, StepFinished("assemble", 4.0)),
    (35.0, wheel("3.11")),
    (36.0, StepStarted("toolchain", "linux, Python 3.12")),
    (37.0, StepFinished("toolchain", 1.0, "linux, Python 3.12")),
    (37.0, plan("3.12", hits=6)),
    (38.0, wheel("3.12")),
]
BUILT = timeline_of(NOTED, 40.0)


def test_jobs_have_a_lane_each_while_they_run() -> None:
    assert [(one.job.unit.name, one.lane, one.start, one.end, one.kind) for one in BUILT.jobs] == [
        ("csrc/long", 0, 12.0, 20.0, "front"),
        ("csrc/b", 0, 21.0, 30.0, "shared front"),
        ("c", 1, 21.0, 25.0, "C++"),
    ]
    assert [(one.seconds, one.cpu, one.rss) for one in BUILT.jobs] == [
        (7.5, 7.0, 3 * GIB), (8.5, 8.0, 2 * GIB), (3.5, 3.0, GIB),
    ]  # fmt: skip
    assert BUILT.cpu == 18.0


def test_idle_cores_are_told_by_why() -> None:
    """All 80 s of two cores for 40 s are jobs' (21 s) or are told."""
    assert BUILT.cores == 2
    assert [(one.start, one.end, one.cores, one.why) for one in BUILT.idle] == [
        (0.0, 1.0, 2, "between steps"), (1.0, 3.0, 2, "toolchain"), (3.0, 4.0, 2, "between steps"),
        (4.0, 9.0, 2, "capture"), (9.0, 10.0, 2, "between steps"), (10.0, 12.0, 2, "compile"),
        (12.0, 20.0, 1, "memory"), (20.0, 21.0, 2, "memory"), (25.0, 30.0, 1, "last"),
        (30.0, 34.0, 2, "assemble"), (34.0, 36.0, 2, "between steps"),
        (36.0, 37.0, 2, "toolchain"), (37.0, 40.0, 2, "between steps"),
    ]  # fmt: skip
    busy = sum(one.length for one in BUILT.jobs)
    assert busy + sum(BUILT.idle_seconds().values()) == 80.0


def test_wheels_are_made_one_after_the_other() -> None:
    assert [(one.start, one.end, one.title) for one in BUILT.wheels] == [
        (0.0, 35.0, "Python 3.11, torch 2.11.0"),
        (35.0, 38.0, "Python 3.12, torch 2.11.0"),
    ]
    assert BUILT.project == "demo 1.0"
    assert BUILT.budget == 4 * GIB


def test_a_step_within_another_has_a_lane_of_its_own() -> None:
    noted: list[tuple[float, Event]] = [
        (1.0, StepStarted("source")), (2.0, StepStarted("fetch")), (3.0, StepFinished("fetch", 1)),
        (4.0, StepFinished("source", 3)), (5.0, StepStarted("capture")),
    ]  # fmt: skip
    steps = timeline_of(noted, 9.0, "interrupted").steps
    assert [(one.name, one.lane, one.end, one.outcome) for one in steps] == [
        ("source", 0, 4.0, "done"), ("fetch", 1, 3.0, "done"), ("capture", 0, 9.0, "unfinished"),
    ]  # fmt: skip


def test_a_job_that_is_killed_runs_again_and_one_fails() -> None:
    noted: list[tuple[float, Event]] = [
        (1.0, JobStarted(LONG, "1:a")), (1.0, JobStarted(HOST, "1:a")),
        (2.0, JobFailed(LONG, "1:a", "killed for memory at 3.0 GiB", retry=True)),
        (3.0, JobFailed(HOST, "1:a", "c does not compile", retry=False)),
        (4.0, JobStarted(LONG, "1:a")), (4.0, CoresIdle(1, 2, "alone")),
    ]  # fmt: skip
    found = timeline_of(noted, 9.0, "interrupted")
    assert [(one.job.unit.name, one.lane, one.outcome, one.end) for one in found.jobs] == [
        ("csrc/long", 0, "again", 2.0), ("c", 1, "failed", 3.0),
        ("csrc/long", 0, "unfinished", 9.0),
    ]  # fmt: skip
    assert found.jobs[0].reason == "killed for memory at 3.0 GiB"
    assert found.idle_seconds()["alone"] == 5.0
    assert found.wheels[-1].made is None


def test_a_build_without_jobs_has_no_idle_cores() -> None:
    found = timeline_of([(1.0, plan("3.11", 6)), (2.0, wheel("3.11"))], 3.0)
    assert (found.cores, found.idle, found.jobs) == (0, (), ())


def test_a_recording_passes_events_on_and_knows_when_they_came() -> None:
    times = iter([100.0, 101.0, 103.0, 107.0])
    seen: list[Event] = []
    recording = Recording(clock=lambda: next(times))
    emit = recording.beside(seen.append)
    emit(StepStarted("capture"))
    emit(StepFinished("capture", 2.0))
    [step] = recording.timeline().steps
    assert seen == [StepStarted("capture"), StepFinished("capture", 2.0)]
    assert (step.start, step.end) == (1.0, 3.0)


# -- the trace -------------------------------------------------------------------------------------


def trace(timeline: Timeline) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(timeline_trace(timeline, 0.0))
    return found


def test_a_trace_is_in_the_trace_event_format() -> None:
    events = trace(BUILT)["traceEvents"]
    for event in events:
        assert {"name", "ph", "ts", "pid", "tid"} <= event.keys()
        assert event["ph"] in "XCM"
        assert isinstance(event["ts"], int)
        assert event["ph"] != "X" or event["dur"] >= 0
    assert {event["ph"] for event in events} == set("XCM")


def test_times_of_a_trace_are_microseconds_and_sums_are_the_events() -> None:
    events = trace(BUILT)["traceEvents"]
    [long] = [event for event in events if event["name"] == LONG.label]
    assert (long["ts"], long["dur"], long["cat"]) == (12_000_000, 8_000_000, "front")
    finished = [event for _, event in NOTED if isinstance(event, JobFinished)]
    jobs = [event["args"] for event in events if event["ph"] == "X" and "cpu" in event["args"]]
    for name in ("seconds", "cpu", "rss"):
        assert sum(one[name] for one in jobs) == sum(getattr(one, name) for one in finished)
    memory = [event for event in events if event["name"] == "memory"]
    assert [(one["ts"], one["args"]["bytes"]) for one in memory] == [(15_000_000, 2 * GIB)]


def test_jobs_of_a_lane_do_not_overlap() -> None:
    """Also where they follow each other closer than a microsecond."""
    noted: list[tuple[float, Event]] = []
    at = 1.0
    for number in range(300):
        one = job(f"u{number}", "sm_80")
        noted += [
            (at, JobStarted(one, "1:a")),
            (at + 1.1e-6 * number, JobFinished(one, "1:a", 0, 0, 0)),
        ]
        at += 1.1e-6 * number + 1e-8
    lanes = defaultdict(list)
    for event in trace(timeline_of(noted, at))["traceEvents"]:
        if event["ph"] == "X" and event["cat"] == "front":
            lanes[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert sum(map(len, lanes.values())) == 300
    for spans in lanes.values():
        for (_, end), (start, _) in pairwise(spans):
            assert start >= end


# -- the page --------------------------------------------------------------------------------------


def page_of(timeline: Timeline) -> ReadPage:
    page = ReadPage(timeline_page(timeline, 0.0))
    page.check_it_asks_for_nothing()
    return page


def test_a_page_has_the_numbers_of_the_events() -> None:
    page = page_of(BUILT)
    assert page.texts("h1") == ["Build of demo 1.0"]
    facts = page.texts("li")
    assert facts[:5] == [
        "40.0 s from start to end", "18.0 s CPU time of jobs", "59.0 s of cores without a job",
        "8 of 12 slices from the store", "3 of 3 jobs ended well",
    ]  # fmt: skip
    assert facts[5] == "2.0 GiB of 4.0 GiB memory, at most"
    assert page.rows()["memory: the next job needs more than was left"] == ["10.0 s", "12.5 %"]
    assert page.rows()["capture"] == ["", "4.0 s", "5.0 s"]
    finished = [event for _, event in NOTED if isinstance(event, JobFinished)]
    assert sum(one[4]["cpu"] for one in page.data["jobs"]) == sum(one.cpu for one in finished)
    assert [one[2] for one in page.data["wheels"]] == [one.title for one in BUILT.wheels]
    assert page.data["cores"] == 2
    assert "/home/someone" not in str(page.data) + " ".join(page.texts("dd")), "whose folders?"


def test_the_same_events_make_the_same_bytes() -> None:
    assert timeline_page(BUILT, 5.0) == timeline_page(timeline_of(NOTED, 40.0), 5.0)


def test_what_a_project_calls_its_units_is_text() -> None:
    hostile = job(HOSTILE, "sm_80")
    noted: list[tuple[float, Event]] = [
        (1.0, StepStarted(HOSTILE, HOSTILE)), (2.0, JobStarted(hostile, HOSTILE)),
        (3.0, JobFailed(hostile, HOSTILE, HOSTILE, retry=False)), (3.0, CoresIdle(1, 2, "last")),
    ]  # fmt: skip
    timeline = timeline_of(noted, 4.0, HOSTILE)
    page = page_of(timeline)
    assert page.all("img") == []
    assert len(page.all("script")) == 2
    assert page.data["jobs"][0][4]["unit"] == HOSTILE
    assert any(HOSTILE in words for words in page.texts("p"))
    assert trace(timeline)["otherData"]["failure"] == HOSTILE


def test_a_page_of_a_large_build_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelinefiles, "_JOBS", 20)
    noted: list[tuple[float, Event]] = [(0.0, CoresIdle(1, 1, "last"))]
    for number in range(5000):
        one = job(f"u{number}", "sm_80")
        length = 5.0 if number < 20 else 0.5
        noted += [
            (10.0 * number, JobStarted(one, "1:a")), (10.0 * number, MemoryUsed(number)),
            (10.0 * number + length, JobFinished(one, "1:a", length, length, 0)),
        ]  # fmt: skip
    page = page_of(timeline_of(noted, 50_000.0))
    assert [one[4]["unit"] for one in page.data["jobs"]] == [f"u{number}" for number in range(20)]
    assert any("and 4980 shorter jobs" in words for words in page.texts("p"))
    assert len(page.data["memory"]) <= 1000
    assert page.data["memory"][-1][1] == 4999, "the highest of each group is kept"
    assert len(page.data["idle"]) <= 1000


# -- how a build ends ------------------------------------------------------------------------------


def test_a_build_that_ends_well_leaves_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with recorded(tmp_path / "t.html") as beside:
        beside(silent)(StepStarted("capture"))
    page = ReadPage((tmp_path / "t.html").read_bytes())
    assert not any("did not end well" in words for words in page.texts("p"))
    assert capsys.readouterr().err == f"the timeline is {tmp_path / 't.html'}\n"


def build_that_ends_with(error: BaseException, path: Path) -> None:
    with recorded(path) as beside:
        emit = beside(silent)
        emit(StepStarted("compile"))
        emit(JobStarted(LONG, "1:a"))
        raise error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CompileError("csrc/a does not compile"), "csrc/a does not compile"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_a_build_that_fails_leaves_what_happened(
    tmp_path: Path, error: BaseException, words: str
) -> None:
    for name in ("t.html", "t.json"):
        with pytest.raises(type(error)) as caught:
            build_that_ends_with(error, tmp_path / name)
        assert caught.value is error
    page = ReadPage((tmp_path / "t.html").read_bytes())
    assert any(f"did not end well: {words}" in one for one in page.texts("p"))
    assert page.data["jobs"][0][4]["outcome"] == "unfinished"
    found = json.loads((tmp_path / "t.json").read_bytes())
    assert found["otherData"]["failure"] == words


def test_what_ended_a_build_is_raised_even_if_nothing_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "t.html"
    with pytest.raises(CompileError), recorded(place):
        raise CompileError("it does not compile")
    assert "cannot write t.html" in capsys.readouterr().err
    with pytest.raises(StoreError, match=r"cannot write t\.html"), recorded(place):
        pass


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--timeline", "t.txt"], UsageError.exit_code, "does not end with .html or .json"),
        (["--timeline", "mine.json"], UsageError.exit_code, "fatwheel did not write it"),
        (["--timeline", "/proc/self/t.html"], StoreError.exit_code, "cannot write t.html"),
        (["--timeline", "t.html", "--plan"], UsageError.exit_code, "a plan starts nothing"),
    ],
)
def test_a_file_that_will_not_do_is_told_before_anything_is_built(
    options: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def refuse(*_: object) -> None:
        raise AssertionError("a build was planned")

    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text("{}")
    monkeypatch.setattr("fatwheel.pipeline.plan.plan_build", refuse)
    assert exit_code_of(load_tasks().namespace, ("build", *options), monkeypatch) == code
    assert words in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.json"]
