"""Which containers are left over, and what is done when the engine will not remove one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from fatwheel.containers.client import DockerEngine, connect
from fatwheel.containers.roster import Leftovers, enrolled, reap, this_host
from fatwheel.errors import EngineError
from fatwheel.storage.cache import work_folder

from ...helpers.fakeengine import Fake, fake_engine


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setenv("FATWHEEL_CACHE", str(tmp_path / "cache"))
    with fake_engine(tmp_path) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.host)
        yield engine


@pytest.fixture
def engine(fake: Fake) -> DockerEngine:
    return connect()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def id_of(number: int) -> str:
    return f"{number:064x}"


def offer(fake: Fake, cache: Path, *numbers: int, **more: Any) -> None:
    """The engine has these containers, all of which say that they are of this cache's builds."""
    labels = {"fatwheel": "x", "fatwheel.cache": str(cache), "fatwheel.host": this_host()}
    # What an older fatwheel went by; a folder that is not there was as good as one of a dead build.
    labels["fatwheel.hold"] = str(cache / "work" / "build-gone")
    found = [{"Id": id_of(number), "Names": [], "Labels": labels, **more} for number in numbers]
    fake.answers["GET /containers/json"] = (200, found)
    for number in numbers:
        fake.answers[f"DELETE /containers/{id_of(number)}"] = (204, None)


def removed(fake: Fake) -> list[int]:
    paths = [path.partition("?")[0] for method, path, _ in fake.requests if method == "DELETE"]
    return [int(path.rpartition("/")[2], 16) for path in paths]


def killed(engine: DockerEngine, *numbers: int) -> list[str]:
    """A build made these containers and is gone; their names."""
    with (
        work_folder() as work,
        enrolled("killed", work, engine.endpoint) as roster,
    ):
        names = [roster.announce() for _ in numbers]
        for name, number in zip(names, numbers, strict=True):
            roster.made(name, id_of(number))
    return names


def test_only_those_that_say_so_are_looked_at(
    fake: Fake, engine: DockerEngine, cache: Path
) -> None:
    assert reap(engine, cache) == Leftovers(0, ())
    [asked] = [unquote(path) for _, path, _ in fake.requests if "containers/json" in path]
    assert "all=1" in asked, "those too that were never started"
    assert '"fatwheel"' in asked


def test_those_of_killed_builds_go_and_their_rosters_with_them(
    fake: Fake, engine: DockerEngine, cache: Path
) -> None:
    killed(engine, 1, 2)
    killed(engine, 3)
    offer(fake, cache, 1, 2, 3)
    assert reap(engine, cache) == Leftovers(3, ())
    assert sorted(removed(fake)) == [1, 2, 3]
    assert list((cache / "containers").iterdir()) == []


def test_those_of_living_builds_stay(fake: Fake, engine: DockerEngine, cache: Path) -> None:
    offer(fake, cache, 1)
    with work_folder() as work, enrolled("x", work, engine.endpoint) as roster:
        roster.made(roster.announce(), id_of(1))
        assert reap(engine, cache) == Leftovers(0, ())
    assert removed(fake) == []


def test_what_labels_say_removes_nothing_and_is_told(
    fake: Fake, engine: DockerEngine, cache: Path
) -> None:
    killed(engine, 1)
    offer(fake, cache, 1, 7)
    assert reap(engine, cache) == Leftovers(1, (id_of(7),))
    assert removed(fake) == [1]


def test_a_name_that_was_copied_removes_nothing(
    fake: Fake, engine: DockerEngine, cache: Path
) -> None:
    [name] = killed(engine, 1)
    offer(fake, cache, 7, Names=[f"/{name}"])
    assert reap(engine, cache).unknown == (id_of(7),)
    assert removed(fake) == []


def test_a_container_that_was_made_and_not_put_down_goes(
    fake: Fake, engine: DockerEngine, cache: Path
) -> None:
    with work_folder() as work, enrolled("x", work, engine.endpoint) as roster:
        name = roster.announce()
    offer(fake, cache, 1, Names=[f"/{name}"])
    assert reap(engine, cache) == Leftovers(1, ())
    assert removed(fake) == [1]


@pytest.mark.parametrize(
    "labels", [{}, {"fatwheel.cache": "/another"}, {"fatwheel.host": "another"}]
)
def test_other_caches_and_machines_have_their_own(
    fake: Fake, engine: DockerEngine, cache: Path, labels: dict[str, str]
) -> None:
    offer(fake, cache, 7, Labels={"fatwheel": "x", **labels})
    assert reap(engine, cache) == Leftovers(0, ())


def test_somebody_else_removes_it_meanwhile(fake: Fake, engine: DockerEngine, cache: Path) -> None:
    killed(engine, 1)
    offer(fake, cache, 1)
    gone = (404, {"message": f"No such container: {id_of(1)}"})
    fake.answers[f"DELETE /containers/{id_of(1)}"] = gone
    reap(engine, cache)
    assert list((cache / "containers").iterdir()) == []


def test_one_that_cannot_be_removed_is_not_forgotten(
    fake: Fake, engine: DockerEngine, cache: Path
) -> None:
    killed(engine, 1, 2)
    offer(fake, cache, 1, 2)
    busy = (409, {"message": "removal is already in progress"})
    fake.answers[f"DELETE /containers/{id_of(1)}"] = busy
    assert reap(engine, cache) == Leftovers(1, ())
    assert len(list((cache / "containers").iterdir())) == 1
    offer(fake, cache, 1)
    assert reap(engine, cache) == Leftovers(1, ())


def test_an_engine_that_fails(fake: Fake, engine: DockerEngine, cache: Path) -> None:
    fake.answers["GET /containers/json"] = (500, {"message": "out of order"})
    with pytest.raises(EngineError, match="out of order"):
        reap(engine, cache)


def test_the_command_that_removes_them_is_told() -> None:
    assert Leftovers(3, ()).note == ""
    one = Leftovers(0, (id_of(1),)).note
    assert one.startswith("1 container claims to be part of a build that uses this cache")
    assert one.endswith(f"docker rm --force --volumes {id_of(1)[:12]}")
    many = Leftovers(0, tuple("c0ffee" for number in range(1000))).note
    assert many.startswith("1000 containers claim to be")
    assert len(many) < 600
