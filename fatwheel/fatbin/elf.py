"""A bounded reader of 64-bit little-endian ELF files, and a rewriter of relocatable ones.

Format: System V ABI, "Object Files" (gabi), chapters ELF Header, Sections and Symbol Table.
Sizes and offsets are bytes. Malformed input ends in FormatError.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import gcd

from ..errors import FormatError

MAGIC = b"\x7fELF"
ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
EM_X86_64, EM_CUDA = 62, 190
SHT_SYMTAB, SHT_RELA, SHT_NOBITS, SHT_REL, SHT_DYNSYM = 2, 4, 8, 9, 11

HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")  # name, type and binding, visibility, section, address, size
_SHN_XINDEX = 0xFFFF
# Executable device code first: where device code was linked, that is what runs.
FATBIN_SECTIONS = (".nv_fatbin", "__nv_relfatbin")
_MACHINES = {
    3: "x86",
    21: "ppc64",
    40: "arm",
    EM_X86_64: "x86_64",
    183: "aarch64",
    EM_CUDA: "cuda",
    243: "riscv",
}
# Both bound memory: far more than any compiler makes.
_MAX_SECTIONS = 500_000
_MAX_NAMES = 64 << 20
_TIMES = 4  # linkers let names share their ends, which makes tables shorter than all names
_MAX_ALL_NAMES = 1 << 30
_MAX_NAME = 16 << 20
_MAX_ALIGN = 1 << 20


@dataclass(frozen=True)
class ElfSection:
    """One section header; name decoded as UTF-8 where it is that."""

    index: int
    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int

    @property
    def in_file(self) -> int:
        """Bytes that the section takes in the file."""
        return 0 if self.type == SHT_NOBITS else self.size

    @property
    def addresses(self) -> range:
        """Where it lies in memory once it is loaded."""
        return range(self.address, self.address + self.size)


@dataclass(frozen=True)
class ElfSymbol:
    """One symbol: type is STT_* (2: function), other the visibility byte, section an index."""

    name: str
    type: int
    other: int
    section: int


@dataclass(frozen=True)
class Elf:
    """An ELF file's header and sections.

    abi is the ABI version of its identification; programs counts program headers, table is the
    offset of the section table.
    """

    type: int
    machine: int
    abi: int
    flags: int
    programs: int
    table: int
    sections: tuple[ElfSection, ...]
    data: memoryview = field(repr=False)

    @property
    def machine_name(self) -> str:
        """What the file is made for: 'x86_64', 'aarch64' …, 'cuda', or the number."""
        return name_of_machine(self.machine)

    def named(self, name: str) -> tuple[ElfSection, ...]:
        """The sections of that name, in the file's order."""
        return tuple(section for section in self.sections if section.name == name)

    def content(self, section: ElfSection) -> memoryview:
        """A section's bytes; FormatError if they lie outside the file."""
        end = section.offset + section.in_file
        if end > len(self.data):
            raise FormatError(
                f"it ends at byte {end}, but the file has only {len(self.data)}",
                where=f"ELF section {section.name or section.index}",
            )
        return self.data[section.offset : end]

    def symbols(self) -> Iterator[ElfSymbol]:
        """All symbols of the symbol table, if there is one; gABI allows no second."""
        tables = [section for section in self.sections if section.type == SHT_SYMTAB]
        if len(tables) > 1:
            raise FormatError(f"{len(tables)} ELF symbol tables, where one may be")
        for table in tables:
            yield from self._symbols_of(table)

    def _symbols_of(self, table: ElfSection) -> Iterator[ElfSymbol]:
        entries = self.content(table)
        if len(entries) % SYMBOL.size or not 0 < table.link < len(self.sections):
            raise FormatError("malformed symbol table", where=f"ELF section {table.name}")
        names = Names(bytes(self.content(self.sections[table.link])))
        for name, info, other, section, _, _ in SYMBOL.iter_unpack(entries):
            yield ElfSymbol(names.at(name), info & 15, other, section)


def name_of_machine(number: int) -> str:
    """`x86_64` for 62; `machine 5` for one that is not known here."""
    return _MACHINES.get(number, f"machine {number}")


def read_elf(data: bytes | memoryview) -> Elf:
    """Read the header and the section table; contents are read when asked for."""
    view = memoryview(data)
    if bytes(view[:4]) != MAGIC:
        raise FormatError("not an ELF file")
    if len(view) < HEADER.size:
        raise FormatError("the ELF header is cut off")
    if view[4] != 2 or view[5] != 1:
        raise FormatError("only 64-bit little-endian ELF files are supported")
    header = HEADER.unpack_from(view)
    ident, type_, machine, _, _, _, table, flags, _, _, programs, entry_size, count, names = header
    if table == 0:
        return Elf(type_, machine, ident[8], flags, programs, table, (), view)
    if entry_size != SECTION.size or table + entry_size > len(view):
        raise FormatError("the ELF section table is cut off or malformed")
    first = SECTION.unpack_from(view, table)
    count = count or first[5]
    names = first[6] if names == _SHN_XINDEX else names
    if count > _MAX_SECTIONS or table + count * entry_size > len(view):
        raise FormatError(f"an ELF section table of {count} sections is cut off or too long")
    if names >= count:
        raise FormatError("the ELF section names are missing")
    rows = list(SECTION.iter_unpack(view[table : table + count * entry_size]))
    sections = _name_sections(view, rows, names)
    return Elf(type_, machine, ident[8], flags, programs, table, sections, view)


def replace_section(obj: bytes | memoryview, contents: Mapping[str, bytes]) -> bytes:
    """A relocatable object with new contents for the named sections, of any size.

    The sections are laid out anew, in the file's order and as aligned in it as they were: no
    dead bytes remain, and the other sections' bytes do not change. FormatError
    for linked files, whose addresses would break, and for sections that are not there, not
    unique, or relocated (a relocation names a place in the old bytes).
    """
    elf = read_elf(obj)
    if elf.type != ET_REL or elf.programs:
        raise FormatError(
            "only relocatable objects (.o) can be given a new section this way",
            hint="in a linked file the addresses of everything behind it would be wrong",
        )
    replaced = {_replaceable(elf, name).index: new for name, new in contents.items()}
    out = bytearray(elf.data[: HEADER.size])
    places: dict[int, tuple[int, int]] = {}
    for section in _in_file_order(elf):
        # It may be less aligned in a file than in memory: GNU as 2.44 aligns to 8 at most.
        out += b"\0" * (-len(out) % gcd(section.offset, max(section.align, 1)))
        content = replaced.get(section.index)
        size = section.size if content is None else len(content)
        places[section.index] = (len(out), size)
        out += elf.content(section) if content is None else content
    return _with_table(elf, out, places)


def _in_file_order(elf: Elf) -> list[ElfSection]:
    """The sections sorted by offset; FormatError if two share bytes or one's alignment is huge.

    (Both would let a small file grow without bound when it is laid out anew.)
    """
    ordered = sorted(elf.sections[1:], key=lambda section: (section.offset, section.index))
    end = HEADER.size
    for section in ordered:
        if section.align > _MAX_ALIGN:
            raise FormatError(f"alignment {section.align} is too large", where=section.name)
        if not section.in_file:
            continue
        if section.offset < end:
            raise FormatError("it overlaps another section", where=f"ELF section {section.name}")
        end = section.offset + section.in_file
    return ordered


def _replaceable(elf: Elf, name: str) -> ElfSection:
    found = elf.named(name)
    where = f"ELF section {name}"
    if len(found) != 1:
        raise FormatError(f"{len(found)} sections have this name, not one", where=where)
    section = found[0]
    if section.type == SHT_NOBITS:
        raise FormatError("it has no bytes in the file", where=where)
    relocations = (SHT_RELA, SHT_REL)
    if any(other.type in relocations and other.info == section.index for other in elf.sections):
        raise FormatError("it is relocated, so its bytes cannot be replaced", where=where)
    return section


def _with_table(elf: Elf, out: bytearray, places: Mapping[int, tuple[int, int]]) -> bytes:
    """Append the section table with its new offsets and sizes, and point the header at it."""
    out += b"\0" * (-len(out) % 8)
    table = len(out)
    for index in range(len(elf.sections)):
        row = list(SECTION.unpack_from(elf.data, elf.table + index * SECTION.size))
        if index in places:
            row[4], row[5] = places[index]
        out += SECTION.pack(*row)
    header = list(HEADER.unpack_from(out))
    header[6] = table
    HEADER.pack_into(out, 0, *header)
    return bytes(out)


class Names:
    """A string table, with a limit on the memory that names take in all: they may share bytes.

    Those of a large table (libtensorflow_cc has 83 MB of names) may be read a few times over.
    """

    def __init__(self, table: bytes) -> None:
        self._table = table
        self._most = max(_MAX_NAMES, min(_TIMES * len(table), _MAX_ALL_NAMES))
        self._left = self._most

    def at(self, offset: int) -> str:
        end = self._table.find(b"\0", offset)
        if offset > len(self._table) or end < 0:
            raise FormatError("an ELF name lies outside its string table")
        if end - offset > _MAX_NAME:
            raise FormatError(f"an ELF name is longer than {_MAX_NAME} bytes")
        name = self._table[offset:end].decode("utf-8", "backslashreplace")
        self._left -= sys.getsizeof(name)
        if self._left < 0:
            raise FormatError(f"the ELF names take more than {self._most} bytes in all")
        return name


def _name_sections(
    view: memoryview, rows: list[tuple[int, ...]], names_index: int
) -> tuple[ElfSection, ...]:
    offset, size = rows[names_index][4], rows[names_index][5]
    if offset + size > len(view):
        raise FormatError("the ELF section names are cut off")
    names = Names(bytes(view[offset : offset + size]))
    return tuple(ElfSection(index, names.at(row[0]), *row[1:9]) for index, row in enumerate(rows))
