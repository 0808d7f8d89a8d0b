"""Compares the device code of two binaries: units, images, kernels and their machine code.

What a section holds, NVIDIA says nowhere; this was read from `cuobjdump -elf` of CUDA 11.8 to 13.2:
`.text.K` is kernel K's machine code (SASS), `.nv.constant0.K` its constants and parameters,
`.nv.info.K` says how it is launched, `.nv.shared.K` and `.nv.local.K` reserve memory. Sections of
debug information and notes do not reach the GPU.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ..decoders import payload
from ..errors import FormatError
from ..fatbin.container import Container, Entry, container_pieces
from ..fatbin.cubin import kernel_names_of_ptx, kernels_of_cubin, read_cubin
from ..fatbin.elf import Elf, ElfSection
from ..fatbin.stitch import image_name
from ..storage.mapped import STEP, let_go
from .differences import Difference, Position, differing_lines, extent, first_difference, strings_at

_INSTRUCTION = 16  # bytes, from sm_70 on
_FUNCTION = 2  # STT_FUNC
_MOST_DOTS = 8  # in what stands before a function's name
_SASS, _INFO = ".text", ".nv.info"
_MEANINGS = {
    ".nv.shared": "shared memory",
    ".nv.local": "local memory",
    ".rel.text": "relocations of its code",
    ".rela.text": "relocations of its code",
}
# The rest of a section's name says what the notes are about.
_NOTES = (
    ".debug_", ".nv_debug_", ".note", ".comment", ".nv.info", ".nv.callgraph", ".nv.prototype",
    ".nv.rel.action", ".nv.compat", ".symtab", ".strtab", ".shstrtab", ".rel.debug", ".rela.debug",
    ".rel.nv_debug", ".rela.nv_debug", ".nv.merc.debug", ".nv.merc.nv_debug", ".nv.merc.symtab",
)  # fmt: skip

_TABLES = (".symtab", ".strtab", ".shstrtab")  # what stands in them says nothing by itself

_Content = Mapping[str, tuple[ElfSection, memoryview]]


def differing_cubins(place: Position, one: memoryview, other: memoryview) -> Iterator[Difference]:
    """What differs between two cubins whose bytes do. FormatError where one cannot be read."""
    mine, theirs = read_cubin(one), read_cubin(other)
    kernels, others = kernels_of_cubin(one), kernels_of_cubin(other)
    told = list(_only_in_one("kernel", kernels, others, lambda name: place.at(symbol=name)))
    functions = {*_functions(mine), *_functions(theirs)}
    notes = []
    sections, their_sections = _contents(mine), _contents(theirs)
    for name in dict.fromkeys((*sections, *their_sections)):
        old, new = sections.get(name), their_sections.get(name)
        if old and new and _same(old, new):
            continue
        kind, function = _owner(name, functions)
        if (function in kernels) != (function in others):
            continue
        here = place.at(symbol=function)
        if kind == _INFO and function and kernels.get(function) != others.get(function):
            what = f"its parameters: {kernels.get(function)} became {others.get(function)}"
            told.append(Difference("kernel", what, here))
        elif kind.startswith(_NOTES):
            notes.append(name)
        else:
            told.append(_difference(kind, here, old, new))
    yield from told
    if notes:
        yield _noted(place, notes, sections, their_sections)
    elif not told:
        yield Difference("image", f"only its headers: {extent(one, other)}", place)


def machine_code(cubin: bytes | memoryview) -> Iterator[tuple[str, str]]:
    """The functions of a cubin by name, each with the sha256 of its SASS. FormatError where it
    cannot be read."""
    for name, (_, content) in _contents(read_cubin(memoryview(cubin))).items():
        if name.startswith(f"{_SASS}."):
            yield name.removeprefix(f"{_SASS}."), hashlib.sha256(content).hexdigest()


def _only_in_one(
    level: str, mine: Collection[str], theirs: Collection[str], at: Callable[[str], Position]
) -> Iterator[Difference]:
    """A difference for each name that only one side has; at gives its place."""
    for which, names, others in (("first", mine, theirs), ("second", theirs, mine)):
        for name in names:
            if name not in others:
                yield Difference(level, f"only in the {which}", at(name))


def _functions(elf: Elf) -> Iterator[str]:
    return (symbol.name for symbol in elf.symbols() if symbol.type == _FUNCTION and symbol.section)


def _contents(elf: Elf) -> _Content:
    """Every section by its name; a name that is there again has a number behind it."""
    found: dict[str, tuple[ElfSection, memoryview]] = {}
    for section in elf.sections[1:]:
        name = section.name if section.name not in found else f"{section.name} #{section.index}"
        found[name] = (section, elf.content(section))
    # Else a small file could make us read the same bytes for each of very many sections.
    if sum(len(content) for _, content in found.values()) > len(elf.data):
        raise FormatError("its sections overlap: together they exceed the file")
    return found


def _same(one: tuple[ElfSection, memoryview], other: tuple[ElfSection, memoryview]) -> bool:
    (mine, content), (theirs, their_content) = one, other
    fields = [(s.type, s.flags, s.size, s.align, s.info) for s in (mine, theirs)]
    return fields[0] == fields[1] and first_difference(content, their_content) is None


def _owner(section: str, functions: set[str]) -> tuple[str, str]:
    """What a section's name says that it holds, and the function it belongs to, or ''."""
    place = 0
    for _ in range(_MOST_DOTS):
        place = section.find(".", place + 1)
        if place < 0:
            break
        if section[place + 1 :] in functions:
            return section[:place], section[place + 1 :]
    return section, ""


def _difference(
    kind: str,
    place: Position,
    old: tuple[ElfSection, memoryview] | None,
    new: tuple[ElfSection, memoryview] | None,
) -> Difference:
    what = "SASS" if kind == _SASS else _meaning(kind)
    if old is None or new is None:
        which = "second" if old is None else "first"
        return Difference("kernel", f"{what}: only in the {which}", place)
    (section, content), (their_section, their_content) = old, new
    if first_difference(content, their_content) is None:
        registers = section.info >> 24, their_section.info >> 24
        if kind == _SASS and registers[0] != registers[1]:
            what = f"its registers: {registers[0]} became {registers[1]}"
        elif section.size != their_section.size:
            what = f"{what}: {section.size} bytes became {their_section.size}"
        else:
            what = f"{what}: only what the section's header says"
        return Difference("kernel", what, place)
    count = _instructions(content, their_content) if kind == _SASS else ""
    return Difference("kernel", f"{what}{count}: {extent(content, their_content)}", place)


def _meaning(kind: str) -> str:
    if kind.startswith(".nv.constant"):
        return f"constants in bank {kind.removeprefix('.nv.constant')}"
    return _MEANINGS.get(kind, f"section {kind}")


def _instructions(one: memoryview, other: memoryview) -> str:
    """` in 3 of 24 instructions`, where they can be told from one another."""
    if len(one) != len(other) or len(one) % _INSTRUCTION:
        return ""
    starts = range(0, len(one), _INSTRUCTION)
    mine, theirs = bytes(one), bytes(other)
    count = sum(mine[i : i + _INSTRUCTION] != theirs[i : i + _INSTRUCTION] for i in starts)
    return f" in {count} of {len(starts)} instructions"


def _noted(
    place: Position, names: Sequence[str], sections: _Content, others: _Content
) -> Difference:
    """One difference for all notes, with what can be read in the first that can be read."""
    what = f"notes and debug information, which no GPU reads: {', '.join(names)}"
    for name in names:
        if name in sections and name in others and not name.startswith(_TABLES):
            mine, theirs = sections[name][1], others[name][1]
            at = first_difference(mine, theirs)
            found = None if at is None else strings_at(mine, theirs, at)
            if found:
                return Difference("debug", what, place, *found)
    return Difference("debug", what, place)


def kernels_or_none(cubin: bytes | memoryview) -> frozenset[str]:
    """The kernels of a cubin, none where it cannot be read."""
    try:
        return frozenset(kernels_of_cubin(cubin))
    except FormatError:
        return frozenset()


# -- device code -----------------------------------------------------------------------------------

# Units have names where a wheel's fatwheel.json has the digests of its slices: a slice is one image
# in a container of its own (`worker.slices`).


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
class ComparedContainer:
    """One container: its number in the file, and what its images hash to."""

    number: int
    name: str
    entries: tuple[Entry, ...]
    digests: tuple[str, ...]


def read_units(containers: Sequence[Container], slices: Slices) -> list[ComparedContainer]:
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
    place: Position, one: Sequence[ComparedContainer], other: Sequence[ComparedContainer]
) -> Iterator[Difference]:
    """What differs between the containers of two binaries."""
    pairs, only, only_other = _paired(one, other)
    order = [theirs.number for _, theirs in pairs]
    if order != sorted(order):
        yield Difference("unit", "the units are in a different order", place)
    for units, which in ((only, "first"), (only_other, "second")):
        for unit in units:
            images = ", ".join(map(image_name, unit.entries)) or "no images"
            what = f"only in the {which}: {images}"
            yield Difference("unit", what, place.at(container=unit.number, unit=unit.name))
    for mine, theirs in pairs:
        if mine.digests != theirs.digests:
            here = place.at(container=mine.number, unit=mine.name or theirs.name)
            yield from _differing_images(here, mine.entries, theirs.entries)


def _read_unit(number: int, found: Container, slices: Slices) -> ComparedContainer:
    digests = tuple(map(_digest, found.entries))
    return ComparedContainer(number, slices.unit_of(digests), found.entries, digests)


def _digest(entry: Entry) -> str:
    digest = hashlib.sha256()
    for piece in container_pieces((entry,)):
        digest.update(piece)
    return digest.hexdigest()


Pairs = list[tuple[ComparedContainer, ComparedContainer]]


def _paired(
    one: Sequence[ComparedContainer], other: Sequence[ComparedContainer]
) -> tuple[Pairs, list[ComparedContainer], list[ComparedContainer]]:
    """Which unit of one is which of the other, in the order of the first, and what is left."""
    pairs: Pairs = []
    mine, theirs = list(one), list(other)
    keys: tuple[Callable[[ComparedContainer], Hashable], ...] = (
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
    key: Callable[[ComparedContainer], Hashable],
    mine: Sequence[ComparedContainer],
    theirs: Sequence[ComparedContainer],
) -> tuple[Pairs, list[ComparedContainer], list[ComparedContainer]]:
    waiting: dict[Hashable, list[ComparedContainer]] = {}
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


def _kernels(unit: ComparedContainer) -> frozenset[str]:
    """The kernels of a container's first image that has any."""
    for entry in unit.entries:
        try:
            image = payload(entry)
        except FormatError:
            continue
        if entry.kind == "elf" and (found := kernels_or_none(image)):
            return found
        if entry.kind == "ptx" and (names := kernel_names_of_ptx(image)):
            return frozenset(names)
    return frozenset()


def _differing_images(
    place: Position, one: Sequence[Entry], other: Sequence[Entry]
) -> Iterator[Difference]:
    mine, theirs = _by_name(one), _by_name(other)
    common = [name for name in mine if name in theirs]
    order = [name for name in theirs if name in mine]
    if common != order:
        what = "its images are in a different order"
        yield Difference("image", what, place, ", ".join(common), ", ".join(order))
    yield from _only_in_one("image", mine, theirs, lambda name: place.at(image=name))
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


def _differing_image(place: Position, one: Entry, other: Entry) -> Iterator[Difference]:
    images, broken = [], []
    for entry, which in ((one, "first"), (other, "second")):
        try:
            images.append(memoryview(payload(entry)))
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
        return f"the same image, compressed differently: {how[0]} became {how[1]}"
    stored = [entry.raw[entry.header_size :] for entry in (one, other)]
    if one.compression and first_difference(*stored) is not None:
        return f"the same image, compressed differently: {extent(*stored)}"
    return f"the same image, but for its header: {extent(one.raw, other.raw)}"


def _differing_payload(
    place: Position, kind: str, one: memoryview, other: memoryview
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
            yield Difference("image", f"only parts that are not text: {extent(one, other)}", place)
        yield from differing_lines(place, texts[0], texts[1], "kernel")
    else:
        yield Difference("image", extent(one, other), place)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
