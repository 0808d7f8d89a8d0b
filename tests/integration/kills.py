"""SIGKILL at any moment: what test_kills and test_kills_containers, which may run at the same time,
kill commands with, and what must hold afterwards.

20 kills in CI, each time at other moments, 1,000 with --all. FATWHEEL_TEST_KILLS names another
number for both, FATWHEEL_TEST_SEED repeats a run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from .conftest import ROOT, Workbench

FEW, MANY = 12, 1000
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


def left_of_killed(bench: Workbench) -> list[Path]:
    """Folders and files that are only there while a build runs."""
    left = [path for path in (bench.cache / "work").glob("*") if path.is_dir()]
    return [*left, *(bench.store / "incoming").glob("*"), *bench.cache.parent.rglob(".*.part")]


def assert_clean(bench: Workbench) -> None:
    """What a run that ended well leaves of the killed ones before it: nothing."""
    checked = bench.invoke("cache", "--check", "--json")
    assert checked.code == 0, checked.err
    assert json.loads(checked.out)["damaged"] == []
    left = left_of_killed(bench)
    assert left == [], f"of what was killed something was left: {left}"
    running = psutil.process_iter(["cmdline"])
    names = [" ".join(process.info["cmdline"] or []) for process in running]
    assert not [name for name in names if str(bench.cache) in name], "something still runs"
