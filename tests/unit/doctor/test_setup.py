"""Preparing a workstation: what is done, what is there, what fails, and what is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

# If it were first imported where `connect` is patched, it would keep that one for all other tests.
import fatwheel.engines.docker  # noqa: F401
from fatwheel.containers.imagebuild import ContainerImage
from fatwheel.doctor import report
from fatwheel.doctor.facts import CacheFacts, Facts, ImageFacts, Stock
from fatwheel.doctor.report import Preparation, prepare_workstation
from fatwheel.errors import FetchError
from fatwheel.events import Event, Progress, StepFinished, StepStarted, silent
from fatwheel.model import Environment
from fatwheel.pipeline.resolve import ToolchainRequest

from ...helpers.schemas import schema_of
from ...helpers.workstations import BROKEN, GB, HEALTHY, IN_CONTAINERS, NO_ENGINE, facts

SCHEMA = schema_of("setup")
Prepare = Callable[..., Preparation]
CACHE = HEALTHY.cache
assert isinstance(CACHE, CacheFacts)


class Doings:
    """What setup asks others to do; nothing is fetched or installed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[Any] = []
        self.moves = False  # whether the environment had to be made
        self.error: Exception | None = None
        monkeypatch.setattr(report, "ensure_environment", self.environment)
        monkeypatch.setattr(report, "contexts_on", lambda *_: ("toolchain", "env"))
        monkeypatch.setattr(report, "fetched", self.fetch)
        monkeypatch.setattr("fatwheel.containers.client.connect", lambda: "engine")
        monkeypatch.setattr("fatwheel.containers.imagebuild.ensure_images", self.images)

    def environment(
        self, toolchain: Any, python: str, torch: str, cache: Path, emit: Any
    ) -> Environment:
        if self.error:
            raise self.error
        self.done.append((toolchain.name, python, torch))
        if self.moves:
            emit(Progress("install", 1, 2))
        root = cache / "envs" / "x"
        return Environment(root, root, root, root, root, "3.11.2", torch, "")

    def fetch(self, context: str, cache: Path, emit: Any) -> None:
        if self.error:
            raise self.error
        self.done.append(f"files of {context}")
        if self.moves:
            emit(Progress("download", 1, 2))

    def images(
        self, engine: str, toolchain: Any, python: str, torch: str, cache: Path, emit: Any
    ) -> list[ContainerImage]:
        self.done.append(("images", engine, python, torch))
        return [ContainerImage("env", "fatwheel/l:env-1", "sha256:1", 1 << 30, self.moves)]


@pytest.fixture
def doings(monkeypatch: pytest.MonkeyPatch) -> Doings:
    return Doings(monkeypatch)


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Sets a machine up; its cache is really made. `later` is how the doctor finds it then."""
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))

    def prepare(
        before: Facts, later: Facts | None = None, emit: Callable[[Event], None] = silent
    ) -> Preparation:
        answers = [before, *([later] if later else [])]
        monkeypatch.setattr(report, "gather", lambda toolchain, engine: answers.pop(0))
        prepared = prepare_workstation(ToolchainRequest(), None, emit)
        assert answers == [], "the doctor should have looked again"
        jsonschema.validate(json.loads(json.dumps(prepared.to_json())), SCHEMA)
        return prepared

    return prepare


def statuses(prepared: Preparation) -> dict[str, str]:
    return {step.name: step.status for step in prepared.steps}


def test_from_nothing(prepare: Prepare, doings: Doings, tmp_path: Path) -> None:
    doings.moves = True
    new = facts(stock=Stock(0, 2 * GB), cache=replace(CACHE, exists=False))
    prepared = prepare(new, HEALTHY)
    assert statuses(prepared) == {"cache folder": "done", "environment": "done"}
    assert (tmp_path / "cache").is_dir()
    assert doings.done == [("linux-cuda13.0", "3.11", "2.11.0")]
    assert prepared.to_json()["ok"]
    assert list(prepared.left()) == []


def test_again(prepare: Prepare, doings: Doings, tmp_path: Path) -> None:
    """All is there: nothing is done, and the doctor need not look twice."""
    (tmp_path / "cache").mkdir()
    assert statuses(prepare(HEALTHY)) == {"cache folder": "there", "environment": "there"}


def test_the_board_hears_of_each_step(prepare: Prepare, doings: Doings, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    events: list[Event] = []
    prepare(HEALTHY, emit=events.append)
    started = [event.step for event in events if isinstance(event, StepStarted)]
    finished = [event.step for event in events if isinstance(event, StepFinished)]
    assert started == finished == ["cache folder", "environment"]


def test_what_stands_in_the_way_comes_first(
    prepare: Prepare, doings: Doings, tmp_path: Path
) -> None:
    prepared = prepare(BROKEN)
    assert set(statuses(prepared).values()) == {"left"}
    assert doings.done == []
    assert not (tmp_path / "cache").exists()
    first, *_ = prepared.left()
    assert first[0].name == "cache", "what is wrong comes first"


def test_what_is_left_is_what_the_doctor_finds(prepare: Prepare, doings: Doings) -> None:
    left = prepare(BROKEN).to_json()["left"]
    found = [
        (finding.name, fix.command or None)
        for status in ("wrong", "warning")
        for finding in prepare(BROKEN).report.findings
        if finding.status == status
        for fix in finding.fixes
    ]
    listed = [(item["check"], item["command"]) for item in left]
    assert listed == [item for item in found if not (item[1] or "").startswith("invoke setup")]
    assert any(item["administrator"] for item in left)


def test_a_step_that_fails_keeps_the_reason(
    prepare: Prepare, doings: Doings, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    doings.error = FetchError("nvcc.whl could not be fetched")
    prepared = prepare(HEALTHY)
    assert statuses(prepared)["environment"] == "failed"
    assert prepared.failure is doings.error
    assert prepared.to_json()["ok"] is False
    assert prepared.steps[-1].what == "nvcc.whl could not be fetched"


NEW = facts(IN_CONTAINERS, images=ImageFacts(("fatwheel/l:env-1",), ()))


def test_for_containers_files_are_fetched_and_images_made(
    prepare: Prepare, doings: Doings, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    doings.moves = True
    prepared = prepare(NEW, IN_CONTAINERS)
    assert statuses(prepared) == {"cache folder": "there", "files": "done", "images": "done"}
    assert doings.done == [
        "files of toolchain", "files of env", ("images", "engine", "3.11", "2.11.0"),
    ]  # fmt: skip
    assert prepared.steps[-1].what == "fatwheel/l:env-1 (1.0 GiB)"


def test_images_that_are_there_need_no_files(
    prepare: Prepare, doings: Doings, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    assert set(statuses(prepare(IN_CONTAINERS)).values()) == {"there"}
    assert doings.done == [("images", "engine", "3.11", "2.11.0")]


def test_without_an_engine_the_files_are_fetched_all_the_same(
    prepare: Prepare, doings: Doings, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    doings.moves = True
    broken = replace(NEW, container_engine=NO_ENGINE, images=None)
    prepared = prepare(broken, broken)
    assert statuses(prepared) == {"cache folder": "there", "files": "done", "images": "left"}
    assert prepared.steps[-1].what == "first: container engine"
    assert prepared.to_json()["left"][0]["command"] == "sudo systemctl start docker"


def test_the_schema_refuses_what_is_no_preparation(prepare: Prepare, doings: Doings) -> None:
    document = prepare(BROKEN).to_json()
    for key in list(document):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, key: None}, SCHEMA)
