"""A PE image laid out anew: device code behind all other sections.

The new containers go into a new section `.nv_fatb`, or take the old one's place where that is the
last. The old section keeps its addresses, for nothing else may move, but no bytes in the file. So
offsets in the file change, and with them the section headers, the debug directory and the place
of the symbol table.

Format: Microsoft, "PE Format". Sizes and offsets are bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import FormatError
from .container import Container, Entry, parse_containers
from .linked import (
    POINTER,
    HasKernels,
    Rewritten,
    Wrapper,
    lay_in_place,
    lay_out,
    only,
    read_wrappers,
    used_containers,
)
from .pe import (
    CERTIFICATES,
    COFF_HEADER,
    DEBUG,
    FATBIN_SECTIONS,
    RELOCATION_64,
    SECTION_HEADER,
    WRAPPERS_SECTION,
    Pe,
    Section,
    base_relocations,
    directories_start,
    exported_addresses,
)

_INITIALISED, _UNINITIALISED = 0x40, 0x80  # IMAGE_SCN_CNT_*
# Offsets in the optional header.
_SIZE_OF_INITIALISED, _SIZE_OF_UNINITIALISED = 8, 12
_SIZE_OF_IMAGE, _SIZE_OF_HEADERS, _CHECKSUM = 56, 60, 64
_SECTION_COUNT, _SYMBOL_TABLE = 2, 8  # offsets in the COFF header
_DEBUG_ENTRY, _DEBUG_OFFSET = 28, 24  # size of an entry, and where its offset of the data stands

_MAX_IMAGE = 1 << 31  # loaders and linkers stop there
_MAX_OFFSET = 0xFFFFFFFF  # what headers have room for
_MAX_DEBUG = 1 << 16  # bounds memory: far more than any linker makes
_STEP = 1 << 20

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
class Layout:
    """Where things come to lie: the old and the new section, and the header, still as it was.

    header belongs to edits, and has room for the new section's entry.
    """

    pe: Pe
    old: Section
    new: Section
    header: bytearray
    edits: Edits
    notes: tuple[str, ...]

    @property
    def appended(self) -> bool:
        return self.new.index != self.old.index


def plan(pe: Pe, old: Section, pieces: Sequence[bytes | memoryview]) -> Layout:
    """Decide on the new section's place, and collect all edits that change the file's size."""
    size = sum(map(len, pieces))
    padding = bytes(-size % pe.file_alignment)
    in_place = old.index == len(pe.sections) - 1
    header = bytearray(pe.data[: pe.headers])
    if not in_place:
        header += bytes(_header_growth(pe))
    edits = Edits(pe.data)
    edits.replace(0, pe.headers, memoryview(header))
    end = max(section.end for section in pe.sections)
    notes = _drop_signature(pe, end, edits)
    if in_place:
        address, offset = old.address, edits.moved(old.offset)
        edits.replace(old.offset, old.end, *pieces, padding)
    else:
        last = pe.sections[-1]
        address = _aligned(last.address + last.extent, pe.section_alignment)
        edits.replace(old.offset, old.end)
        gap = -edits.moved(end) % pe.file_alignment
        offset = edits.moved(end) + gap
        edits.replace(end, end, bytes(gap), *pieces, padding)
    if address + size > _MAX_IMAGE or offset + size > _MAX_IMAGE:
        raise FormatError(
            f"with {size} bytes of device code it would be larger than Windows loads (2 GiB)",
            hint="keep fewer architectures: invoke thin",
        )
    index = old.index if in_place else len(pe.sections)
    new = Section(index, old.name, size, address, size + len(padding), offset, old.flags)
    return Layout(pe, old, new, header, edits, notes)


def rewritten(layout: Layout, changes: Iterable[tuple[int, bytes | memoryview]]) -> Rewritten:
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


def _header_growth(pe: Pe) -> int:
    """How many bytes the headers must grow by to have room for one more section header."""
    start = pe.table + len(pe.sections) * SECTION_HEADER.size
    end = start + SECTION_HEADER.size
    occupied = any(pe.data[start : min(end, pe.headers)]) or any(
        start < address + size and address < end
        for index, (address, size) in enumerate(pe.directories)
        if size and index != CERTIFICATES
    )
    growth = 0 if end <= pe.headers else _aligned(end - pe.headers, pe.file_alignment)
    if occupied or pe.headers + growth > pe.sections[0].address:
        raise FormatError(
            "there is no room for one more section header: "
            + ("other data follows the last one" if occupied else "the first section follows"),
            where="PE header",
        )
    return growth


def _drop_signature(pe: Pe, end: int, edits: Edits) -> tuple[str, ...]:
    """Cut the certificates out, which lie behind the sections; the notes for the user."""
    offset, size = pe.directory(CERTIFICATES)  # the one directory that has an offset
    if not size:
        return ()
    if offset < end or offset + size > len(pe.data):
        raise FormatError("its Authenticode signature is not where signatures lie")
    edits.replace(offset, offset + size)
    return (_SIGNATURE_DROPPED,)


def _write_header(layout: Layout, symbols: int) -> None:
    """The fields of the COFF header and the optional header, but for the checksum: 0."""
    pe, old, new, header = layout.pe, layout.old, layout.new, layout.header
    optional = pe.coff + COFF_HEADER.size
    if layout.appended:
        struct.pack_into("<H", header, pe.coff + _SECTION_COUNT, len(pe.sections) + 1)
        _add(header, optional + _SIZE_OF_UNINITIALISED, _aligned(old.extent, pe.file_alignment))
    struct.pack_into("<I", header, pe.coff + _SYMBOL_TABLE, symbols)
    _add(header, optional + _SIZE_OF_INITIALISED, new.size - old.size)
    image = _aligned(new.address + new.virtual_size, pe.section_alignment)
    struct.pack_into("<III", header, optional + _SIZE_OF_IMAGE, image, len(header), 0)
    certificates = optional + directories_start(pe.wide) + CERTIFICATES * 8
    struct.pack_into("<II", header, certificates, 0, 0)


def _write_section_headers(layout: Layout) -> None:
    pe, old, new, header = layout.pe, layout.old, layout.new, layout.header
    for section in pe.sections:
        place = pe.table + section.index * SECTION_HEADER.size
        row = list(SECTION_HEADER.unpack_from(header, place))
        if section.index == new.index:
            row[1], row[3], row[4] = new.virtual_size, new.size, new.offset
        elif section.index == old.index:
            row[1], row[3], row[4] = old.extent, 0, 0
            row[9] = old.flags & ~_INITIALISED | _UNINITIALISED
        elif section.size:
            row[4] = layout.edits.moved(section.offset)
        SECTION_HEADER.pack_into(header, place, *row)
    if layout.appended:
        row = [new.name.encode(), new.virtual_size, new.address, new.size, new.offset, 0, 0, 0, 0]
        place = pe.table + new.index * SECTION_HEADER.size
        SECTION_HEADER.pack_into(header, place, *row, new.flags)


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
    for piece in pieces:
        for start in range(0, len(piece), _STEP):
            part = piece[start : start + _STEP]
            total += int.from_bytes(part, "little") % 0xFFFF << (8 if size % 2 else 0)
            size += len(part)
    # 0 stands for all bytes being 0, which a file with a header never is.
    return ((total % 0xFFFF or 0xFFFF) + size) & 0xFFFFFFFF


def _add(header: bytearray, place: int, change: int) -> None:
    [value] = struct.unpack_from("<I", header, place)
    struct.pack_into("<I", header, place, (value + change) & 0xFFFFFFFF)


def _aligned(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment


# -- editing ---------------------------------------------------------------------------------------

# The containers move behind everything else (`pe_linked`), and the wrappers' pointers follow. The
# table of base relocations, which says where those stand, stays as it is.
#
# GNU strip must be used before, not after: it takes out the debug sections of MinGW in front of the
# new one, and Windows loads no image with a hole.


_RELOCATIONS_STRIPPED, _DYNAMIC_BASE = 0x1, 0x40
_PAGE = 4096
_MAX_ALIGNMENT = 1 << 20
_MAX_BASE = 1 << 47  # processes have no more addresses
# These bound memory: far more than any linker makes.
_MAX_HEADERS, _MAX_WRAPPERS = 1 << 20, 1 << 20


def rewrite_linked(
    pe: Pe, contents: Sequence[Sequence[Entry]], has_kernels: HasKernels
) -> Rewritten:
    """The image with these entries in its containers, one sequence for each, in their order.

    The result depends on `contents` and the host's part of the image alone. Relocatable
    containers, whose contents come behind the others', stay at their places. Containers without
    kernels that no wrapper points to are left out. FormatError for what cannot be edited.
    """
    _check_supported(pe)
    old, relocatable = _device_code(pe)
    moving = parse_containers(pe.content(old))
    staying = parse_containers(pe.content(relocatable)) if relocatable else ()
    count = len(moving) + len(staying)
    if len(contents) != count:
        raise ValueError(f"contents for {len(contents)} containers, of {count}")
    new = dict(zip((pe.base + old.address + c.offset for c in moving), contents, strict=False))
    used = used_containers(
        _read_wrappers(pe),
        {at: container.entries for at, container in zip(new, moving, strict=True)},
        [_addresses(pe, relocatable)] if relocatable else [],
        has_kernels,
    )
    if not used:
        return Rewritten((pe.data,))
    _check_uses(pe, old, {pointer for pointers in used.values() for pointer in pointers})
    offsets, pieces = lay_out([new[at] for at in used])
    layout = plan(pe, old, pieces)
    targets = {
        pointer: pe.base + layout.new.address + offset
        for offset, pointers in zip(offsets, used.values(), strict=True)
        for pointer in pointers
    }
    in_place = _in_place(pe, relocatable, staying, contents[len(moving) :])
    return rewritten(layout, [_pointed(pe, targets), *in_place])


def _check_supported(pe: Pe) -> None:
    if pe.machine != "x86_64" or not pe.wide:
        raise FormatError(
            f"a Windows file for {pe.machine} cannot be rewritten",
            hint="supported: x86_64, which is what CUDA programs for Windows are made for",
        )
    section, file = pe.section_alignment, pe.file_alignment
    both = (section, file)
    if any(a & (a - 1) or a > _MAX_ALIGNMENT for a in both) or not 0 < file <= section >= _PAGE:
        raise FormatError(f"alignment of PE sections {section}, in the file {file}: not supported")
    table_end = pe.table + len(pe.sections) * SECTION_HEADER.size
    if len(pe.directories) <= CERTIFICATES or not table_end <= pe.headers <= _MAX_HEADERS:
        raise FormatError("the PE header is not as linkers write it")
    if pe.base > _MAX_BASE:
        raise FormatError(f"the PE image cannot be loaded at {pe.base:#x}")
    end = pe.headers
    for part in sorted((s for s in pe.sections if s.size), key=lambda s: s.offset):
        if part.offset < end or part.offset % file or part.end > len(pe.data):
            raise FormatError(
                "its bytes are not aligned, overlap others or lie outside the file",
                where=f"PE section {part.name or part.index}",
            )
        end = part.end


def _device_code(pe: Pe) -> tuple[Section, Section | None]:
    """The section with device code that runs, and that which it was linked from, if any."""
    code, relocatable = (only(pe.named(name), name) for name in FATBIN_SECTIONS)
    if not code and relocatable:
        raise FormatError(
            "its device code is only relocatable (nvcc -rdc=true) and cannot be edited",
            where=f"PE section {FATBIN_SECTIONS[1]}",
            hint="build it without separate compilation (-rdc=true), or for the GPUs you want",
        )
    if not code:
        raise FormatError("it has no device code", where=f"PE section {FATBIN_SECTIONS[0]}")
    if code.size % pe.file_alignment:
        raise FormatError("its size is not aligned", where=f"PE section {code.name}")
    return code, relocatable


def _read_wrappers(pe: Pe) -> tuple[Wrapper, ...]:
    def address_at(pointer: int) -> int | None:
        return int.from_bytes(pe.at(pointer - pe.base, 8), "little") or None

    section = only(pe.named(WRAPPERS_SECTION), WRAPPERS_SECTION)
    if not section:
        return ()
    if section.size > _MAX_WRAPPERS:
        raise FormatError(f"it cannot be {section.size} bytes", where=f"PE section {section.name}")
    return read_wrappers(pe.content(section), pe.base + section.address, address_at)


def _addresses(pe: Pe, section: Section) -> range:
    """Where a section lies in memory."""
    start = pe.base + section.address
    return range(start, start + section.extent)


def _check_uses(pe: Pe, old: Section, owned: set[int]) -> None:
    """Refuse pointers into the device code that would not follow it, and wrappers' that may not.

    owned: the addresses in memory of the wrappers' pointers.
    """
    begin, end = old.address, old.address + max(old.extent, old.size)
    where = f"PE section {old.name}"
    missing = set(owned)
    for place, kind in base_relocations(pe):
        if begin <= place < end:
            raise FormatError("its device code is changed while it is loaded", where=where)
        pointer = pe.base + place
        missing.discard(pointer if kind == RELOCATION_64 else -1)
        if kind == RELOCATION_64 and pointer not in owned:
            target = int.from_bytes(pe.at(place, 8), "little") - pe.base
            if begin <= target < end:
                raise FormatError(
                    f"something that is no fatbin wrapper points into it, at address {pointer:#x}",
                    where=where,
                )
    if missing and pe.dll_flags & _DYNAMIC_BASE and not pe.flags & _RELOCATIONS_STRIPPED:
        raise FormatError(
            "its pointer has no base relocation, although the image is moved when it is loaded",
            where=f"fatbin wrapper at address {min(missing) - POINTER:#x}",
        )
    named = [at for index, (at, _) in enumerate(pe.directories) if index != CERTIFICATES]
    if any(begin <= address < end for address in (*named, *exported_addresses(pe))):
        raise FormatError("something in it is exported, or used by the system", where=where)


def _in_place(
    pe: Pe,
    section: Section | None,
    containers: Sequence[Container],
    contents: Sequence[Sequence[Entry]],
) -> Iterator[tuple[int, bytes | memoryview]]:
    """Offsets and new bytes of relocatable containers with these entries."""
    if section:
        size = len(pe.content(section))
        for offset, piece in lay_in_place(containers, size, contents):
            yield section.offset + offset, piece


def _pointed(pe: Pe, targets: Mapping[int, int]) -> tuple[int, bytes]:
    """Offset and new content of the section with the wrappers, their pointers set to targets."""
    [section] = pe.named(WRAPPERS_SECTION)  # _read_wrappers has seen that there is one
    content = bytearray(pe.content(section))
    for pointer, target in targets.items():
        struct.pack_into("<Q", content, pointer - pe.base - section.address, target)
    return section.offset, bytes(content)
