"""What `invoke test` and `invoke fuzz` run: programs of their own, in the project's folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fatwheel.errors import ToolchainError
from fatwheel.machine import cores, free_memory

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
FILES = 8 << 30  # bytes that the tests' files need at most, at a time; no one else may need these


def run_checks(folder: Path, everything: bool, expression: str | None, say: Say) -> int:
    """Run every check, also after one that failed; the exit code of the first that did, or 0.

    everything: with the tests that take longer than a CI run has. expression: only the tests
    that it selects. Raises ToolchainError where a tool is not installed, and KeyboardInterrupt
    when no check runs any more.
    """
    commands = [*STYLE, _pytest(everything, expression)]
    with _tests_compiled(folder):
        codes = [_run(folder, command, say, {}) for command in STYLE]
    with _files_in_memory(say) as variables:
        codes.append(_run(folder, commands[-1], say, variables))
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


@contextmanager
def _files_in_memory(say: Say) -> Iterator[dict[str, str]]:
    """The variables with which programs keep their temporary files in memory, if there is room for
    those of the tests. After the block, there are only those that pytest keeps until its next run:
    of tests that failed."""
    folder = MEMORY / f"fatwheel-tests-{os.getuid()}" if _has_room(MEMORY) else None
    if folder is None or not _is_mine(folder):
        yield {}
        return
    try:
        yield {"TMPDIR": str(folder)}
    finally:
        kept = [path for path in folder.glob("pytest-of-*/pytest-*") if not path.is_symlink()]
        if kept:
            say(f"files of tests that failed are in memory until the next run, in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _is_mine(folder: Path) -> bool:
    """Whether a folder among those of other users is there, or made now, for nobody else."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o77


def _has_room(folder: Path) -> bool:
    """Whether tests can keep their files there, programs among them, and compilers have memory."""
    try:
        found = os.statvfs(folder)
    except (OSError, AttributeError):  # none there; Windows has no such call
        return False
    runs = not found.f_flag & os.ST_NOEXEC
    return runs and found.f_bavail * found.f_frsize >= FILES and free_memory() >= 2 * FILES


def _run(folder: Path, command: Sequence[str], say: Say, variables: Mapping[str, str]) -> int:
    """Run one check to its end, with these variables besides all others; its exit code.

    A terminal's Ctrl-C reaches it, too. It then has time to tidy up, into which a signal from here
    would break; a second Ctrl-C ends it at once.
    """
    _need(command[0])
    say(" ".join(command))
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, env={**os.environ, **variables}
    )
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
