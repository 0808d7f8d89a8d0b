"""A bounded reader of PE images: the libraries, extension modules and programs of Windows.

Format: Microsoft, "PE Format", chapters File Headers, Section Table, The .edata Section, The
.idata Section, Delay-Load Import Tables and The .reloc Section. An address (RVA) counts bytes
from where the image begins in memory, an offset those of the file; sizes are bytes. Malformed
input ends in FormatError.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import FormatError

# Where device code lies: what runs; what was, or is to be, linked with other device code.
FATBIN_SECTIONS = (".nv_fatb", "__nv_rel")
WRAPPERS_SECTION = ".nvFatBi"

EXPORTS, IMPORTS, CERTIFICATES, RELOCATIONS, DEBUG, DELAY_IMPORTS = 0, 1, 4, 5, 6, 13
RELOCATION_64 = 10

SIGNATURE = b"PE\0\0"
COFF_HEADER = struct.Struct("<HHIIIHH")
SECTION_HEADER = struct.Struct("<8sIIIIIIHHI")
# The fields of the optional header that matter here; they lie alike in 32 and 64 bits.
_ALIGNMENTS = struct.Struct("<II")
_SIZE_OF_HEADERS, _CHECKSUM, _DLL_FLAGS, _FIELDS_END = 60, 64, 70, 72
_MACHINES = {
    0x14C: "x86", 0x1C4: "arm", 0x8664: "x86_64", 0xA641: "arm64ec", 0xAA64: "aarch64",
}  # fmt: skip
_MAX_DIRECTORIES = 16
_IMPORT, _DELAY_IMPORT = struct.Struct("<IIIII"), struct.Struct("<IIIIIIII")
_EXPORTS = struct.Struct("<IIHHIIIIIII")
# These bound time and memory: ordinals of exports have 16 bits, and no program imports so much.
_MAX_EXPORTS = 65536
_MAX_LIBRARIES = 4096
_MAX_NAMES = 64 << 20
_NAME_STEPS = (256, 65536)


@dataclass(frozen=True)
class PeSection:
    """One section header; index counts from 0, size and offset are those in the file."""

    index: int
    name: str
    virtual_size: int
    address: int
    size: int
    offset: int
    flags: int

    @property
    def end(self) -> int:
        """The offset behind its bytes in the file; 0 if it has none there."""
        return self.offset + self.size if self.size else 0

    @property
    def extent(self) -> int:
        """Bytes that it takes in memory; loaders read a virtual size of 0 so."""
        return self.virtual_size or self.size


@dataclass(frozen=True)
class Pe:
    """The headers of a PE image.

    machine:      of its code: 'x86_64', 'aarch64', 'x86' …
    wide:         whether it is PE32+, with addresses of 64 bits.
    coff:         offset of the COFF header; the optional header follows.
    table:        offset of the section table.
    symbols:      offset of the COFF symbol table, or 0.
    flags:        Characteristics of the COFF header; dll_flags those of the optional header.
    base:         the address where the image wants to begin in memory.
    section_alignment, file_alignment: of addresses, and of offsets.
    headers:      bytes of all headers at the file's start, with their padding.
    checksum:     as it stands there; 0 where the linker wrote none.
    directories:  address and size of each data directory; (0, 0): there is none.
    sections:     in ascending order of their addresses.
    """

    machine: str
    wide: bool
    coff: int
    table: int
    symbols: int
    flags: int
    dll_flags: int
    base: int
    section_alignment: int
    file_alignment: int
    headers: int
    checksum: int
    directories: tuple[tuple[int, int], ...]
    sections: tuple[PeSection, ...]
    data: memoryview = field(repr=False)

    def named(self, name: str) -> tuple[PeSection, ...]:
        """The sections of that name (8 bytes at most) that have content, in the file's order.

        A file whose device code was replaced keeps its old section, but empty: it is left out.
        """
        return tuple(s for s in self.sections if s.name == name and s.size and s.extent)

    def content(self, section: PeSection) -> memoryview:
        """A section's bytes without padding; FormatError if they lie outside the file."""
        if section.end > len(self.data):
            raise FormatError(
                f"it ends at byte {section.end}, but the file has only {len(self.data)}",
                where=f"PE section {section.name or section.index}",
            )
        return self.data[section.offset :][: min(section.size, section.extent)]

    def directory(self, index: int) -> tuple[int, int]:
        """Address and size of a data directory; (0, 0) if there is none."""
        return self.directories[index] if index < len(self.directories) else (0, 0)

    def rest(self, address: int) -> memoryview:
        """All bytes from an address to the end of its section; FormatError if there are none."""
        section = self._section_at(address)
        if section is None:
            found = self.data[address : min(self.headers, len(self.data))]
        else:
            found = self.content(section)[address - section.address :]
        if not found:
            raise FormatError(f"nothing in the file is loaded at address {address:#x}")
        return found

    def at(self, address: int, size: int) -> memoryview:
        """The bytes that are loaded at an address; FormatError if the file does not have them."""
        found = self.rest(address)
        if len(found) < size:
            raise FormatError(f"{size} bytes at address {address:#x} are cut off")
        return found[:size]

    def offset(self, address: int) -> int:
        """Where the byte at an address, which must be there, stands in the file."""
        section = self._section_at(address)
        return address if section is None else address - section.address + section.offset

    def _section_at(self, address: int) -> PeSection | None:
        """The section that an address may lie in; None if it lies in front of all."""
        place = bisect_right(self.sections, address, key=lambda section: section.address)
        return self.sections[place - 1] if place else None


def is_pe(head: bytes) -> bool:
    """Whether a file that begins so (4096 bytes are enough) is a PE image."""
    if head[:2] != b"MZ" or len(head) < 64:
        return False
    start = int.from_bytes(head[60:64], "little")
    return head[start : start + len(SIGNATURE)] == SIGNATURE


def read_pe(data: bytes | memoryview) -> Pe:
    """Read the headers and the section table; contents are read when asked for."""
    view = memoryview(data)
    start = int.from_bytes(view[60:64], "little")
    if bytes(view[:2]) != b"MZ" or bytes(view[start : start + len(SIGNATURE)]) != SIGNATURE:
        raise FormatError("not a PE image")
    coff = start + len(SIGNATURE)
    if len(view) < coff + COFF_HEADER.size:
        raise FormatError("the PE header is cut off")
    header = COFF_HEADER.unpack_from(view, coff)
    machine, count, _, symbols, _, optional_size, flags = header
    optional = coff + COFF_HEADER.size
    table = optional + optional_size
    if len(view) < table + count * SECTION_HEADER.size:
        raise FormatError(f"the PE headers of {count} sections are cut off")
    fields = view[optional:table]
    magic = int.from_bytes(fields[:2], "little")
    if magic not in (0x10B, 0x20B) or len(fields) < _FIELDS_END:
        raise FormatError(f"the PE optional header of {len(fields)} bytes is malformed")
    wide = magic == 0x20B
    section_alignment, file_alignment = _ALIGNMENTS.unpack_from(fields, 32)
    return Pe(
        machine=_MACHINES.get(machine, f"machine {machine:#x}"),
        wide=wide,
        coff=coff,
        table=table,
        symbols=symbols,
        flags=flags,
        dll_flags=int.from_bytes(fields[_DLL_FLAGS:_FIELDS_END], "little"),
        base=int.from_bytes(fields[24:32] if wide else fields[28:32], "little"),
        section_alignment=section_alignment,
        file_alignment=file_alignment,
        headers=int.from_bytes(fields[_SIZE_OF_HEADERS:_CHECKSUM], "little"),
        checksum=int.from_bytes(fields[_CHECKSUM : _CHECKSUM + 4], "little"),
        directories=_read_directories(fields[directories_start(wide) - 4 :]),
        sections=_read_sections(view[table : table + count * SECTION_HEADER.size]),
        data=view,
    )


def directories_start(wide: bool) -> int:
    """Where the data directories stand in the optional header; their number is in front."""
    return 112 if wide else 96


def imports(pe: Pe) -> tuple[str, ...]:
    """The libraries that it imports from: when it is loaded, then at their first use."""
    names = _Names(pe)
    return (*_loaded_at_once(pe, names), *_loaded_later(pe, names))


def imports_at_once(pe: Pe) -> tuple[str, ...]:
    """Those of them without which it cannot be loaded."""
    return tuple(_loaded_at_once(pe, _Names(pe)))


def _loaded_at_once(pe: Pe, names: _Names) -> Iterator[str]:
    for row in _descriptors(pe, IMPORTS, _IMPORT):
        if not row[3]:
            break
        yield names.at(row[3])


def _loaded_later(pe: Pe, names: _Names) -> Iterator[str]:
    for row in _descriptors(pe, DELAY_IMPORTS, _DELAY_IMPORT):
        if not row[1]:
            break
        # Compilers of the last century wrote addresses in memory, and no flag.
        yield names.at(row[1] if row[0] & 1 else row[1] - pe.base)


def exports(pe: Pe) -> tuple[str, ...]:
    """The names that it exports, in the file's order; what has only a number is left out."""
    table = _read_exports(pe)
    if table is None:
        return ()
    names = _Names(pe)
    rows = _numbers(pe, table[9], table[7])
    return tuple(names.at(row) for row in rows)


def exported_addresses(pe: Pe) -> tuple[int, ...]:
    """The addresses of everything that it exports, with name or without."""
    table = _read_exports(pe)
    return () if table is None else _numbers(pe, table[8], table[6])


def base_relocations(pe: Pe) -> Iterator[tuple[int, int]]:
    """What the loader changes when it moves the image: address, and type (IMAGE_REL_BASED_*)."""
    address, size = pe.directory(RELOCATIONS)
    table = pe.at(address, size) if size else memoryview(b"")
    position = 0
    while position < size:
        if size - position < 8:
            raise FormatError("the PE base relocations are cut off")
        page, length = _ALIGNMENTS.unpack_from(table, position)
        if length < 8 or length % 2 or length > size - position:
            raise FormatError(f"a block of PE base relocations cannot be {length} bytes")
        for entry in struct.unpack_from(f"<{(length - 8) // 2}H", table, position + 8):
            if entry >> 12:  # 0 is padding
                yield page + (entry & 0xFFF), entry >> 12
        position += length


class _Names:
    """Zero-terminated names, with a limit on what is read in all: names may share bytes."""

    def __init__(self, pe: Pe) -> None:
        self._pe = pe
        self._left = _MAX_NAMES

    def at(self, address: int) -> str:
        rest = self._pe.rest(max(address, 0))
        for step in _NAME_STEPS:
            name, end, _ = bytes(rest[:step]).partition(b"\0")
            if end:
                self._left -= len(name)
                if self._left < 0:
                    raise FormatError(f"the PE names are longer than {_MAX_NAMES} bytes in all")
                return name.decode("utf-8", "backslashreplace")
        raise FormatError(f"the name at address {address:#x} has no end")


def _read_directories(fields: memoryview) -> tuple[tuple[int, int], ...]:
    if len(fields) < 4:
        return ()
    count = min(int.from_bytes(fields[:4], "little"), _MAX_DIRECTORIES)
    if len(fields) < 4 + count * 8:
        raise FormatError(f"{count} PE data directories are cut off")
    return tuple(_ALIGNMENTS.iter_unpack(fields[4 : 4 + count * 8]))


def _read_sections(table: memoryview) -> tuple[PeSection, ...]:
    sections: list[PeSection] = []
    end = 0
    for index, row in enumerate(SECTION_HEADER.iter_unpack(table)):
        name = row[0].rstrip(b"\0").decode("utf-8", "backslashreplace")
        section = PeSection(index, name, row[1], row[2], row[3], row[4], row[9])
        if section.address < end:
            raise FormatError(
                "it overlaps the section in front of it, or they are not in order",
                where=f"PE section {name or index}",
            )
        end = section.address + section.extent
        sections.append(section)
    return tuple(sections)


def _descriptors(pe: Pe, directory: int, row: struct.Struct) -> Iterator[tuple[int, ...]]:
    """Rows of a table that ends where its reader stops: its size is not to be relied on."""
    address, _ = pe.directory(directory)
    if not address:
        return
    table = pe.rest(address)
    for index in range(_MAX_LIBRARIES):
        if len(table) < (index + 1) * row.size:
            raise FormatError("the table of imported PE libraries is cut off")
        yield row.unpack_from(table, index * row.size)
    raise FormatError(f"more than {_MAX_LIBRARIES} imported PE libraries")


def _read_exports(pe: Pe) -> tuple[int, ...] | None:
    address, _ = pe.directory(EXPORTS)
    return _EXPORTS.unpack(pe.at(address, _EXPORTS.size)) if address else None


def _numbers(pe: Pe, address: int, count: int) -> tuple[int, ...]:
    """A table of 32-bit numbers of the exports."""
    if count > _MAX_EXPORTS:
        raise FormatError(f"{count} PE exports, where at most {_MAX_EXPORTS} can be")
    return struct.unpack(f"<{count}I", pe.at(address, count * 4)) if count else ()
