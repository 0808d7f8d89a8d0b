"""What `invoke test` and `invoke fuzz` run, and what becomes of their options."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from invoke.collection import Collection
from invoke.program import Program

import tasks
from fatwheel.errors import ToolchainError, UsageError
from tests import checks

ROOT = Path(__file__).parents[2]

# Stands for every tool: `python -m` finds it in the folder that it is started in. It does what
# plan.json says for its name.
TOOL = """
import json, pathlib, signal, sys, time

name = pathlib.Path(sys.argv[0]).stem
plan = json.loads(pathlib.Path("plan.json").read_text()).get(name, {})
if "--collect-only" in sys.argv:
    plan = {}


def tidy_up(*_):
    time.sleep(plan["tidying"])
    pathlib.Path("tidied").touch()
    sys.exit(2)


if "tidying" in plan:
    signal.signal(signal.SIGINT, tidy_up)
with open("calls.jsonl", "a") as calls:
    print(json.dumps([name, *sys.argv[1:]]), file=calls)
if "--basetemp" in sys.argv:
    pathlib.Path(sys.argv[-1], "file of a test").mkdir(parents=True)
time.sleep(plan.get("takes", 0))
sys.exit(plan.get("code", 0))
"""
CHECKS = ["ruff", "ruff", "mypy", "pytest"]
COMPILES = "--collect-only"


@dataclass
class Project:
    """A folder with stand-ins for the tools, and what `run_checks` said there."""

    folder: Path
    said: list[str]

    def plan(self, **what: dict[str, int]) -> None:
        """What tools do, by their names."""
        (self.folder / "plan.json").write_text(json.dumps(what))

    def check(self, everything: bool = False, expression: str | None = None) -> int:
        return checks.run_checks(self.folder, everything, expression, self.said.append)

    @property
    def calls(self) -> list[list[str]]:
        """Who started, with its arguments, in that order; but for who compiles tests meanwhile."""
        return [words for words in self.all_calls if COMPILES not in words]

    @property
    def all_calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls.jsonl").read_text().splitlines()]

    def started(self) -> list[str]:
        return [name for name, *_ in self.calls]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("ruff", "mypy", "pytest"):
        (tmp_path / f"{name}.py").write_text(TOOL)
    monkeypatch.setattr(checks, "cores", lambda: 2)
    monkeypatch.setattr(checks, "MEMORY", tmp_path / "memory")
    made = Project(tmp_path, [])
    made.plan()
    return made


# -- invoke test ---------------------------------------------------------------------------------


def test_every_check_runs_and_what_takes_seconds_comes_first(project: Project) -> None:
    assert project.check() == 0
    assert project.started() == CHECKS


def test_several_tests_run_at_a_time_where_there_are_two_cores(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.check()
    monkeypatch.setattr(checks, "cores", lambda: 1)
    project.check()
    several, one = (call for call in project.calls if call[0] == "pytest")
    assert several[1:4] == ["tests", "-n", "4"]
    assert one[1:] == ["tests", "-m", "not long"]


def test_tests_are_compiled_once_before_several_programs_load_them(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.check()
    compiled = [COMPILES in words for words in project.all_calls]
    assert compiled.count(True) == 1
    assert not compiled[-1], "it had ended when the tests began"
    monkeypatch.setattr(checks, "cores", lambda: 1)
    project.check()
    assert len(project.all_calls) == 2 * len(CHECKS) + 1, "one program compiles as it loads"


def test_tests_are_chosen(project: Project) -> None:
    project.check()
    assert project.calls[-1][-2:] == ["-m", "not long"], "slow tests belong to it"
    project.check(everything=True, expression="store and not slow")
    assert project.calls[-1][-2:] == ["-k", "store and not slow"]
    assert "-m" not in project.calls[-1]


@pytest.mark.parametrize(
    ("codes", "ends"), [({"mypy": 3, "pytest": 1}, 3), ({"pytest": 1}, 1), ({"pytest": 5}, 5)]
)
def test_the_first_failure_decides_and_each_is_named(
    project: Project, codes: dict[str, int], ends: int
) -> None:
    project.plan(**{name: {"code": code} for name, code in codes.items()})
    assert project.check() == ends
    assert project.started() == CHECKS, "a failure stops no other check"
    named = [line for line in project.said if line.startswith("failed")]
    for line, (name, code) in zip(named, codes.items(), strict=True):
        assert line.startswith(f"failed, exit code {code}: {name} ")


@pytest.fixture
def memory(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a system keeps files in memory, with enough of it."""
    folder = project.folder / "memory"
    folder.mkdir()
    monkeypatch.setattr(checks, "FILES", 1)
    monkeypatch.setattr(checks, "COMPILERS", 1)
    return folder


def test_files_of_tests_are_in_memory_as_long_as_somebody_may_want_them(
    project: Project, memory: Path
) -> None:
    mine = memory / f"fatwheel-tests-{os.getuid()}"
    project.check()
    [*_, option, place] = project.calls[-1]
    assert (option, place) == ("--basetemp", str(mine / str(os.getpid())))
    assert mine.stat().st_mode & 0o777 == 0o700
    assert not list(mine.iterdir()), "nobody wants files of tests that passed"
    project.plan(pytest={"code": 1})
    project.check()
    said = f"files of tests that failed are in memory until the next run, in {place}"
    assert said in project.said
    assert (Path(place) / "file of a test").exists()


def test_files_of_runs_that_go_on_stay(project: Project, memory: Path) -> None:
    mine = memory / f"fatwheel-tests-{os.getuid()}"
    running, ended = mine / str(os.getppid()), mine / str(2**31 - 2)
    for folder in (running, ended):
        folder.mkdir(mode=0o700, parents=True)
    mine.chmod(0o700)
    project.check()
    assert list(mine.iterdir()) == [running]


@pytest.mark.parametrize(
    "why", ["no such folder", "no room", "no memory", "everybody's", "a link", "all tests"]
)
def test_files_of_tests_are_on_disk_where_memory_is_not_for_them(
    why: str, project: Project, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = memory / f"fatwheel-tests-{os.getuid()}"
    if why == "no such folder":
        memory.rmdir()
    elif why == "no room":
        monkeypatch.setattr(checks, "FILES", 1 << 60)
    elif why == "no memory":
        monkeypatch.setattr(checks, "COMPILERS", 1 << 60)
    elif why == "everybody's":
        mine.mkdir()
        mine.chmod(0o777)
    elif why == "a link":
        (project.folder / "elsewhere").mkdir(mode=0o700)
        mine.symlink_to(project.folder / "elsewhere")
    assert project.check(everything=why == "all tests") == 0
    assert "--basetemp" not in project.calls[-1]


STARTED = """
import sys, pathlib
from tests import checks
checks.MEMORY = pathlib.Path(sys.argv[1], "memory")
try:
    checks.run_checks(pathlib.Path(sys.argv[1]), False, None, print)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def interrupted(project: Project) -> Callable[[int], int]:
    """Presses Ctrl-C as often as that while the tests run; the exit code."""

    def press(times: int) -> int:
        command = [sys.executable, "-c", STARTED, str(project.folder)]
        run = subprocess.Popen(command, start_new_session=True, cwd=ROOT)
        until = time.monotonic() + 60
        while not ((project.folder / "calls.jsonl").exists() and project.started() == CHECKS):
            assert time.monotonic() < until, "the tests do not start"
            time.sleep(0.02)
        for _ in range(times):
            os.killpg(run.pid, signal.SIGINT)  # as a terminal does: everybody gets it
            time.sleep(0.3)
        code = run.wait(timeout=60)
        with pytest.raises(ProcessLookupError):
            os.killpg(run.pid, 0)
        return code

    return press


def test_ctrl_c_ends_the_tests_when_they_have_tidied_up(
    project: Project, interrupted: Callable[[int], int]
) -> None:
    project.plan(pytest={"takes": 60, "tidying": 1})
    assert interrupted(1) == 130
    assert (project.folder / "tidied").exists()


def test_a_second_ctrl_c_does_not_wait(project: Project, interrupted: Callable[[int], int]) -> None:
    project.plan(pytest={"takes": 60, "tidying": 50})
    assert interrupted(2) == 130
    assert not (project.folder / "tidied").exists()


def test_the_test_task_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def run_checks(*given: Any) -> int:
        asked.append(given)
        return 3

    monkeypatch.setattr(checks, "run_checks", run_checks)
    program = Program(namespace=Collection(tasks.run_tests))
    for line in ("test", "test --all -k 'store and not slow'"):
        with pytest.raises(SystemExit, match="3"):
            program.run(["invoke", *shlex.split(line)])
    assert [given[:3] for given in asked] == [
        (ROOT, False, None),
        (ROOT, True, "store and not slow"),
    ]


# -- invoke fuzz ---------------------------------------------------------------------------------


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    made: list[list[str]] = []

    def call(command: list[str], cwd: Path) -> int:
        assert cwd == ROOT
        made.append(command)
        return 1

    monkeypatch.setattr(subprocess, "call", call)
    return made


def test_options_of_the_fuzzer_that_are_not_given_are_its_own(commands: list[list[str]]) -> None:
    assert checks.run_fuzzer(ROOT, runs=5, seed=None, out=Path("/x")) == 1
    [command] = commands
    assert command == [sys.executable, "-m", "tests.fuzz.harness", "--runs", "5", "--out", "/x"]


def test_without_the_tests_there_is_no_fuzzer(tmp_path: Path, commands: list[list[str]]) -> None:
    with pytest.raises(ToolchainError, match="not here"):
        checks.run_fuzzer(tmp_path, runs=5)
    assert commands == []


def test_the_task_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def run_fuzzer(folder: Path, **options: Any) -> int:
        asked.update(options)
        return 0

    monkeypatch.setattr(checks, "run_fuzzer", run_fuzzer)
    monkeypatch.chdir(tmp_path)
    program = Program(namespace=Collection(tasks.fuzz))
    line = "fuzz --runs 7 --target elf,pe --seed 3 --jobs 2 --replay some/file --out found"
    with pytest.raises(SystemExit, match="0"):
        program.run(["invoke", *line.split()])
    assert asked == {
        "runs": 7,
        "target": "elf,pe",
        "seed": 3,
        "jobs": 2,
        "replay": tmp_path / "some" / "file",
        "out": tmp_path / "found",
    }
    with pytest.raises(SystemExit, match=str(UsageError.exit_code)):
        program.run(["invoke", "fuzz", "--runs", "none"])
