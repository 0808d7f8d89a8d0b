"""Targets built in containers that are processes, with an engine that only pretends."""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fatwheel.config.recipe import Target
from fatwheel.config.toolchain import Containers as Images
from fatwheel.containers.imagebuild import ContainerImage
from fatwheel.containers.layouts import EngineFacts
from fatwheel.containers.roster import Leftovers
from fatwheel.engines import docker, process
from fatwheel.engines.base import Limits
from fatwheel.engines.docker import Docker
from fatwheel.errors import CompileError, EngineError, UpstreamError
from fatwheel.events import Event, JobFinished, Note, Planned, StepStarted, WheelMade, silent
from fatwheel.fatbin.stitch import image_name, slices_of
from fatwheel.model import Host
from fatwheel.pipeline import build as build_module
from fatwheel.pipeline import resolve
from fatwheel.pipeline.build import build
from fatwheel.pipeline.capture import captured
from fatwheel.pipeline.plan import BuildRequest, PlannedWheel, plan_build
from fatwheel.sharing.parcel import Piece, Trust, write_parcel
from fatwheel.sharing.remote import remote_of
from fatwheel.shipped import PACKAGE
from fatwheel.storage.cache import open_store, users_stores

from ...helpers.demoproject import Demo
from ...helpers.processcontainers import Containers, ProcessContainer
from ...helpers.standins import front

GIB = 1 << 30
LIMITS = Limits(cpus=2, memory=4 * GIB)
FRONTS = (front("80"), front("86"))


@dataclass(frozen=True, kw_only=True)
class FakeEngine(EngineFacts):
    os: str = "linux"
    cpus: int = 3
    memory: int = 6 * GIB
    endpoint: str = "unix:///engine.sock"

    def check_os(self, wanted: str, toolchain: str) -> None:
        if wanted != self.os:
            raise EngineError(f"{toolchain} needs {wanted}")


class Bench(Demo):
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.toolchain = dataclasses.replace(self.toolchain, containers=Images("linux", 0, ()))
        self.engine = FakeEngine()
        self.image = "fatwheel/tools:cp311-1"
        self.bases: dict[str, str] = {}
        self.order: list[str] = []
        self.leftovers = Leftovers(0, ())
        self.events: list[Event] = []
        self.out = folder / "dist"
        self.containers = Containers(self, monkeypatch)
        for name in ("load_recipe", "load_toolchain"):
            monkeypatch.setattr(resolve, name, getattr(self, name))
        for name in ("connect", "reap", "ensure_images", "base_ids"):
            monkeypatch.setattr(docker, name, getattr(self, name))
        monkeypatch.setattr(docker, "cores", lambda: 8)
        monkeypatch.setattr(docker, "free_memory", lambda: 50 * GIB)
        monkeypatch.setattr(process, "ready_tools", self.ready_tools)

    def connect(self) -> FakeEngine:
        self.order.append("connect")
        return self.engine

    def reap(self, engine: object, cache: Path) -> Leftovers:
        assert cache == self.cache
        self.order.append("reap")
        return self.leftovers

    def ensure_images(
        self, engine: object, toolchain: object, python: str, torch: str, cache: Path, emit: object
    ) -> list[ContainerImage]:
        self.order.append(f"image {python} {torch}")
        return [
            ContainerImage(
                "toolchain", "fatwheel/tools:toolchain-1", f"sha256:{'7' * 64}", 1, False
            ),
            ContainerImage("env", self.image, f"sha256:{'e' * 64}", 1, False),
        ]

    def base_ids(self, engine: object) -> dict[str, str]:
        return self.bases

    def target(self) -> Target:
        return resolve.resolve("demo", resolve.ToolchainRequest("tools", pythons="3.11"), "80,86")[
            0
        ]

    def build(self, **changes: Any) -> WheelMade:
        self.events.clear()
        [made] = build(plan_build(self.request(**changes)), self.events.append)
        return made

    def request(self, **changes: Any) -> BuildRequest:
        wanted: dict[str, Any] = {
            "kernel": "demo", "archs": "80,86", "pythons": "3.11", "torch": None,
            "toolchain": "tools", "engine": "docker", "shards": None, "jobs": 2,
            "memory": 4 * GIB, "front": "exact", "out": self.out,
        }  # fmt: skip
        return BuildRequest(**{**wanted, **changes})

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]
) -> tuple[Bench, WheelMade]:
    """A build from nothing that nobody disturbs; not to be built on."""
    tool("g++")
    with pytest.MonkeyPatch.context() as patch:
        bench = Bench(tmp_path_factory.mktemp("built"), patch)
        made = bench.build()
    return bench, made


# -- a workplace -----------------------------------------------------------------------------------


def test_leftovers_go_before_images_are_made(bench: Bench) -> None:
    Docker().prepare(bench.target(), silent)
    assert bench.order == ["connect", "reap", "image 3.11 2.11.0"]


def test_an_engine_of_the_other_kind_is_refused_before_anything_is_made(bench: Bench) -> None:
    bench.engine = FakeEngine(os="windows")
    with pytest.raises(EngineError, match="tools needs linux"):
        Docker().prepare(bench.target(), silent)
    assert bench.order == ["connect"]


def test_the_engine_may_have_less_than_this_machine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Docker().prepare(bench.target(), silent)
    assert found.capacity == Limits(3, 5 * GIB), "some is kept for the engine itself"
    monkeypatch.setattr(docker, "cores", lambda: 2)
    monkeypatch.setattr(docker, "free_memory", lambda: 2 * GIB)
    found = Docker().prepare(bench.target(), silent)
    assert found.capacity == Limits(2, 2 * GIB)


def test_an_engine_that_says_nothing_of_itself_has_what_this_machine_has(bench: Bench) -> None:
    bench.engine = FakeEngine(cpus=0, memory=0)
    found = Docker().prepare(bench.target(), silent)
    assert found.capacity == Limits(8, 50 * GIB)


def test_a_small_engine_is_used_in_part(bench: Bench) -> None:
    bench.engine = FakeEngine(memory=GIB)
    assert Docker().prepare(bench.target(), silent).capacity.memory == GIB // 2


def test_another_image_is_another_wheel(bench: Bench) -> None:
    before = Docker().prepare(bench.target(), silent).identity
    assert Docker().prepare(bench.target(), silent).identity == before
    bench.image = "fatwheel/tools:cp311-2"
    assert Docker().prepare(bench.target(), silent).identity != before


def test_images_are_told_of_beside_the_wheel(bench: Bench) -> None:
    found = Docker().prepare(bench.target(), silent).materials
    assert [(one.role, one.name, one.sha256) for one in found] == [
        ("image", "fatwheel/tools:toolchain-1", "7" * 64),
        ("image", bench.image, "e" * 64),
    ]


# -- capture -------------------------------------------------------------------------------------


def test_a_target_is_captured(bench: Bench) -> None:
    events: list[Event] = []
    workplace, target = Docker().prepare(bench.target(), silent), bench.target()
    stores = users_stores()
    wheel = PlannedWheel(target, FRONTS)
    with captured(wheel, workplace, LIMITS, stores, events.append) as (build, found):
        lookup = found.look_up()
        assert (lookup.units, len(lookup.pending)) == (3, 5)
        assert found.host == Host("g++ 12.2.0", "c0" * 32, "3.11"), "as the image says of itself"
        assert build.work.is_dir()
    assert bench.work_folders() == []
    assert bench.containers.running == []
    steps = [event.step for event in events if isinstance(event, StepStarted)]
    assert steps == ["source", "capture"]


def test_the_logs_are_named_and_kept(built: tuple[Bench, WheelMade]) -> None:
    bench, _ = built
    [folder] = (bench.cache / "logs").iterdir()
    assert any(str(folder) in note.text for note in bench.of(Note))
    assert sorted(path.name for path in folder.iterdir()) == [
        "assemble.log", "capture.log", "shard-1-compute_80.log", "shard-2-compute_86.log",
    ]  # fmt: skip


def test_containers_know_which_build_they_are_of(built: tuple[Bench, WheelMade]) -> None:
    bench, _ = built
    labels = [made.labels for made in bench.containers.made]
    assert len({found["fatwheel"] for found in labels}) == 1
    assert {found["fatwheel.cache"] for found in labels} == {str(bench.cache)}
    assert not any("work" in value for found in labels for value in found.values())


def test_the_roster_of_a_build_lies_there_while_it_lives(bench: Bench) -> None:
    seen: list[int] = []
    rosters = bench.cache / "containers"

    def watch(event: Event) -> None:
        if isinstance(event, JobFinished):
            seen.append(len(list(rosters.iterdir())))

    build(plan_build(bench.request(shards=1)), watch)
    assert set(seen) == {1}
    assert list(rosters.iterdir()) == [], "its containers have ended"


def test_containers_that_only_say_they_are_ours_are_told(bench: Bench) -> None:
    bench.leftovers = Leftovers(0, ("c0ffee",))
    bench.build()
    [said] = [note.text for note in bench.of(Note) if "left alone" in note.text]
    assert "docker rm --force --volumes c0ffee" in said


def test_what_a_container_sees_is_what_it_needs(built: tuple[Bench, WheelMade]) -> None:
    bench, _ = built
    for made in bench.containers.made:
        assert made.spec.image == bench.image
        readable = [mount.source for mount in made.spec.mounts if not mount.writable]
        [writable] = [mount.source for mount in made.spec.mounts if mount.writable]
        assert readable[0] == str(PACKAGE), "our code, and nothing beside it"
        assert readable[2] == str(bench.cache / "store")
        assert Path(writable).parents[2] == bench.cache / "work"
        assert not any(Path(place).is_relative_to(writable) for place in readable)


# -- whole builds --------------------------------------------------------------------------------


def test_a_build_in_containers_makes_the_wheel(built: tuple[Bench, WheelMade]) -> None:
    bench, made = built
    assert (made.hits, made.compiled) == (0, 4)
    with zipfile.ZipFile(made.path) as wheel:
        for name in "ab":
            images = [image_name(entry) for entry in slices_of(wheel.read(f"demo/{name}.o"))]
            assert images == ["sm_80", "sm_86"]
    [planned] = bench.of(Planned)
    assert (planned.engine, planned.pending) == ("docker", 5)
    purposes = [made.spec.purpose for made in bench.containers.made]
    assert purposes[0] == "capture"
    assert purposes[-1] == "assemble"
    assert set(purposes[1:-1]) == {"shard 1:compute_80", "shard 2:compute_86"}
    assert bench.containers.running == []
    assert bench.work_folders() == []


def test_shards_share_the_memory_and_others_have_it_all(built: tuple[Bench, WheelMade]) -> None:
    bench, _ = built
    limits = {made.spec.purpose: made.spec.memory // GIB for made in bench.containers.made}
    assert limits == {
        "capture": 4, "shard 1:compute_80": 2, "shard 2:compute_86": 2, "assemble": 4,
    }  # fmt: skip


def test_the_same_build_again_starts_no_container(bench: Bench) -> None:
    first = bench.build()
    count = len(bench.containers.made)
    again = bench.build(out=bench.folder / "elsewhere")
    assert (again.sha256, again.compiled) == (first.sha256, 0)
    assert len(bench.containers.made) == count


def test_containers_and_processes_make_the_same_wheel_each_from_slices_of_their_own(
    bench: Bench,
) -> None:
    """Where compilers and host compiler are the same, so are the bytes; but what was made in
    containers is for containers."""
    inside = bench.build()
    open_store().clear("wheel")
    outside = bench.build(engine="process", out=bench.folder / "elsewhere")
    assert (outside.hits, outside.compiled) == (0, 4)
    assert outside.sha256 == inside.sha256
    open_store().clear("wheel")
    again = bench.build(out=bench.folder / "third")
    assert (again.hits, again.compiled, again.sha256) == (4, 0, inside.sha256)


def test_another_base_of_ones_own_gets_none_of_the_slices(bench: Bench) -> None:
    bench.build()
    bench.bases = {"3.13": "sha256:other"}
    bench.image = "fatwheel/tools:cp311-2"
    assert bench.build().compiled == 4


def test_what_jobs_cost_is_kept_for_later_plans(bench: Bench) -> None:
    bench.build()
    kept = {usage.kind: usage.entries for usage in open_store().usage()}
    assert kept["cost"] == 5


def test_a_compile_error_keeps_the_others(bench: Bench) -> None:
    bench.write("csrc/a.cu", "#error not yet\n")
    with pytest.raises(CompileError, match="2 of 5 jobs failed"):
        bench.build()
    assert sorted(event.job.label for event in bench.of(JobFinished)) == [
        "csrc/b [sm_80]", "csrc/b [sm_86]", "csrc/c",
    ]  # fmt: skip
    assert bench.containers.running == []
    bench.write("csrc/a.cu", "int a;\n")
    made = bench.build()
    assert (made.hits, made.compiled) == (2, 2)


def test_a_failing_upstream_build_ends_it(bench: Bench) -> None:
    bench.write("own_backend.py", "def build_wheel(directory): raise SystemExit('broken')")
    with pytest.raises(UpstreamError, match="broken"):
        bench.build()
    assert bench.work_folders() == []
    assert bench.containers.running == []


def test_an_interrupt_ends_the_containers_and_keeps_what_is_finished(bench: Bench) -> None:
    bench.write("csrc/b.cu", "// stand-in: waits\n")

    def emit(event: Event) -> None:
        if isinstance(event, JobFinished):
            raise KeyboardInterrupt

    request = BuildRequest(
        "demo", "80,86", "3.11", None, "tools", "docker", None, 3, 4 * GIB, "exact", bench.out
    )
    with pytest.raises(KeyboardInterrupt):
        build_module.build(plan_build(request), emit)
    assert bench.containers.running == []
    assert bench.work_folders() == []
    assert open_store().usage()


def test_one_container_at_a_time_where_memory_is_short(bench: Bench) -> None:
    """Jobs of 1 GiB need a container of 1.5; with 2 GiB there is one after the other."""
    bench.recipe = dataclasses.replace(bench.recipe, memory=GIB)
    open_: list[int] = []
    start = ProcessContainer.start

    def counted(self: ProcessContainer) -> None:
        open_.append(len(bench.containers.running))
        start(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessContainer, "start", counted)
        made = bench.build(memory=2 * GIB, shards=2)
    assert made.compiled == 4
    shards = [m for m in bench.containers.made if m.spec.purpose.startswith("shard")]
    assert len(shards) >= 2
    assert {m.spec.memory // GIB for m in shards} == {2}
    assert set(open_) == {0}, "another container was open when one was started"


# -- a remote --------------------------------------------------------------------------------------


def test_another_machine_compiles_nothing_and_looks_again_for_what_came(bench: Bench) -> None:
    remote = bench.folder / "remote"

    def on_a_new_machine() -> WheelMade:
        shutil.rmtree(bench.cache / "store", ignore_errors=True)
        return bench.build(remote=remote_of(str(remote)))

    first = on_a_new_machine()
    assert len(bench.of(JobFinished)) == 5
    second = on_a_new_machine()
    assert [one.step for one in bench.of(StepStarted)] == ["images"], "the finished wheel came"
    shutil.rmtree(remote / "fatwheel1" / "wheel")
    third = on_a_new_machine()
    assert bench.of(JobFinished) == []
    assert first.sha256 == second.sha256 == third.sha256


def test_a_wheel_that_somebody_else_made_of_something_else_is_refused(bench: Bench) -> None:
    remote = bench.folder / "remote"
    bench.build(remote=remote_of(str(remote)))
    [place] = (remote / "fatwheel1" / "wheel").iterdir()
    wheel = bench.folder / "other.whl"
    with zipfile.ZipFile(wheel, "w") as other:
        other.writestr("demo/__init__.py", "import os")
    with place.open("wb") as out:
        facts = open_store().get("built", place.name)
        assert facts
        pieces = [Piece("built", place.name, facts), Piece("wheel", place.name, wheel)]
        write_parcel(out, f"wheel/{place.name}", "", pieces, Trust())
    shutil.rmtree(bench.cache / "store")
    made = bench.build(remote=remote_of(str(remote)))
    assert any("is refused, and made here" in note.text for note in bench.of(Note))
    assert Path(made.path).read_bytes() != wheel.read_bytes()
