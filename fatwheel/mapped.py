"""Files mapped into memory, so that even large ones cost little of it."""

from __future__ import annotations

import mmap
from typing import IO

# Bytes to read from a mapped file before it is worth letting go of them.
STEP = 16 << 20


def map_file(stream: IO[bytes]) -> memoryview:
    """The bytes of an open file, which must not be empty, to be read only.

    The mapping outlives the stream, and goes with its last view. Raises OSError.
    """
    return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))


def let_go(view: memoryview) -> None:
    """Give back the memory of a mapped file that `view` is, or is a part of.

    What was read counts as this process's memory until then. It can be read again, which takes
    the system a moment. Views of anything else, and systems that cannot do this, are left alone.
    """
    if isinstance(view.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        view.obj.madvise(mmap.MADV_DONTNEED)
