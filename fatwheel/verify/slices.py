"""The slices that a wheel's record names against those that are in its binaries.

The record has the sha256 of each unit's slices as the store kept them, and stitching copies them
verbatim. A linker may leave a unit out, or bring device code of a library; so a unit that is not
there at all, or a container that no unit accounts for, may be right. Both together are not, nor is
a record that accounts for none, or that leaves a slice's digest out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..fatbin.parity import shorten
from .claims import Unit
from .findings import Finding, warning, wrong
from .papers import BinarySlices

_Named = frozenset[tuple[str, str]]  # images, and the sha256 of their slices


def slice_findings(units: Sequence[Unit], binaries: Sequence[BinarySlices]) -> Iterator[Finding]:
    """Where the units' slices are not those of the containers."""
    there = _all_of(binaries)
    named = frozenset(slice_ for unit in units for slice_ in _named(unit))
    absent, in_part = _sorted_out(units, there)
    strange, strange_in_part = _strange(named, binaries)
    untold = [
        f"{unit.name}: {image}" for unit in units for image, sha256 in unit.slices.items()
        if not sha256
    ]  # fmt: skip
    if untold:
        yield wrong("it does not say which slices these are", details=shorten(untold))
    if in_part:
        yield wrong("slices that it names are not in the wheel", details=shorten(in_part))
    if strange_in_part:
        yield wrong(
            "units in the wheel have slices that it does not name", details=shorten(strange_in_part)
        )
    severity = wrong if strange and (absent or not named) else warning
    if absent:
        yield severity("units that it names are not in the wheel", details=shorten(absent))
    if strange:
        yield severity("it does not tell of all device code", details=shorten(strange))


def _named(unit: Unit) -> _Named:
    return frozenset((image, sha256) for image, sha256 in unit.slices.items() if sha256)


def _all_of(binaries: Iterable[BinarySlices]) -> _Named:
    return frozenset(
        slice_
        for binary in binaries
        for container in (*binary.containers, *binary.relocatable)
        for slice_ in container.items()
    )


def _sorted_out(units: Iterable[Unit], there: _Named) -> tuple[list[str], list[str]]:
    """Units of which nothing is there, and those of which only a part is."""
    absent, in_part = [], []
    for unit in units:
        wanted = _named(unit)
        missing = sorted(image for image, _ in wanted - there)
        if missing and wanted & there:
            in_part.append(f"{unit.name}: {', '.join(missing)}")
        elif missing:
            absent.append(unit.name)
    return absent, in_part


def _strange(named: _Named, binaries: Iterable[BinarySlices]) -> tuple[list[str], list[str]]:
    """Containers of no unit, and those of which only a part is of one.

    What was linked from relocatable code is made by the linker, and named nowhere.
    """
    whole: list[str] = []
    in_part: list[str] = []
    for binary in binaries:
        for number, container in enumerate(() if binary.relocatable else binary.containers):
            slices = frozenset(container.items())
            others = sorted(image for image, _ in slices - named)
            if others:
                place = f"{binary.path}, container {number}: {', '.join(others)}"
                (in_part if slices & named else whole).append(place)
    return whole, in_part
