"""SIGKILL at any moment to builds in containers, and to the building of images: see `kills`."""

from __future__ import annotations

import os
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, Contained, Workbench
from .engine import LentEngine
from .kills import Victim, assert_clean, chance, each_number, number_of
from .test_builds import sha256

__all__ = ["chance"]  # a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(12 * 3600)]


def containers_of(lent: LentEngine, cache: Path) -> list[Any]:
    label = f"fatwheel.cache={cache}"
    found: list[Any] = lent.client().containers(all=True, filters={"label": label})
    return found


@each_number
def test_killed_builds_in_containers(
    contained: Contained, tmp_path: Path, chance: random.Random, kills: int
) -> None:
    lent = contained.lent
    bench = Workbench(tmp_path / "bench", slim=contained.bench.slim)
    reference = next(path for path in contained.outcome.wheels if "-cp311-" in path.name)
    words = ["--arch", "80,89", "--python", "3.11", "--engine", "docker"]
    victim = Victim(
        bench.build_command(*words), bench.variables(**lent.variables),
        bench.cache / "killed.log", longest=8, cwd=bench.home,
    )  # fmt: skip
    while victim.killed < number_of(kills, 0.1):
        before = victim.killed
        victim.kill(chance)
        assert {sha256(wheel) for wheel in bench.wheels()} <= {sha256(reference)}
        if victim.killed == before:  # it came to its end
            assert bench.invoke("cache", "--clean").code == 0
            bench.forget_wheels()
    last = bench.build(*words, **lent.variables)
    assert sha256(last.wheel()) == sha256(reference)
    assert containers_of(lent, bench.cache) == [], "containers of killed builds are still there"
    assert_clean(bench)


IMAGES = """
import os, sys
from pathlib import Path
import pytest
from tests.integration.engine import LentEngine
from tests.integration.test_images import Small

lent = LentEngine(sys.argv[2], {"3.11": sys.argv[3]})
with pytest.MonkeyPatch.context() as patch:
    small = Small(lent, Path(sys.argv[1]), patch, "killed-test")
    for image in small.images(small.toolchain()):
        print("made", image.tag, flush=True)
"""


@each_number
def test_killed_building_of_images(
    docker_engine: LentEngine, tmp_path: Path, chance: random.Random, kills: int
) -> None:
    """Images of stand-in packages, each time others: what was not finished has no tag."""
    client: Any = docker_engine.client()

    def tags() -> set[str]:
        found = client.images(name="fatwheel/killed-test")
        return {tag for image in found for tag in image["RepoTags"] or ()}

    def command(folder: Path) -> list[str]:
        return [sys.executable, "-c", IMAGES, str(folder), docker_engine.host,
                docker_engine.bases["3.11"]]  # fmt: skip

    before = tags()
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "CI": "true"}
    try:
        for turn in range(number_of(kills, 0.1)):
            folder = tmp_path / str(turn // 5)  # several turns at the same images
            folder.mkdir(exist_ok=True)
            Victim(command(folder), variables, tmp_path / "killed.log", 8).kill(chance)
        last = Victim(command(folder), variables, tmp_path / "last.log", 600)
        process = last.start()
        assert process.wait(timeout=600) == 0, last.log.read_text()
        made = set(re.findall(r"^made (\S+)", last.log.read_text(), re.MULTILINE))
        assert len(made) == 2, last.log.read_text()
        assert made <= tags()
        left = [path for path in folder.rglob("*.part") if path.is_file()]
        assert left == [], "of what was killed something was left"
    finally:
        for tag in tags() - before:
            client.remove_image(tag, force=True)
