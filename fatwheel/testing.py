"""What `invoke test` and `invoke fuzz` run: programs of their own, in the project's folder."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .errors import ToolchainError


def run_checks(
    folder: Path, everything: bool, expression: str | None, say: Callable[[str], None]
) -> int:
    """Run every check, also after one that failed; the exit code of the first that did, or 0.

    everything: with the tests that take longer than a CI run has. expression: only the tests
    that it selects. Raises ToolchainError where a tool is not installed.
    """
    codes = [_run(folder, command, say) for command in _commands(everything, expression)]
    return next((code for code in codes if code), 0)


def run_fuzzer(folder: Path, **options: int | str | Path | None) -> int:
    """Run the fuzzer, which lies with the tests; its exit code. None: its own default.

    Raises ToolchainError where there are no tests.
    """
    if not (folder / "tests" / "fuzz" / "harness.py").exists():
        raise ToolchainError(
            "the fuzzer is not here", where=str(folder), hint="it comes with the project's sources"
        )
    command = [sys.executable, "-m", "tests.fuzz.harness"]
    for name, value in options.items():
        if value is not None:
            command += [f"--{name}", str(value)]
    return subprocess.call(command, cwd=folder)


def _commands(everything: bool, expression: str | None) -> list[list[str]]:
    tests = ["pytest"]
    if not everything:
        tests += ["-m", "not long"]
    if expression:
        tests += ["-k", expression]
    return [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", "fatwheel", "tasks.py"],
        tests,
    ]


def _run(folder: Path, command: list[str], say: Callable[[str], None]) -> int:
    name = command[0]
    if importlib.util.find_spec(name) is None:
        raise ToolchainError(
            f"{name} is not installed", hint="install it: python -m pip install -e '.[test]'"
        )
    say(" ".join(command))
    return subprocess.call([sys.executable, "-m", *command], cwd=folder)
