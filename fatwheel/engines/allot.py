"""How much of a machine each worker of a build may have.

Workers share the build's memory and slots: jobs are admitted one by one, over all workers
(`build.schedule`). Where a worker is a container it has a hard limit too. All limits of the
workers that are open at a time fit into the memory of the build; so where the machine is small,
fewer are open at a time, and each has what its largest job needs.
"""

from __future__ import annotations

from dataclasses import dataclass

# A container's limit also counts its Python, its temporary files and some of its page cache.
_ROOM = 1.25
_BASE = 256 << 20  # bytes


def gib(size: int) -> str:
    """Bytes as messages about limits say them: `6.7 GiB`."""
    return f"{size / 2**30:.1f} GiB"


@dataclass(frozen=True)
class Limits:
    """What one worker may use: processors, and bytes of memory."""

    cpus: int
    memory: int


@dataclass(frozen=True)
class Allotment:
    """at_once: workers that may be open at a time. each: the limits of one of them.
    whole: those of a worker that is alone."""

    at_once: int
    each: Limits
    whole: Limits


def allot(shards: int, largest: int, slots: int, memory: int) -> Allotment:
    """Divide `memory` bytes among as many workers as can run their largest job (bytes) in it."""
    need = int(largest * _ROOM) + _BASE
    at_once = max(1, min(shards, memory // need))
    return Allotment(at_once, Limits(slots, memory // at_once), Limits(slots, memory))
