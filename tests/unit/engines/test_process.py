from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Queue

import psutil
import pytest

from fatwheel.engines.base import (
    JobBroken,
    JobKilled,
    JobMade,
    Report,
    Reports,
    Said,
    Worker,
    WorkerLost,
    log_name,
    shard_purpose,
)
from fatwheel.engines.process import ProcessWorker
from fatwheel.errors import CompileError
from fatwheel.worker.context import Context

from ...helpers.standins import alive, cuda_unit, descendants, front, job, make_context

FRONT = front("80")


@pytest.fixture
def context(tmp_path: Path, tool: Callable[[str], str]) -> Context:
    tool("g++")
    return make_context(tmp_path)


def opened(context: Context, shard: str, reports: Reports) -> Worker:
    """A worker whose log is beside the context's scratch folder."""
    log = Path(context.scratch).with_name("logs") / log_name(shard_purpose(shard))
    log.parent.mkdir()
    return ProcessWorker(shard, context, log, reports)


@pytest.fixture
def reports() -> Reports:
    return Queue()


@pytest.fixture
def worker(context: Context, reports: Reports) -> Iterator[Worker]:
    worker = opened(context, "1:compute_80", reports)
    yield worker
    worker.close()


def write(context: Context, name: str, text: str) -> None:
    (Path(context.places.source) / f"{name}.cu").write_text(text)


def worker_process() -> int:
    """The one worker among this process's children."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        # A process that was just started has no command line for a moment, and one that has ended
        # (what another test left may) has none any more.
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):
                if "fatwheel.worker.shard" in " ".join(child.cmdline()):
                    return child.pid
        time.sleep(0.001)
    raise AssertionError("there is no worker")


def none_left(pids: list[int]) -> bool:
    deadline = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def get(reports: Reports) -> Report:
    """The next report; what is only said on the way is left out."""
    while isinstance(report := reports.get(timeout=120), Said):
        pass
    return report


def test_a_job_that_is_made_is_reported(context: Context, reports: Reports, worker: Worker) -> None:
    write(context, "a", "int a;\n")
    work = job(cuda_unit(), FRONT, host=True)
    worker.start(work)
    report = get(reports)
    assert isinstance(report, JobMade)
    assert report.job is work
    assert report.made.rss > 1 << 20


def test_an_error_arrives_as_the_same_kind_of_error(
    context: Context, reports: Reports, worker: Worker
) -> None:
    write(context, "a", "#error no\n")
    work = job(cuda_unit(), FRONT)
    worker.start(work)
    report = get(reports)
    assert isinstance(report, JobBroken)
    assert report.job is work
    error = report.error
    assert type(error) is CompileError
    assert (error.what, error.where) == ("nvcc failed with exit code 1", "a [sm_80]")
    assert any("#error no" in line for line in error.details)
    assert (error.hint or "").startswith("cd ")


def test_a_job_killed_for_memory_is_reported(
    context: Context, reports: Reports, worker: Worker
) -> None:
    write(context, "a", "// stand-in: killed\n")
    work = job(cuda_unit(), FRONT)
    worker.start(work)
    report = get(reports)
    assert isinstance(report, JobKilled)
    assert (report.job, report.rss > 1 << 20) == (work, True)


def test_several_jobs_run_at_a_time(context: Context, reports: Reports, worker: Worker) -> None:
    write(context, "slow", "// stand-in: waits\n")
    write(context, "quick", "int quick;\n")
    worker.start(job(cuda_unit("slow"), FRONT))
    quick = job(cuda_unit("quick"), FRONT)
    worker.start(quick)
    assert get(reports).job is quick  # type: ignore[union-attr]


def test_memory_is_that_of_the_compilers(context: Context, worker: Worker) -> None:
    write(context, "a", "// stand-in: waits\n")
    assert worker.memory() == 0
    worker.start(job(cuda_unit(), FRONT))
    descendants(worker_process(), until="sleep")
    # The stand-in is a Python without its site, and it runs sleep.
    assert 4 << 20 < worker.memory() < 100 << 20


def test_closing_ends_what_runs_and_reports_nothing(
    context: Context, reports: Reports, worker: Worker
) -> None:
    write(context, "a", "// stand-in: waits\n")
    worker.start(job(cuda_unit(), FRONT))
    pid = worker_process()
    pids = [pid, *descendants(pid, until="sleep")]
    worker.close()
    assert none_left(pids), "something outlived the worker"
    time.sleep(0.2)
    left = [reports.get() for _ in range(reports.qsize())]
    assert all(isinstance(report, Said) for report in left)
    assert worker.memory() == 0
    worker.close()  # again, as after a loss


def test_a_killed_worker_is_reported_with_its_jobs(
    context: Context, reports: Reports, worker: Worker
) -> None:
    write(context, "a", "// stand-in: waits\n")
    work = [job(cuda_unit(), FRONT), job(cuda_unit(), front("90a"))]
    for item in work:
        worker.start(item)
    pid = worker_process()
    pids = descendants(pid, until="sleep")
    os.kill(pid, signal.SIGKILL)
    report = get(reports)
    assert isinstance(report, WorkerLost)
    assert (report.worker, report.shard) == (worker, "1:compute_80")
    assert set(report.jobs) == set(work)
    assert report.reason == "ended by SIGKILL"
    assert none_left(pids), "compilers went on without their worker"


def test_a_job_given_to_a_worker_that_is_gone_is_given_back(
    context: Context, reports: Reports, worker: Worker
) -> None:
    os.kill(worker_process(), signal.SIGKILL)
    first = get(reports)
    assert isinstance(first, WorkerLost)
    assert first.jobs == ()
    work = job(cuda_unit(), FRONT)
    worker.start(work)
    second = get(reports)
    assert isinstance(second, WorkerLost)
    assert (second.worker, second.jobs) == (worker, (work,))


@pytest.mark.parametrize("pause", [0, 0.005, 0.02, 0.05])
def test_no_job_is_forgotten_when_a_worker_dies(
    context: Context, reports: Reports, worker: Worker, pause: float
) -> None:
    """However the kill and the start of a job fall together, each job is reported once."""
    write(context, "a", "// stand-in: waits\n")
    os.kill(worker_process(), signal.SIGKILL)
    time.sleep(pause)
    given = [job(cuda_unit(), front(arch)) for arch in ("80", "86", "90a")]
    for item in given:
        worker.start(item)
    back: list[object] = []
    while len(back) < len(given):
        report = get(reports)
        assert isinstance(report, WorkerLost)
        back += report.jobs
    assert sorted(map(str, back)) == sorted(map(str, given))


def test_a_worker_that_ends_by_itself_is_reported(
    context: Context, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fatwheel.engines.process._START", "raise SystemExit(3)")
    worker = opened(context, "1:x", reports)
    report = get(reports)
    assert isinstance(report, WorkerLost)
    assert (report.worker, report.reason) == (worker, "exit code 3")


def test_a_worker_keeps_a_log_of_its_own(
    context: Context, reports: Reports, worker: Worker
) -> None:
    write(context, "a", "int a;\n")
    write(context, "b", "// stand-in: says no\n")
    for name in "ab":
        worker.start(job(cuda_unit(name), FRONT))
        get(reports)
    log = Path(context.scratch).with_name("logs") / "shard-1-compute_80.log"
    said = log.read_text()
    assert "a [sm_80]: begun\n" in said
    assert "a [sm_80]: made in" in said
    assert "b [sm_80]: failed: nvcc failed with exit code 2\nno\n" in said


BUILD = """
    import sys, time
    from pathlib import Path
    from queue import Queue
    sys.path.insert(0, sys.argv[1])
    from fatwheel.engines.process import ProcessWorker
    from tests.helpers.standins import cuda_unit, front, job, make_context
    folder = Path(sys.argv[2])
    worker = ProcessWorker("1:compute_80", make_context(folder), folder / "log", Queue())
    worker.start(job(cuda_unit(), front("80")))
    time.sleep(600)
"""


def test_nothing_outlives_a_build_that_was_killed(context: Context, tmp_path: Path) -> None:
    write(context, "a", "// stand-in: waits\n")
    root = Path(__file__).parents[3]
    build = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(BUILD), str(root), str(tmp_path)]
    )
    pids = descendants(build.pid, until="sleep")
    assert len(pids) >= 3, "the worker, the stand-in and sleep"
    build.kill()
    build.wait()
    assert none_left(pids), "something outlived the build"
