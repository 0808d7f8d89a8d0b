"""What a wheel of fatwheel's says of its own build: files of its dist-info folder and beside it,
and the slices in its binaries, by which a record of them can be held against the bytes. Also what a
record's archs ask for, and how documents are compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..arch import Arch, parse_arch
from ..errors import FatwheelError, FormatError
from ..fatbin.binary import read_binary
from ..fatbin.container import Container
from ..provenance.beside import LOCK, STATEMENT, beside
from ..provenance.lock import FILE as LOCK_FILE
from ..provenance.record import FILE as RECORD_FILE
from ..provenance.record import Plans, Slices, slices_in
from ..provenance.sbom import FILE as SBOM_FILE
from ..provenance.statement import FILE as STATEMENT_FILE
from ..storage.documents import MOST
from ..storage.mapped import STEP, let_go
from ..wheels.archive import Wheel
from .contents import Contents

INSIDE = (RECORD_FILE, LOCK_FILE, SBOM_FILE, STATEMENT_FILE)


@dataclass(frozen=True)
class BinarySlices:
    """The slices of one file: of each container that runs, and of those that it was linked from."""

    path: str
    containers: tuple[Slices, ...]
    relocatable: tuple[Slices, ...]


@dataclass(frozen=True)
class Papers:
    """Nothing for wheels that others built.

    inside: files of the dist-info folder, by their names there. beside: files beside the wheel,
    by what follows its name. sha256: in hex, of the very wheel that was read, where there is
    anything beside it.
    """

    inside: Mapping[str, bytes] = field(default_factory=dict)
    beside: Mapping[str, bytes] = field(default_factory=dict)
    sha256: str = ""
    slices: Sequence[BinarySlices] = ()


NO_PAPERS = Papers()


def with_plans(contents: Contents, slices: BinarySlices, plans: Plans) -> Contents:
    """A binary's contents, with what is known of what its units were built for."""
    units = []
    for unit in contents.units:
        known = None if unit.container is None else plans.of(slices.containers[unit.container])
        left_out = frozenset() if known is None else plans.every - known
        units.append(replace(unit, left_out=left_out))
    return replace(contents, units=tuple(units))


def read_inside(wheel: Wheel) -> dict[str, bytes]:
    """Those files of the dist-info folder that there are. FormatError where one is too large."""
    sizes = {member.name: member.size for member in wheel.members}
    found = {}
    for name in INSIDE:
        place = f"{wheel.dist_info}/{name}"
        if place in sizes:
            _check_size(sizes[place], place)
            found[name] = wheel.read(place)
    return found


def read_beside(wheel: Path) -> dict[str, bytes]:
    """Those files beside the wheel that there are. FormatError where one is too large, OSError
    where it cannot be read."""
    found = {}
    for suffix in (STATEMENT, LOCK):
        path = beside(wheel, suffix)
        if path.is_file():
            _check_size(path.stat().st_size, path.name)
            found[suffix] = path.read_bytes()
    return found


def slices_of_binary(path: str, data: memoryview) -> BinarySlices:
    """What the store would have put into the binary at `path`: the raw images of each container
    by what they were asked for as. FormatError where the file is damaged."""
    binary = read_binary(data)
    running, linked = (
        tuple(_slices_of(data, containers))
        for containers in (binary.containers, binary.relocatable)
    )
    return BinarySlices(path, running, linked)


def _slices_of(data: memoryview, containers: Iterable[Container]) -> Iterator[Slices]:
    read_so_far = 0
    for container in containers:
        yield slices_in(container.entries)
        read_so_far += container.size
        if read_so_far > STEP:
            let_go(data)
            read_so_far = 0


def _check_size(size: int, where: str) -> None:
    if size > MOST:
        raise FormatError(f"it has {size} bytes; {MOST} are the most", where=where)


def asked_codes(archs: tuple[str, ...]) -> frozenset[str]:
    """The images that `80`, `89+ptx` and `ptx80` ask for. FormatError for what is no such text."""
    return frozenset(code for text in archs for code in _codes(text))


def _codes(text: str) -> tuple[str, ...]:
    if text.startswith("ptx"):
        return (_arch(text.removeprefix("ptx"), text).compute,)
    arch = _arch(text.removesuffix("+ptx"), text)
    return (arch.sm, arch.compute) if text.endswith("+ptx") else (arch.sm,)


def _arch(name: str, text: str) -> Arch:
    try:
        return parse_arch(name)
    except FatwheelError as error:
        raise FormatError(f"{text[:40]!r} is not an architecture") from error


# -- comparing values ------------------------------------------------------------------------------

# Two JSON values compared: where a found one is not the right one, in words.


_MOST_SHOWN = 80  # characters of a value


def differing(right: Any, found: Any, place: str = "") -> Iterator[str]:
    """A line for each part that differs from what is right: `archs.0: it says "90", not "80"`.

    Items of lists are told by their names where they have one.
    """
    if isinstance(right, dict) and isinstance(found, dict):
        yield from _in_objects(right, found, place)
    elif isinstance(right, list) and isinstance(found, list):
        yield from _in_lists(right, found, place)
    elif right != found or isinstance(right, bool) != isinstance(found, bool):
        yield f"{place}: it says {shown(found)}, not {shown(right)}"


def shown(value: Any) -> str:
    """A value from anywhere, as JSON, no longer than a line."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _in_objects(right: Mapping[str, Any], found: Mapping[str, Any], place: str) -> Iterator[str]:
    for key in sorted(right.keys() | found.keys()):
        where = f"{place}.{key[:_MOST_SHOWN]}" if place else key[:_MOST_SHOWN]
        if key not in found:
            yield f"{where}: it is not there"
        elif key not in right:
            yield f"{where}: it does not belong there"
        else:
            yield from differing(right[key], found[key], where)


def _in_lists(right: Sequence[Any], found: Sequence[Any], place: str) -> Iterator[str]:
    wanted, there = _by_text(right), _by_text(found)
    missing = [value for text, value in wanted.items() if text not in there]
    extra = [value for text, value in there.items() if text not in wanted]
    others = {_title(value): value for value in extra}
    for value in missing:
        title = _title(value)
        if title in others and isinstance(value, dict):
            yield from differing(value, others.pop(title), f"{place}, {title}")
        else:
            yield f"{place}: {title} is not there"
    for title in others:
        yield f"{place}: {title} does not belong there"
    if not missing and not extra and list(right) != list(found):
        yield f"{place}: it is in a different order, or lists something twice"


def _by_text(values: Sequence[Any]) -> dict[str, Any]:
    return {json.dumps(value, sort_keys=True): value for value in values}


def _title(value: Any) -> str:
    """What to call an item of a list: its name, or all of it."""
    name = value.get("name") if isinstance(value, dict) else None
    return name[:_MOST_SHOWN] if isinstance(name, str) else shown(value)
