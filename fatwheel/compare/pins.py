"""What went into two wheels, by their own words: fatwheel.lock.json and fatwheel.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import FormatError
from ..jsonfile import read_object
from ..provenance.lockchanges import differences
from ..provenance.lockfile import read_lock
from .device import Slices
from .differences import Difference, Place
from .documents import differing_fields, said
from .lines import as_text, differing_lines
from .spans import extent

# What both files tell: of these, the lock tells more.
_IN_LOCK = ("fatwheel", "lock", "python", "recipe", "toolchain", "torch")


def differing_locks(place: Place, one: bytes, other: bytes) -> Iterator[Difference]:
    """Every pin that is another, by name; of a lock that cannot be read, its lines."""
    try:
        # Where a source folder would be does not matter here.
        locks = [read_lock(data, place.file, Path()) for data in (one, other)]
        found = differences(*locks)
        if not found:
            fields = differing_fields(*(read_object(data, place.file) for data in (one, other)))
            found = tuple(said(*field) for field in fields)
    except FormatError:
        yield from differing_text(place, one, other)
        return
    for what in found:
        yield Difference("pins", what, place)


def differing_records(
    place: Place, data: tuple[bytes, bytes], slices: tuple[Slices, Slices], locked: bool
) -> Iterator[Difference]:
    """What else two records say; locked: whether the locks differ, and tell of the most.

    A slice's digest is left out where it is right in both wheels: their device code tells more.
    """
    try:
        one, other = (read_object(content, place.file) for content in data)
    except FormatError:
        yield from differing_text(place, *data)
        return
    seen = slices[0].seen | slices[1].seen
    for name, mine, theirs in differing_fields(one, other):
        top = name.partition(".")[0].partition("[")[0]
        if top in ("units", "stitched") and all(value in (*seen, None) for value in (mine, theirs)):
            continue
        if locked and top in _IN_LOCK:
            continue
        if top == "fronts" and one.get("archs") != other.get("archs"):
            continue
        level = "text" if top == "units" else "pins"
        yield Difference(level, said(name, mine, theirs), place)


def differing_text(place: Place, one: bytes, other: bytes) -> Iterator[Difference]:
    """Any other file of a wheel: its lines, if it is text."""
    texts = as_text(one), as_text(other)
    if texts[0] is not None and texts[1] is not None:
        yield from differing_lines(place, texts[0], texts[1])
    else:
        yield Difference("binary", extent(memoryview(one), memoryview(other)), place)
