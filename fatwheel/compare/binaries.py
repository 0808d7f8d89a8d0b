"""Compares two binaries: read as sections, whatever their format, with symbols, headers, tables and
padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import FormatError
from ..fatbin import coff, elf, pe
from ..fatbin.binary import Binary, is_binary, read_binary
from ..fatbin.elf import ET_REL, FATBIN_SECTIONS, SHT_DYNSYM, SHT_SYMTAB, SYMBOL, Elf, Names
from .device import Slices, differing_cubins, differing_units, read_units
from .differences import Difference, Position, extent, first_difference, strings_at

BUILD_ID = ".note.gnu.build-id"

_ALLOCATED, _EXECUTABLE = 0x2, 0x4  # SHF_ALLOC, SHF_EXECINSTR
_PE_CODE = 0x20  # IMAGE_SCN_CNT_CODE
_DEBUG = (".debug_", ".zdebug_", ".gdb_index", ".stab", ".gnu_debuglink", ".debug$")
_LINKING = (
    ".dyn", ".gnu.", ".rel", ".got", ".plt", ".hash", ".idata", ".edata", ".eh_frame_hdr",
    ".shstrtab", ".symtab", ".strtab", ".pdata",
)  # fmt: skip


@dataclass(frozen=True)
class Section:
    """A section of a binary.

    index:   as the format counts it.
    header:  what its header says, but where it lies.
    size:    in memory; content is what of it is in the file, from `start` on.
    address: of its first byte once it is loaded, 0 in objects.
    """

    index: int
    name: str
    header: tuple[int, ...]
    size: int
    start: int
    address: int
    code: bool
    loaded: bool
    content: memoryview = field(repr=False)

    @property
    def device(self) -> bool:
        """Whether it holds device code."""
        return self.name[:8] in pe.FATBIN_SECTIONS or self.name in FATBIN_SECTIONS

    @property
    def debug(self) -> bool:
        return self.name.startswith(_DEBUG)

    @property
    def rank(self) -> int:
        """Where it stands in a report: what others follow from comes first."""
        if self.device or self.code:
            return 0 if self.device else 1
        if self.debug or not self.loaded or self.name.startswith(_LINKING):
            return 4 if self.debug else 3
        return 2


@dataclass(frozen=True)
class HostBinary:
    """A binary: its format ('elf', 'pe', 'coff'), and its sections by name.

    A name that is there more than once has a number behind it.

    headers: bytes at the file's start that belong to no section.
    """

    format: str
    sections: dict[str, Section]
    headers: int
    data: memoryview = field(repr=False)
    elf: elf.Elf | None = None
    pe: pe.Pe | None = None

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Start and end, in the file, of everything that is in a section."""
        found = ((one.start, one.start + len(one.content)) for one in self.sections.values())
        return tuple(sorted(one for one in found if one[0] < one[1]))


def read_host(data: memoryview) -> HostBinary | None:
    """The sections of a library or object; None for what is no such thing.

    FormatError where it is damaged.
    """
    if bytes(data[:4]) == elf.MAGIC:
        return _read_elf(data)
    if pe.is_pe(bytes(data[:4096])):
        return _read_pe(data)
    return None


def read_object(data: memoryview) -> HostBinary:
    """An object of Windows, which cannot be told from its first bytes."""
    file = coff.read_coff(data)
    found = [
        Section(one.index, one.name, (one.flags,), one.size, one.offset, 0,
                bool(one.flags & _PE_CODE), True, file.content(one))
        for one in file.sections
    ]  # fmt: skip
    found += [
        Section(
            0, f"{one.name} relocations", (), len(table), one.relocations, 0, False, False, table
        )
        for one in file.sections
        if len(table := file.relocations(one))
    ]
    symbols = file.symbol_table
    start = file.symbols_offset
    found.append(Section(0, "symbols", (), len(symbols), start, 0, False, False, symbols))
    start += len(symbols)
    found.append(Section(0, "strings", (), len(file.strings), start, 0, False, False, file.strings))
    headers = coff.BIG_HEADER_SIZE if file.big else coff.HEADER_SIZE
    return HostBinary("coff", _by_name(found, data), headers, data)


def _read_elf(data: memoryview) -> HostBinary:
    file = elf.read_elf(data)
    linked = file.type != elf.ET_REL
    found = [
        Section(
            one.index, one.name, (one.type, one.flags, one.align), one.size, one.offset,
            one.address if linked else 0, bool(one.flags & _EXECUTABLE),
            bool(one.flags & _ALLOCATED), file.content(one),
        )
        for one in file.sections[1:]
    ]  # fmt: skip
    headers = elf.HEADER.size + file.programs * 56
    return HostBinary("elf", _by_name(found, data), headers, data, elf=file)


def _read_pe(data: memoryview) -> HostBinary:
    file = pe.read_pe(data)
    found = [
        Section(one.index, one.name, (one.flags,), one.extent, one.offset, one.address,
                bool(one.flags & _PE_CODE), True, file.content(one))
        for one in file.sections
    ]  # fmt: skip
    return HostBinary("pe", _by_name(found, data), file.headers, data, pe=file)


def _by_name(sections: Iterable[Section], data: memoryview) -> dict[str, Section]:
    found: dict[str, Section] = {}
    count: dict[str, int] = {}
    for section in sections:
        number = count[section.name] = count.get(section.name, 0) + 1
        name = section.name if number == 1 else f"{section.name} #{number}"
        found[name] = section
    # Else a small file could make us read the same bytes for each of very many sections.
    if sum(len(section.content) for section in found.values()) > len(data):
        raise FormatError("its sections overlap: together they exceed the file")
    return found


def between(host: HostBinary) -> Sequence[tuple[int, int]]:
    """Start and end of the parts outside all sections: headers, tables and padding."""
    gaps, end = [], 0
    for start, section_end in host.ranges:
        if start > end:
            gaps.append((end, start))
        end = max(end, section_end)
    if end < len(host.data):
        gaps.append((end, len(host.data)))
    return gaps


# -- comparing -------------------------------------------------------------------------------------

_FIELD = 4  # bytes of the fields below
_TIME = 4  # its offset in the COFF header
_CHECKSUM = pe.COFF_HEADER.size + 64  # its offset behind the COFF header's start


def differing_outside(
    place: Position, one: HostBinary, other: HostBinary, *, alone: bool
) -> Iterator[Difference]:
    """Every part that differs, where the sections lie alike in both files.

    Where they do not, headers differ as a consequence. alone: no section differs, so that
    something must be said.
    """
    if one.ranges != other.ranges or len(one.data) != len(other.data):
        if alone:
            what = f"its sections are at other places in the file: {extent(one.data, other.data)}"
            yield Difference("section", what, place)
        return
    fields = _fields(one)
    told = False
    for what, start, end in _parts(one):
        at = _first_but(one.data, other.data, start, end, fields)
        if at is not None:
            told = True
            yield Difference("section", f"{what}: the first byte that differs is {at:#x}", place)
    if not fields:
        return
    time, checksum = fields
    if _value(one, time) != _value(other, time):
        told = True
        yield _field("the headers' time, or a hash in its place", time, place, one, other)
    # The checksum follows from everything else.
    if alone and not told and _value(one, checksum) != _value(other, checksum):
        yield _field("the headers' checksum", checksum, place, one, other)


def _field(
    what: str, field: range, place: Position, one: HostBinary, other: HostBinary
) -> Difference:
    return Difference("section", what, place, _value(one, field), _value(other, field))


def _fields(host: HostBinary) -> Sequence[range]:
    """Where a PE image says when it was linked, and what its bytes sum up to."""
    if host.pe is None:
        return ()
    starts = (host.pe.coff + _TIME, host.pe.coff + _CHECKSUM)
    return tuple(range(start, start + _FIELD) for start in starts)


def _value(host: HostBinary, field: range) -> str:
    return f"{int.from_bytes(host.data[field.start : field.stop], 'little'):#x}"


def _parts(host: HostBinary) -> Iterator[tuple[str, int, int]]:
    """Start and end of each part that is in no section, and what it is."""
    table = range(0)
    if host.elf:
        table = range(host.elf.table, host.elf.table + len(host.elf.sections) * elf.SECTION.size)
    known = {"the headers": range(host.headers), "the section table": table}
    for start, end in between(host):
        for what, part in known.items():
            inside = range(max(start, part.start), min(end, part.stop))
            if inside:
                yield what, inside.start, inside.stop
        for rest in _without(range(start, end), tuple(known.values())):
            yield "bytes between its sections", rest.start, rest.stop


def _without(whole: range, parts: Sequence[range]) -> Iterator[range]:
    """A run of bytes without the given parts, which are in order."""
    start = whole.start
    for part in parts:
        if range(max(start, part.start), min(whole.stop, part.stop)):
            if start < part.start:
                yield range(start, part.start)
            start = part.stop
    if start < whole.stop:
        yield range(start, whole.stop)


def _first_but(
    one: memoryview, other: memoryview, start: int, end: int, fields: Sequence[range]
) -> int | None:
    """The first offset from start to end at which they differ, but for those of the fields."""
    while (at := first_difference(one[start:end], other[start:end])) is not None:
        found = start + at
        field = next((field for field in fields if found in field), None)
        if field is None:
            return found
        start = field.stop
    return None


# -- functions and variables of ELF files ----------------------------------------------------------

# Where code has another size, what lies behind it moves, and calls and addresses in functions that
# are otherwise the same change with it. So functions that are new or have another size are named
# first, and then the others are only counted.


_TYPES = (1, 2, 10)  # variables, functions, functions that choose another one
_RATIO = 4  # times a section's size that its symbols may cover: aliases and nested ones do
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class _Symbol:
    name: str
    offset: int
    size: int


def differing_symbols(
    place: Position, one: tuple[Elf, Section], other: tuple[Elf, Section]
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


def _counted(place: Position, names: Sequence[str]) -> Difference:
    shown = ", ".join(names[:_NAMES_SHOWN])
    more = len(names) - _NAMES_SHOWN
    what = "of the same size, but with other bytes, as in calls to code that has moved"
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


# -- sections --------------------------------------------------------------------------------------

# Two binaries: which of their sections differ, and what in these.


def may_be_binary(name: str, head: bytes) -> bool:
    """Whether a file of this name that begins so is looked into."""
    return is_binary(head) or (name.lower().endswith((".o", ".obj")) and coff.is_coff(head))


@dataclass(frozen=True)
class _Read:
    """One binary: its sections, if it has such, and its device code."""

    host: HostBinary | None
    binary: Binary
    slices: Slices


def differing_binaries(
    place: Position, data: tuple[memoryview, memoryview], slices: tuple[Slices, Slices]
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


def _differing_device(place: Position, one: _Read, other: _Read) -> Iterator[Difference]:
    units = (read_units(read.binary.containers, read.slices) for read in (one, other))
    yield from differing_units(place, *units)
    linked = (read_units(read.binary.relocatable, read.slices) for read in (one, other))
    yield from differing_units(place.at(section="__nv_relfatbin"), *linked)


def _differing_parts(
    place: Position, data: tuple[memoryview, memoryview], one: _Read, other: _Read
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
    place: Position, one: tuple[Elf, Section], other: tuple[Elf, Section]
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


def _summary(sections: Sequence[Section], one: HostBinary, other: HostBinary) -> str:
    """Which half of a binary differs: what GPUs run, or what the host runs."""
    if any(section.device for section in sections):
        if all(section.device for section in sections):
            return "its device code differs; the host's part is the same"
        return "its device code and the host's part differ"
    if not sections:
        return "its sections are the same; the bytes around them differ"
    if all(section.debug for section in sections):
        what = "only its debug information differs"
    elif not any(section.loaded for section in sections):
        what = "only sections that are not loaded differ"
    else:
        what = "the host's part differs"
    device = any(s.device for host in (one, other) for s in host.sections.values())
    return f"{what}; its device code is the same" if device else what


def _difference(
    place: Position, section: Section, old: Section | None, new: Section | None
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
