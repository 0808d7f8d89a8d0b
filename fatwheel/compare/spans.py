"""Two runs of bytes: where they differ first, and what can be read there.

They may be gigabytes of mapped files, so they are read in steps. Offsets are bytes.
"""

from __future__ import annotations

from ..mapped import STEP, let_go

_PIECE = 1 << 16
_AROUND = 200  # bytes to each side in which a string is looked for
_SHORTEST = 6  # characters: fewer are text by accident


def first_difference(one: memoryview, other: memoryview) -> int | None:
    """The first offset at which they differ, which is the shorter one's end where it is a part of
    the other; None where they are the same."""
    shorter = min(len(one), len(other))
    for start in range(0, shorter, _PIECE):
        mine, theirs = (bytes(view[start : min(start + _PIECE, shorter)]) for view in (one, other))
        if mine != theirs:
            pairs = enumerate(zip(mine, theirs, strict=True))
            return start + next(i for i, (a, b) in pairs if a != b)
        if start and start % STEP == 0:
            let_go(one)
            let_go(other)
    return None if len(one) == len(other) else shorter


def extent(one: memoryview, other: memoryview) -> str:
    """How two runs that differ do so: `12 bytes, the first that differs is 0x3`."""
    place = first_difference(one, other)
    if len(one) == len(other):
        return f"{len(one)} bytes in both; the first that differs is at {place or 0:#x}"
    return f"{len(one)} bytes became {len(other)}; the first that differs is at {place or 0:#x}"


def strings_at(one: memoryview, other: memoryview, offset: int) -> tuple[str, str] | None:
    """The strings around a byte that differs, such as a path, where both sides have text there."""
    mine, theirs = _string_at(one, offset), _string_at(other, offset)
    return None if mine is None or theirs is None or mine == theirs else (mine, theirs)


def _string_at(data: memoryview, offset: int) -> str | None:
    start = max(0, offset - _AROUND)
    window = bytes(data[start : offset + _AROUND])
    before = window[: offset - start].rpartition(b"\0")[2]
    after = window[offset - start :].partition(b"\0")[0]
    found = before + after
    readable = len(found) >= _SHORTEST and all(32 <= byte < 127 for byte in found)
    return found.decode("ascii") if readable else None
