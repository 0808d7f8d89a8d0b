"""`--locked`: a build that may use nothing but what a lock lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import LockError, UsageError
from ..mapped import readable
from ..model import Host
from .buildlock import BuildLock
from .held import read_held
from .lockchanges import differences
from .lockfile import MOST, read_lock

OPTION = "--locked"
_MOST_SHOWN = 20


def read_lock_file(path: Path, kernels: Path) -> BuildLock:
    """The lock in a file, or in a wheel. kernels: where source folders are looked for.

    UsageError where there is no such file, FormatError where it holds no lock.
    """
    if path.suffix == ".whl":
        return read_held(path, kernels).lock
    if path.suffix == ".toml":
        raise UsageError(
            "a pylock.toml is for installing wheels, not for building them",
            where=f"{OPTION} {path}",
            hint="name a wheel, or the W.whl.lock.json beside it",
        )
    with readable(path, "a lock"), path.open("rb") as stream:
        return read_lock(stream.read(MOST + 1), path.name, kernels)


def check_locked(lock: BuildLock, mine: BuildLock, where: Path) -> None:
    """Raise LockError, with everything that is another, unless a build uses what is locked.

    mine: the build's own lock.
    """
    found = differences(replace(lock, fatwheel=mine.fatwheel), mine)
    if found:
        more = len(found) - _MOST_SHOWN
        raise LockError(
            "the recipe or the toolchain is not what the lock lists",
            where=f"{OPTION} {where}",
            details=[*found[:_MOST_SHOWN], *([f"... and {more} more"] if more > 0 else [])],
            hint="build without --locked to make a new lock; or `invoke rebuild`, which takes "
            "everything from the lock",
        )


def check_host(locked: Host, host: Host) -> None:
    """Raise LockError unless the compilers are those that are locked."""
    if host != locked:
        raise LockError(
            "this machine, or the container image, is not what the lock lists",
            where=OPTION,
            details=host_changes(locked, host),
            hint="another g++ can be named: CXX=/path/to/g++; or build in containers of the same "
            "base: --engine docker",
        )


def host_changes(before: Host, after: Host) -> list[str]:
    """What is another on this host, a line each."""
    pairs = {
        "C++ compiler": (before.compiler, after.compiler),
        "Python": (before.python, after.python),
    }
    found = [f"{name}: {old} became {new}" for name, (old, new) in pairs.items() if old != new]
    if before.compiler == after.compiler and before.compiler_id != after.compiler_id:
        ids = f"{before.compiler_id[:16]} became {after.compiler_id[:16]}"
        found.append(f"C++ compiler: {after.compiler}, but made of other files: {ids}")
    return found
