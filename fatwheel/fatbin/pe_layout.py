"""A PE image laid out anew: its device code where the linker put it, if it fits there.

What does not fit goes into a new section `.nv_fatb` behind all others; the linker's keeps its
addresses, for nothing else may move, but no bytes in the file. An image that was laid out so
before loses that section as soon as its device code fits again, so that nothing tells how often
it was laid out. Offsets in the file change, and with them the section headers, the debug
directory and the place of the symbol table.

Format: Microsoft, "PE Format". Sizes and offsets are bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import FormatError
from ..storage.mapped import in_chunks
from .container import Rewritten
from .pe import CERTIFICATES, COFF_HEADER, DEBUG, SECTION_HEADER, Pe, PeSection, directories_start

_INITIALISED, _UNINITIALISED = 0x40, 0x80  # IMAGE_SCN_CNT_*
# Offsets in the optional header.
_SIZE_OF_INITIALISED, _SIZE_OF_UNINITIALISED = 8, 12
_SIZE_OF_IMAGE, _SIZE_OF_HEADERS, _CHECKSUM = 56, 60, 64
_SECTION_COUNT, _SYMBOL_TABLE = 2, 8  # offsets in the COFF header
_DEBUG_ENTRY, _DEBUG_OFFSET = 28, 24  # size of an entry, and where its offset of the data stands

_MAX_IMAGE = 1 << 31  # loaders and linkers stop there
_MAX_OFFSET = 0xFFFFFFFF  # what headers have room for
_MAX_DEBUG = 1 << 16  # bounds memory: far more than any linker makes

_SIGNATURE_DROPPED = (
    "its Authenticode signature was dropped, because what it signed has changed: sign it again"
)


class Edits:
    """Ranges of a file that are replaced, by more or fewer bytes, and what that moves."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._edits: list[tuple[int, int, tuple[bytes | memoryview, ...]]] = []

    def replace(self, start: int, end: int, *pieces: bytes | memoryview) -> None:
        self._edits.append((start, end, pieces))

    def moved(self, offset: int) -> int:
        """Where what stands at an offset of the old file stands in the new one."""
        new = offset
        for start, end, pieces in self._edits:
            if end <= offset:
                new += sum(map(len, pieces)) - (end - start)
            elif start < offset:
                raise FormatError(f"the PE header points into what is replaced, at {offset:#x}")
        if new > _MAX_OFFSET:
            raise FormatError(f"the PE header points to {offset:#x}, behind the file")
        return new

    def pieces(self) -> tuple[bytes | memoryview, ...]:
        """The new file; FormatError if ranges overlap, which sound files' do not."""
        found: list[bytes | memoryview] = []
        position = 0
        for start, end, pieces in sorted(self._edits, key=lambda edit: edit[:2]):
            if start < position or end > len(self._data):
                raise FormatError(f"parts of the PE image overlap at byte {start:#x} of the file")
            found += [self._data[position:start], *pieces]
            position = end
        return tuple(piece for piece in (*found, self._data[position:]) if len(piece))


@dataclass(frozen=True)
class PeLayout:
    """Where device code comes to lie.

    old:    the section that holds it now.
    home:   the one that the linker put it in, which is the old one unless that was appended.
    new:    the one that is to hold it: home, or one that is appended.
    header: still as it was, with as many bytes as the new one has; it belongs to edits.
    """

    pe: Pe
    old: PeSection
    home: PeSection
    new: PeSection
    header: bytearray
    edits: Edits
    notes: tuple[str, ...]

    @property
    def host(self) -> tuple[PeSection, ...]:
        """The sections that the linker made, which stay."""
        return _host(self.pe, self.old, self.home)

    @property
    def appended(self) -> bool:
        return self.new.index != self.home.index

    @property
    def end(self) -> int:
        """The address where the image ends."""
        last = self.host[-1]
        return _behind(self.pe, [self.new if self.appended or last is self.home else last])


def home_of(pe: Pe, old: PeSection) -> PeSection:
    """The section that the linker put the device code in that is in `old` now."""
    for section in pe.sections if old.index == len(pe.sections) - 1 else ():
        emptied = section.name == old.name and not section.size
        if emptied and section.flags == _without_bytes(old.flags):
            return section
    return old


def plan(pe: Pe, old: PeSection, pieces: Sequence[bytes | memoryview]) -> PeLayout:
    """Decide on the new section's place, and collect all edits that change the file's size."""
    home = home_of(pe, old)
    host = _host(pe, old, home)
    size = sum(map(len, pieces))
    last = home.index == len(host) - 1
    appended = size > home.extent and not last
    index = len(host) if appended else home.index
    extent = size if appended or last else home.extent
    address = _behind(pe, host) if appended else home.address
    header = _header(pe, len(host) + appended)
    edits = Edits(pe.data)
    edits.replace(0, pe.headers, memoryview(header))
    notes = _drop_signature(pe, max(section.end for section in pe.sections), edits)
    start, end = _place(pe, old, home, appended, edits)
    gap, padding = bytes(-edits.moved(start) % pe.file_alignment), bytes(-size % pe.file_alignment)
    offset = edits.moved(start) + len(gap)
    edits.replace(start, end, gap, *pieces, padding)
    new = PeSection(index, old.name, extent, address, size + len(padding), offset, old.flags)
    layout = PeLayout(pe, old, home, new, header, edits, notes)
    if layout.end > _MAX_IMAGE or (offset + size > _MAX_IMAGE and (appended or last)):
        raise FormatError(
            f"with {size} bytes of device code it would be larger than Windows loads (2 GiB)",
            hint="keep fewer architectures: invoke thin",
        )
    return layout


def _behind(pe: Pe, sections: Sequence[PeSection]) -> int:
    """The first address behind sections at which one can begin."""
    return _aligned(sections[-1].address + sections[-1].extent, pe.section_alignment)


def _host(pe: Pe, old: PeSection, home: PeSection) -> tuple[PeSection, ...]:
    return pe.sections if old is home else pe.sections[:-1]


def _place(
    pe: Pe, old: PeSection, home: PeSection, appended: bool, edits: Edits
) -> tuple[int, int]:
    """Which bytes of the old file the new section replaces; the old one's go in any case.

    At home it lies right in front of the section that follows in memory. Once it was taken out,
    nothing tells whether bytes of no section that lie there were in front of it or behind.
    """
    host = _host(pe, old, home)
    behind = [section.offset for section in host[home.index + 1 :] if section.size]
    if (appended and old is not home) or not (appended or behind):
        return old.offset, old.end
    if appended:
        edits.replace(old.offset, old.end)
        end = max(section.end for section in pe.sections)
        return end, end
    start = old.offset
    if old is not home:
        end = max(section.end for section in host)
        gap = pe.data[end:start]
        start = end if len(gap) < pe.file_alignment and not any(gap) else start
    edits.replace(start, old.end)
    return behind[0], behind[0]


def rewritten(layout: PeLayout, changes: Iterable[tuple[int, bytes | memoryview]]) -> Rewritten:
    """The new file; changes are other bytes for offsets of the old one."""
    pe, edits, header = layout.pe, layout.edits, layout.header
    debug = _debug_directory(pe, edits)
    symbols = edits.moved(pe.symbols) if pe.symbols else 0
    _write_header(layout, symbols)
    _write_section_headers(layout)
    for offset, content in (*debug, *changes):
        edits.replace(offset, offset + len(content), content)
    pieces = edits.pieces()
    if pe.checksum:
        optional = pe.coff + COFF_HEADER.size
        struct.pack_into("<I", header, optional + _CHECKSUM, _checksum(pieces))
    return Rewritten(pieces, layout.notes)


def _header(pe: Pe, count: int) -> bytearray:
    """The headers with as many bytes as those of `count` sections need; what is new is zeros."""
    change = count - len(pe.sections)
    if change > 0:
        return bytearray(bytes(pe.data[: pe.headers]) + bytes(_header_growth(pe)))
    table_end = pe.table + count * SECTION_HEADER.size
    header = bytearray(pe.data[: pe.headers])
    if change < 0:
        header[table_end : table_end + SECTION_HEADER.size] = bytes(SECTION_HEADER.size)
        shorter = pe.headers - pe.file_alignment
        grown = table_end <= shorter < table_end + SECTION_HEADER.size
        if grown and not any(header[shorter:]) and not _is_used(pe, shorter, pe.headers):
            del header[shorter:]
    return header


def _header_growth(pe: Pe) -> int:
    """How many bytes the headers must grow by to have room for one more section header."""
    start = pe.table + len(pe.sections) * SECTION_HEADER.size
    end = start + SECTION_HEADER.size
    occupied = any(pe.data[start : min(end, pe.headers)]) or _is_used(pe, start, end)
    growth = 0 if end <= pe.headers else _aligned(end - pe.headers, pe.file_alignment)
    if occupied or pe.headers + growth > pe.sections[0].address:
        raise FormatError(
            "there is no room for one more section header: "
            + ("other data follows the last one" if occupied else "the first section follows"),
            where="PE header",
        )
    return growth


def _is_used(pe: Pe, start: int, end: int) -> bool:
    """Whether a data directory leads into a part of the headers."""
    return any(
        start < address + size and address < end
        for index, (address, size) in enumerate(pe.directories)
        if size and index != CERTIFICATES
    )


def _drop_signature(pe: Pe, end: int, edits: Edits) -> tuple[str, ...]:
    """Cut the certificates out, which lie behind the sections; the notes for the user."""
    offset, size = pe.directory(CERTIFICATES)  # the one directory that has an offset
    if not size:
        return ()
    if offset < end or offset + size > len(pe.data):
        raise FormatError("its Authenticode signature is not where signatures lie")
    edits.replace(offset, offset + size)
    return (_SIGNATURE_DROPPED,)


def _write_header(layout: PeLayout, symbols: int) -> None:
    """The fields of the COFF header and the optional header, but for the checksum: 0."""
    pe, old, new, header = layout.pe, layout.old, layout.new, layout.header
    optional = pe.coff + COFF_HEADER.size
    count = len(layout.host) + layout.appended
    emptied = _aligned(layout.home.extent, pe.file_alignment) * (count - len(pe.sections))
    struct.pack_into("<H", header, pe.coff + _SECTION_COUNT, count)
    struct.pack_into("<I", header, pe.coff + _SYMBOL_TABLE, symbols)
    _add(header, optional + _SIZE_OF_INITIALISED, new.size - old.size)
    _add(header, optional + _SIZE_OF_UNINITIALISED, emptied)
    struct.pack_into("<III", header, optional + _SIZE_OF_IMAGE, layout.end, len(header), 0)
    certificates = optional + directories_start(pe.wide) + CERTIFICATES * 8
    struct.pack_into("<II", header, certificates, 0, 0)


def _write_section_headers(layout: PeLayout) -> None:
    pe, home, new, header = layout.pe, layout.home, layout.new, layout.header
    for section in layout.host:
        place = pe.table + section.index * SECTION_HEADER.size
        row = list(SECTION_HEADER.unpack_from(header, place))
        if section.index == new.index:
            row[1], row[3], row[4], row[9] = new.virtual_size, new.size, new.offset, new.flags
        elif section.index == home.index:
            row[1], row[3], row[4], row[9] = home.extent, 0, 0, _without_bytes(new.flags)
        elif section.size:
            row[4] = layout.edits.moved(section.offset)
        SECTION_HEADER.pack_into(header, place, *row)
    if layout.appended:
        row = [new.name.encode(), new.virtual_size, new.address, new.size, new.offset, 0, 0, 0, 0]
        place = pe.table + new.index * SECTION_HEADER.size
        SECTION_HEADER.pack_into(header, place, *row, new.flags)


def _without_bytes(flags: int) -> int:
    """The flags of a section whose bytes are gone from the file."""
    return flags & ~_INITIALISED | _UNINITIALISED


def _debug_directory(pe: Pe, edits: Edits) -> list[tuple[int, bytes]]:
    """Its offset and its new content: it alone, of what headers lead to, tells offsets."""
    address, size = pe.directory(DEBUG)
    if not size:
        return []
    if size > _MAX_DEBUG:
        raise FormatError(f"{size} bytes of debug directory", where="PE header")
    content = bytearray(pe.at(address, size))
    for entry in range(0, size - _DEBUG_ENTRY + 1, _DEBUG_ENTRY):
        [offset] = struct.unpack_from("<I", content, entry + _DEBUG_OFFSET)
        moved = edits.moved(offset) if offset else 0
        struct.pack_into("<I", content, entry + _DEBUG_OFFSET, moved)
    return [(pe.offset(address), bytes(content))]


def _checksum(pieces: Iterable[bytes | memoryview]) -> int:
    """The image's CheckSum, for a file in whose header it is 0 so far.

    It is the sum of all 16-bit numbers, carries added back, and the file's size. Such a sum
    is the remainder by 65535, so Python's long integers can do the work.
    """
    total = size = 0
    for part in in_chunks(pieces):
        total += int.from_bytes(part, "little") % 0xFFFF << (8 if size % 2 else 0)
        size += len(part)
    # 0 stands for all bytes being 0, which a file with a header never is.
    return ((total % 0xFFFF or 0xFFFF) + size) & 0xFFFFFFFF


def _add(header: bytearray, place: int, change: int) -> None:
    [value] = struct.unpack_from("<I", header, place)
    struct.pack_into("<I", header, place, (value + change) & 0xFFFFFFFF)


def _aligned(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment
