"""The `process` engine: a shard's worker is a process on this machine.

The worker ends when its input ends, so it never outlives the build, however that ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from ..config.pinned import Download, Package
from ..config.recipe import Target
from ..config.toolchain import Toolchain
from ..events import Emit
from ..machine import in_words, memory_below, this_platform
from ..model import Job
from ..worker.context import Context
from . import windows
from .base import Capture, Engine, Reports, Workplace
from .conversation import Conversation
from .local import LocalWorkplace, environment_files, ready_tools

_PACKAGE = Path(__file__).resolve().parents[2]
_START = (
    f"import sys; sys.path.insert(0, {str(_PACKAGE)!r}); "
    "from fatwheel.worker.shard import main; main()"
)


class Processes(Engine):
    """Workers are processes that talk JSON lines (see `worker.shard`).

    They have no limits of their own: jobs are admitted within those of the build. Only on Windows
    they have (see `windows`).
    """

    name = "process"

    def obstacle(self, toolchain: Toolchain) -> str:
        here = this_platform()
        if toolchain.brings_all:
            return windows.obstacle(toolchain)
        if toolchain.platform != here:
            return f"is for {in_words(toolchain.platform)}, and this machine is {in_words(here)}"
        return ""

    def yields(self, toolchain: Toolchain) -> bool:
        return toolchain.brings_all

    def emulates(self, toolchain: Toolchain) -> bool:
        return toolchain.platform != this_platform()

    def files(self, target: Target) -> list[tuple[Package | Download, Path]]:
        if target.toolchain.brings_all:
            return windows.tools_files(target)
        return environment_files(target)

    def prepare(self, target: Target, emit: Emit) -> Workplace[Capture]:
        if target.toolchain.brings_all:
            return windows.WindowsWorkplace(windows.ready_tools(target, emit))
        return local_workplace(target, emit)


def local_workplace(target: Target, emit: Emit) -> LocalWorkplace:
    """Where a target for this system is built, in the processes of this machine."""
    return LocalWorkplace(ready_tools(target, emit), ProcessWorker)


class ProcessWorker:
    def __init__(self, shard: str, context: Context, log: Path, reports: Reports) -> None:
        """log: the file for what it says."""
        self._talk = Conversation(self, shard, reports, self._send)
        self._closing = False
        # A session of its own: Ctrl-C at the terminal reaches the build, which ends its workers.
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True,
                start_new_session=True,
            )  # fmt: skip
        self._talk.say(context.to_wire())
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, job: Job) -> None:
        self._talk.start(job)

    def close(self) -> None:
        self._closing = True
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._end_group()
            self._process.wait()

    def memory(self) -> int:
        return memory_below(self._process.pid)

    def _send(self, line: str) -> None:
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):  # else it was killed while it wrote
                self._talk.heard(line)
        # Its compilers would go on without it. It is not reaped yet, so its number is still its.
        self._end_group()
        code = self._process.wait()
        if not self._closing:
            name = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            self._talk.lost(name)

    def _end_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
