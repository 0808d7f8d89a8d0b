"""Files that the user names, mapped into memory, so that even large ones cost little of it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import FormatError, UsageError

# Bytes to read from a mapped file before it is worth letting go of them.
STEP = 16 << 20


def map_file(stream: IO[bytes]) -> memoryview:
    """The bytes of an open file, which must not be empty, to be read only.

    The mapping outlives the stream, and goes with its last view. Raises OSError.
    """
    return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def map_path(path: Path, valid: str) -> memoryview:
    """The bytes of a file; UsageError as of `readable`, FormatError if it is empty."""
    with readable(path, valid), path.open("rb") as stream:
        if path.stat().st_size == 0:
            raise FormatError("the file is empty", where=str(path))
        return map_file(stream)


@contextmanager
def readable(path: Path, valid: str) -> Iterator[None]:
    """Turn an OSError of the block into a UsageError: the user named a file that cannot be read.

    valid says what can be, as in `a wheel`.
    """
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot read this file: {error.strerror or error}",
            where=str(path),
            hint=f"valid: {valid}",
        ) from error


def let_go(view: memoryview) -> None:
    """Give back the memory of a mapped file that `view` is, or is a part of.

    What was read counts as this process's memory until then. It can be read again, which takes
    the system a moment. Views of anything else, and systems that cannot do this, are left alone.
    """
    if isinstance(view.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        view.obj.madvise(mmap.MADV_DONTNEED)
