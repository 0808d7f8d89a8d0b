"""Runs one compiler and measures it: CPU seconds, peak memory of its whole tree.

nvcc runs its steps one after another, so the largest step is the peak. wait4 reports it for
the process and all descendants that it waited for. Compilers stay in the process group of who
runs them: whoever ends the group ends them too. Standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Usage:
    """rss in bytes: the largest process of the tree; cpu in seconds, over all of them.

    Linux counts what a process was before exec, so rss is at least this process's own.
    """

    returncode: int
    output: str
    cpu: float
    rss: int


def run_measured(command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Usage:
    """Run a command; stdout and stderr come back as one text. OSError where it cannot start."""
    with (cwd / "compiler.log").open("w+b") as log:
        process = subprocess.Popen(
            command, cwd=cwd, env=dict(environment), stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        output = log.read().decode(errors="replace")
    return Usage(
        process.returncode, output, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    )


def lead_group() -> None:
    """Make this process the leader of a process group of its own, if it is none yet."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)


def end_group() -> None:
    """End this process and all others of its group, at once."""
    os.killpg(0, signal.SIGKILL)
