"""Whose turn it is where several builds would make the same thing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..events import Emit, Note
from ..permissions import lock_mode


@contextmanager
def one_at_a_time(folder: Path, others: str, emit: Emit) -> Iterator[None]:
    """Hold the lock in a folder that is there; emit what `others` do when that takes waiting."""
    lock = FileLock(folder / "lock", mode=lock_mode(folder))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        emit(Note(f"another build is {others}: waiting for it"))
        lock.acquire(poll_interval=0.2)
    try:
        yield
    finally:
        lock.release()
