"""A project that attacks whoever builds it, built in real containers: tests/data/hostile.

Its setup.py runs twice, for capture and for assembling, and its compiler's steps run a program of
its own in between. What each attempt met is in the wheel that it makes; what it did to this machine
is looked for here.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..conftest import ROOT
from .conftest import Contained, Workbench, build_in_containers
from .engine import LentEngine

pytestmark = pytest.mark.slow

HOSTILE = ROOT / "tests" / "data" / "hostile"
FOREIGN = b"code of the attacker, as an object"  # what poison.py puts under every key
LEAST = 40  # attempts; it makes more
# What a unit of CUDA and one of C++, for one architecture, leave in a store.
KEPT = {"slice": 1, "abi": 1, "host": 2}


@dataclass(frozen=True)
class Attacked:
    """A build of the hostile project in a store that had a wheel of another project."""

    bench: Workbench
    build: Contained
    before: dict[str, str]
    outside: dict[str, str]

    @property
    def attempts(self) -> dict[str, dict[str, str]]:
        with zipfile.ZipFile(self.build.outcome.wheel()) as wheel:
            found: dict[str, dict[str, str]] = json.loads(
                wheel.read("fatwheel_hostile/attempts.json")
            )
        return found


@pytest.fixture(scope="module")
def attacked(
    contained: Contained, docker_engine: LentEngine, tmp_path_factory: pytest.TempPathFactory
) -> Attacked:
    folder = tmp_path_factory.mktemp("attacked")
    bench = Workbench(folder, contained.bench.store, slim=contained.bench.slim)
    neighbour = folder / "neighbour"  # of the cache: what a walk through a link would reach
    neighbour.mkdir()
    os.mkfifo(neighbour / "pipe")
    (neighbour / "link").symlink_to("pipe")
    (neighbour / "file").write_text("mine")
    before, outside = contents(bench.store), names(neighbour)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FATWHEEL_TEST_SECRET", "of whoever builds")
        built = build_in_containers(
            bench, docker_engine, "--arch", "80", "--python", "3.11", "--memory", "3GiB",
            kernel=str(HOSTILE),
        )  # fmt: skip
    assert names(neighbour) == outside, "the build touched what is beside its cache"
    return Attacked(bench, built, before, outside)


def contents(store: Path) -> dict[str, str]:
    """sha256 of every file of a store that says what is in it."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for part in ("refs", "objects")
        for path in (store / part).rglob("*")
        if path.is_file()
    }


def names(folder: Path) -> dict[str, str]:
    return {path.name: oct(path.lstat().st_mode) for path in folder.iterdir()}


def kinds(files: dict[str, str]) -> dict[str, int]:
    """How many entries of each kind there are among a store's files."""
    found: dict[str, int] = {}
    for name in files:
        top, kind, *_ = Path(name).parts
        if top == "refs":
            found[kind] = found.get(kind, 0) + 1
    return found


def test_every_attempt_is_stopped(attacked: Attacked) -> None:
    attempts = attacked.attempts
    assert len(attempts) >= LEAST, "the project did not try what it should"
    done = [name for name, one in attempts.items() if not one["met"] and not one["allowed"]]
    assert done == [], "the project did this in its container"
    missed = {name: one["met"] for name, one in attempts.items() if one["allowed"] and one["met"]}
    assert missed == {}, "these should be possible, or they prove nothing about what follows"


def test_a_shard_runs_the_projects_code_too(attacked: Attacked) -> None:
    """Or what follows would say nothing of shards."""
    [log] = (attacked.bench.cache / "logs").glob("*hostile*/shard*.log")
    assert "the store is poisoned" in log.read_text(errors="replace")


def test_nothing_in_the_store_is_replaced_and_nothing_foreign_comes_in(attacked: Attacked) -> None:
    after = contents(attacked.bench.store)
    changed = [name for name, digest in attacked.before.items() if after.get(name) != digest]
    assert changed == [], "entries of another project were changed or deleted"
    foreign = hashlib.sha256(FOREIGN).hexdigest()
    assert foreign not in after.values(), "the store took an object that nobody asked for"
    new = kinds({name: digest for name, digest in after.items() if name not in attacked.before})
    assert {kind: new.get(kind, 0) for kind in KEPT} == KEPT, new
    assert new.get("wheel") == 1, "the build's own wheel and no other"


def test_another_project_is_built_as_before(
    attacked: Attacked, contained: Contained, docker_engine: LentEngine
) -> None:
    folder = attacked.bench.cache.parent / "honest"
    bench = Workbench(folder, attacked.bench.store, slim=contained.bench.slim)
    bench.forget_wheels()
    again = build_in_containers(bench, docker_engine, "--arch", "80,89", "--python", "3.11")
    assert again.purposes == ("capture", "assemble"), again.outcome.err
    assert again.outcome.wheel().read_bytes() == contained.outcome.wheels[0].read_bytes()


def test_nothing_is_left(attacked: Attacked, docker_engine: LentEngine) -> None:
    work = attacked.bench.cache / "work"
    assert [path for path in work.iterdir() if path.is_dir()] == []
    label = f"fatwheel.cache={attacked.bench.cache}"
    assert docker_engine.client().containers(all=True, filters={"label": label}) == []


def test_its_words_do_not_steer_the_terminal(attacked: Attacked) -> None:
    said = attacked.build.outcome.err + attacked.build.outcome.out
    assert "\x1b]0;" not in said
    assert "\x1b[2J" not in said
