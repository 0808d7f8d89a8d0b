"""What `invoke fuzz` runs, and what becomes of its options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from invoke.collection import Collection
from invoke.program import Program

from fatwheel import development, testing
from fatwheel.errors import ToolchainError, UsageError

ROOT = Path(__file__).parents[2]


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
    assert testing.run_fuzzer(ROOT, runs=5, seed=None, out=Path("/x")) == 1
    [command] = commands
    assert command == [sys.executable, "-m", "tests.fuzz.harness", "--runs", "5", "--out", "/x"]


def test_without_the_tests_there_is_no_fuzzer(tmp_path: Path, commands: list[list[str]]) -> None:
    with pytest.raises(ToolchainError, match="not here"):
        testing.run_fuzzer(tmp_path, runs=5)
    assert commands == []


def test_the_task_passes_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def run_fuzzer(folder: Path, **options: Any) -> int:
        asked.update(options)
        return 0

    monkeypatch.setattr(testing, "run_fuzzer", run_fuzzer)
    monkeypatch.chdir(tmp_path)
    program = Program(namespace=Collection(development.fuzz))
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
