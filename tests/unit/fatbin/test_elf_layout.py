"""Where the parts of a linked file go; what the whole file is then, test_elf_linked says."""

from __future__ import annotations

import struct

import pytest

from fatwheel.errors import FormatError
from fatwheel.fatbin.elf import Elf, ElfSection, read_elf
from fatwheel.fatbin.elf_dynamic import read_segments
from fatwheel.fatbin.elf_layout import ElfLayout, host_pieces, plan

from ...helpers.elflibraries import LIBRARY, Tool, link

PAGE = 4096
READ_ONLY = 4
NEW_CODE = b"new device code!"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> bytes:
    return link(tool, tmp_path_factory.mktemp("elf"), LIBRARY)


def code_of(elf: Elf) -> ElfSection:
    return elf.named(".nv_fatbin")[0]


def planned(data: bytes) -> ElfLayout:
    elf = read_elf(data)
    return plan(elf, code_of(elf))


def laid_out(data: bytes) -> bytes:
    elf = read_elf(data)
    layout = plan(elf, code_of(elf))
    return b"".join(host_pieces(elf, layout, code_of(elf), len(NEW_CODE), {})) + NEW_CODE


def changed(data: bytes, place: int, code: str, *values: int) -> bytes:
    new = bytearray(data)
    struct.pack_into(code, new, place, *values)
    return bytes(new)


def row_of(data: bytes, name: str) -> int:
    """Where a section's header stands."""
    elf = read_elf(data)
    return elf.table + 64 * elf.named(name)[0].index


def test_whole_pages_are_dropped_and_the_rest_stays_congruent(library: bytes) -> None:
    layout = planned(library)
    code = code_of(read_elf(library))
    assert layout.dropped == code.size // PAGE * PAGE
    assert layout.dropped > 0
    assert layout.moved(code.offset) == code.offset
    assert layout.moved(code.offset + code.size) == code.offset + code.size - layout.dropped
    old = [s for s in read_segments(read_elf(library)) if s.type == 1]
    new = [s for s in layout.segments if s.type == 1]
    assert len(new) == len(old) + 1, "the segment around the code becomes two"
    assert layout.address >= max(s.address + s.memory_size for s in new)
    assert layout.address % PAGE == layout.offset % PAGE == 0


def test_the_new_segment_holds_the_table_and_the_code(library: bytes) -> None:
    data = laid_out(library)
    (last,) = (s for s in read_segments(read_elf(data)) if s.end == len(data))
    assert last.flags == READ_ONLY
    assert data[last.offset :].endswith(NEW_CODE)
    table, headers = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    assert table == last.offset
    assert last.file_size == headers * 56 + len(NEW_CODE)
    assert data[64 : 64 + 56].count(0) == 56, "the old table is empty"


def test_a_file_that_was_laid_out_before_gets_the_same_layout(library: bytes) -> None:
    data = laid_out(library)
    again = planned(data)
    assert again.dropped == 0
    assert (again.segments, again.address, again.offset) == (
        (first := planned(library)).segments,
        first.address,
        first.offset,
    )
    assert laid_out(data) == data


def test_bytes_are_changed_where_they_were(library: bytes) -> None:
    elf = read_elf(library)
    layout, code = plan(elf, code_of(elf)), code_of(elf)
    place = elf.named(".comment")[0].offset
    data = b"".join(host_pieces(elf, layout, code, 0, {place: b"changed"}))
    assert data[layout.moved(place) :].startswith(b"changed")


def test_changes_that_overlap_are_refused(library: bytes) -> None:
    elf = read_elf(library)
    layout, code = plan(elf, code_of(elf)), code_of(elf)
    for changes in ({10: b"x"}, {code.offset + 5: b"x"}, {1000: b"xx", 1001: b"x"}):
        with pytest.raises(FormatError, match="parts of the ELF file overlap"):
            list(host_pieces(elf, layout, code, 0, changes))


@pytest.mark.parametrize(("align", "message"), [(1 << 40, "alignment"), (5000, "alignment 5000")])
def test_alignments_that_cannot_be(library: bytes, align: int, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        planned(changed(library, row_of(library, ".text") + 0x30, "<Q", align))


def test_segments_that_cannot_be(library: bytes) -> None:
    with pytest.raises(FormatError, match="no segment loads its device code"):
        planned(changed(library, row_of(library, ".nv_fatbin") + 0x10, "<Q", 0x1000))
    loads = [i for i, s in enumerate(read_segments(read_elf(library))) if s.type == 1]
    with pytest.raises(FormatError, match="which no program has"):
        planned(changed(library, 64 + 56 * loads[-1] + 0x28, "<Q", 1 << 48))  # p_memsz
    place = code_of(read_elf(library)).offset
    others = [i for i, s in enumerate(read_segments(read_elf(library))) if s.type == 4]
    with pytest.raises(FormatError, match="it shares bytes with segment 0x4"):
        planned(changed(library, 64 + 56 * others[0] + 8, "<Q", place + 16))  # p_offset


def test_a_file_of_nothing_but_device_code_is_refused(library: bytes) -> None:
    """Nothing would be left that the new segment could stand behind."""
    code, data = code_of(read_elf(library)), library
    for index, segment in enumerate(read_segments(read_elf(library))):
        place = 64 + 56 * index
        if segment.type == 1 and segment.offset <= code.offset < segment.end:
            data = changed(data, place + 8, "<QQ", code.offset, code.address)
            data = changed(data, place + 32, "<QQ", code.size, code.size)
        else:
            data = changed(data, place, "<I", 0)  # PT_NULL
            data = changed(data, place + 8, "<Q", 0)
    with pytest.raises(FormatError, match="nothing but device code is loaded"):
        planned(data)
