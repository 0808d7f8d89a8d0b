"""A target built on this machine, with a stand-in for nvcc."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.config.model import Target
from fatwheel.engines.base import Limits
from fatwheel.engines.process import ProcessEngine
from fatwheel.events import Event, StepStarted, silent
from fatwheel.fatbin.stitch import image_name, slices_of
from fatwheel.model import Host
from fatwheel.pipeline import local
from fatwheel.pipeline import resolve as resolve_module
from fatwheel.pipeline.local import local_premises
from fatwheel.pipeline.resolve import resolve, users_stores

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
    monkeypatch.setattr(local, "ready_tools", demo.ready_tools)
    return demo


def target() -> Target:
    return resolve("demo", "tools", "80,86", "3.11", None).targets[0]


def test_premises_are_the_environment_and_the_machine(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "cores", lambda: 7)
    monkeypatch.setattr(local, "free_memory", lambda: 9 << 30)
    found = local_premises(target(), silent)
    assert (found.compiler_id, found.cores, found.memory) == ("compilers", 7, 9 << 30)


def test_the_identity_is_of_the_environment_and_the_host_compiler(demo: Demo) -> None:
    before = local_premises(target(), silent).identity
    assert local_premises(target(), silent).identity == before
    tools = demo.tools
    other = dataclasses.replace(tools.environment, root=Path("/elsewhere/another-digest"))
    demo.tools = dataclasses.replace(tools, environment=other)
    assert local_premises(target(), silent).identity != before
    other = dataclasses.replace(tools.environment, root=Path("/elsewhere/env"))
    demo.tools = dataclasses.replace(tools, environment=other)
    assert local_premises(target(), silent).identity == before, "wherever it lies"
    gcc = dataclasses.replace(tools.compiler, id="c1" * 32)
    demo.tools = dataclasses.replace(tools, compiler=gcc)
    assert local_premises(target(), silent).identity != before


def test_a_workplace_is_a_captured_target(demo: Demo) -> None:
    events: list[Event] = []
    premises = local_premises(target(), silent)
    with premises.workplace(
        target(), FRONTS, LIMITS, resolve_module.users_stores(), events.append
    ) as place:
        assert place.engine.name == "process"
        assert isinstance(place.engine, ProcessEngine)
        assert place.lookup.units == 3
        assert len(place.lookup.pending) == 5
        assert place.host == Host("g++ 12.2.0", "c0" * 32, "3.11")
        assert place.scratch.is_dir()
    assert not place.scratch.exists()
    assert demo.work_folders() == []
    steps = [event.step for event in events if isinstance(event, StepStarted)]
    assert steps == ["source", "capture", "plan"]


def test_assembling_gives_the_wheel_and_its_slices(demo: Demo) -> None:
    premises = local_premises(target(), silent)
    with premises.workplace(target(), FRONTS, LIMITS, users_stores(), silent) as place:
        wheel, slices = place.assemble(LIMITS)
        with zipfile.ZipFile(wheel) as archive:
            images = [image_name(entry) for entry in slices_of(archive.read("demo/a.o"))]
    assert images == ["sm_80", "sm_86"]
    assert {unit["name"]: list(unit["slices"]) for unit in slices} == {
        "csrc/a": ["sm_80", "sm_86"], "csrc/b": ["sm_80", "sm_86"],
    }  # fmt: skip
    assert all(all(unit["slices"].values()) for unit in slices)


def test_workers_keep_logs_among_those_of_the_cache(demo: Demo) -> None:
    premises = local_premises(target(), silent)
    with premises.workplace(target(), FRONTS, LIMITS, users_stores(), silent):
        [folder] = (demo.cache / "logs").iterdir()
        assert folder.name.startswith("demo-1.0-3.11-")
    assert folder.is_dir(), "they are kept"
