"""Which files two wheels have, and how their archives hold them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..wheels.zipreader import DEFLATED, STORED, Entry
from .differences import Difference, Place
from .sides import File, Opened

_METHODS = {STORED: "stored", DEFLATED: "deflated"}
_NAMES_SHOWN = 3

Both = tuple[File, File]


def differing_list(one: Opened, other: Opened) -> Iterator[Difference]:
    """Files that only one of the wheels has; folders that carry another version."""
    if one.dist_info != other.dist_info:
        what = "the version in the folder's name"
        yield Difference("files", what, Place(), one.dist_info, other.dist_info)
    for stem, file in one.files.items():
        if stem not in other.files:
            what = f"only in the first: {file.member.size} bytes"
            yield Difference("files", what, Place(file.name))
    for stem, file in other.files.items():
        if stem not in one.files:
            what = f"only in the second: {file.member.size} bytes"
            yield Difference("files", what, Place(file.name))


def differing_modes(pairs: Sequence[Both]) -> Iterator[Difference]:
    """Files with other permissions."""
    for mine, theirs in pairs:
        if mine.member.mode != theirs.member.mode:
            modes = (f"{file.member.mode:o}" for file in (mine, theirs))
            yield Difference("modes", "permissions", Place(mine.name), *modes)


def differing_archive(one: Opened, other: Opened, pairs: Sequence[Both]) -> Iterator[Difference]:
    """How the archives hold the same files: order, times, compression and other fields."""
    mine = [stem for stem in one.files if stem in other.files]
    theirs = [stem for stem in other.files if stem in one.files]
    if mine != theirs:
        moved = [stem for stem, there in zip(mine, theirs, strict=True) if stem != there]
        yield _archive("the files are in another order", [one.files[stem].name for stem in moved])
    yield from _times(pairs)
    fields = [(a.name, found) for a, b in pairs if (found := _other_fields(a, b))]
    for what in sorted({what for _, found in fields for what in found}):
        yield _archive(what, [name for name, found in fields if what in found])
    same = [(a, b) for a, b in pairs if a.sha256 == b.sha256]
    methods = [(a, b) for a, b in same if _method(a) != _method(b)]
    if methods:
        a, b = methods[0]
        what = f"{_method(a)} became {_method(b)}"
        yield _archive(what, [a.name for a, _ in methods])
    packed = [a.name for a, b in same if _packed_otherwise(one, other, a, b)]
    if packed:
        what = "the same content is compressed otherwise: another zlib, or another level"
        yield _archive(what, packed)


def _times(pairs: Sequence[Both]) -> Iterator[Difference]:
    moved = [(a, b) for a, b in pairs if a.member.entry.time != b.member.entry.time]
    if moved:
        times = (_time(file) for file in moved[0])
        what = f"the time of {_names([a.name for a, _ in moved])}"
        yield Difference("archive", what, Place(), *times)


def _time(file: File) -> str:
    year, month, day, hour, minute, second = file.member.entry.time
    return f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"


def _other_fields(mine: File, theirs: File) -> frozenset[str]:
    """What else of two headers differs, but the permissions, times and sizes."""
    a, b = mine.member.entry, theirs.member.entry
    found = {
        "the system that wrote it": a.system != b.system,
        "the version of the format": (a.made_by, a.needs) != (b.made_by, b.needs),
        "the flags": a.flags != b.flags,
        "extra fields": a.extra != b.extra,
        "attributes other than permissions": (a.internal, _kept(a)) != (b.internal, _kept(b)),
    }
    return frozenset(f"{what} differs" for what, differs in found.items() if differs)


def _kept(entry: Entry) -> int:
    """The attributes without the permissions, which are compared by themselves."""
    return entry.attributes & ~(0o7777 << 16)


def _method(file: File) -> str:
    return _METHODS[file.member.entry.method]


def _packed_otherwise(one: Opened, other: Opened, mine: File, theirs: File) -> bool:
    if _method(mine) != _method(theirs):
        return False
    if mine.member.entry.stored != theirs.member.entry.stored:
        return True
    pieces = zip(one.stored(mine), other.stored(theirs), strict=True)
    return any(a != b for a, b in pieces)


def _archive(what: str, names: Sequence[str]) -> Difference:
    return Difference("archive", f"{what}: {_names(names)}")


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
