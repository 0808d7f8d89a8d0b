"""The device code of two binaries: which unit differs, for which GPU, and in which kernel.

Units have names where a wheel's fatwheel.json has the digests of its slices: a slice is one image
in a container of its own (`build.slices`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..decoders import DECODERS
from ..errors import FormatError
from ..fatbin.container import Container, Entry, container_pieces, payload
from ..fatbin.cubin import kernel_names_of_ptx
from ..fatbin.stitch import image_name
from ..mapped import STEP, let_go
from .cubins import differing_cubins, kernels_or_none
from .differences import Difference, Place
from .lines import differing_lines
from .spans import extent, first_difference

T = TypeVar("T")


class Slices:
    """What a wheel's record says of its slices, and which of them were really seen in it."""

    def __init__(self, record: Any) -> None:
        self._units: dict[str, list[str]] = {}
        self.seen: set[str] = set()
        for unit, _, digest in slices_of(record):
            self._units.setdefault(digest, []).append(unit)

    def unit_of(self, digests: Iterable[str]) -> str:
        """The name of the unit that most of these slices are of, or ''."""
        self.seen.update(digests)
        names = Counter(name for digest in digests for name in self._units.get(digest, ()))
        return names.most_common(1)[0][0] if names else ""


def slices_of(record: Any) -> Iterator[tuple[str, str, str]]:
    """Unit, image and digest of every slice that a fatwheel.json names, whatever is in it."""
    if not isinstance(record, dict):
        return
    for part in _list(record.get("stitched")) or [record]:
        for unit in _list(part.get("units")) if isinstance(part, dict) else ():
            if isinstance(unit, dict) and isinstance(unit.get("slices"), dict):
                for image, digest in unit["slices"].items():
                    yield str(unit.get("name", "")), image, str(digest)


@dataclass(frozen=True)
class Unit:
    """One container: its number in the file, and what its images hash to."""

    number: int
    name: str
    entries: tuple[Entry, ...]
    digests: tuple[str, ...]


def read_units(containers: Sequence[Container], slices: Slices) -> list[Unit]:
    """The containers of one binary, with their units' names."""
    units = []
    read_so_far = 0
    for number, found in enumerate(containers):
        units.append(_read_unit(number, found, slices))
        read_so_far += found.size
        if read_so_far > STEP and found.entries:
            let_go(found.entries[0].raw)
            read_so_far = 0
    return units


def differing_units(
    place: Place, one: Sequence[Unit], other: Sequence[Unit]
) -> Iterator[Difference]:
    """What differs between the containers of two binaries."""
    pairs, only, only_other = _paired(one, other)
    order = [theirs.number for _, theirs in pairs]
    if order != sorted(order):
        yield Difference("unit", "the units are in another order", place)
    for units, which in ((only, "first"), (only_other, "second")):
        for unit in units:
            images = ", ".join(map(image_name, unit.entries)) or "no images"
            what = f"only in the {which}: {images}"
            yield Difference("unit", what, place.at(container=unit.number, unit=unit.name))
    for mine, theirs in pairs:
        if mine.digests != theirs.digests:
            here = place.at(container=mine.number, unit=mine.name or theirs.name)
            yield from _differing_images(here, mine.entries, theirs.entries)


def _read_unit(number: int, found: Container, slices: Slices) -> Unit:
    digests = tuple(map(_digest, found.entries))
    return Unit(number, slices.unit_of(digests), found.entries, digests)


def _digest(entry: Entry) -> str:
    digest = hashlib.sha256()
    for piece in container_pieces((entry,)):
        digest.update(piece)
    return digest.hexdigest()


Pairs = list[tuple[Unit, Unit]]


def _paired(one: Sequence[Unit], other: Sequence[Unit]) -> tuple[Pairs, list[Unit], list[Unit]]:
    """Which unit of one is which of the other, in the order of the first, and what is left."""
    pairs: Pairs = []
    mine, theirs = list(one), list(other)
    keys: tuple[Callable[[Unit], Hashable], ...] = (
        lambda unit: (unit.number, unit.digests),
        lambda unit: unit.digests,
        lambda unit: unit.name or id(unit),
        _kernels,
        lambda unit: None,
    )
    for key in keys:
        if mine and theirs:
            found, mine, theirs = _paired_by(key, mine, theirs)
            pairs += found
    return sorted(pairs, key=lambda pair: pair[0].number), mine, theirs


def _paired_by(
    key: Callable[[Unit], Hashable], mine: Sequence[Unit], theirs: Sequence[Unit]
) -> tuple[Pairs, list[Unit], list[Unit]]:
    waiting: dict[Hashable, list[Unit]] = {}
    for unit in reversed(theirs):
        waiting.setdefault(key(unit), []).append(unit)
    pairs: Pairs = []
    left = []
    for unit in mine:
        if alike := waiting.get(key(unit)):
            pairs.append((unit, alike.pop()))
        else:
            left.append(unit)
    taken = {theirs.number for _, theirs in pairs}
    return pairs, left, [unit for unit in theirs if unit.number not in taken]


def _kernels(unit: Unit) -> frozenset[str]:
    """The kernels of a container's first image that has any."""
    for entry in unit.entries:
        try:
            image = payload(entry, DECODERS)
        except FormatError:
            continue
        if entry.kind == "elf" and (found := kernels_or_none(image)):
            return found
        if entry.kind == "ptx" and (names := kernel_names_of_ptx(image)):
            return frozenset(names)
    return frozenset()


def _differing_images(
    place: Place, one: Sequence[Entry], other: Sequence[Entry]
) -> Iterator[Difference]:
    mine, theirs = _by_name(one), _by_name(other)
    common = [name for name in mine if name in theirs]
    order = [name for name in theirs if name in mine]
    if common != order:
        what = "its images are in another order"
        yield Difference("image", what, place, ", ".join(common), ", ".join(order))
    for name in mine:
        if name not in theirs:
            yield Difference("image", "only in the first", place.at(image=name))
    for name in theirs:
        if name not in mine:
            yield Difference("image", "only in the second", place.at(image=name))
    for name in common:
        if first_difference(mine[name].raw, theirs[name].raw) is not None:
            yield from _differing_image(place.at(image=name), mine[name], theirs[name])


def _by_name(entries: Iterable[Entry]) -> Mapping[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in entries:
        name = (
            image_name(entry)
            if entry.kind in ("elf", "ptx")
            else f"{image_name(entry)} {entry.kind}"
        )
        number = 1
        while (unique := name if number == 1 else f"{name} #{number}") in found:
            number += 1
        found[unique] = entry
    return found


def _differing_image(place: Place, one: Entry, other: Entry) -> Iterator[Difference]:
    images, broken = [], []
    for entry, which in ((one, "first"), (other, "second")):
        try:
            images.append(memoryview(payload(entry, DECODERS)))
        except FormatError as error:
            broken.append(f"in the {which} it cannot be decompressed ({error.what})")
    if broken:
        stored = (memoryview(entry.raw) for entry in (one, other))
        yield Difference("image", f"{'; '.join(broken)}; compressed: {extent(*stored)}", place)
    elif first_difference(*images) is None:
        yield Difference("image", _only_wrapped(one, other), place)
    else:
        yield from _differing_payload(place, one.kind, *images)


def _only_wrapped(one: Entry, other: Entry) -> str:
    if one.compression != other.compression:
        how = [entry.compression or "not at all" for entry in (one, other)]
        return f"the same image, compressed otherwise: {how[0]} became {how[1]}"
    stored = [entry.raw[entry.header_size :] for entry in (one, other)]
    if one.compression and first_difference(*stored) is not None:
        return f"the same image, compressed otherwise: {extent(*stored)}"
    return f"the same image, but for its header: {extent(one.raw, other.raw)}"


def _differing_payload(
    place: Place, kind: str, one: memoryview, other: memoryview
) -> Iterator[Difference]:
    if kind == "elf":
        try:
            yield from differing_cubins(place, one, other)
        except FormatError as error:
            what = f"it cannot be read as a cubin ({error.what}); {extent(one, other)}"
            yield Difference("image", what, place)
    elif kind == "ptx":
        texts = [bytes(image).rstrip(b"\0").decode("utf-8", "replace") for image in (one, other)]
        if texts[0] == texts[1]:
            yield Difference("image", f"only what is no text: {extent(one, other)}", place)
        yield from differing_lines(place, texts[0], texts[1], "kernel")
    else:
        yield Difference("image", extent(one, other), place)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
