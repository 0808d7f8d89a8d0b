"""Reads METADATA and WHEEL, sets the version, and checks that all names agree.

Both files are lines of `Name: value` up to the first empty line (PyPA specifications "Core
metadata" and "Binary distribution format"; a line that begins with white space continues the
one before).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from packaging.utils import canonicalize_version

from ..errors import FormatError
from .name import WheelName, canonical_project, canonical_version

# Single tags of one wheel; real ones have a few dozen. Three lists of tags multiply.
MAX_TAGS = 1000
# Of one file; those of the largest projects have 2000.
MAX_FIELDS = 20_000
# A lone carriage return ends a line, too, for Python's mail parser, which installers read with.
_EOL = rb"(?:\r?\n|\r(?!\n))"
_END_OF_FIELDS = re.compile(rb"(?:\A|%b)%b|\Z" % (_EOL, _EOL))
# A repeated group would cost memory for each line of a value; two searches do not.
_START = re.compile(rb"(?:\A|(?<=[\r\n]))([!-9;-~]+):")
_STOP = re.compile(rb"%b(?![ \t])|\Z" % _EOL)


class _Line(NamedTuple):
    """A field: its name in lower case, and where its value starts and ends, with the lines that
    continue it."""

    name: bytes
    start: int
    end: int


def fields(text: bytes, name: str) -> list[str]:
    """The values of a field, in the file's order; upper and lower case are the same."""
    return [
        text[line.start : line.end].decode("utf-8", "replace").strip()
        for line in _named(text, name)
    ]


def field(text: bytes, name: str, where: str) -> str:
    """The value of a field that must be there once; FormatError, with `where`, if it is not."""
    return _only(fields(text, name), name, where)


def set_version(metadata: bytes, version: str, where: str = "METADATA") -> bytes:
    """METADATA with another Version and every other byte as it was."""
    found = _named(metadata, "Version")
    _only([str(line) for line in found], "Version", where)
    [(_, start, end)] = found
    return metadata[:start] + b" " + version.encode("ascii") + metadata[end:]


def name_disagreement(name: WheelName, dist_info: str, metadata: bytes) -> FormatError | None:
    """Whether file name, dist-info folder and METADATA speak of different projects or versions.

    pip refuses such a wheel, or installs it under a wrong name.
    """
    said = {
        "the file name": (name.project, name.version),
        "the folder": _split_folder(dist_info),
        "METADATA": (field(metadata, "Name", "METADATA"), field(metadata, "Version", "METADATA")),
    }
    meant = {(canonical_project(project), _comparable(v)) for project, v in said.values()}
    if len(meant) == 1:
        return None
    return FormatError(
        "the wheel's names do not agree",
        where=name.filename,
        details=[f"{place} says {project} {v}" for place, (project, v) in said.items()],
        hint="build it again: an installer would refuse this wheel",
    )


def _comparable(version: str) -> str:
    """The same for versions that are equal: 1.0 is 1.0.0 (PEP 440, "Version matching")."""
    return canonicalize_version(canonical_version(version))


def tag_disagreement(name: WheelName, wheel: bytes) -> FormatError | None:
    """Whether file name and WHEEL name different tags. Installers go by the file name; published
    wheels whose file was renamed, and nothing else, disagree."""
    tags = frozenset(expand_tags(fields(wheel, "Tag")))
    if tags == name.tags:
        return None
    return FormatError(
        "the wheel's tags do not agree",
        where=name.filename,
        details=[
            f"the file name says {', '.join(sorted(name.tags))}",
            f"WHEEL says {', '.join(sorted(tags)) or 'none'}",
        ],
    )


def expand_tags(tags: Iterable[str]) -> Iterable[str]:
    """The single tags that a WHEEL file's Tag lines stand for; FormatError if they have no end."""
    left = MAX_TAGS
    for tag in tags:
        parts = tag.split("-")
        left -= math.prod(part.count(".") + 1 for part in parts)
        if left < 0:
            raise FormatError(f"its tags stand for more than {MAX_TAGS}", where="WHEEL")
        if len(parts) == 3:
            yield from WheelName("", "", "", *parts).tags
        else:
            yield tag


def _split_folder(dist_info: str) -> tuple[str, str]:
    project, dash, version = dist_info.removesuffix(".dist-info").partition("-")
    if not dash:
        raise FormatError("not PROJECT-VERSION.dist-info", where=dist_info)
    return project, version


def _lines(text: bytes) -> Iterator[_Line]:
    """All fields; FormatError where there are more than any file has."""
    found = _END_OF_FIELDS.search(text)
    assert found is not None, "\\Z matches every text"
    most, at = found.start(), 0
    for _ in range(MAX_FIELDS):
        start = _START.search(text, at, most)
        if not start:
            return
        stop = _STOP.search(text, start.end(), most)
        assert stop is not None, "\\Z matches every text"
        at = stop.start()
        yield _Line(start[1].lower(), start.end(), at)
    if _START.search(text, at, most):
        raise FormatError(f"METADATA or WHEEL has more than {MAX_FIELDS} fields")


def _named(text: bytes, name: str) -> list[_Line]:
    return [line for line in _lines(text) if line.name == name.lower().encode()]


def _only(values: list[str], name: str, where: str) -> str:
    if len(values) != 1:
        count = "no" if not values else str(len(values))
        raise FormatError(f"{count} {name} fields, where one is needed", where=where)
    return values[0]
