"""What `invoke inspect` shows in place of a report that nobody would read: sums, and the largest of
its files. It has less than 60 lines; --all shows everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

from .. import text
from . import tables
from .tables import Row

IMAGES_SHOWN = 12  # rows: architectures and kinds
BINARIES_SHOWN = 5
PLACES_SHOWN = 5
GPUS_SHOWN = 24  # rows: compute capabilities

_LONGEST = 55  # lines of a report that is shown as a whole
_HEADING = 3  # lines around the rows of a table, and between tables


def is_long(binaries: Sequence[Mapping[str, Any]], coverage: Sized) -> bool:
    """Whether files and GPUs, as `verify.inspect` reports them, are too many to be shown whole."""
    rows = [len(binary["images"]) + 1 for binary in binaries]
    rows += [len(place["images"]) + 1 for binary in binaries for place in _places(binary)]
    return sum(rows) + _HEADING * (len(binaries) + 1) + len(coverage) > _LONGEST


def title(binaries: Sequence[Mapping[str, Any]]) -> str:
    """`3 files with GPU code (12 containers, 345 images), 14 without`."""
    having = [binary for binary in binaries if _size(binary)]
    images = sum(image["count"] for binary in having for image in binary["images"])
    containers = sum(binary["containers"] for binary in having)
    held = f"{text.count(containers, 'container')}, {text.count(images, 'image')}"
    rest = f", {len(binaries) - len(having)} without" if len(having) < len(binaries) else ""
    return f"{text.count(len(having), 'file')} with GPU code ({held}){rest}"


def image_rows(binaries: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The images of all files together, the most bytes first."""
    images = tables.united_images(binaries)
    return tables.image_rows(sorted(images, key=lambda image: -image["bytes"]))


def binary_lines(binaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each file with GPU code, the largest first."""
    sizes = list(map(_size, binaries))
    ordered = sorted(zip(sizes, range(len(sizes)), strict=True), key=lambda one: (-one[0], one[1]))
    return [
        f"{tables.binary_heading(binaries[place])}: {text.size(size)}"
        for size, place in ordered
        if size
    ]


def place_lines(binaries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each place where a library keeps device code that it loads itself."""
    return [
        tables.place_heading(place, f"in {binary['path']}, {tables.LOADED}")
        for binary in binaries
        for place in binary.get("embedded", [])
    ]


def _size(binary: Mapping[str, Any]) -> int:
    """Bytes of its device code."""
    return sum(int(part["bytes"]) for part in [*binary["images"], *_places(binary)])


def _places(binary: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [*binary.get("embedded", []), *binary.get("relocatable", [])]
