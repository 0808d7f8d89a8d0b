"""Two cubins of one unit for one GPU: which kernel's machine code differs, or only notes.

What a section holds, NVIDIA says nowhere; this was read from `cuobjdump -elf` of CUDA 11.8 to 13.2:
`.text.K` is kernel K's machine code (SASS), `.nv.constant0.K` its constants and parameters,
`.nv.info.K` says how it is launched, `.nv.shared.K` and `.nv.local.K` reserve memory. Sections of
debug information and notes do not reach the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..errors import FormatError
from ..fatbin.cubin import Layout, kernels_of_cubin, read_cubin
from ..fatbin.elf import Elf, Section
from .differences import Difference, Place
from .spans import extent, first_difference, strings_at

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

_Content = Mapping[str, tuple[Section, memoryview]]


def differing_cubins(place: Place, one: memoryview, other: memoryview) -> Iterator[Difference]:
    """What differs between two cubins whose bytes do. FormatError where one cannot be read."""
    mine, theirs = read_cubin(one), read_cubin(other)
    kernels, others = kernels_of_cubin(one), kernels_of_cubin(other)
    told = list(_only_in(place, kernels, others))
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


def _only_in(
    place: Place, kernels: Mapping[str, Layout], others: Mapping[str, Layout]
) -> Iterator[Difference]:
    for name in kernels:
        if name not in others:
            yield Difference("kernel", "only in the first", place.at(symbol=name))
    for name in others:
        if name not in kernels:
            yield Difference("kernel", "only in the second", place.at(symbol=name))


def _functions(elf: Elf) -> Iterator[str]:
    return (symbol.name for symbol in elf.symbols() if symbol.type == _FUNCTION and symbol.section)


def _contents(elf: Elf) -> _Content:
    """Every section by its name; a name that is there again has a number behind it."""
    found: dict[str, tuple[Section, memoryview]] = {}
    for section in elf.sections[1:]:
        name = section.name if section.name not in found else f"{section.name} #{section.index}"
        found[name] = (section, elf.content(section))
    # Else a small file could make us read the same bytes for each of very many sections.
    if sum(len(content) for _, content in found.values()) > len(elf.data):
        raise FormatError("its sections overlap: together they exceed the file")
    return found


def _same(one: tuple[Section, memoryview], other: tuple[Section, memoryview]) -> bool:
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
    place: Place,
    old: tuple[Section, memoryview] | None,
    new: tuple[Section, memoryview] | None,
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


def _noted(place: Place, names: Sequence[str], sections: _Content, others: _Content) -> Difference:
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
