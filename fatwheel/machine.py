"""What this machine has to give: cores and memory, within the limits of its control group."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_MARGIN = 1 << 30  # bytes left to everybody else


def cores() -> int:
    """Cores that this process may use: affinity and, in a container, its CPU quota."""
    usable = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        usable = min(usable, max(1, int(quota) // int(period)))
    return usable


def free_memory() -> int:
    """Bytes that a build may take: what is free, less a margin, at least half a GiB."""
    free = psutil.virtual_memory().available
    with suppress(OSError, ValueError):
        limit = int((_CGROUP / "memory.max").read_text())
        free = min(free, limit - int((_CGROUP / "memory.current").read_text()))
    return max(free - _MARGIN, 1 << 29)
