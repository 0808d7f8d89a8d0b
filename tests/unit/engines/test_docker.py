"""The docker engine with containers that are processes (see processcontainers.py)."""

from __future__ import annotations

import dataclasses
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from fatwheel.config.recipe import Target
from fatwheel.containers.layouts import LINUX, EngineFacts
from fatwheel.containers.roster import Roster
from fatwheel.engines import contained, docker
from fatwheel.engines.base import (
    Build,
    JobBroken,
    JobMade,
    Limits,
    Report,
    Reports,
    Said,
    WorkerLost,
)
from fatwheel.engines.contained import ImageCapture
from fatwheel.engines.docker import DockerSite
from fatwheel.engines.dockerplan import Station
from fatwheel.errors import CompileError, EngineError, OutOfMemoryError, StoreError, UpstreamError
from fatwheel.events import silent
from fatwheel.fatbin.stitch import image_name, slices_of
from fatwheel.model import Job
from fatwheel.pipeline.capture import unpacked
from fatwheel.pipeline.plan import PlannedWheel
from fatwheel.shipped import PACKAGE
from fatwheel.storage.cache import Stores
from fatwheel.storage.store import Store
from fatwheel.worker.inside import CAPTURE, CAPTURED, LEARNED, PROJECT, Message

from ...helpers.demoproject import Demo
from ...helpers.processcontainers import Containers
from ...helpers.standins import calls, front

LIMITS = Limits(cpus=2, memory=4 << 30)
FRONTS = (front("80"), front("86"))
SCOPE = "5c" * 32


class Bench:
    """The demo project and everything around its containers."""

    def __init__(self, demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
        self.demo = demo
        self.containers = Containers(demo, monkeypatch)
        self.folder = demo.folder / "build"
        for name in ("sources", "logs", "store"):
            (self.folder / name).mkdir(parents=True)
        self.store = Store(self.folder / "store", 1 << 30, SCOPE)
        station = Station(
            "image",
            "linux",
            0,
            "3.11",
            PACKAGE,
            self.folder / "sources",
            self.store.root,
        )
        engine: Any = EngineFacts(os="linux")
        target = Target(demo.recipe, demo.toolchain, "3.11", "2.11.0", ())
        wheel = PlannedWheel(target, FRONTS)
        roster = Roster(self.folder / "roster", {"fatwheel": "build"})
        build = Build(
            target, FRONTS, lambda folder: unpacked(wheel, folder, silent),
            Stores(self.store.root), SCOPE, LIMITS, self.folder, self.folder / "logs",
        )  # fmt: skip
        self.site = DockerSite(engine, station, build, roster)
        self.reports: Reports = Queue()

    def message(self) -> Message:
        sources = self.folder / "sources" / PROJECT
        project = self.site.build.unpack(sources)
        return Message(
            task=CAPTURE, name="demo-1.0", project=project.at(project.root.relative_to(sources)),
            fronts=FRONTS, units=(), compiler_id="compilers", scope=SCOPE, seeded=True, threads=2,
            description=LINUX.description, sources=LINUX.sources, store=LINUX.store,
            incoming=LINUX.incoming, work=LINUX.work,
        )  # fmt: skip

    def capture(self) -> ImageCapture:
        return contained.capture(self.site, self.message(), LIMITS, silent)

    def report(self) -> Report:
        """The next report; what is only said on the way is left out."""
        while isinstance(report := self.reports.get(timeout=120), Said):
            pass
        return report

    def log(self, name: str) -> str:
        return (self.folder / "logs" / name).read_text()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(Demo(tmp_path, monkeypatch), monkeypatch)


def named(captured: ImageCapture, label: str) -> Job:
    return next(job for job in captured.lookup.pending if job.label == label)


# -- capture and assembling ----------------------------------------------------------------------


def test_capture_gives_units_jobs_and_sources(bench: Bench) -> None:
    captured = bench.capture()
    assert [unit.name for unit in captured.units] == ["csrc/a", "csrc/b", "csrc/c"]
    assert len(captured.lookup.pending) == 5
    sources = bench.folder / "sources" / CAPTURED
    assert (sources / "csrc" / "a.cu").read_text() == "int a;\n"
    assert "3 units" in bench.log("capture.log")


def test_a_container_ends_with_its_task(bench: Bench) -> None:
    bench.capture()
    assert bench.containers.running == []


def test_containers_are_labelled_and_limited(bench: Bench) -> None:
    bench.capture()
    made = bench.containers.of("capture")
    assert made.labels == {"fatwheel": "build"}
    assert (made.spec.cpus, made.spec.memory) == (2, 4 << 30)


def test_every_container_writes_to_a_folder_of_its_own(bench: Bench) -> None:
    captured = bench.capture()
    captured.assemble(LIMITS)
    folders = [
        [mount.source for mount in made.spec.mounts if mount.writable]
        for made in bench.containers.made
    ]
    assert all(len(found) == 1 for found in folders)
    assert len({found[0] for found in folders}) == 2


def test_assembling_gives_the_wheel_and_its_slices(bench: Bench) -> None:
    """Nothing was compiled before: it is made on the spot, and only jobs' results are kept."""
    wheel, slices = bench.capture().assemble(LIMITS)
    with zipfile.ZipFile(wheel) as archive:
        images = [image_name(entry) for entry in slices_of(archive.read("demo/a.o"))]
    assert images == ["sm_80", "sm_86"]
    assert [unit["name"] for unit in slices] == ["csrc/a", "csrc/b"]
    assert all(sha256 for unit in slices for sha256 in unit["slices"].values())
    assert bench.store.usage() == []


def test_what_a_project_does_wrong_is_its_error(bench: Bench) -> None:
    bench.demo.write("own_backend.py", "def build_wheel(directory): raise SystemExit('no luck')")
    with pytest.raises(UpstreamError, match="no luck"):
        bench.capture()
    assert bench.containers.running == []


def test_what_capture_learned_of_texts_is_for_this_build_alone(bench: Bench) -> None:
    """Looked up once, and not by each of its containers again; the store gets nothing of it."""
    captured = bench.capture()
    worker = captured.open("1:compute_80", LIMITS, bench.reports)
    for work in captured.lookup.pending:
        worker.start(work)
        assert isinstance(bench.report(), JobMade)
    worker.close()
    bench.store.clear("text")
    again = bench.site.station.sources.parent / "again"
    again.mkdir()
    (bench.folder / "sources" / CAPTURED).rename(again / CAPTURED)
    project = bench.folder / "sources" / PROJECT
    project.rename(again / PROJECT)
    message = captured.message
    station = dataclasses.replace(bench.site.station, sources=again)
    (again / CAPTURED).rename(again / "before")
    site = dataclasses.replace(bench.site, station=station)
    second = contained.capture(site, message, LIMITS, silent)
    assert second.lookup.pending == ()
    assert (again / f"{LEARNED}0" / "refs" / "text").is_dir()
    assert "text" not in {usage.kind for usage in bench.store.usage()}
    before = len(calls(bench.demo.home))
    _, slices = second.assemble(LIMITS)
    assert all(sha256 for unit in slices for sha256 in unit["slices"].values())
    assert len(calls(bench.demo.home)) == before, "something was compiled or preprocessed again"


# -- what means harm -----------------------------------------------------------------------------

HOSTILE = """
import os, shutil
from pathlib import Path
incoming = next(p.parent for p in Path(__file__).resolve().parents if p.name == "work")
outside = Path({outside!r})
{does}
"""


@pytest.fixture
def hostile(bench: Bench, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Makes the demo's build do something before it builds; `outside` is what it may not touch."""
    outside = tmp_path / "outside"
    victim = Store(outside, 1 << 30, SCOPE)
    victim.put("slice", "ab" * 32, b"precious")
    os.mkfifo(outside / "refs" / "pipe")
    honest = (bench.demo.source / "own_backend.py").read_text()

    def listing() -> list[tuple[str, int, int]]:
        found = ((path, path.lstat()) for path in sorted(outside.rglob("*")))
        return [(str(path), facts.st_mode, facts.st_size) for path, facts in found]

    def write(does: str) -> None:
        script = HOSTILE.format(outside=str(outside), does=does)
        bench.demo.write("own_backend.py", script + honest)

    before = listing()
    yield write
    assert listing() == before, "something outside was touched"


def test_a_link_in_the_place_of_its_store_leads_nowhere(
    bench: Bench, hostile: Callable[[str], None]
) -> None:
    hostile('os.symlink("/proc/self", incoming / "store")')
    with pytest.raises(EngineError) as caught:
        bench.capture()
    assert "cannot accept" in caught.value.what
    assert bench.store.usage() == []


def test_a_link_in_the_place_of_sources_leads_nowhere(
    bench: Bench, hostile: Callable[[str], None]
) -> None:
    hostile('os.symlink(outside, incoming / "sources")')
    with pytest.raises((EngineError, StoreError)):
        bench.capture()
    assert not (bench.folder / "sources" / CAPTURED).exists()


def test_what_lies_in_its_store_stays_out_of_ours(
    bench: Bench, hostile: Callable[[str], None]
) -> None:
    hostile(
        'shutil.copytree(outside / "objects", incoming / "store" / "objects")\n'
        'for kind in ("slice", "wheel", "built", "cost", "host"):\n'
        '    shutil.copytree(outside / "refs" / "slice", incoming / "store" / "refs" / kind)'
    )
    captured = bench.capture()
    captured.assemble(LIMITS)
    assert bench.store.usage() == []
    assert Store(bench.store.root, 1 << 30).usage() == []


@pytest.mark.parametrize(
    "says", ["x" * 300, "[" * 100_000, '{"outcome": "made", "units": [], "wheel": "../x.whl"}']
)
def test_what_none_of_ours_says_is_refused(
    bench: Bench, hostile: Callable[[str], None], says: str
) -> None:
    """From a process of the project, with the container's own output in its hands."""
    hostile(f"Path(f'/proc/{{os.getppid()}}/fd/1').write_text({says!r} + chr(10))")
    with pytest.raises(EngineError, match="sent an invalid message"):
        bench.capture()


@pytest.fixture
def ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes containers end by themselves, without a word."""

    def end(out_of_memory: bool) -> None:
        real = bench.containers.make

        def make(*arguments: Any) -> Any:
            container = real(*arguments)
            container.out_of_memory = out_of_memory
            container.send = lambda text: container.kill()
            container._log.write_text("Killed\n")
            return container

        monkeypatch.setattr(docker, "RunningContainer", make)

    return end


def test_a_container_that_ends_without_a_word_is_an_engine_error(
    bench: Bench, ends: Callable[[bool], None]
) -> None:
    ends(False)
    with pytest.raises(EngineError) as caught:
        bench.capture()
    assert "137" in caught.value.what
    assert caught.value.where == "capture"
    assert "Killed" in caught.value.details
    assert str(bench.folder / "logs" / "capture.log") in (caught.value.hint or "")


def test_a_container_that_needs_too_much_memory_is_called_so(
    bench: Bench, ends: Callable[[bool], None]
) -> None:
    ends(True)
    with pytest.raises(OutOfMemoryError) as caught:
        bench.capture()
    assert "4.0 GiB" in caught.value.what
    assert "--memory" in (caught.value.hint or "")


@pytest.fixture
def kills(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes so many containers say that Linux killed something for memory meanwhile."""

    def kill(containers: int) -> None:
        real, answered = bench.containers.make, []

        def make(*arguments: Any) -> Any:
            container = real(*arguments)
            if len(answered) < containers:
                answered.append(container)
                on_line = arguments[3]
                container.send = lambda text: on_line('{"outcome": "killed", "rss": 0}')
            return container

        monkeypatch.setattr(docker, "RunningContainer", make)

    return kill


def test_what_linux_killed_may_have_been_another_s(
    bench: Bench, kills: Callable[[int], None]
) -> None:
    kills(1)
    assert bench.capture().units
    assert [made.spec.purpose for made in bench.containers.made] == ["capture", "capture"]


def test_what_linux_kills_each_time_is_short_of_memory(
    bench: Bench, kills: Callable[[int], None]
) -> None:
    kills(2)
    with pytest.raises(OutOfMemoryError) as caught:
        bench.capture()
    assert "killed a program for lack of memory" in caught.value.what
    assert caught.value.where == "capture"
    assert "--memory" in (caught.value.hint or "")
    assert len(bench.containers.made) == 2


# -- workers -------------------------------------------------------------------------------------


def test_what_a_worker_made_is_in_the_store_when_it_is_reported(bench: Bench) -> None:
    """The last front's job makes the host object, too."""
    captured = bench.capture()
    worker = captured.open("2:compute_86", LIMITS, bench.reports)
    work = named(captured, "csrc/a [sm_86]")
    worker.start(work)
    report = bench.report()
    kinds = {usage.kind: usage.entries for usage in bench.store.usage()}
    assert isinstance(report, JobMade), report
    assert report.job is work
    assert (kinds["slice"], kinds["host"]) == (1, 1)
    assert worker.memory() > 0
    worker.close()
    assert bench.containers.running == []
    assert "csrc/a [sm_86]: made" in bench.log("shard-2-compute_86.log")


def test_a_compilers_error_names_the_log_and_not_a_folder_that_is_gone(bench: Bench) -> None:
    bench.demo.write("csrc/b.cu", "#error not yet\n")
    captured = bench.capture()
    worker = captured.open("1:compute_80", LIMITS, bench.reports)
    worker.start(named(captured, "csrc/b [sm_80]"))
    report = bench.report()
    assert isinstance(report, JobBroken)
    assert type(report.error) is CompileError
    assert any("#error not yet" in line for line in report.error.details)
    assert "shard-1-compute_80.log" in (report.error.hint or "")
    assert "cd /" not in str(report.error)
    worker.close()


def test_closing_a_worker_reports_nothing_and_keeps_what_was_made(bench: Bench) -> None:
    bench.demo.write("csrc/b.cu", "// stand-in: waits\n")
    captured = bench.capture()
    worker = captured.open("1:compute_80", LIMITS, bench.reports)
    worker.start(named(captured, "csrc/a [sm_80]"))
    assert isinstance(bench.report(), JobMade)
    worker.start(named(captured, "csrc/b [sm_80]"))
    worker.close()
    time.sleep(0.2)
    left = [bench.reports.get() for _ in range(bench.reports.qsize())]
    assert all(isinstance(report, Said) for report in left)
    assert bench.containers.running == []
    worker.close()  # again, as after a loss


@pytest.mark.parametrize(
    ("out_of_memory", "failure"), [(True, OutOfMemoryError), (False, EngineError)]
)
def test_a_container_that_ends_gives_its_jobs_back(
    bench: Bench, out_of_memory: bool, failure: type[Exception]
) -> None:
    bench.demo.write("csrc/a.cu", "// stand-in: waits\n")
    captured = bench.capture()
    worker = captured.open("1:compute_80", LIMITS, bench.reports)
    work = named(captured, "csrc/a [sm_80]")
    worker.start(work)
    container = bench.containers.of("shard 1:compute_80")
    container.out_of_memory = out_of_memory
    container.kill()
    report = bench.report()
    assert isinstance(report, WorkerLost)
    assert (report.worker, report.shard, report.jobs) == (worker, "1:compute_80", (work,))
    assert (report.failure, report.limit) == (failure, 4 << 30)
    assert ("4.0 GiB" if out_of_memory else "137") in report.reason
    worker.close()


def test_a_store_that_takes_nothing_is_the_jobs_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = bench.capture()

    def refuse(*arguments: object) -> str:
        raise StoreError("the disk is full")

    worker = captured.open("1:compute_80", LIMITS, bench.reports)
    monkeypatch.setattr(Store, "put", refuse)
    work = named(captured, "csrc/c")
    worker.start(work)
    report = bench.report()
    assert isinstance(report, JobBroken)
    assert (report.job, report.error.what) == (work, "the disk is full")
    monkeypatch.undo()
    worker.close()


def test_workers_of_a_shard_do_not_share_a_folder(bench: Bench) -> None:
    """A worker that was lost is followed by another one of the same name."""
    captured = bench.capture()
    for _ in range(2):
        captured.open("1:compute_80", LIMITS, bench.reports).close()
    folders = {
        mount.source
        for made in bench.containers.made[1:]
        for mount in made.spec.mounts
        if mount.writable
    }
    assert len(folders) == 2
