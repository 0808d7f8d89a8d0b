"""This machine: its platform, and its cores and memory, within the limits of its control group.

Control groups as the Linux kernel documents them, version 2 and 1; in a container the files are
those of its own group.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

WINDOWS = "win-amd64"  # the platform of every toolchain for Windows
WINDOWS_IN_WORDS = "windows-x86_64"  # what users call it; Python's name stands in files

_PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64"}
_CGROUP = Path("/sys/fs/cgroup")
_GROUPS = Path("/proc/self/cgroup")
_ALL_KILLS = Path("/proc/vmstat")
_MARGIN = 1 << 30  # bytes left to everybody else
_LEAST = 1 << 29  # bytes: with less than that nothing can be compiled anyway


def in_words(platform: str) -> str:
    """A platform as users type it, by Python's name for it."""
    return WINDOWS_IN_WORDS if platform == WINDOWS else platform


def system_of(platform: str) -> str:
    """'windows' or 'linux', by Python's name for a platform: an engine's OSType."""
    return "windows" if platform.startswith("win-") else "linux"


def this_platform() -> str:
    """This machine's system and processor as toolchains name them: `linux-x86_64`, `win-amd64`."""
    return platform_of(platform.system(), platform.machine())


def platform_of(system: str, processor: str) -> str:
    """What toolchains call a system and a processor that Python calls so: as sysconfig does."""
    return f"{'win' if system == 'Windows' else system}-{processor}".lower()


def processor_of(name: str) -> str:
    """A processor's name as Linux has it, `x86_64` or `aarch64`, by any name that systems, engines
    and images give it; that of another one in lower case."""
    return _PROCESSORS.get(name.lower(), name.lower())


def windows_build() -> int:
    """Windows' build number: 19045 is Windows 10 22H2; 0 on other systems."""
    if platform.system() != "Windows":
        return 0
    last = platform.version().rpartition(".")[2]
    return int(last) if last.isdigit() else 0


def cores() -> int:
    """Cores that this process may use: affinity and, in a container, its CPU quota."""
    usable = _in_affinity()
    for quota, period in _quotas():
        if quota > 0 and period > 0:
            usable = min(usable, max(1, quota // period))
    return usable


def all_memory() -> int:
    """Bytes of memory that there are at all: the machine's, or its control group's limit."""
    import psutil  # which takes as long as all else here

    return min([psutil.virtual_memory().total, *_limits()])


def free_memory() -> int:
    """Bytes that a build may take: what is free, less a margin, at least half a GiB."""
    import psutil

    free = psutil.virtual_memory().available
    for left in _left_in_groups():
        free = min(free, left)
    return max(free - _MARGIN, _LEAST)


def memory_below(pid: int) -> int:
    """Bytes resident now, over all that a process has started; 0 where it has ended."""
    import psutil

    total = 0
    with suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def counter_of_kills() -> Path:
    """The file in which Linux counts the programs that it killed for memory, `oom_kill N`: those of
    this process's control group where it has one that counts, else those of the whole machine."""
    with suppress(OSError, ValueError):
        for line in _GROUPS.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                file = _CGROUP / group[1:] / "memory.events"
            elif "memory" in controllers.split(","):
                file = _CGROUP / "memory" / group[1:] / "memory.oom_control"
            else:
                continue
            if ".." not in file.parts and file.is_file() and "\noom_kill " in file.read_text():
                return file
    return _ALL_KILLS


def _in_affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # Windows has no such call


def _quotas() -> Iterator[tuple[int, int]]:
    """CPU time and the period that it is for, in microseconds; -1 where it is not limited."""
    with suppress(OSError, ValueError):
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        yield int(quota), int(period)
    with suppress(OSError, ValueError):
        folder = _CGROUP / "cpu"
        yield _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")


def _limits() -> Iterator[int]:
    """Bytes that the control group may use, where it says so."""
    with suppress(OSError, ValueError):
        yield _number(_CGROUP / "memory.max")
    with suppress(OSError, ValueError):
        yield _number(_CGROUP / "memory" / "memory.limit_in_bytes")


def _left_in_groups() -> Iterator[int]:
    """Bytes that the control group has left. Its use counts cached files, which give way."""
    with suppress(OSError, ValueError):
        used = _number(_CGROUP / "memory.current") - _cached(_CGROUP, "")
        yield _number(_CGROUP / "memory.max") - used
    with suppress(OSError, ValueError):
        folder = _CGROUP / "memory"
        used = _number(folder / "memory.usage_in_bytes") - _cached(folder, "total_")
        yield _number(folder / "memory.limit_in_bytes") - used


def _cached(folder: Path, prefix: str) -> int:
    lines = (folder / "memory.stat").read_text().splitlines()
    fields = dict(line.split(maxsplit=1) for line in lines)
    return sum(int(fields.get(f"{prefix}{name}_file", 0)) for name in ("active", "inactive"))


def _number(path: Path) -> int:
    """ValueError for `max`: no limit."""
    return int(path.read_text())
