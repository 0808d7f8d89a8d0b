"""What `invoke test` and `invoke fuzz` run: programs of their own, in the project's folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from fatwheel.errors import ToolchainError
from fatwheel.machine import cores, free_memory
from fatwheel.storage.permissions import private_folder

Say = Callable[[str], None]

STYLE = (
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["mypy", "fatwheel", "bench", "tasks.py"],
)
# Four tests at a time, by files, in the order of tests/conftest.py: one that waits for a download,
# a container or Wine leaves a core idle. With three, two cores were idle for 40 % of the time.
AT_A_TIME = ("-n", "4", "--dist", "loadfile", "--no-loadscope-reorder")
PATIENCE = 60  # seconds: after a Ctrl-C, containers and their engine take some to end
# Tests make and delete hundreds of thousands of files. ext4 looks for a place for each new one past
# all that were just deleted: on a disk that is a tenth of the CPU time of all tests.
MEMORY = Path("/dev/shm")
FILES, COMPILERS = 4 << 30, 8 << 30  # bytes that the tests' files and programs need at a time


def run_checks(folder: Path, everything: bool, expression: str | None, say: Say) -> int:
    """Run every check, also after one that failed; the exit code of the first that did, or 0.

    everything: with the tests that take longer than a CI run has. expression: only the tests
    that it selects. Raises ToolchainError where a tool is not installed, and KeyboardInterrupt
    when no check runs any more.
    """
    commands = [*STYLE, _pytest(everything, expression)]
    with _tests_compiled(folder):
        codes = [_run(folder, command, say) for command in STYLE]
    # How much memory the files of the longest tests would take is not known.
    run_tests = _run if everything else _run_in_memory
    codes.append(run_tests(folder, commands[-1], say))
    for command, code in zip(commands, codes, strict=True):
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


def _pytest(everything: bool, expression: str | None) -> list[str]:
    command = ["pytest", "tests"]
    if cores() > 1:
        command += AT_A_TIME
    if not everything:
        command += ["-m", "not long"]
    if expression:
        command += ["-k", expression]
    return command


@contextmanager
def _tests_compiled(folder: Path) -> Iterator[None]:
    """Beside what the block does, on another core, pytest compiles all tests as it wants them; else
    each of its workers would do so, at the same time. What it finds wrong, the tests tell."""
    if cores() == 1 or importlib.util.find_spec("pytest") is None:
        yield
        return
    words = ["pytest", "tests", "--collect-only", "-qq"]
    beside = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=folder, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
        beside.wait()
    finally:
        beside.kill()  # does nothing to one that has ended
        beside.wait()


def _run_in_memory(folder: Path, command: Sequence[str], say: Say) -> int:
    """Run pytest to its end, with the tests' files in memory if there is room; its exit code.

    Files of tests that failed stay there until the next run.
    """
    files = _place_in_memory()
    if files is None:
        return _run(folder, command, say)
    code = 0  # after a Ctrl-C nobody wants them
    try:
        code = _run(folder, [*command, "--basetemp", str(files)], say)
    finally:
        if code:
            say(f"files of tests that failed are in memory until the next run, in {files}")
        else:
            shutil.rmtree(files, ignore_errors=True)
    return code


def _place_in_memory() -> Path | None:
    """Where tests can keep their files, programs among them, so that there is still memory for
    compilers; what is there of earlier runs is deleted."""
    try:
        found = os.statvfs(MEMORY)
        runs_programs = not found.f_flag & os.ST_NOEXEC
        room = found.f_bavail * found.f_frsize >= FILES and free_memory() >= FILES + COMPILERS
        place = MEMORY / f"fatwheel-tests-{os.getuid()}"
        if not (runs_programs and room and private_folder(place)):
            return None
    except (OSError, AttributeError):  # there is no such folder; Windows has no such calls
        return None
    for earlier in place.iterdir():
        if not (earlier.name.isdigit() and psutil.pid_exists(int(earlier.name))):
            shutil.rmtree(earlier, ignore_errors=True)
    return place / str(os.getpid())


def _run(folder: Path, command: Sequence[str], say: Say) -> int:
    """Run one check to its end; its exit code.

    A terminal's Ctrl-C reaches it, too. It then has time to tidy up, into which a signal from here
    would break; a second Ctrl-C ends it at once.
    """
    _need(command[0])
    say(" ".join(command))
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=folder)
    try:
        return process.wait()
    except KeyboardInterrupt:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.1)
        raise
    finally:
        process.kill()  # does nothing to one that has ended
        process.wait()


def _need(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise ToolchainError(
            f"{name} is not installed", hint="install it: python -m pip install -e '.[test]'"
        )
