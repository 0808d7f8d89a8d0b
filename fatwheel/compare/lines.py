"""Two texts compared line by line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from .differences import MOST_TEXT, Difference, Place

MOST_BYTES = 8 << 20  # a larger file is compared as bytes
# Lines between the first and the last that differ, up to which they are brought into line; that
# takes time by the square of their number.
_MOST_LINES = 400


def as_text(data: bytes) -> str | None:
    """A file's text; None where it is not text."""
    if b"\0" in data or len(data) > MOST_BYTES:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def differing_lines(
    place: Place, one: str, other: str, level: str = "text"
) -> Iterator[Difference]:
    """Every line that differs, with both versions; lines are counted from 1."""
    before, after = one.split("\n"), other.split("\n")
    if one and other and one.endswith("\n") != other.endswith("\n"):
        which = "second" if one.endswith("\n") else "first"
        yield Difference(level, f"the last line has no end in the {which}", place)
    for text, lines in ((one, before), (other, after)):
        if text.endswith("\n") or not text:
            lines.pop()
    start = _same_from_start(before, after)
    end = _same_from_start(before[start:][::-1], after[start:][::-1])
    mine = before[start : len(before) - end]
    theirs = after[start : len(after) - end]
    if max(len(mine), len(theirs)) > _MOST_LINES:
        what = f"{len(mine)} lines from line {start + 1} on became {len(theirs)}"
        yield _difference(
            level, what, place, mine[0] if mine else None, theirs[0] if theirs else None
        )
        return
    matcher = difflib.SequenceMatcher(None, mine, theirs)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag != "equal":
            first = (start + i + 1, start + j + 1)
            yield from _changed(level, place, first, mine[i:i_end], theirs[j:j_end])


def _changed(
    level: str, place: Place, first: tuple[int, int], mine: Sequence[str], theirs: Sequence[str]
) -> Iterator[Difference]:
    """A run of lines that stands for another run; the surplus of either is there by itself."""
    for index in range(max(len(mine), len(theirs))):
        if index >= len(mine):
            what = f"line {first[1] + index}, only in the second"
            yield _difference(level, what, place, None, theirs[index])
        elif index >= len(theirs):
            what = f"line {first[0] + index}, only in the first"
            yield _difference(level, what, place, mine[index], None)
        else:
            what = f"line {first[0] + index}"
            yield _difference(level, what, place, mine[index], theirs[index])


def _difference(
    level: str, what: str, place: Place, one: str | None, other: str | None
) -> Difference:
    start = 0
    if one is not None and other is not None:
        start = max(0, _same_from_start(one, other) - MOST_TEXT // 2)
    return Difference(level, what, place, _cut(one, start), _cut(other, start))


def _cut(line: str | None, start: int) -> str | None:
    """What is kept of a line: the part around the place where it differs."""
    if line is None or len(line) <= MOST_TEXT:
        return line
    end = start + MOST_TEXT
    return ("…" if start else "") + line[start:end] + ("…" if end < len(line) else "")


def _same_from_start(one: Sequence[str], other: Sequence[str]) -> int:
    """How many of the first items are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
