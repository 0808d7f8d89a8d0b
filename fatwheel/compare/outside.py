"""What of two binaries differs outside of their sections: headers, tables and padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..fatbin import elf, pe
from .differences import Difference, Place
from .sections import Host, between
from .spans import extent, first_difference

_FIELD = 4  # bytes of the fields below
_TIME = 4  # its offset in the COFF header
_CHECKSUM = pe.COFF_HEADER.size + 64  # its offset behind the COFF header's start


def differing_outside(place: Place, one: Host, other: Host, *, alone: bool) -> Iterator[Difference]:
    """Every part that differs, where the sections lie alike in both files.

    Where they do not, headers differ as a consequence. alone: no section differs, so that
    something must be said.
    """
    if one.ranges != other.ranges or len(one.data) != len(other.data):
        if alone:
            what = f"its sections lie elsewhere in the file: {extent(one.data, other.data)}"
            yield Difference("section", what, place)
        return
    fields = _fields(one)
    told = False
    for what, start, end in _parts(one):
        at = _first_but(one.data, other.data, start, end, fields)
        if at is not None:
            told = True
            yield Difference("section", f"{what}: the first byte that differs is {at:#x}", place)
    if not fields:
        return
    time, checksum = fields
    if _value(one, time) != _value(other, time):
        told = True
        yield _field("the headers' time, or a hash in its place", time, place, one, other)
    # The checksum follows from everything else.
    if alone and not told and _value(one, checksum) != _value(other, checksum):
        yield _field("the headers' checksum", checksum, place, one, other)


def _field(what: str, field: range, place: Place, one: Host, other: Host) -> Difference:
    return Difference("section", what, place, _value(one, field), _value(other, field))


def _fields(host: Host) -> Sequence[range]:
    """Where a PE image says when it was linked, and what its bytes sum up to."""
    if host.pe is None:
        return ()
    starts = (host.pe.coff + _TIME, host.pe.coff + _CHECKSUM)
    return tuple(range(start, start + _FIELD) for start in starts)


def _value(host: Host, field: range) -> str:
    return f"{int.from_bytes(host.data[field.start : field.stop], 'little'):#x}"


def _parts(host: Host) -> Iterator[tuple[str, int, int]]:
    """Start and end of each part that is in no section, and what it is."""
    table = range(0)
    if host.elf:
        table = range(host.elf.table, host.elf.table + len(host.elf.sections) * elf.SECTION.size)
    known = {"the headers": range(host.headers), "the section table": table}
    for start, end in between(host):
        for what, part in known.items():
            inside = range(max(start, part.start), min(end, part.stop))
            if inside:
                yield what, inside.start, inside.stop
        for rest in _without(range(start, end), tuple(known.values())):
            yield "bytes between its sections", rest.start, rest.stop


def _without(whole: range, parts: Sequence[range]) -> Iterator[range]:
    """What is left of a run of bytes without the parts, which are in order."""
    start = whole.start
    for part in parts:
        if range(max(start, part.start), min(whole.stop, part.stop)):
            if start < part.start:
                yield range(start, part.start)
            start = part.stop
    if start < whole.stop:
        yield range(start, whole.stop)


def _first_but(
    one: memoryview, other: memoryview, start: int, end: int, fields: Sequence[range]
) -> int | None:
    """The first offset from start to end at which they differ, but for those of the fields."""
    while (at := first_difference(one[start:end], other[start:end])) is not None:
        found = start + at
        field = next((field for field in fields if found in field), None)
        if field is None:
            return found
        start = field.stop
    return None
