"""Which functions and variables of two ELF files differ, by their symbol tables.

Where code has another size, what lies behind it moves, and calls and addresses in functions that
are otherwise the same change with it. So functions that are new or have another size are named
first, and then the others are only counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import FormatError
from ..fatbin.elf import ET_REL, SHT_DYNSYM, SHT_SYMTAB, SYMBOL, Elf, Names
from .differences import Difference, Place
from .sections import Section
from .spans import extent

_TYPES = (1, 2, 10)  # variables, functions, functions that choose another one
_RATIO = 4  # times a section's size that its symbols may cover: aliases and nested ones do
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class _Symbol:
    name: str
    offset: int
    size: int


def differing_symbols(
    place: Place, one: tuple[Elf, Section], other: tuple[Elf, Section]
) -> Iterator[Difference]:
    """What differs in a section that both files have; nothing where there are no symbols."""
    # A table that only one file has would make all others' symbols look new.
    kind = SHT_SYMTAB if all(map(_has_all, (one[0], other[0]))) else SHT_DYNSYM
    mine, theirs = _symbols(*one, kind), _symbols(*other, kind)
    if not (mine and theirs):
        return
    pairs = {
        name: (_bytes(one[1], mine[name]), _bytes(other[1], theirs[name]))
        for name in mine
        if name in theirs
    }
    resized = [name for name, (old, new) in pairs.items() if len(old) != len(new)]
    changed = [name for name, (old, new) in pairs.items() if len(old) == len(new) and old != new]
    only = [(name, "first") for name in mine if name not in theirs]
    only += [(name, "second") for name in theirs if name not in mine]
    for name, which in only:
        yield Difference("function", f"only in the {which}", place.at(symbol=name))
    for name in resized if resized or only else changed:
        yield Difference("function", extent(*pairs[name]), place.at(symbol=name))
    if changed and (resized or only):
        yield _counted(place, changed)


def _has_all(file: Elf) -> bool:
    """Whether there is a table of all symbols, and not only of those that others may use."""
    return any(table.type == SHT_SYMTAB for table in file.sections)


def _counted(place: Place, names: Sequence[str]) -> Difference:
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    what = "of the same size, but with other bytes, as calls have where code has moved"
    return Difference(
        "function", f"{what}: {shown}{f' and {more} more' if more > 0 else ''}", place
    )


def _bytes(section: Section, symbol: _Symbol) -> memoryview:
    return section.content[symbol.offset : symbol.offset + symbol.size]


def _symbols(file: Elf, section: Section, kind: int) -> Mapping[str, _Symbol]:
    """The symbols that cover bytes of a section, by name, in the order of their places.

    Of several for the same bytes, such as a constructor's, the first is enough. A name that is
    there again, as that of a local function may be, has a number behind it.
    """
    found: dict[tuple[int, int], str] = {}
    for name, offset, size in _table(file, section, kind):
        if size and offset >= 0 and offset + size <= len(section.content):
            found.setdefault((offset, size), name)
    if sum(size for _, size in found) > _RATIO * len(section.content):
        return {}
    named: dict[str, _Symbol] = {}
    count: dict[str, int] = {}
    for (offset, size), name in sorted(found.items()):
        number = count[name] = count.get(name, 0) + 1
        unique = name if number == 1 else f"{name} #{number}"
        named[unique] = _Symbol(unique, offset, size)
    return named


def _table(file: Elf, section: Section, kind: int) -> Iterator[tuple[str, int, int]]:
    """Name, offset in the section and size of every symbol in it, by the table of this kind."""
    base = 0 if file.type == ET_REL else section.address
    for table in [table for table in file.sections if table.type == kind][:1]:
        entries = file.content(table)
        if len(entries) % SYMBOL.size or not 0 < table.link < len(file.sections):
            raise FormatError("malformed symbol table", where=f"ELF section {table.name}")
        names = Names(bytes(file.content(file.sections[table.link])))
        for name, info, _, index, value, size in SYMBOL.iter_unpack(entries):
            if index == section.index and info & 15 in _TYPES:
                yield names.at(name), value - base, size
