"""Windows programs of a build, wherever there is a Windows: this machine's own, or Wine's.

A `Program` does for the engine `process` what a container does for `docker`: it runs one task of a
build (`worker.inside`), and ends with everything that it started.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import IO, Protocol

from ..containers.layouts import Ending, ended_for_memory
from ..containers.stream import Lines, Log
from ..errors import EngineError, ToolchainError
from ..provision.tools import Run

_CHUNK = 1 << 16
_LAST = 10  # lines of a failing program's output that are shown


class Running(Protocol):
    """A program that runs, with a pipe for each of its streams."""

    @property
    def process(self) -> subprocess.Popen[bytes]: ...

    def memory(self) -> int:
        """Bytes resident now, over all that it started."""

    def end(self) -> None:
        """End it and all that it started, at once. Raises nothing."""

    def close(self) -> None:
        """Let go of it; it has ended."""


class Places(Protocol):
    """Where things are in a Windows. place: a folder of one build there, by a short path that every
    build of the project has."""

    @property
    def place(self) -> PureWindowsPath: ...

    def path(self, path: Path) -> str:
        """A path of this machine as programs there know it."""

    def show(self, folder: Path, name: str) -> str:
        """Make a folder seen in `place`; its path there. Raises OSError."""


class System(Places, Protocol):
    """A Windows of this machine, held for one build, whose own `place` is."""

    def real(self, path: PureWindowsPath) -> Path:
        """A path below `place` as this machine knows it."""

    def start(self, command: Sequence[str], memory: int) -> Running:
        """Start a program, which sees nothing of the user's variables. memory: bytes that it and
        all that it starts may use, where this system can see to that. Raises OSError."""


class Program:
    """One task of a build; see `contained.Container`."""

    def __init__(
        self,
        system: System,
        command: Sequence[str],
        memory: int,
        on_line: Callable[[str], None],
        log: Path,
    ) -> None:
        """memory: bytes. on_line gets the lines of its standard output. log: the file for the
        rest."""
        self._system = system
        self._command = command
        self._limit = memory
        self._log = Log(log)
        self._logging = threading.Lock()
        self._lines = Lines(on_line, self._note)
        self._sending = threading.Lock()
        self._ended: Ending | None = None
        self._ending = threading.Lock()

    def start(self) -> None:
        self._running = self._started()
        process = self._running.process
        assert process.stdout
        assert process.stderr
        self._readers = [
            threading.Thread(target=_read, args=(process.stdout, self._lines.feed), daemon=True),
            threading.Thread(target=_read, args=(process.stderr, self._note), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def send(self, text: str) -> None:
        stdin = self._running.process.stdin
        assert stdin
        with self._sending, suppress(OSError, ValueError):
            stdin.write(text.encode())
            stdin.flush()

    def memory(self) -> int:
        return self._running.memory()

    def wait(self) -> Ending:
        with self._ending:
            if self._ended is None:
                self._ended = self._end()
        return self._ended

    def kill(self) -> None:
        if self._ended is None:  # else its number may be another program's
            self._running.end()

    def _started(self) -> Running:
        try:
            return self._system.start(self._command, self._limit)
        except OSError as error:
            raise EngineError(
                f"a process of the build cannot be started: {error.strerror or error}",
                where=self._command[0],
            ) from error

    def _end(self) -> Ending:
        code = self._running.process.wait()
        self._running.end()  # what it left behind would keep its output open
        for reader in self._readers:
            reader.join()
        self._lines.end()
        for stream in (self._running.process.stdin, *self._outputs()):
            with suppress(OSError, ValueError):
                if stream:
                    stream.close()
        self._running.close()
        self._log.close()
        return Ending(code, ended_for_memory("windows", code, False), self._log.last_lines)

    def _outputs(self) -> tuple[IO[bytes] | None, ...]:
        return self._running.process.stdout, self._running.process.stderr

    def _note(self, data: bytes) -> None:
        with self._logging:
            self._log.write(data)


def _read(stream: IO[bytes], feed: Callable[[bytes], None]) -> None:
    with suppress(OSError, ValueError):
        while data := stream.read1(_CHUNK):  # type: ignore[attr-defined]
            feed(data)


def runner(system: System) -> Run:
    """What runs a program of a Windows to its end; paths of this machine become its own."""

    def run(command: Sequence[str]) -> str:
        program, *arguments = command
        words = [system.path(Path(program)), *arguments]
        try:
            running = system.start(words, 0)
        except OSError as error:
            raise ToolchainError(f"cannot run {program}: {error.strerror or error}") from error
        process = running.process
        try:
            out, err = process.communicate(b"")
        finally:
            running.end()
            process.wait()
            running.close()
        if process.returncode:
            lines = (err or out).decode("utf-8", "replace").strip().splitlines()
            raise ToolchainError(
                f"{Path(program).name} fails", where=" ".join(command), details=lines[-_LAST:]
            )
        return out.decode("utf-8", "replace")

    return run
