"""Runs a command to its end and measures its whole process tree.

CPU time is what wait4 reports: user and system time of the command and of every descendant
that was waited for. Memory is sampled only where it is asked for, as that takes CPU time too.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_EVERY = 0.2  # seconds
_LOOK_EVERY = 0.05  # seconds between two looks at a command's output
_GRACE = 20.0  # seconds that an interrupted command has to end its own processes
_CUDA_COMPILERS = frozenset({"cicc", "ptxas", "cudafe++"})


@dataclass(frozen=True)
class Sampled:
    """peak: highest sum of the compilers' resident memory, in bytes; seen: CUDA compilers."""

    peak: int = 0
    seen: int = 0


@dataclass(frozen=True)
class Run:
    """How a command ended. wall and cpu in seconds; output is stdout and stderr as they came.

    marked: seconds until the output had what was looked for in it; None where it never had.
    """

    returncode: int
    wall: float
    cpu: float
    output: str
    sampled: Sampled
    marked: float | None = None


def run_child(
    command: Sequence[str],
    cwd: Path,
    variables: Mapping[str, str],
    log: Path,
    *,
    sample: bool = False,
    mark: re.Pattern[str] | None = None,
    descriptors: Sequence[int] = (),
) -> Run:
    """Run a command in a session of its own; an interrupt ends it and all its descendants.

    sample: whether to look at its compilers. mark: what to look for in its output. descriptors:
    open files that it gets.
    """
    with log.open("wb") as stream:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=cwd, env=dict(variables), stdin=subprocess.DEVNULL,
            stdout=stream, stderr=subprocess.STDOUT, start_new_session=True, pass_fds=descriptors,
        )  # fmt: skip
        sampler = _Sampler(process.pid) if sample else None
        watcher = _Watcher(log, mark) if mark else None
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            _end_tree(process)
            raise
        finally:
            if sampler:
                sampler.stop()
            if watcher:
                watcher.stop()
        wall = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    return Run(
        returncode=process.returncode,
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        output=log.read_text(errors="replace"),
        sampled=sampler.sampled if sampler else Sampled(),
        marked=watcher.seen - started if watcher and watcher.seen else None,
    )


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a command, and kill what is left of its tree.

    ninja and fatwheel's workers have process groups of their own: they end their compilers when
    they are interrupted, and a signal to the command's group alone would not reach those.
    """
    tree = _descendants(process.pid)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    finally:
        tree += _descendants(process.pid)
        process.kill()
        _kill(tree)
        process.wait()


def kill_descendants() -> None:
    """End everything below this process, at once."""
    _kill(_descendants(os.getpid()))


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def _descendants(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


class _Sampler:
    """Looks at the compilers below a process until it is stopped.

    Compilers are all processes but Python's: those of builds, workers and stand-ins.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0
        self._seen: set[int] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    @property
    def sampled(self) -> Sampled:
        return Sampled(self._peak, len(self._seen))

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLE_EVERY):
            total = 0
            for process in _descendants(self._pid):
                with suppress(psutil.Error):
                    name = process.name()
                    if not name.startswith("python"):
                        total += process.memory_info().rss
                    if name in _CUDA_COMPILERS:
                        self._seen.add(process.pid)
            self._peak = max(self._peak, total)


class _Watcher:
    """Looks for a pattern in a growing file; `seen` is when it was there, as time.monotonic."""

    def __init__(self, file: Path, pattern: re.Pattern[str]) -> None:
        self.seen: float | None = None
        self._file = file
        self._pattern = pattern
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY):
            if self._pattern.search(self._file.read_text(errors="replace")):
                self.seen = time.monotonic()
                return
