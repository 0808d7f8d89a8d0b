"""A program of a build, run as engines run them: its lines, its log, how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

import pytest

from fatwheel.containers.layouts import Ending
from fatwheel.engines.programs import Program, runner
from fatwheel.errors import EngineError, ToolchainError


@dataclass(frozen=True)
class Started:
    process: subprocess.Popen[bytes]

    def memory(self) -> int:
        return 7

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        pass


class Here:
    """A system in the place of Windows: this one."""

    place = PureWindowsPath("C:/b/project-1.0")

    def path(self, path: Path) -> str:
        return str(path)

    def real(self, path: PureWindowsPath) -> Path:
        raise NotImplementedError

    def show(self, folder: Path, name: str) -> str:
        raise NotImplementedError

    def start(self, command: Sequence[str], memory: int) -> Started:
        pipe = subprocess.PIPE
        return Started(
            subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        )


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str, list[str]], Program]:
    """Starts Python code as a program; the lines that it says are added to a list."""

    def begin(code: str, lines: list[str]) -> Program:
        command = [sys.executable, "-u", "-c", code]
        program = Program(Here(), command, 1 << 30, lines.append, tmp_path / "logs" / "it.log")
        program.start()
        return program

    return begin


Start = Callable[[str, list[str]], Program]


def test_its_lines_are_told_and_the_rest_is_logged(start: Start, tmp_path: Path) -> None:
    lines: list[str] = []
    program = start("import sys; print(input()); sys.stderr.write('why\\n'); sys.exit(3)", lines)
    assert program.memory() == 7
    program.send("what it was told\n")
    assert program.wait() == Ending(3, False, ("why",))
    assert program.wait() == Ending(3, False, ("why",)), "whoever asks hears the same"
    assert lines == ["what it was told"]
    assert (tmp_path / "logs" / "it.log").read_text() == "why\n"
    program.send("to nobody\n")
    program.kill()


def test_killed_with_all_that_it_started(start: Start, tmp_path: Path) -> None:
    late = tmp_path / "late"
    child = f"import time; time.sleep(2); open({str(late)!r}, 'w')"
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "print('begun'); time.sleep(100)"
    )
    lines: list[str] = []
    program = start(code, lines)
    while not lines:
        time.sleep(0.01)
    program.kill()
    assert program.wait().code == -signal.SIGKILL
    time.sleep(3)
    assert not late.exists(), "a child of the program went on"


def test_what_it_leaves_behind_does_not_keep_the_build_waiting(start: Start) -> None:
    """A child holds its output open."""
    child = "import time; time.sleep(600)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    assert start(code, []).wait().code == 0


def test_what_cannot_start(tmp_path: Path) -> None:
    program = Program(Here(), [str(tmp_path / "none")], 0, print, tmp_path / "it.log")
    with pytest.raises(EngineError, match="cannot be started: No such file"):
        program.start()


def test_a_tool_is_run_to_its_end(tmp_path: Path) -> None:
    run = runner(Here())
    assert run([sys.executable, "-c", "print('7', end='')"]) == "7"
    with pytest.raises(ToolchainError, match="fails") as caught:
        run([sys.executable, "-c", "import sys; sys.exit('\\n'.join(map(str, range(99))))"])
    assert caught.value.details == tuple(str(number) for number in range(89, 99))
    with pytest.raises(ToolchainError, match="cannot run"):
        run([str(tmp_path / "none")])
