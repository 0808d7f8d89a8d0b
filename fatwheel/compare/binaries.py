"""Two binaries: which of their sections differ, and what in these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import FormatError
from ..fatbin import coff
from ..fatbin.binary import Binary, is_binary, read_binary
from ..fatbin.elf import Elf
from .cubins import differing_cubins
from .device import Slices, differing_units, read_units
from .differences import Difference, Place
from .outside import differing_outside
from .sections import BUILD_ID, Host, Section, read_host, read_object
from .spans import extent, first_difference, strings_at
from .symbols import differing_symbols


def may_be_binary(name: str, head: bytes) -> bool:
    """Whether a file of this name that begins so is looked into."""
    return is_binary(head) or (name.lower().endswith((".o", ".obj")) and coff.is_coff(head))


@dataclass(frozen=True)
class _Read:
    """One binary: its sections, if it has such, and its device code."""

    host: Host | None
    binary: Binary
    slices: Slices


def differing_binaries(
    place: Place, data: tuple[memoryview, memoryview], slices: tuple[Slices, Slices]
) -> Iterator[Difference]:
    """What differs between two binaries whose bytes do; `slices` learns what was seen."""
    one, other = data
    try:
        mine, theirs = (_read(*pair) for pair in zip(data, slices, strict=True))
    except FormatError as error:
        yield Difference("binary", f"it cannot be read ({error.what}): {extent(one, other)}", place)
        return
    if mine.binary.format != theirs.binary.format:
        formats = (mine.binary.format, theirs.binary.format)
        yield Difference("binary", f"{formats[0]} became {formats[1]}", place)
    elif mine.binary.format == "cubin":
        yield Difference("binary", extent(one, other), place)
        yield from differing_cubins(place, one, other)
    else:
        yield from _differing_parts(place, data, mine, theirs)


def _read(data: memoryview, slices: Slices) -> _Read:
    binary = read_binary(data)
    if binary.format == "coff":
        return _Read(read_object(data), binary, slices)
    return _Read(None if binary.format == "cubin" else read_host(data), binary, slices)


def _differing_device(place: Place, one: _Read, other: _Read) -> Iterator[Difference]:
    units = (read_units(read.binary.containers, read.slices) for read in (one, other))
    yield from differing_units(place, *units)
    linked = (read_units(read.binary.relocatable, read.slices) for read in (one, other))
    yield from differing_units(place.at(section="__nv_relfatbin"), *linked)


def _differing_parts(
    place: Place, data: tuple[memoryview, memoryview], one: _Read, other: _Read
) -> Iterator[Difference]:
    mine, theirs = one.host, other.host
    if mine is None or theirs is None:  # fatbins have no sections
        yield Difference("binary", extent(*data), place)
        yield from _differing_device(place, one, other)
        return
    differing = [
        name
        for name in dict.fromkeys((*mine.sections, *theirs.sections))
        if not _same(mine.sections.get(name), theirs.sections.get(name))
    ]
    outside = list(differing_outside(place, mine, theirs, alone=not differing))
    if len(differing) + len(outside) > 1 and BUILD_ID in differing:
        differing.remove(BUILD_ID)  # a hash of the rest
    sections = [(mine.sections.get(name) or theirs.sections[name]) for name in differing]
    yield Difference("binary", _summary(sections, mine, theirs), place)
    by_rank = sorted(zip(sections, differing, strict=True), key=lambda pair: pair[0].rank)
    told_device = False
    for section, name in by_rank:
        here = place.at(section=name)
        old, new = mine.sections.get(name), theirs.sections.get(name)
        yield _difference(here, section, old, new)
        if section.device and not told_device:
            told_device = True
            yield from _differing_device(here, one, other)
        elif old and new and mine.elf and theirs.elf and not section.debug:
            yield from _differing_symbols(here, (mine.elf, old), (theirs.elf, new))
    yield from outside


def _differing_symbols(
    place: Place, one: tuple[Elf, Section], other: tuple[Elf, Section]
) -> Iterator[Difference]:
    """The same as `symbols` says; a table that cannot be read must not hide other sections."""
    try:
        yield from differing_symbols(place, one, other)
    except FormatError as error:
        yield Difference("function", f"its symbols cannot be read ({error.what})", place)


def _same(one: Section | None, other: Section | None) -> bool:
    if one is None or other is None:
        return False
    fields = [(section.header, section.size) for section in (one, other)]
    return fields[0] == fields[1] and first_difference(one.content, other.content) is None


def _summary(sections: Sequence[Section], one: Host, other: Host) -> str:
    """Which half of a binary differs: what GPUs run, or what the host runs."""
    if any(section.device for section in sections):
        if all(section.device for section in sections):
            return "its device code differs; the host's part is the same"
        return "its device code and the host's part differ"
    if not sections:
        return "its sections are the same; what is around them differs"
    if all(section.debug for section in sections):
        what = "only its debug information differs"
    elif not any(section.loaded for section in sections):
        what = "only sections that are not loaded differ"
    else:
        what = "the host's part differs"
    device = any(s.device for host in (one, other) for s in host.sections.values())
    return f"{what}; its device code is the same" if device else what


def _difference(
    place: Place, section: Section, old: Section | None, new: Section | None
) -> Difference:
    kind = " (debug information)" if section.debug else ""
    if old is None or new is None:
        which = "second" if old is None else "first"
        return Difference("section", f"only in the {which}: {section.size} bytes{kind}", place)
    at = first_difference(old.content, new.content)
    if at is None:
        if old.size != new.size:
            what = f"{old.size} bytes in memory became {new.size}"
        else:
            what = "the same bytes; its header differs"
        return Difference("section", f"{what}{kind}", place)
    what = f"{extent(old.content, new.content)}{kind}"
    strings = None if section.code or section.device else strings_at(old.content, new.content, at)
    return Difference("section", what, place, *(strings or ()))
