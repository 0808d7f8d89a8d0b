"""What the board knows after a series of events, and how it draws that. Times are made up."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from fatwheel.arch import parse_arch, parse_arch_list
from fatwheel.cli.progress import Standing, picture
from fatwheel.config.recipe import Recipe, SourcePin, Target
from fatwheel.config.toolchain import Toolchain
from fatwheel.events import (
    JobFailed,
    JobFinished,
    JobsDropped,
    JobStarted,
    MemoryUsed,
    Planned,
    Progress,
    StepFinished,
    StepStarted,
)
from fatwheel.model import Front, Job, Unit

GIB = 2**30
ARCH = parse_arch("80")


def make_job(name: str, seconds: float = 10.0) -> Job:
    unit = Unit(name, "cuda", f"{name}.cu", (), ())
    return Job(unit, Front(ARCH, ("sm_80",)), False, GIB, seconds)


def make_plan(*, pending: int, work: float, jobs: int = 2) -> Planned:
    recipe = Recipe(
        name="selftest",
        project="selftest",
        version="1.0",
        source=SourcePin(folder="src"),
        archs=("80",),
        environment={},
        imports=(),
        memory=GIB,
        seconds=10,
        costs=(),
        epoch=0,
        folder=Path("."),
        digest="",
    )
    toolchain = Toolchain(
        name="linux",
        platform="linux_x86_64",
        cuda="13.0",
        nvcc="13.0.88",
        archs=(ARCH,),
        gcc=(6, 15),
        packages=(),
        builds=(),
        digest="",
        default_torch="2.11.0",
    )
    target = Target(recipe, toolchain, "3.11", "2.11.0", parse_arch_list("80", [ARCH]))
    return Planned(
        targets=(target,),
        engine="process",
        front="exact",
        shards=1,
        jobs=jobs,
        memory=4 * GIB,
        units=pending,
        slices=pending,
        hits=0,
        work=work,
        pending=pending,
    )


def draw(standing: Standing, now: float, width: int = 80, height: int = 24) -> list[str]:
    """The picture's lines on a terminal without colours."""
    console = Console(width=width, height=height, color_system=None, force_terminal=True)
    with console.capture() as capture:
        console.print(picture(standing, now, width, height))
    return capture.get().splitlines()


def test_nothing_is_known_of_the_time_left_before_there_is_a_plan() -> None:
    assert Standing().remaining(0.0) is None


def test_work_is_shared_by_the_slots() -> None:
    standing = Standing()
    standing.note(make_plan(pending=6, work=60.0, jobs=2), 0.0)
    assert standing.remaining(0.0) == pytest.approx(30.0)


def test_slots_that_have_no_job_left_do_not_count() -> None:
    standing = Standing()
    standing.note(make_plan(pending=1, work=60.0, jobs=16), 0.0)
    assert standing.remaining(0.0) == pytest.approx(60.0)


def test_a_machine_that_is_half_as_fast_as_expected_takes_twice_as_long() -> None:
    standing = Standing()
    standing.note(make_plan(pending=6, work=60.0, jobs=1), 0.0)
    standing.note(JobStarted(make_job("a"), "s"), 0.0)
    standing.note(JobFinished(make_job("a"), "s", 20.0, 20.0, GIB), 20.0)
    assert standing.remaining(20.0) == pytest.approx(100.0), "five jobs of 20 seconds are left"


def test_jobs_that_will_not_run_are_not_waited_for() -> None:
    standing = Standing()
    standing.note(make_plan(pending=4, work=40.0, jobs=1), 0.0)
    standing.note(JobStarted(make_job("a"), "s"), 0.0)
    standing.note(JobFailed(make_job("a"), "s", "no", retry=False), 1.0)
    standing.note(JobsDropped((make_job("b"), make_job("c"))), 1.0)
    assert (standing.total, standing.failed) == (2, 1)
    assert standing.remaining(1.0) == pytest.approx(20.0)


def test_the_longest_running_job_is_the_least_that_is_left() -> None:
    standing = Standing()
    standing.note(make_plan(pending=2, work=110.0, jobs=2), 0.0)
    standing.note(JobStarted(make_job("long", 100.0), "s"), 0.0)
    standing.note(JobStarted(make_job("short", 10.0), "s"), 0.0)
    assert standing.remaining(5.0) == pytest.approx(95.0)


def test_a_job_that_takes_too_long_does_not_make_the_time_left_negative() -> None:
    standing = Standing()
    standing.note(make_plan(pending=1, work=10.0), 0.0)
    standing.note(JobStarted(make_job("a"), "s"), 0.0)
    assert standing.remaining(1000.0) == 0.0


def test_a_retried_job_counts_once() -> None:
    standing = Standing()
    standing.note(make_plan(pending=1, work=10.0), 0.0)
    standing.note(JobStarted(make_job("a"), "s"), 0.0)
    standing.note(JobFailed(make_job("a"), "s", "killed", retry=True), 5.0)
    assert (standing.finished, standing.failed, len(standing.running)) == (0, 0, 0)
    standing.note(JobStarted(make_job("a"), "s"), 6.0)
    standing.note(JobFinished(make_job("a"), "s", 10.0, 10.0, GIB), 16.0)
    assert (standing.finished, standing.failed, standing.total) == (1, 0, 1)


def test_the_same_unit_may_run_in_two_shards() -> None:
    standing = Standing()
    for shard in ("one", "two"):
        standing.note(JobStarted(make_job("a"), shard), 0.0)
    standing.note(JobFinished(make_job("a"), "one", 1.0, 1.0, GIB), 1.0)
    assert list(standing.running) == [("two", "a [sm_80]")]


def test_more_jobs_than_planned_are_counted_as_they_come() -> None:
    standing = Standing()
    standing.note(make_plan(pending=0, work=0.0), 0.0)
    standing.note(JobStarted(make_job("a"), "s"), 0.0)
    assert standing.total == 1


def test_a_second_plan_starts_the_counts_again() -> None:
    standing = Standing()
    standing.note(make_plan(pending=1, work=10.0), 0.0)
    standing.note(JobFinished(make_job("a"), "s", 20.0, 20.0, GIB), 20.0)
    standing.note(make_plan(pending=4, work=40.0, jobs=4), 20.0)
    assert (standing.finished, standing.total) == (0, 4)
    assert standing.remaining(20.0) == pytest.approx(10.0)


def test_a_finished_step_and_its_downloads_leave_the_picture() -> None:
    standing = Standing()
    standing.note(StepStarted("toolchain", "linux-cuda13.0"), 0.0)
    standing.note(Progress("download", 100, 0), 1.0)
    assert len(draw(standing, 2.0)) == 3, "the step, the download's name, its bar"
    standing.note(StepFinished("toolchain", 2.0), 2.0)
    assert draw(standing, 2.0) == []


def test_a_complete_download_leaves_the_picture() -> None:
    standing = Standing()
    standing.note(Progress("download", 50, 100), 1.0)
    standing.note(Progress("download", 100, 100), 2.0)
    assert standing.downloads == {}


def test_the_picture_shows_counts_memory_and_running_jobs() -> None:
    standing = Standing()
    standing.note(StepStarted("compile"), 0.0)
    standing.note(make_plan(pending=6, work=600.0), 0.0)
    standing.note(JobStarted(make_job("csrc/fwd", 100.0), "s"), 0.0)
    standing.note(MemoryUsed(3 * GIB), 0.0)
    lines = draw(standing, 83.0)
    assert lines[0].split() == ["compile", "1", "min", "23", "s"]
    assert lines[1].startswith("  jobs ")
    assert "0 of 6, about 4 min left" in lines[1]  # (600 - 83) / 2 slots = 258 s
    assert "3.0 GiB of 4.0 GiB" in lines[2]
    assert lines[3] == "  csrc/fwd [sm_80]".ljust(70) + "1 min 23 s"


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    standing = Standing()
    standing.note(make_plan(pending=6, work=600.0), 0.0)
    standing.note(StepStarted("compile", "a" * 300), 0.0)
    standing.note(JobStarted(make_job("b" * 300), "s"), 0.0)
    standing.note(Progress("c" * 300, 1, 3), 0.0)
    lines = draw(standing, 1.0, width)
    assert max(map(len, lines)) <= width
    assert "".join(line.strip() for line in lines).count("c") >= 300, "a file's name was cut off"


def test_a_long_job_keeps_its_architecture() -> None:
    standing = Standing()
    standing.note(JobStarted(make_job("b" * 300), "s"), 0.0)
    assert any(line.rstrip().endswith("bbb [sm_80]  1.0 s") for line in draw(standing, 1.0))


def test_jobs_that_do_not_fit_are_counted() -> None:
    standing = Standing()
    standing.note(make_plan(pending=40, work=600.0), 0.0)
    for number in range(40):
        standing.note(JobStarted(make_job(f"unit{number}"), "s"), float(number))
    lines = draw(standing, 100.0, height=12)
    assert len(lines) <= 12
    shown = [line for line in lines if "unit" in line]
    assert lines[-1] == f"  and {40 - len(shown)} more jobs"
    assert "unit0 " in shown[0], "the job that runs longest comes first"
