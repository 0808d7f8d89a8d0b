"""JSON documents compared field by field, each by its dotted name."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import FormatError
from ..provenance.checks import differences
from ..provenance.lock import read_lock
from ..storage.documents import read_object
from ..wheels.name import stem_of
from .device import Slices
from .differences import Difference, Position, as_text, differing_lines, extent

_KEYS = ("name", "virtual", "ref", "uri", "path", "bom-ref")
_MOST = 200  # characters of a value


def differing_fields(one: Any, other: Any) -> Iterator[tuple[str, str | None, str | None]]:
    """Name, and both values, of every field that differs; None where it is not there."""
    mine, theirs = dict(_flat(one, "")), dict(_flat(other, ""))
    for name in dict.fromkeys((*mine, *theirs)):
        if mine.get(name) != theirs.get(name):
            old, new = _shown(name, mine), _shown(name, theirs)
            # Text that reads like a number is in quotes, or both would look the same.
            yield (name, old, new) if old != new else (name, mine.get(name), theirs.get(name))


def said(name: str, one: str | None, other: str | None) -> str:
    """`python: 3.11 became 3.12`."""
    old, new = ("nothing" if value is None else value for value in (one, other))
    return f"{name}: {old} became {new}"


def _flat(part: Any, place: str) -> Iterator[tuple[str, str]]:
    """Every value that is no object, or no list of such, as JSON. Items of lists go by what names
    them, so that one more of them does not make all others differ."""
    if isinstance(part, dict) and (part or not place):
        for name, value in part.items():
            yield from _flat(value, f"{place}.{name}" if place else str(name))
    elif isinstance(part, list) and any(isinstance(item, (dict, list)) for item in part):
        for name, item in _named(part).items():
            yield from _flat(item, f"{place}[{name}]")
    else:
        yield place, json.dumps(part, ensure_ascii=False)


def _named(items: list[Any]) -> Mapping[str, Any]:
    for key in _KEYS:
        named = {
            item[key]: item
            for item in items
            if isinstance(item, dict) and isinstance(item.get(key), str)
        }
        if len(named) == len(items):
            return named
    return {str(index): item for index, item in enumerate(items)}


def _shown(name: str, fields: Mapping[str, str]) -> str | None:
    if name not in fields:
        return None
    value = fields[name]
    if value.startswith('"'):
        value = json.loads(value)
    return value if len(value) <= _MOST else f"{value[:_MOST]}…"


# -- locks and records -----------------------------------------------------------------------------


# What both files tell: of these, the lock tells more.
_IN_LOCK = ("fatwheel", "lock", "python", "recipe", "toolchain", "torch")


def differing_locks(place: Position, one: bytes, other: bytes) -> Iterator[Difference]:
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
    place: Position, data: tuple[bytes, bytes], slices: tuple[Slices, Slices], locked: bool
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


def differing_text(place: Position, one: bytes, other: bytes) -> Iterator[Difference]:
    """Any other file of a wheel: its lines, if it is text."""
    texts = as_text(one), as_text(other)
    if texts[0] is not None and texts[1] is not None:
        yield from differing_lines(place, texts[0], texts[1])
    else:
        yield Difference("binary", extent(memoryview(one), memoryview(other)), place)


# -- RECORD, statement, SBOM -----------------------------------------------------------------------

# They must differ where those do; only what that does not explain is a difference of its own.


RECORD = ".dist-info/RECORD"


def differing_listings(
    place: Position, data: tuple[bytes, bytes], folders: tuple[str, str], explained: Collection[str]
) -> Iterator[Difference]:
    """What differs between two RECORDs beside the lines of files that differ themselves.

    explained: such files, by their names without the version.
    """
    try:
        mine, theirs = (_rows(*side) for side in zip(data, folders, strict=True))
    except (csv.Error, UnicodeDecodeError, FormatError):
        yield from differing_text(place, *data)
        return
    found = False
    for stem in dict.fromkeys((*mine, *theirs)):
        if stem not in explained and mine.get(stem) != theirs.get(stem):
            found = True
            what = f"the line of {stem}"
            yield Difference("text", what, place, mine.get(stem), theirs.get(stem))
    kept = [[stem for stem in rows if stem not in explained] for rows in (mine, theirs)]
    if not found and kept[0] != kept[1]:
        yield Difference("text", "its lines are in a different order", place)


def differing_statements(
    place: Position,
    data: tuple[bytes, bytes],
    folders: tuple[str, str],
    explained: Collection[str],
    locked: bool,
) -> Iterator[Difference]:
    """What differs between two statements beside the digests of files that differ themselves;
    locked: whether the locks or records differ, which most of it is made from."""
    try:
        one, other = (read_object(content, place.file) for content in data)
    except FormatError:
        yield from differing_text(place, *data)
        return
    for name, mine, theirs in differing_fields(one, other):
        if name.startswith("subject["):
            subject = name.removeprefix("subject[").rpartition("].")[0]
            if {stem_of(subject, folder) for folder in folders} & set(explained):
                continue
        elif locked:
            continue
        yield Difference("text", said(name, mine, theirs), place)


def _rows(data: bytes, folder: str) -> Mapping[str, str]:
    """The lines of a RECORD by the file they are of; FormatError where one is there twice."""
    found: dict[str, str] = {}
    for line in data.decode("utf-8").split("\n"):
        cells: list[Any] = next(csv.reader([line], strict=True), [])
        stem = stem_of(cells[0], folder) if cells else ""
        if stem in found:
            raise FormatError("a file is listed twice", where=stem)
        found[stem] = line.replace(f"{folder}/", ".dist-info/", 1)
    return found
