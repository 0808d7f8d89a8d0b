"""What `invoke test` and `invoke fuzz` run, and what becomes of their options."""

from __future__ import annotations

import json
import os
import re
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
# plan.json says for its name, or, of pytest, for the folder of tests that it is to run.
TOOL = """
import json, pathlib, signal, sys, time

name = pathlib.Path(sys.argv[0]).stem
name = sys.argv[1] if name == "pytest" else name
plan = json.loads(pathlib.Path("plan.json").read_text()).get(name, {})
mark = pathlib.Path(name.replace("/", "-"))


def tidy_up(*_):
    time.sleep(plan["tidying"])
    mark.with_suffix(".tidied").touch()
    sys.exit(2)


if "tidying" in plan:
    signal.signal(signal.SIGINT, tidy_up)
with open("calls.jsonl", "a") as calls:
    print(json.dumps([name, "starts", *sys.argv[1:]]), file=calls)
until = time.monotonic() + 60
while "waits for" in plan and not pathlib.Path(plan["waits for"]).exists():
    assert time.monotonic() < until, f"{name} has waited in vain"
    time.sleep(0.02)
print(plan.get("prints", ""), flush=True)
with open("calls.jsonl", "a") as calls:
    print(json.dumps([name, "ends"]), file=calls)
mark.with_suffix(".done").touch()
sys.exit(plan.get("code", 0))
"""
CHECKS = ["ruff", "ruff", "mypy", "tests/fuzz", "tests/integration"]


@dataclass
class Project:
    """A folder with stand-ins for the tools, and what `run_checks` did there."""

    folder: Path
    said: list[str]
    shown: list[str]

    def plan(self, **what: dict[str, object]) -> None:
        """quick, real: the two runs of pytest. Others by their names."""
        names = {"quick": "tests/fuzz", "real": "tests/integration"}
        plan = {names.get(name, name): does for name, does in what.items()}
        (self.folder / "plan.json").write_text(json.dumps(plan))

    def check(self, everything: bool = False, expression: str | None = None) -> int:
        return checks.run_checks(
            self.folder, everything, expression, self.said.append, self.shown.append
        )

    @property
    def calls(self) -> list[list[str]]:
        """Who started, with its arguments, and who ended, in that order."""
        return [json.loads(line) for line in (self.folder / "calls.jsonl").read_text().splitlines()]

    def started(self) -> list[str]:
        return [name for name, what, *_ in self.calls if what == "starts"]

    def arguments(self, name: str) -> list[str]:
        [found] = [call[2:] for call in self.calls if call[:2] == [name, "starts"]]
        return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("ruff", "mypy", "pytest"):
        (tmp_path / f"{name}.py").write_text(TOOL)
    monkeypatch.setattr(checks, "cores", lambda: 2)
    made = Project(tmp_path, [], [])
    made.plan()
    return made


# -- invoke test ---------------------------------------------------------------------------------


def test_every_check_runs_and_real_builds_run_beside_the_rest(project: Project) -> None:
    project.plan(quick={"waits for": "tests-integration.done"})
    assert project.check() == 0
    assert sorted(project.started()) == sorted(CHECKS)
    assert project.started()[:3] == CHECKS[:3], "what takes seconds comes first"
    assert project.calls[-1] == ["tests/fuzz", "ends"]


def test_neither_of_both_waits_for_the_other(project: Project) -> None:
    project.plan(real={"waits for": "tests-fuzz.done"})
    assert project.check() == 0


def test_on_one_core_they_take_turns(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "cores", lambda: 1)
    assert project.check() == 0
    assert [call[:2] for call in project.calls[-4:]] == [
        ["tests/fuzz", "starts"],
        ["tests/fuzz", "ends"],
        ["tests/integration", "starts"],
        ["tests/integration", "ends"],
    ]
    assert project.shown == [], "both print as they go"


def test_every_test_belongs_to_one_of_both(project: Project) -> None:
    """As pytest itself takes the arguments, for files that are named as this project's."""
    names = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")]
    for name in names:
        path = project.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("def test(): pass")
    project.check()
    collected: list[str] = []
    for run in ("tests/fuzz", "tests/integration"):
        # -I: not the stand-in.
        command = [sys.executable, "-I", "-m", "pytest", "-q", "--import-mode=importlib"]
        listed = subprocess.run(
            [*command, "--collect-only", *project.arguments(run)], cwd=project.folder,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        collected += re.findall(r"^(.+)::test$", listed, re.MULTILINE)
    assert sorted(collected) == sorted(names)


@pytest.mark.parametrize("run", ["tests/fuzz", "tests/integration"])
def test_tests_are_chosen_for_both(project: Project, run: str) -> None:
    project.check()
    assert project.arguments(run)[-2:] == ["-m", "not long"], "slow tests belong to it"
    (project.folder / "calls.jsonl").unlink()
    project.check(everything=True, expression="store and not slow")
    assert project.arguments(run)[-2:] == ["-k", "store and not slow"]
    assert "-m" not in project.arguments(run)


def test_what_runs_behind_is_shown_whole_and_nothing_of_the_other(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    project.plan(quick={"prints": "quick “ones”"}, real={"prints": "real ones"})
    project.check()
    assert project.shown == ["quick “ones”\n"]
    printed = capfd.readouterr().out
    assert "real ones" in printed
    assert "quick" not in printed


@pytest.mark.parametrize(
    ("codes", "ends"),
    [
        ({"mypy": 3, "quick": 4, "real": 1}, 3),
        ({"quick": 4, "real": 1}, 4),
        ({"real": 1}, 1),
        ({"quick": 5}, 0),
        ({"real": 5}, 0),
        ({"quick": 5, "real": 1}, 1),
        ({"quick": 5, "real": 5}, 5),
    ],
)
def test_the_first_failure_decides_and_each_is_named(
    project: Project, codes: dict[str, int], ends: int
) -> None:
    """5: pytest found no test, which is a failure only where neither run finds one."""
    project.plan(**{name: {"code": code} for name, code in codes.items()})
    assert project.check() == ends
    assert sorted(project.started()) == sorted(CHECKS), "a failure stops no other check"
    named = [line for line in project.said if line.startswith("failed")]
    none_found = {name for name, code in codes.items() if code == 5}
    failed = codes if len(none_found) == 2 else {n: c for n, c in codes.items() if c != 5}
    assert len(named) == len(failed)
    words = {"mypy": "mypy fatwheel", "quick": "tests/fuzz", "real": "tests/integration"}
    for line, (name, code) in zip(named, failed.items(), strict=True):
        assert f"exit code {code}" in line
        assert words[name] in line


STARTED = """
import sys, pathlib
from tests import checks
checks.cores = lambda: 2
try:
    checks.run_checks(pathlib.Path(sys.argv[1]), False, None, print, print)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def interrupted(project: Project) -> Callable[[int], int]:
    """Presses Ctrl-C as often as that while all tests run; the exit code."""

    def press(times: int) -> int:
        command = [sys.executable, "-c", STARTED, str(project.folder)]
        run = subprocess.Popen(command, start_new_session=True, cwd=ROOT)
        until = time.monotonic() + 60
        while not ((project.folder / "calls.jsonl").exists() and len(project.started()) == 5):
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


def test_ctrl_c_ends_both_when_they_have_tidied_up(
    project: Project, interrupted: Callable[[int], int]
) -> None:
    waiting = {"waits for": "never", "tidying": 1}
    project.plan(quick=waiting, real=waiting)
    assert interrupted(1) == 130
    tidied = {path.name for path in project.folder.glob("*.tidied")}
    assert tidied == {"tests-fuzz.tidied", "tests-integration.tidied"}


def test_a_second_ctrl_c_does_not_wait(project: Project, interrupted: Callable[[int], int]) -> None:
    waiting = {"waits for": "never", "tidying": 50}
    project.plan(quick=waiting, real=waiting)
    began = time.monotonic()
    assert interrupted(2) == 130
    assert time.monotonic() - began < 40
    assert not list(project.folder.glob("*.tidied"))


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
