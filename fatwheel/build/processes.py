"""Runs one compiler and measures it: wall and CPU seconds, peak memory of its whole tree.

nvcc runs its steps one after another, so the largest step is the peak. wait4 reports it for
the process and all descendants that it waited for. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """rss in bytes: the largest process of the tree; cpu in seconds, over all of them."""

    returncode: int
    output: str
    cpu: float
    rss: int


_groups: set[int] = set()
_lock = threading.Lock()


def run_measured(command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Usage:
    """Run a command in a process group of its own; stdout and stderr come back as one text."""
    with (cwd / "compiler.log").open("w+b") as log:
        process = subprocess.Popen(
            command, cwd=cwd, env=dict(environment), stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        with _lock:
            _groups.add(process.pid)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            with _lock:
                _groups.discard(process.pid)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        output = log.read().decode(errors="replace")
    return Usage(
        process.returncode, output, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    )


def kill_all() -> None:
    """End every command that run_measured is running, with all its descendants."""
    with _lock:
        for group in _groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
