"""A target built on this machine, with a stand-in for nvcc."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path
from queue import Queue

import pytest

from fatwheel.config.recipe import Target
from fatwheel.engines import local, process
from fatwheel.engines.base import Limits
from fatwheel.engines.process import ProcessWorker, local_workplace
from fatwheel.events import Event, StepStarted, silent
from fatwheel.fatbin.stitch import image_name, slices_of
from fatwheel.model import Host
from fatwheel.pipeline import resolve as resolve_module
from fatwheel.pipeline.capture import captured
from fatwheel.pipeline.plan import PlannedWheel
from fatwheel.pipeline.resolve import ToolchainRequest, resolve
from fatwheel.storage.cache import users_stores
from fatwheel.worker import surroundings

from ...helpers.demoproject import Demo
from ...helpers.standins import front

LIMITS = Limits(cpus=2, memory=1 << 30)
FRONTS = (front("80"), front("86"))


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Demo:
    tool("g++")
    demo = Demo(tmp_path, monkeypatch)
    for name in ("load_recipe", "load_toolchain"):
        monkeypatch.setattr(resolve_module, name, getattr(demo, name))
    monkeypatch.setattr(process, "ready_tools", demo.ready_tools)
    return demo


def target() -> Target:
    return resolve("demo", ToolchainRequest("tools", pythons="3.11"), "80,86")[0]


def test_a_workplace_is_the_environment_and_the_machine(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "cores", lambda: 7)
    monkeypatch.setattr(local, "free_memory", lambda: 9 << 30)
    found = local_workplace(target(), silent)
    assert found.tools is demo.tools
    assert found.capacity == Limits(7, 9 << 30)


def test_headers_are_those_of_the_compiler_and_not_of_the_folder_that_a_build_starts_in(
    tool: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = Path(tool("g++"))
    (tmp_path / "mine.h").touch()
    monkeypatch.chdir(tmp_path)
    found = surroundings.names_of_headers(compiler)
    assert any(name.endswith("/bits/stdc++.h") for name in found)
    assert [name for name in found if not name.startswith("/")] == []


def test_the_identity_is_of_the_environment_and_the_host_compiler(demo: Demo) -> None:
    before = local_workplace(target(), silent).identity
    assert local_workplace(target(), silent).identity == before
    tools = demo.tools
    other = dataclasses.replace(tools.environment, root=Path("/elsewhere/another-digest"))
    demo.tools = dataclasses.replace(tools, environment=other)
    assert local_workplace(target(), silent).identity != before
    other = dataclasses.replace(tools.environment, root=Path("/elsewhere/env"))
    demo.tools = dataclasses.replace(tools, environment=other)
    assert local_workplace(target(), silent).identity == before, "wherever it lies"
    gcc = dataclasses.replace(tools.compiler, id="c1" * 32)
    demo.tools = dataclasses.replace(tools, compiler=gcc)
    assert local_workplace(target(), silent).identity != before


def test_a_target_is_captured(demo: Demo) -> None:
    events: list[Event] = []
    workplace = local_workplace(target(), silent)
    stores = users_stores()
    wheel = PlannedWheel(target(), FRONTS)
    with captured(wheel, workplace, LIMITS, stores, events.append) as (build, found):
        lookup = found.look_up()
        assert (lookup.units, len(lookup.pending)) == (3, 5)
        assert [unit.name for unit in found.units] == ["csrc/a", "csrc/b", "csrc/c"]
        assert found.host == Host("g++ 12.2.0", "c0" * 32, "3.11")
        assert build.work.is_dir()
        worker = found.open("1:compute_80", LIMITS, Queue())
        assert isinstance(worker, ProcessWorker)
        worker.close()
    assert not build.work.exists()
    assert demo.work_folders() == []
    steps = [event.step for event in events if isinstance(event, StepStarted)]
    assert steps == ["source", "capture", "plan"]


def test_assembling_gives_the_wheel_and_its_slices(demo: Demo) -> None:
    workplace = local_workplace(target(), silent)
    wheel = PlannedWheel(target(), FRONTS)
    with captured(wheel, workplace, LIMITS, users_stores(), silent) as (_, found):
        wheel, slices = found.assemble(LIMITS)
        with zipfile.ZipFile(wheel) as archive:
            images = [image_name(entry) for entry in slices_of(archive.read("demo/a.o"))]
    assert images == ["sm_80", "sm_86"]
    assert {unit["name"]: list(unit["slices"]) for unit in slices} == {
        "csrc/a": ["sm_80", "sm_86"], "csrc/b": ["sm_80", "sm_86"],
    }  # fmt: skip
    assert all(all(unit["slices"].values()) for unit in slices)


def test_workers_keep_logs_among_those_of_the_cache(demo: Demo) -> None:
    workplace = local_workplace(target(), silent)
    wheel = PlannedWheel(target(), FRONTS)
    with captured(wheel, workplace, LIMITS, users_stores(), silent) as (_, found):
        [folder] = (demo.cache / "logs").iterdir()
        assert folder.name.startswith("demo-1.0-3.11-")
        found.open("1:compute_80", LIMITS, Queue()).close()
    kept = sorted(path.name for path in folder.iterdir())
    assert kept == ["capture.log", "shard-1-compute_80.log"]
