"""Wheels of the demo project built again from what they say of themselves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing

from fatwheel.config.pinned import Package
from fatwheel.config.sourcetree import tree_digest
from fatwheel.engines import process
from fatwheel.engines.base import Engine
from fatwheel.errors import FetchError, FormatError, HashMismatchError, UsageError
from fatwheel.events import Event, JobFinished, Note
from fatwheel.pipeline import rebuild, resolve
from fatwheel.pipeline.build import build
from fatwheel.pipeline.compile import Effort
from fatwheel.pipeline.consent import Stranger, refuse
from fatwheel.pipeline.plan import BuildRequest, plan_build
from fatwheel.pipeline.rebuild import RebuildRequest, Rebuilt, refusal
from fatwheel.storage.cache import open_store
from fatwheel.toolchain.pipconfig import PipConfig

from ...helpers.demoproject import Demo
from ...helpers.schemas import schema_of
from ...helpers.standins import calls

SCHEMA = schema_of("rebuild")
COMPARE = schema_of("compare")


class Bench(Demo):
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.events: list[Event] = []
        for name in ("load_recipe", "load_toolchain"):
            monkeypatch.setattr(resolve, name, getattr(self, name))
        monkeypatch.setattr(rebuild, "load_recipe", self.load_recipe)
        monkeypatch.setattr(rebuild, "recipe_folders", lambda: (folder / "kernels",))
        monkeypatch.setattr(process, "ready_tools", self.ready_tools)

    def build(self, front: str = "exact") -> Path:
        [made] = build(
            plan_build(BuildRequest(
                kernel="demo", archs="80,86", pythons="3.11", torch=None, toolchain="tools",
                engine="process", shards=None, jobs=2, memory=1 << 30, front=front,
                out=self.folder / "dist",
            )),
            self.events.append,
        )  # fmt: skip
        self.events.clear()
        return Path(made.path)

    def rebuild(self, wheel: Path, from_store: str = "slices", **changes: Any) -> Rebuilt:
        effort = Effort(shards=None, jobs=2, memory=1 << 30)
        agree = changes.pop("agree", refuse)
        wanted: dict[str, Any] = {
            "engine": None, "find": None, "effort": effort, "out": self.folder / "rebuilt",
            **changes,
        }  # fmt: skip
        request = RebuildRequest(wheel=wheel, from_store=from_store, **wanted)
        return rebuild.rebuild(request, self.events.append, agree)

    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]

    def compiled(self) -> int:
        return sum(isinstance(event, JobFinished) for event in self.events)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Callable[[str], str]) -> Bench:
    tool("g++")
    return Bench(tmp_path, monkeypatch)


def test_the_same_wheel_again(bench: Bench) -> None:
    wheel = bench.build()
    found = bench.rebuild(wheel)
    assert found.comparison.identical
    assert (found.slices, found.compiled, found.path, found.causes) == (4, 0, None, ())
    assert not (bench.folder / "rebuilt").exists(), "nothing to keep"
    assert bench.work_folders() == []


def test_a_finished_wheel_in_the_store_proves_nothing(bench: Bench) -> None:
    wheel = bench.build()
    bench.rebuild(wheel)
    steps = [type(event).__name__ for event in bench.events]
    assert "StepStarted" in steps, "it was assembled again"


def test_with_an_empty_store_everything_is_compiled(bench: Bench) -> None:
    wheel = bench.build()
    before = len(calls(bench.home))
    found = bench.rebuild(wheel, from_store="never")
    assert found.comparison.identical
    assert (found.slices, found.compiled) == (4, 4)
    assert bench.compiled() == 5, "two units for two architectures, and one of C++"
    assert len(calls(bench.home)) > before


@pytest.mark.parametrize("from_store", rebuild.FROM_STORE)
def test_the_user_s_store_is_read_at_most(bench: Bench, from_store: str) -> None:
    """Not even a use is noted, nor what is damaged deleted: it is compiled again, for once."""
    wheel = bench.build()
    store = open_store()
    slices = (store.root / "refs" / "slice").rglob("*")
    first = min(path for path in slices if path.is_file())
    first.write_bytes(b"damaged")
    for path in store.root.rglob("*"):
        os.utime(path, (1e9, 1e9))
    before = {path: state_of(path) for path in store.root.rglob("*")}
    found = bench.rebuild(wheel, from_store)
    assert found.comparison.identical
    assert found.compiled == (1 if from_store == "slices" else 4)
    assert {path: state_of(path) for path in store.root.rglob("*")} == before


def state_of(path: Path) -> tuple[float, bytes]:
    return path.stat().st_mtime, path.read_bytes() if path.is_file() else b""


# -- wheels that were not built here -------------------------------------------------------------


def forget_locks() -> None:
    """As on another machine that has the same slices."""
    assert [usage.entries for usage in open_store().usage() if usage.kind == "lock"] == [1]
    open_store().clear("lock")


def test_what_was_built_here_needs_no_question(bench: Bench) -> None:
    wheel = bench.build()
    open_store().clear("wheel")
    assert bench.rebuild(wheel).comparison.identical


def test_a_wheel_from_elsewhere_runs_only_if_the_user_agrees(bench: Bench) -> None:
    wheel = bench.build()
    forget_locks()
    with pytest.raises(UsageError, match="runs only with your consent") as caught:
        bench.rebuild(wheel)
    assert "--yes" in str(caught.value)
    assert (bench.events, bench.work_folders()) == ([], []), "nothing was begun"
    lines = "\n".join(caught.value.details)
    for words in (wheel.name, "demo 1.0", str(bench.source), tree_digest(bench.source),
                  "process: it runs as you, with your files and your network"):  # fmt: skip
        assert words in lines, words
    told: list[Stranger] = []
    assert bench.rebuild(wheel, agree=told.append).comparison.identical
    assert [stranger.lines for stranger in told] == [tuple(caught.value.details)]
    bench.rebuild(wheel, agree=told.append)
    assert len(told) == 2, "who agrees to one rebuild has not agreed to the next"


def test_its_own_containers_come_first_where_there_are_any(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = bench.build()
    asked: list[bool] = []

    def engine_for(toolchain: Any, engine: str | None, *, foreign: bool) -> Engine:
        asked.append(foreign)
        return process.Processes()

    monkeypatch.setattr(rebuild, "engine_for", engine_for)
    bench.rebuild(wheel)
    forget_locks()
    bench.rebuild(wheel, agree=lambda stranger: None)
    assert asked == [False, True]


def test_fronts_are_the_wheel_s_whatever_is_proven_here(bench: Bench) -> None:
    wheel = bench.build(front="shared")
    assert bench.rebuild(wheel).comparison.identical


def test_pins_are_the_wheel_s_whatever_this_checkout_would_use(bench: Bench) -> None:
    wheel = bench.build()
    other = bench.folder / "other" / wheel.name
    other.parent.mkdir()
    shutil.copy(wheel, other)
    bench.toolchain = dataclasses.replace(bench.toolchain, digest="a0" * 32)
    shutil.rmtree(bench.folder / "dist")
    changed = bench.build()
    assert changed.read_bytes() != other.read_bytes(), "the record names the toolchain's file"
    assert bench.rebuild(other).comparison.identical


def test_another_compiler_is_told_of_early_and_at_the_end(bench: Bench) -> None:
    wheel = bench.build()
    compiler = dataclasses.replace(bench.tools.compiler, version="14.2.0", id="d1" * 32)
    bench.tools = dataclasses.replace(bench.tools, compiler=compiler)
    found = bench.rebuild(wheel)
    assert not found.comparison.identical
    assert found.causes == ("C++ compiler: g++ 12.2.0 became g++ 14.2.0",)
    assert any("host code may differ: C++ compiler" in note for note in bench.notes())
    assert found.path == bench.folder / "rebuilt" / wheel.name
    assert found.path.is_file()
    error = refusal(found, wheel)
    assert error.exit_code == 15
    assert str(found.path) in str(error)
    registry = referencing.Registry().with_resource(
        COMPARE["$id"], referencing.Resource.from_contents(COMPARE)
    )
    jsonschema.Draft202012Validator(SCHEMA, registry=registry).validate(
        json.loads(json.dumps(found.to_json()))
    )


def test_sources_that_are_not_those_of_the_wheel(bench: Bench) -> None:
    wheel = bench.build()
    (bench.source / "csrc" / "a.cu").write_text("int other;\n")
    with pytest.raises(HashMismatchError, match="not those that the wheel was built from"):
        bench.rebuild(wheel)
    shutil.rmtree(bench.source)
    with pytest.raises(UsageError, match="which are missing here"):
        bench.rebuild(wheel)


def test_what_cannot_be(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="valid: slices, never"):
        bench.rebuild(tmp_path / "x.whl", from_store="sometimes")
    with pytest.raises(UsageError, match="cannot read"):
        bench.rebuild(tmp_path / "x.whl")
    (tmp_path / "x.whl").write_bytes(b"no wheel")
    with pytest.raises(FormatError):
        bench.rebuild(tmp_path / "x.whl")


def test_a_host_that_only_the_lock_names_is_not_asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"a compiler's wheel"
    name = "tool-1.0-py3-none-any.whl"
    stranger = Package(
        "tool", "1.0", name, len(content), hashlib.sha256(content).hexdigest(), "compiler",
        f"https://stranger.example/{name}",
    )  # fmt: skip
    bench.toolchain = dataclasses.replace(bench.toolchain, packages=(stranger,))
    wheel = bench.build()
    monkeypatch.setattr("fatwheel.toolchain.download.read_pip_config", PipConfig)
    with pytest.raises(FetchError) as caught:
        bench.rebuild(wheel)
    assert caught.value.details == (f"{name}: stranger.example",)
    assert bench.events == [], "nothing has begun"
    folder = bench.folder / "have"
    folder.mkdir()
    (folder / "any name").write_bytes(content)
    assert bench.rebuild(wheel, find=folder).comparison.identical
