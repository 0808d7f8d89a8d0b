"""Reads a binary of any format as sections, so that two of them can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import FormatError
from ..fatbin import coff, elf, pe
from ..fatbin.elf import FATBIN_SECTIONS

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
class Host:
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


def read_host(data: memoryview) -> Host | None:
    """The sections of a library or object; None for what is no such thing.

    FormatError where it is damaged.
    """
    if bytes(data[:4]) == elf.MAGIC:
        return _read_elf(data)
    if pe.is_pe(bytes(data[:4096])):
        return _read_pe(data)
    return None


def read_object(data: memoryview) -> Host:
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
    return Host("coff", _by_name(found, data), headers, data)


def _read_elf(data: memoryview) -> Host:
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
    return Host("elf", _by_name(found, data), headers, data, elf=file)


def _read_pe(data: memoryview) -> Host:
    file = pe.read_pe(data)
    found = [
        Section(one.index, one.name, (one.flags,), one.extent, one.offset, one.address,
                bool(one.flags & _PE_CODE), True, file.content(one))
        for one in file.sections
    ]  # fmt: skip
    return Host("pe", _by_name(found, data), file.headers, data, pe=file)


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


def between(host: Host) -> Sequence[tuple[int, int]]:
    """Start and end of the parts outside all sections: headers, tables and padding."""
    gaps, end = [], 0
    for start, section_end in host.ranges:
        if start > end:
            gaps.append((end, start))
        end = max(end, section_end)
    if end < len(host.data):
        gaps.append((end, len(host.data)))
    return gaps
