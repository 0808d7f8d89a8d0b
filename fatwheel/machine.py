"""This machine: its platform, and its cores and memory, within the limits of its control groups.

Control groups as the Linux kernel documents them, version 2 and 1. A container mostly sees its own
as the outermost.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

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
    for group in _groups("memory", outer=False):
        for file in (group / "memory.events", group / "memory.oom_control"):
            with suppress(OSError):
                if "\noom_kill " in file.read_text():
                    return file
    return _ALL_KILLS


def _in_affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # Windows has no such call


def _groups(controller: str, *, outer: bool = True) -> Iterable[Path]:
    """The folders of this process's control groups that may have a controller, each once: of
    version 2, and of version 1. outer: also of the groups that they are in, whose limits hold for
    them, too."""
    found: list[Path] = []
    with suppress(OSError, ValueError):
        for line in _GROUPS.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            inner = PurePosixPath(name.lstrip("/"))
            if controllers and controller not in controllers.split(","):
                continue
            if ".." not in inner.parts:  # else it is outside of what this container is shown
                top = _CGROUP / controller if controllers else _CGROUP
                found += [top / place for place in (inner, *(inner.parents if outer else ()))]
    if outer:
        found += [_CGROUP, _CGROUP / controller]  # a container's own, whatever it is called
    return dict.fromkeys(found)


def _quotas() -> Iterator[tuple[int, int]]:
    """CPU time and the period that it is for, in microseconds; -1 where it is not limited."""
    for group in _groups("cpu"):
        with suppress(OSError, ValueError):
            quota, period = (group / "cpu.max").read_text().split()
            yield int(quota), int(period)
        with suppress(OSError, ValueError):
            yield _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")


def _limits() -> Iterator[int]:
    """Bytes that the control groups may use, where they say so."""
    for group in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                yield _number(group / name)


def _left_in_groups() -> Iterator[int]:
    """Bytes that the control groups have left. Their use counts cached files, which give way."""
    for group in _groups("memory"):
        with suppress(OSError, ValueError):
            used = _number(group / "memory.current") - _cached(group, "")
            yield _number(group / "memory.max") - used
        with suppress(OSError, ValueError):
            used = _number(group / "memory.usage_in_bytes") - _cached(group, "total_")
            yield _number(group / "memory.limit_in_bytes") - used


def _cached(folder: Path, prefix: str) -> int:
    lines = (folder / "memory.stat").read_text().splitlines()
    fields = dict(line.split(maxsplit=1) for line in lines)
    return sum(int(fields.get(f"{prefix}{name}_file", 0)) for name in ("active", "inactive"))


def _number(path: Path) -> int:
    """ValueError for `max`: no limit."""
    return int(path.read_text())
