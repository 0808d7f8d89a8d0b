"""What runs in a container, here as a process: the demo project with stand-ins for compilers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fatwheel.config.recipe import Target
from fatwheel.engines.conversation import CapturedLine, capture_line, checked_capture
from fatwheel.engines.incoming import take
from fatwheel.engines.local import LocalWorkplace
from fatwheel.engines.process import ProcessWorker
from fatwheel.events import silent
from fatwheel.fatbin.stitch import image_name, slices_of
from fatwheel.model import Job
from fatwheel.pipeline import capture, resolve
from fatwheel.pipeline.capture import captured
from fatwheel.pipeline.plan import PlannedWheel
from fatwheel.storage.cache import Stores
from fatwheel.storage.store import Store, StoreEntry
from fatwheel.worker.assemble import Lookup
from fatwheel.worker.context import job_from_wire, unit_from_wire
from fatwheel.worker.inside import (
    ASSEMBLE,
    CAPTURE,
    CAPTURED,
    PROJECT,
    SHARD,
    SOURCES,
    WHEEL,
    Message,
    message_from_line,
)
from fatwheel.worker.upstream import Project

from ...helpers.demoproject import Demo
from ...helpers.processcontainers import ROOT, START, describe
from ...helpers.standins import alive, calls, descendants, front

FRONTS = (front("80"), front("86"))
SCOPE = "5c" * 32


def lookup_of(made: dict[str, Any]) -> Lookup:
    """What capture says of the store, as the build takes it."""
    line = capture_line(json.dumps(made))
    assert isinstance(line, CapturedLine)
    return checked_capture(line, FRONTS)[1]


def entries_of(answer: dict[str, Any]) -> list[StoreEntry]:
    """What a job put into its branch, as its worker says."""
    return [(kind, key, sha256) for kind, key, sha256 in answer["entries"]]


@dataclass
class Inside:
    """One process that stands for a container, and the folder that it may write to."""

    process: subprocess.Popen[str]
    incoming: Path

    def line(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"it ended: {self.process.stderr and self.process.stderr.read()}"
        found: dict[str, Any] = json.loads(line)
        return found

    def answer(self) -> dict[str, Any]:
        """The next outcome; what is only said on the way is left out."""
        while "said" in (found := self.line()):
            pass
        return found

    def made(self) -> dict[str, Any]:
        found = self.answer()
        assert found["outcome"] == "made", "\n".join([found["what"], *found["details"]])
        return found

    def send(self, number: int, job: Job) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"id": number, "job": asdict(job)}) + "\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """End its input; what it wrote to its log."""
        _, log = self.process.communicate(timeout=120)
        assert self.process.returncode == -9, f"it ends its whole group:\n{log}"
        return log


class Host:
    """What a build does around containers: sources, the store, the image's description."""

    def __init__(self, folder: Path, demo: Demo) -> None:
        self.folder = folder / "host"
        self.demo = demo
        self.sources = self.folder / SOURCES
        self.sources.mkdir(parents=True)
        self.store = Store(self.folder / "store", 1 << 30, SCOPE)
        self.store.root.mkdir()
        self.count = 0
        self.running: list[subprocess.Popen[str]] = []

    @property
    def target(self) -> Target:
        return resolve.resolve("demo", resolve.ToolchainRequest("tools", pythons="3.11"), "80,86")[
            0
        ]

    def unpack(self) -> Project:
        target = Target(self.demo.recipe, self.demo.toolchain, "3.11", "2.11.0", ())
        project = capture.unpacked(PlannedWheel(target, FRONTS), self.sources / PROJECT, silent)
        return project.at(project.root.relative_to(self.sources / PROJECT))

    def start(self, task: str, project: Project, **changes: Any) -> Inside:
        self.count += 1
        incoming = self.folder / "incoming" / str(self.count)
        incoming.mkdir(parents=True)
        description = describe(self.folder, self.demo)
        message = Message(
            task=task, name="demo-1.0", project=project, fronts=FRONTS, units=(),
            compiler_id=self.demo.tools.environment.compiler_id, scope=SCOPE,
            seeded=True, threads=2,
            description=str(description),
            sources=str(self.sources), store=str(self.store.root), incoming=str(incoming),
            work=str(incoming / "work"),
        )  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", START, str(ROOT), str(self.demo.folder / "view")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.running.append(process)
        assert process.stdin
        process.stdin.write(replace(message, **changes).to_line())
        process.stdin.flush()
        return Inside(process, incoming)

    def captured(self) -> tuple[Project, dict[str, Any]]:
        """Capture, and put the sources that were captured where the others see them."""
        project = self.unpack()
        inside = self.start(CAPTURE, project)
        made = inside.made()
        inside.end()
        (inside.incoming / SOURCES).rename(self.sources / CAPTURED)
        return project, made

    def compiled(self, project: Project, jobs: tuple[Job, ...]) -> None:
        inside = self.start(SHARD, project)
        for number, job in enumerate(jobs):
            inside.send(number, job)
        for _ in jobs:
            answer = inside.made()
            take(inside.incoming, entries_of(answer), jobs[answer["id"]], self.store)
        inside.end()

    def snapshot(self) -> dict[str, bytes]:
        """Everything that a container may only read."""
        return {
            str(path): path.read_bytes()
            for folder in (self.sources, self.store.root, self.demo.source)
            for path in folder.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]
) -> Iterator[Host]:
    tool("g++")
    demo = Demo(tmp_path, monkeypatch)
    for name in ("load_recipe", "load_toolchain"):
        monkeypatch.setattr(resolve, name, getattr(demo, name))
    host = Host(tmp_path, demo)
    yield host
    for process in host.running:
        process.kill()
        process.communicate()


# -- messages ------------------------------------------------------------------------------------


def test_a_message_crosses_a_process_boundary_whole() -> None:
    project = Project(
        Path("demo-1.0/sub"), "backend", (".", "other"), (("A", "1"), ("B", "")), 17, ("git",)
    )
    message = Message(
        task=ASSEMBLE, name="demo-1.0", project=project, fronts=(front("80", "sm_80", "sm_86"),),
        units=({"name": "a"},), compiler_id="ab", scope="cd", seeded=False, threads=3,
        description="/d",
        sources="/s", store="/t", incoming="/i", work="/w",
    )  # fmt: skip
    line = message.to_line()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    assert message_from_line(line) == message


# -- capture -------------------------------------------------------------------------------------


def test_capture_finds_units_and_what_is_missing(host: Host) -> None:
    inside = host.start(CAPTURE, host.unpack())
    made = inside.made()
    units = [unit_from_wire(unit) for unit in made["units"]]
    assert [unit.name for unit in units] == ["csrc/a", "csrc/b", "csrc/c"]
    lookup = lookup_of(made)
    assert [job.label for job in lookup.pending] == [
        "csrc/a [sm_80]", "csrc/a [sm_86]", "csrc/b [sm_80]", "csrc/b [sm_86]", "csrc/c",
    ]  # fmt: skip
    assert (lookup.slices, lookup.hits) == (4, 0)
    assert "3 units" in inside.end()
    assert calls(host.demo.home) == [], "nothing is compiled"


def test_capture_brings_the_sources_that_compilers_see(host: Host) -> None:
    host.demo.write("csrc/own.h", "int own;\n")
    inside = host.start(CAPTURE, host.unpack())
    inside.made()
    brought = inside.incoming / SOURCES
    assert (brought / "csrc" / "a.cu").read_text() == "int a;\n"
    assert (brought / "csrc" / "own.h").read_text() == "int own;\n"


def test_capture_writes_to_what_comes_in_alone(host: Host) -> None:
    project = host.unpack()
    before = host.snapshot()
    inside = host.start(CAPTURE, project)
    inside.made()
    inside.end()
    assert host.snapshot() == before


def test_a_project_that_does_not_build_is_said(host: Host) -> None:
    host.demo.write("own_backend.py", "def build_wheel(directory): raise SystemExit('no luck')")
    answer = host.start(CAPTURE, host.unpack()).answer()
    assert (answer["outcome"], answer["class"]) == ("failed", "UpstreamError")
    assert "no luck" in "\n".join(answer["details"])


def test_an_image_without_a_description_is_said(host: Host) -> None:
    answer = host.start(CAPTURE, host.unpack(), description="/no/such/file").answer()
    assert (answer["outcome"], answer["class"]) == ("failed", "StoreError")
    assert answer["where"] == "/no/such/file"


def test_everything_ends_with_the_input(host: Host) -> None:
    host.demo.write(
        "own_backend.py",
        "import subprocess\ndef build_wheel(directory): subprocess.run(['sleep', '600'])",
    )
    inside = host.start(CAPTURE, host.unpack())
    below = descendants(inside.process.pid, until="sleep")
    inside.end()
    deadline = time.monotonic() + 60
    while any(map(alive, below)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, below)), "upstream's build outlived the container's input"


# -- a shard -------------------------------------------------------------------------------------


def test_a_shard_makes_its_jobs_and_keeps_them_in_its_branch(host: Host) -> None:
    project, made = host.captured()
    pending = lookup_of(made).pending
    before = host.snapshot()
    inside = host.start(SHARD, project)
    for number, job in enumerate(pending[:2]):
        inside.send(number, job)
    answers = [inside.made() for _ in range(2)]
    assert sorted(answer["id"] for answer in answers) == [0, 1]
    assert host.snapshot() == before
    for answer in answers:
        take(inside.incoming, entries_of(answer), pending[answer["id"]], host.store)
    kinds = {usage.kind: usage.entries for usage in host.store.usage()}
    assert (kinds["slice"], kinds["host"]) == (2, 1)
    assert "csrc/a [sm_80]: made in" in inside.end()


def test_a_shard_answers_from_the_store_what_is_there(host: Host) -> None:
    project, made = host.captured()
    pending = lookup_of(made).pending
    host.compiled(project, pending)
    again = host.start(CAPTURE, project)
    assert lookup_of(again.made()).pending == ()


def test_a_shard_that_cannot_begin_says_so_and_waits(host: Host) -> None:
    inside = host.start(SHARD, host.unpack(), description="/no/such/file")
    answer = inside.answer()
    assert (answer["id"], answer["outcome"], answer["class"]) == (None, "failed", "StoreError")
    time.sleep(0.1)
    assert inside.process.poll() is None, "the build ends it when it has heard"


def test_an_error_in_a_unit_is_its_jobs(host: Host) -> None:
    host.demo.write("csrc/b.cu", "#error not yet\n")
    project, made = host.captured()
    [job, *_] = [
        job for job in map(job_from_wire, made["lookup"]["pending"]) if job.unit.name == "csrc/b"
    ]
    inside = host.start(SHARD, project)
    inside.send(5, job)
    answer = inside.answer()
    assert (answer["id"], answer["class"]) == (5, "CompileError")
    assert any("not yet" in line for line in answer["details"])


# -- assembling ----------------------------------------------------------------------------------


def test_assembling_makes_upstreams_wheel_of_what_was_compiled(host: Host) -> None:
    project, made = host.captured()
    host.compiled(project, lookup_of(made).pending)
    before, called = host.snapshot(), len(calls(host.demo.home))
    inside = host.start(ASSEMBLE, project, units=tuple(made["units"]))
    found = inside.made()
    assert host.snapshot() == before
    assert len(calls(host.demo.home)) == called, "something was compiled again"
    assert found["wheel"] == "demo-1.0-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(inside.incoming / WHEEL / found["wheel"]) as wheel:
        for name in "ab":
            images = [image_name(entry) for entry in slices_of(wheel.read(f"demo/{name}.o"))]
            assert images == ["sm_80", "sm_86"]
    assert [unit["name"] for unit in found["slices"]] == ["csrc/a", "csrc/b"]
    stored = {path.name for path in (host.store.root / "objects").rglob("*") if path.is_file()}
    for slices in (unit["slices"] for unit in found["slices"]):
        assert list(slices) == ["sm_80", "sm_86"]
        assert set(slices.values()) <= stored


def test_what_is_missing_is_compiled_on_the_spot_and_not_kept(host: Host) -> None:
    project, made = host.captured()
    inside = host.start(ASSEMBLE, project, units=tuple(made["units"]))
    found = inside.made()
    assert all(all(unit["slices"].values()) for unit in found["slices"])
    assert host.store.usage() == []


def test_a_container_and_a_process_make_the_same(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same keys: what containers made is all that a build on this machine needs."""
    project, made = host.captured()
    host.compiled(project, lookup_of(made).pending)
    inside = host.start(ASSEMBLE, project, units=tuple(made["units"]))
    found = inside.made()
    monkeypatch.setattr(capture, "scope_of", lambda recipe, place: SCOPE)
    workplace, stores = LocalWorkplace(host.demo.tools, ProcessWorker), Stores(host.store.root)
    limits = workplace.capacity
    wheel = PlannedWheel(host.target, FRONTS)
    with captured(wheel, workplace, limits, stores, silent) as (_, ready):
        assert [asdict(unit) for unit in ready.units] == [
            asdict(unit_from_wire(unit)) for unit in made["units"]
        ]
        lookup = ready.look_up()
        assert (lookup.pending, lookup.hits) == ((), 4)
        local, slices = ready.assemble(limits)
        assert slices == found["slices"]
        with (
            zipfile.ZipFile(local) as one,
            zipfile.ZipFile(inside.incoming / WHEEL / found["wheel"]) as other,
        ):
            assert one.namelist() == other.namelist()
            for name in one.namelist():
                assert one.read(name) == other.read(name), name
