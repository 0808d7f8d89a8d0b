"""A linked ELF file laid out anew: device code at its end, and none where it was.

The program header table moves into a new read-only segment behind all others, in the file and in
memory, and the containers follow it there. The bytes that device code took before are dropped by
whole pages: the segment around them becomes two, the addresses of everything else stay, and what
lies behind moves in the file alone. A file that was laid out so before loses its last segment
first, so that nothing tells how often it was laid out.

Format: System V ABI, "Object Files" (gabi), chapter Program Header. Sizes and offsets are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..errors import FormatError
from .elf import HEADER, SECTION, Elf, ElfSection
from .elf_dynamic import PT_INTERP, PT_LOAD, PT_PHDR, SEGMENT, Segment, read_segments, read_table

PAGE = 4096  # of x86-64
_PF_R = 4
_SHF_ALLOC = 2
_LAST_ADDRESS = 1 << 47  # x86-64 programs have no addresses above
_MAX_ALIGN = 1 << 24  # bounds the zeros that are written
_CODE_ALIGN = 8
_E_PHOFF, _E_SHOFF, _E_PHNUM = 5, 6, 10  # fields of the header


@dataclass(frozen=True)
class ElfLayout:
    """Where the parts of the new file are.

    segments: the program headers but for the new one.
    dead:     start and end of the old device code in the old file.
    dropped:  how many of those bytes are left out; zeros stand for the rest.
    table:    start and end of the old program header table, if that is kept (as zeros).
    end:      where in the old file what is kept ends.
    offset, address: of the new segment.
    """

    segments: tuple[Segment, ...]
    dead: tuple[int, int]
    dropped: int
    table: tuple[int, int]
    end: int
    offset: int
    address: int

    @property
    def table_size(self) -> int:
        return (len(self.segments) + 1) * SEGMENT.size

    @property
    def code_address(self) -> int:
        """Where the containers start once they are loaded."""
        return self.address + self.table_size

    def moved(self, offset: int) -> int:
        """Where what stands at an offset of the old file is in the new one."""
        return offset - self.dropped if offset >= self.dead[1] else offset


def plan(elf: Elf, code: ElfSection) -> ElfLayout:
    """How the file will be laid out, given the section that holds its device code."""
    segments = read_segments(elf)
    former = _former(elf, segments, code)
    if former:
        _refuse_sharing(elf, segments, former, code)
        kept = tuple(segment for segment in segments if segment != former)
        start = former.offset
        return _behind_all(kept, (start, start), 0, (0, 0), start)
    holder = _holder(segments, code)
    _refuse_sharing(elf, segments, holder, code)
    start, count = read_table(elf)
    table = (start, start + count * SEGMENT.size)
    segments, dropped = _without(elf, segments, holder, code)
    dead = (code.offset, code.offset + code.size)
    return _behind_all(segments, dead, dropped, table, len(elf.data))


def host_pieces(
    elf: Elf,
    layout: ElfLayout,
    code: ElfSection,
    code_size: int,
    changes: Mapping[int, bytes | memoryview],
) -> Iterator[bytes | memoryview]:
    """The new file up to its device code, given that code's new size in bytes.

    changes: other bytes for offsets of the old file.
    """
    start, end = layout.dead
    replaced = {(offset, offset + len(new)): new for offset, new in changes.items()}
    replaced[0, HEADER.size] = _header(elf, layout)
    replaced[elf.table, elf.table + len(elf.sections) * SECTION.size] = b"".join(
        _section_table(elf, layout, code, code_size)
    )
    replaced[layout.table] = bytes(layout.table[1] - layout.table[0])
    replaced[layout.dead] = bytes(end - start - layout.dropped)
    position = 0
    for (start, end), new in sorted(replaced.items()):
        if start == end:
            continue
        if start < position or end > layout.end:
            raise FormatError(f"parts of the ELF file overlap at byte {start}")
        yield elf.data[position:start]
        yield new
        position = end
    yield elf.data[position : layout.end]
    yield bytes(layout.offset - layout.moved(layout.end))
    yield from _program_headers(layout, code_size)


def _former(elf: Elf, segments: Sequence[Segment], code: ElfSection) -> Segment | None:
    """The segment that laying the file out has added before, if it has been."""
    table, count = read_table(elf)
    size = count * SEGMENT.size
    for segment in segments:
        expected = Segment(
            PT_LOAD,
            _PF_R,
            table,
            code.address - size,
            code.address - size,
            size + code.size,
            size + code.size,
            PAGE,
        )
        at_the_end = segment.offset % PAGE == 0 and segment.end == len(elf.data)
        if segment == expected and at_the_end and code.offset == table + size:
            return segment
    return None


def _holder(segments: Sequence[Segment], code: ElfSection) -> Segment:
    """The segment that the device code is loaded with."""
    for segment in segments:
        start = code.offset - segment.offset
        if (
            segment.type == PT_LOAD
            and 0 <= start <= segment.file_size - code.size
            and segment.address + start == code.address
        ):
            return segment
    raise FormatError("no segment loads its device code", where=f"ELF section {code.name}")


def _refuse_sharing(
    elf: Elf, segments: Sequence[Segment], holder: Segment, code: ElfSection
) -> None:
    """Nothing but the one segment may have to do with the bytes that will be dropped."""
    start, end = code.offset, code.offset + code.size
    others = [
        *((f"segment {s.type:#x}", s.offset, s.end) for s in segments if s != holder),
        *((f"section {s.name}", s.offset, s.offset + s.in_file) for s in elf.sections if s != code),
    ]
    for what, first, last in others:
        if (first < end and last > start) or start < first < end:
            raise FormatError(f"it shares bytes with {what}", where=f"ELF section {code.name}")


def _without(
    elf: Elf, segments: tuple[Segment, ...], holder: Segment, code: ElfSection
) -> tuple[tuple[Segment, ...], int]:
    """The segments once whole pages of device code are gone, and how many bytes these are."""
    first = code.offset - holder.offset
    last = first + code.size
    head = replace(holder, file_size=first, memory_size=first)
    tail = replace(
        holder,
        offset=holder.offset + last,
        address=holder.address + last,
        physical=(holder.physical + last) % (1 << 64),  # means nothing here
        file_size=holder.file_size - last,
        memory_size=holder.memory_size - last,
    )
    parts = [
        part
        for segment in segments
        for part in ((head, tail) if segment == holder else (segment,))
        if segment != holder or part.memory_size > 0
    ]
    step = _strictest_align(elf, code)
    dropped = code.size // step * step
    if not dropped:
        return segments, 0
    end = code.offset + code.size
    return tuple(
        part if part.offset < end else _moved_back(part, dropped, step) for part in parts
    ), dropped


def _moved_back(segment: Segment, dropped: int, step: int) -> Segment:
    """The segment so many bytes further to the front of the file, a multiple of the step."""
    align = min(segment.align, step) if segment.type == PT_LOAD else segment.align
    return replace(segment, offset=segment.offset - dropped, align=align)


def _strictest_align(elf: Elf, code: ElfSection) -> int:
    """The alignment that segments need, in the file as in memory.

    Linkers claim up to 2 MiB, for systems with larger pages. Pages of x86-64 are 4 KiB, so only
    data that is aligned more strictly needs more.
    """
    aligns = [s.align for s in elf.sections if s.flags & _SHF_ALLOC and s is not code]
    strictest = max([PAGE, *aligns])
    if strictest > _MAX_ALIGN or strictest & strictest - 1:
        raise FormatError(f"alignment {strictest} of an ELF section is not supported")
    return strictest


def _behind_all(
    segments: tuple[Segment, ...],
    dead: tuple[int, int],
    dropped: int,
    table: tuple[int, int],
    end: int,
) -> ElfLayout:
    """The layout with a segment behind these, in the file and in memory.

    Only programs keep the entry for the program header table (lld gives libraries one, too):
    loaders of libraries do without, and patchelf cannot correct it.
    """
    if all(segment.type != PT_INTERP for segment in segments):
        segments = tuple(segment for segment in segments if segment.type != PT_PHDR)
    ends = [s.address + s.memory_size for s in segments if s.type == PT_LOAD]
    if not ends:
        raise FormatError("nothing but device code is loaded from the ELF file")
    if max(ends) > _LAST_ADDRESS:
        raise FormatError(f"an ELF segment ends at address {max(ends):#x}, which no program has")
    offset = _page_end(end - dropped)
    return ElfLayout(segments, dead, dropped, table, end, offset, _page_end(max(ends)))


def _page_end(number: int) -> int:
    return -(-number // PAGE) * PAGE


def _program_headers(layout: ElfLayout, code_size: int) -> Iterator[bytes]:
    place = (layout.offset, layout.address, layout.address)
    size = layout.table_size + code_size
    new = Segment(PT_LOAD, _PF_R, *place, size, size, PAGE)
    loaded = [index for index, segment in enumerate(layout.segments) if segment.type == PT_LOAD]
    for index, segment in enumerate(layout.segments):
        if segment.type == PT_PHDR:
            size = layout.table_size
            yield Segment(PT_PHDR, segment.flags, *place, size, size, segment.align).packed()
        else:
            yield segment.packed()
        if index == loaded[-1]:
            yield new.packed()


def _header(elf: Elf, layout: ElfLayout) -> bytes:
    fields = list(HEADER.unpack_from(elf.data))
    fields[_E_PHOFF] = layout.offset
    fields[_E_SHOFF] = layout.moved(elf.table)
    fields[_E_PHNUM] = len(layout.segments) + 1
    return HEADER.pack(*fields)


def _section_table(
    elf: Elf, layout: ElfLayout, code: ElfSection, code_size: int
) -> Iterator[bytes]:
    end = elf.table + len(elf.sections) * SECTION.size
    for index, row in enumerate(SECTION.iter_unpack(elf.data[elf.table : end])):
        name, kind, flags, address, offset, size, link, info, align, each = row
        offset = layout.moved(offset)
        if index == code.index:
            address, offset = layout.code_address, layout.offset + layout.table_size
            size, align = code_size, _CODE_ALIGN
        yield SECTION.pack(name, kind, flags, address, offset, size, link, info, align, each)
