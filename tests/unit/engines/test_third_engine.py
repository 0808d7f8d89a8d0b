"""An engine that fatwheel does not know builds through the same registry, and makes the same."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fatwheel.engines import process
from fatwheel.engines.registry import ENGINES
from fatwheel.errors import CompileError, UsageError
from fatwheel.events import Event, JobFinished, Planned
from fatwheel.pipeline import resolve
from fatwheel.pipeline.build import build
from fatwheel.pipeline.plan import BuildRequest, plan_build

from ...helpers.demoproject import Demo
from ...helpers.inlineengine import InlineEngine


class Bench(Demo):
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.events: list[Event] = []
        for name in ("load_recipe", "load_toolchain"):
            monkeypatch.setattr(resolve, name, getattr(self, name))
        monkeypatch.setattr(process, "ready_tools", self.ready_tools)
        monkeypatch.setitem(ENGINES, "inline", lambda: InlineEngine(self.tools))

    def request(self, engine: str) -> BuildRequest:
        return BuildRequest(
            kernel="demo", archs="80,86", pythons="3.11", torch=None, toolchain="tools",
            engine=engine, shards=None, jobs=2, memory=1 << 30, front="exact",
            out=self.folder / engine,
        )  # fmt: skip

    def build(self, engine: str) -> bytes:
        """The wheel that an engine makes from nothing."""
        self.events.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FATWHEEL_CACHE", str(self.folder / f"cache-{engine}"))
            [made] = build(plan_build(self.request(engine)), self.events.append)
        assert made.compiled == 4
        return Path(made.path).read_bytes()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path, monkeypatch)


def test_a_third_engine_gives_the_same_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bench.build("process")

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(process, "ProcessWorker", refuse)
    assert bench.build("inline") == expected
    [planned] = [event for event in bench.events if isinstance(event, Planned)]
    assert planned.engine == "inline"
    assert sum(isinstance(event, JobFinished) for event in bench.events) == 5
    assert not [one for one in threading.enumerate() if "ThreadPool" in one.name], "closed"


def test_a_job_of_a_third_engine_fails_by_name(bench: Bench) -> None:
    bench.write("csrc/a.cu", "#error not yet\n")
    with pytest.raises(CompileError, match="2 of 5 jobs failed"):
        bench.build("inline")


def test_a_third_engine_is_planned_and_listed(bench: Bench) -> None:
    plan = plan_build(bench.request("inline"))
    assert plan.to_json()["engine"] == "inline"
    assert plan.footprint.containers == ()
    with pytest.raises(UsageError) as caught:
        plan_build(bench.request("cloud"))
    assert caught.value.hint == "valid: process, docker, dask, inline"
