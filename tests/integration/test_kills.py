"""SIGKILL at any moment: the next run ends as if nothing had been, and nothing is left.

60 kills in CI, 1,000 with --all. FATWHEEL_TEST_KILLS names another number for both,
FATWHEEL_TEST_SEED repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from .conftest import ROOT, Contained, Outcome, Workbench
from .engine import LentEngine
from .test_builds import sha256

pytestmark = [pytest.mark.slow, pytest.mark.timeout(12 * 3600)]

FEW, MANY = 60, 1000
ARCHS = "80,86"
_FINISHED = re.compile(r"^\[\d+/\d+\] (.+?) \d", re.MULTILINE)
# What a store may say of a build from which another process takes the slices away.
_TAKEN_AWAY = "run the same command again"

each_number = pytest.mark.parametrize(
    "kills", [FEW, pytest.param(MANY, marks=pytest.mark.long)], ids=["few", "many"]
)


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("FATWHEEL_TEST_SEED", "0")) or random.randrange(1, 10**6)
    print(f"FATWHEEL_TEST_SEED={seed}")
    return random.Random(seed)


def number_of(kills: int, share: float) -> int:
    """How many of all kills a test does."""
    return max(1, round(int(os.environ.get("FATWHEEL_TEST_KILLS", kills)) * share))


@dataclass
class Victim:
    """A command that is killed after some random time, at most `longest` seconds: half the times
    its whole process group, else its first process alone. killed: how often it was."""

    command: list[str]
    variables: dict[str, str]
    log: Path
    longest: float
    cwd: Path = ROOT
    killed: int = 0

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as stream:
            return subprocess.Popen(
                self.command, cwd=self.cwd, env=self.variables, stdin=subprocess.DEVNULL,
                stdout=stream, stderr=stream, start_new_session=True,
            )  # fmt: skip

    def kill(self, chance: random.Random) -> str:
        """Start it and kill it; what it said until then."""
        process = self.start()
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=chance.uniform(0.05, self.longest))
        if process.poll() is None:
            children = psutil.Process(process.pid).children(recursive=True)
            if chance.random() < 0.5:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            self.killed += 1
            assert_ended(children)
        said = self.log.read_text(errors="replace")
        assert "Traceback" not in said, said
        assert process.returncode in (0, -signal.SIGKILL) or _TAKEN_AWAY in said, said
        return said


def assert_ended(processes: list[psutil.Process]) -> None:
    """Workers and compilers end with the build; upstream's own build may take a moment more."""
    _, alive = psutil.wait_procs(processes, timeout=60)
    names = []
    for process in alive:
        with suppress(psutil.Error):
            names.append(" ".join(process.cmdline())[:100])
    assert not names, f"still running 60 s after the build was killed: {names}"


def assert_clean(bench: Workbench) -> None:
    """What a run that ended well leaves of the killed ones before it: nothing."""
    checked = bench.invoke("cache", "--check", "--json")
    assert checked.code == 0, checked.err
    assert json.loads(checked.out)["damaged"] == []
    left = [path for path in (bench.cache / "work").glob("*") if path.is_dir()]
    left += [*(bench.store / "incoming").glob("*"), *bench.cache.parent.rglob(".*.part")]
    assert left == [], "of what was killed something was left"
    running = psutil.process_iter(["cmdline"])
    names = [" ".join(process.info["cmdline"] or []) for process in running]
    assert not [name for name in names if str(bench.cache) in name], "something still runs"


# -- builds --------------------------------------------------------------------------------------


@each_number
def test_killed_builds_go_on_where_they_were(
    warm: Workbench, bench: Workbench, chance: random.Random, kills: int
) -> None:
    """Nothing that was reported as finished is compiled again; the same bytes each time around."""
    reference = sha256(warm.build("--arch", ARCHS).wheel())
    command = bench.build_command("--arch", ARCHS)
    victim = Victim(command, bench.variables(), bench.cache / "killed.log", longest=5)
    finished: list[str] = []
    while victim.killed < number_of(kills, 0.4):
        before = victim.killed
        finished += _FINISHED.findall(victim.kill(chance))
        assert {sha256(wheel) for wheel in bench.wheels()} <= {reference}, "an unfinished wheel"
        if victim.killed == before:  # it came to its end
            finished = ended_well(bench, reference, finished)
    ended_well(bench, reference, finished)


def ended_well(bench: Workbench, reference: str, finished: list[str]) -> list[str]:
    """Let a build end, look at what is there, and begin anew."""
    last = bench.build("--arch", ARCHS)
    assert sha256(last.wheel()) == reference
    finished = [*finished, *_FINISHED.findall(last.err)]
    again = sorted({label for label in finished if finished.count(label) > 1})
    assert not again, f"compiled although it had finished: {again}"
    assert_clean(bench)
    cleaned = bench.invoke("cache", "--clean")
    assert cleaned.code == 0, cleaned.err
    bench.forget_wheels()
    return []


@each_number
def test_the_store_s_housekeeping_is_killed_while_builds_run(
    warm: Workbench, tmp_path: Path, chance: random.Random, kills: int
) -> None:
    reference = sha256(warm.build("--arch", ARCHS).wheel())
    variables, logs = warm.variables(), tmp_path / "logs"
    logs.mkdir()
    victims = [
        Victim(warm.command("cache", *words), variables, logs / f"{number}.log", longest=1.5)
        for number, words in enumerate((["--check"], ["--limit", "200KiB"], ["--clean"], []))
    ]
    build = Victim(warm.build_command("--arch", ARCHS), variables, logs / "build.log", longest=6)
    beside = build.start()
    while sum(victim.killed for victim in victims) < number_of(kills, 0.2):
        chance.choice(victims).kill(chance)
        if beside.poll() is not None or chance.random() < 0.2:
            beside.kill()
            beside.wait()
            assert "Traceback" not in build.log.read_text(errors="replace")
            warm.forget_wheels()
            beside = build.start()
    beside.kill()
    beside.wait()
    time.sleep(2)  # its workers end with it
    warm.forget_wheels()
    assert sha256(warm.build("--arch", ARCHS).wheel()) == reference
    assert_clean(warm)


# -- thin ----------------------------------------------------------------------------------------


@each_number
def test_killed_thinning(
    selftest: tuple[Workbench, Outcome], bench: Workbench, chance: random.Random, kills: int
) -> None:
    wheel = selftest[1].wheel()
    words = ["thin", str(wheel), "--arch", "86"]
    reference = sha256(bench.wheel_in(bench.cache.parent / "reference", *words))
    command = bench.command(*words, "--out", str(bench.out))
    victim = Victim(command, bench.variables(), bench.cache / "killed.log", longest=1.5)
    while victim.killed < number_of(kills, 0.2):
        victim.kill(chance)
        assert {sha256(path) for path in bench.wheels()} <= {reference}, "an unfinished wheel"
    assert sha256(bench.wheel_in(bench.out, *words)) == reference
    assert [path.name for path in bench.out.iterdir()] == [bench.wheels()[0].name]


# -- containers ----------------------------------------------------------------------------------


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
    small = Small(lent, Path(sys.argv[1]), patch)
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
        found = client.images(name="fatwheel/small-test")
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
