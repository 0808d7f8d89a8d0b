"""Which containers are left over, and what is done when the engine will not remove one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from fatwheel.containers.client import DockerEngine, connect
from fatwheel.containers.reaping import build_labels, reap, this_host
from fatwheel.errors import EngineError
from fatwheel.workfolder import work_folder

from .fakeengine import Fake, fake_engine


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    with fake_engine(tmp_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.host)
        yield engine


@pytest.fixture
def engine(fake: Fake) -> DockerEngine:
    return connect()


def offer(fake: Fake, *holds: str) -> None:
    """The engine has a container for each of these folders; their ids are numbers."""
    found = [
        {"Id": str(number), "Labels": {"fatwheel": "x", "fatwheel.hold": hold}}
        for number, hold in enumerate(holds)
    ]
    fake.answers["GET /containers/json"] = (200, found)
    for number in range(len(holds)):
        fake.answers[f"DELETE /containers/{number}"] = (204, None)


def removed(fake: Fake) -> list[str]:
    paths = [path.partition("?")[0] for method, path, _ in fake.requests if method == "DELETE"]
    return [path.rpartition("/")[2] for path in paths]


def test_only_its_own_are_looked_at(fake: Fake, engine: DockerEngine, tmp_path: Path) -> None:
    assert reap(engine, tmp_path / "cache") == 0
    [asked] = [unquote(path) for _, path, _ in fake.requests if "containers/json" in path]
    assert "all=1" in asked, "those too that were never started"
    for label in ('"fatwheel"', f"fatwheel.cache={tmp_path / 'cache'}", this_host()):
        assert label in asked


def test_labels_say_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path))
    labels = build_labels("some-build", tmp_path / "work" / "build-1")
    assert labels == {
        "fatwheel": "some-build",
        "fatwheel.hold": str(tmp_path / "work" / "build-1"),
        "fatwheel.cache": str(tmp_path),
        "fatwheel.host": this_host(),
    }
    assert this_host() == this_host()


def test_living_builds_keep_theirs(fake: Fake, engine: DockerEngine, tmp_path: Path) -> None:
    nobodys = tmp_path / "nobodys"
    nobodys.mkdir()
    with work_folder() as alive:
        offer(fake, str(alive), str(tmp_path / "gone"), str(nobodys))
        assert reap(engine, tmp_path / "cache") == 2
        assert removed(fake) == ["1", "2"]


def test_what_says_of_no_build_is_left_alone(
    fake: Fake, engine: DockerEngine, tmp_path: Path
) -> None:
    offer(fake, "", "relative/folder")
    assert reap(engine, tmp_path / "cache") == 0
    assert removed(fake) == []


def test_somebody_else_removes_it_meanwhile(
    fake: Fake, engine: DockerEngine, tmp_path: Path
) -> None:
    offer(fake, str(tmp_path / "gone"), str(tmp_path / "gone"), str(tmp_path / "gone"))
    fake.answers["DELETE /containers/0"] = (404, {"message": "No such container: 0"})
    fake.answers["DELETE /containers/1"] = (409, {"message": "removal is already in progress"})
    assert reap(engine, tmp_path / "cache") == 1


def test_an_engine_that_fails(fake: Fake, engine: DockerEngine, tmp_path: Path) -> None:
    fake.answers["GET /containers/json"] = (500, {"message": "out of order"})
    with pytest.raises(EngineError, match="out of order"):
        reap(engine, tmp_path / "cache")
