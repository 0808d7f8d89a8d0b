"""What `invoke test` and `invoke fuzz` run: programs of their own, in the project's folder."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from fatwheel.errors import ToolchainError
from fatwheel.machine import cores

Say = Callable[[str], None]

STYLE = (
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["mypy", "fatwheel", "bench", "tasks.py"],
)
QUICK = ("tests/fuzz", "tests/property", "tests/unit")
REAL = "tests/integration"  # real compilers, a container engine, a Windows
# Those of the real ones that run after the quick ones, so that both runs take about as long. None
# of them needs the container engine, whose images only one run should make.
APART = (
    "test_exact.py",
    "test_pe_wine.py",
    "test_reproducible.py",
    "test_windows_*.py",
    "test_xformers.py",
)
NO_TESTS = 5  # pytest's exit code where it found none
PATIENCE = 60  # seconds: after a Ctrl-C, containers and their engine take some to end


def run_checks(folder: Path, everything: bool, expression: str | None, say: Say, show: Say) -> int:
    """Run every check, also after one that failed; the exit code of the first that did, or 0.

    everything: with the tests that take longer than a CI run has. expression: only the tests
    that it selects. show: gets what tests printed that ran behind others. Raises ToolchainError
    where a tool is not installed, and KeyboardInterrupt when no check runs any more.
    """
    quick, real = (_pytest(words, everything, expression) for words in _halves(folder))
    codes = [_run(folder, command, say) for command in STYLE]
    codes += _both(folder, quick, real, say, show)
    for command, code in zip([*STYLE, quick, real], codes, strict=True):
        if code:
            say(f"failed, exit code {code}: {' '.join(command)}")
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


def _halves(folder: Path) -> tuple[list[str], list[str]]:
    """What pytest is told of the quick tests, with those after them, and of all others."""
    apart = [path for pattern in APART for path in sorted((folder / REAL).glob(pattern))]
    others = [f"--ignore-glob=*/{pattern}" for pattern in APART]
    return [*QUICK, *(path.relative_to(folder).as_posix() for path in apart)], [REAL, *others]


def _pytest(words: Sequence[str], everything: bool, expression: str | None) -> list[str]:
    command = ["pytest", *words]
    if not everything:
        command += ["-m", "not long"]
    if expression:
        command += ["-k", expression]
    return command


def _both(folder: Path, quick: list[str], real: list[str], say: Say, show: Say) -> list[int]:
    """Run the quick tests and the real ones; the exit code of each.

    At a time where there are two cores: the real ones leave half of two idle. That an expression
    selects none of the one kind is no failure.
    """
    if cores() > 1:
        codes = _side_by_side(folder, quick, real, say, show)
    else:
        codes = [_run(folder, quick, say), _run(folder, real, say)]
    if all(code == NO_TESTS for code in codes):
        return codes
    return [0 if code == NO_TESTS else code for code in codes]


def _side_by_side(
    folder: Path, quick: list[str], real: list[str], say: Say, show: Say
) -> list[int]:
    """The real tests print as they go; what the quick ones print is shown when both have ended."""
    _need(quick[0])
    say(" ".join(real))
    say(f"meanwhile, shown after it: {' '.join(quick)}")
    with tempfile.TemporaryFile() as printed:
        try:
            return _ended(_start(folder, quick, printed), _start(folder, real))
        finally:
            say(" ".join(quick))
            printed.seek(0)
            show(printed.read().decode(errors="replace"))


def _run(folder: Path, command: list[str], say: Say) -> int:
    _need(command[0])
    say(" ".join(command))
    [code] = _ended(_start(folder, command))
    return code


def _need(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise ToolchainError(
            f"{name} is not installed", hint="install it: python -m pip install -e '.[test]'"
        )


def _start(
    folder: Path, command: list[str], printed: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """printed: gets all that it prints; it then has nothing to read, either."""
    stdin = subprocess.DEVNULL if printed else None
    return subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, stdin=stdin, stdout=printed, stderr=printed
    )


def _ended(*processes: subprocess.Popen[bytes]) -> list[int]:
    """Wait for all of them; their exit codes.

    A terminal's Ctrl-C reaches each of them, too. They then have time to tidy up, into which a
    signal from here would break; a second Ctrl-C ends them at once.
    """
    try:
        return [process.wait() for process in processes]
    except KeyboardInterrupt:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and any(process.poll() is None for process in processes):
            time.sleep(0.1)
        raise
    finally:
        for process in processes:
            process.kill()  # does nothing to one that has ended
            process.wait()
