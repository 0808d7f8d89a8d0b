"""Files of a wheel that tell of its other files: RECORD, the statement, the SBOM.

They must differ where those do; only what that does not explain is a difference of its own.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..errors import FormatError
from ..jsonfile import read_object
from .differences import Difference, Place
from .documents import differing_fields, said
from .pins import differing_text
from .sides import stem_of

RECORD = ".dist-info/RECORD"


def differing_listings(
    place: Place, data: tuple[bytes, bytes], folders: tuple[str, str], explained: Collection[str]
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
        yield Difference("text", "its lines are in another order", place)


def differing_statements(
    place: Place,
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
