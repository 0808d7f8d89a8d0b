"""A PE image with other device code, whatever it is: where it comes to lie, and what moves with it.

Read by LIEF; test_pe_linked.py has wrappers and containers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from fatwheel.errors import FormatError
from fatwheel.fatbin.container import Rewritten
from fatwheel.fatbin.pe import Pe, read_pe
from fatwheel.fatbin.pe_layout import Edits, plan
from fatwheel.fatbin.pe_layout import rewritten as finished

from ...helpers import peimages
from ...helpers.peimages import Part, host_part, parsed

OLD = peimages.entries((80, bytes(range(256)) * 80), (86, b"86"))
# Less and more than there was; what it is does not matter here.
THIN = b"thin" * 300
FAT = bytes(range(1, 256)) * 200


def laid_out(pe: Pe, pieces: Sequence[bytes]) -> Rewritten:
    (old,) = pe.named(".nv_fatb")
    return finished(plan(pe, old, pieces), ())


def rewritten(data: bytes, code: bytes) -> bytes:
    return b"".join(laid_out(read_pe(data), [code]).pieces)


def code_of(data: bytes, size: int) -> bytes:
    """The section with device code, as it is loaded, but for what only memory has; zeros follow."""
    [section] = [s for s in parsed(data).sections if s.name == ".nv_fatb" and s.size]
    content = bytes(section.content)
    assert not any(content[size:])
    assert section.virtual_size >= size
    return content[:size]


# -- ranges that are replaced --------------------------------------------------------------------


def test_edits_apply_in_the_file_s_order_whatever_order_they_are_made_in() -> None:
    edits = Edits(memoryview(b"0123456789"))
    edits.replace(8, 9, b"H", memoryview(b"hh"))
    edits.replace(2, 5)
    edits.replace(5, 5, b"+")
    assert b"".join(edits.pieces()) == b"01+567Hhh9"
    assert [edits.moved(offset) for offset in (0, 1, 2, 5, 7, 9, 10, 100)] == [
        0, 1, 2, 3, 5, 9, 10, 100,
    ]  # fmt: skip


def test_what_is_not_replaced_is_not_copied() -> None:
    data = memoryview(bytes(100))
    edits = Edits(data)
    edits.replace(10, 20, b"new", b"")
    assert [piece.obj for piece in edits.pieces() if isinstance(piece, memoryview)] == [
        data.obj
    ] * 2
    assert all(edits.pieces()), "empty pieces"


def test_offsets_of_what_is_replaced_lead_nowhere() -> None:
    edits = Edits(memoryview(bytes(100)))
    edits.replace(10, 20, b"new")
    assert (edits.moved(10), edits.moved(20)) == (10, 13)
    for inside in (11, 19):
        with pytest.raises(FormatError, match=f"into what is replaced, at {inside:#x}"):
            edits.moved(inside)


@pytest.mark.parametrize(("start", "end"), [(19, 30), (5, 11), (12, 13), (90, 101)])
def test_ranges_that_overlap_are_refused(start: int, end: int) -> None:
    edits = Edits(memoryview(bytes(100)))
    edits.replace(10, 20, b"new")
    edits.replace(start, end)
    with pytest.raises(FormatError, match="overlap"):
        edits.pieces()


# -- the new file --------------------------------------------------------------------------------


def test_changes_are_made_where_the_old_file_s_offsets_lead() -> None:
    """Behind the device code, which shrinks; and all else stays as it was."""
    image = peimages.library(OLD)
    pe = read_pe(image.write())
    (old,) = pe.named(".nv_fatb")
    place = image.offset(".reloc")
    was = bytes(pe.data[place : place + 8])
    new = b"".join(finished(plan(pe, old, [THIN]), [(place, b"changed!")]).pieces)
    plain = rewritten(image.write(), THIN)
    assert new == plain.replace(was, b"changed!", 1) != plain
    assert parsed(new).sections[4].name == ".reloc"
    assert bytes(parsed(new).sections[4].content)[:8] == b"changed!"


@pytest.mark.parametrize("last", [False, True])
def test_nothing_but_device_code_changes(last: bool) -> None:
    data = peimages.library(OLD, last=last).write()
    for code in (THIN, FAT):
        new = rewritten(data, code)
        assert host_part(new) == host_part(data)
        assert code_of(new, len(code)) == code
        assert new.endswith(peimages.TAIL), "what follows the sections is lost"


def test_the_last_section_in_memory_may_stand_anywhere_in_the_file() -> None:
    """What stands behind it in the file moves, and headers tell so."""
    image = peimages.library(OLD, last=True)
    data = bytearray(image.write())
    first, code = image.offset(".nvFatBi"), image.offset(".nv_fatb")
    end = code + len(image.parts[-1].padded)
    data[first:end] = data[code:end] + data[first:code]
    table = int.from_bytes(data[60:64], "little") + 24 + peimages.OPTIONAL + 2 * 40 + 20
    for index, offset in ((0, first + end - code), (2, first)):
        struct.pack_into("<I", data, table + index * 40, offset)
    struct.pack_into("<I", data, table + 40, image.offset(".reloc") + end - code)
    for code_ in (THIN, FAT):
        new = rewritten(bytes(data), code_)
        assert host_part(new) == host_part(bytes(data))
        assert code_of(new, len(code_)) == code_
        assert [s.name for s in sorted(parsed(new).sections, key=lambda s: s.offset)][2:] == [
            ".nv_fatb", ".nvFatBi", ".reloc",
        ]  # fmt: skip


def test_code_that_fits_lies_where_the_linker_put_it() -> None:
    """The section keeps its place in memory, whose end is not in the file any more."""
    image = peimages.library(OLD)
    data = image.write()
    whole = len(image.parts[2].content)
    for code in (THIN, bytes(whole - 1) + b"!"):
        new = rewritten(data, code)
        before, after = parsed(data), parsed(new)
        assert [s.name for s in after.sections] == [s.name for s in before.sections]
        section = after.sections[2]
        size = peimages.aligned(len(code), 512)
        assert (section.virtual_address, section.virtual_size) == (0x3000, whole)
        assert (section.offset, section.size) == (before.sections[2].offset, size)
        assert section.characteristics == 0x40000040
        assert new[section.offset :][:size] == code.ljust(size, b"\0")
        headers = after.optional_header
        assert headers.sizeof_image == before.optional_header.sizeof_image
        assert headers.sizeof_uninitialized_data == 0
        assert headers.sizeof_initialized_data == sum(
            s.size for s in after.sections if s.characteristics & 0x40
        )
        assert len(new) == len(data) - before.sections[2].size + size


def test_nothing_tells_that_code_was_appended_before() -> None:
    for image in (
        peimages.library(OLD),
        replace(peimages.library(OLD), room=0),
        replace(peimages.library(OLD), room=32, checksum=1, signature=bytes(64)),
        replace(peimages.library(OLD), tail=b"", symbols=False),
    ):
        data = peimages.with_debug_offset(image).write()
        fat = rewritten(data, FAT)
        assert len(parsed(fat).sections) == 6
        assert rewritten(fat, THIN) == rewritten(data, THIN)
        assert rewritten(rewritten(data, THIN), FAT) == fat
        assert rewritten(fat, FAT) == fat


def with_hole(data: bytes, offset: int, hole: bytes) -> bytes:
    """The image with bytes of no section at an offset, in front of all that stands there."""
    out = bytearray(data[:offset] + hole + data[offset:])
    start = int.from_bytes(data[60:64], "little")
    table = start + 24 + peimages.OPTIONAL
    [count] = struct.unpack_from("<H", data, start + 6)
    for place in (start + 12, *(table + 40 * number + 20 for number in range(count))):
        [old] = struct.unpack_from("<I", data, place)
        struct.pack_into("<I", out, place, old + (len(hole) if old >= offset else 0))
    return bytes(out)


@pytest.mark.parametrize("hole", [b"hole" * 128, bytes(512), b"hole" * 1024])
@pytest.mark.parametrize("front", [".nv_fatb", ".nvFatBi"])
def test_holes_around_the_code_do_not_tell_how_often_it_was_laid_out(
    front: str, hole: bytes
) -> None:
    """What of the file belongs to no section may be read by who wrote it: it stays."""
    image = peimages.library(OLD)
    data = with_hole(image.write(), image.offset(front), hole)
    thin, fat = rewritten(data, THIN), rewritten(data, FAT)
    for first in (thin, fat):
        assert rewritten(first, THIN) == thin
        assert rewritten(first, FAT) == fat
        assert hole in first
        assert host_part(first) == host_part(data)
    assert code_of(thin, len(THIN)) == THIN


def test_headers_with_other_data_do_not_shrink_again() -> None:
    """What somebody has put there since then."""
    data = peimages.with_debug_offset(replace(peimages.library(OLD), room=0)).write()
    fat = bytearray(rewritten(data, FAT))
    fat[0x5F0:0x5F4] = b"kept"
    new = rewritten(bytes(fat), THIN)
    assert parsed(new).optional_header.sizeof_headers == 0x600
    assert new[0x5F0:0x5F4] == b"kept"
    assert host_part(new) == host_part(data)
    assert code_of(new, len(THIN)) == THIN


def test_only_a_section_that_was_emptied_here_is_filled_again() -> None:
    """A section of that name without bytes may be somebody else's, for what a program counts in."""
    image = peimages.library(OLD, last=True)
    counters = Part(".nv_fatb", 0x8000, b"", 0xC0000080)
    parts = [*image.parts[:4], replace(image.parts[4], address=0x10000)]
    data = bytearray(replace(image, parts=[*parts[:2], *parts[2:4], counters, parts[4]]).write())
    table = int.from_bytes(data[60:64], "little") + 24 + peimages.OPTIONAL
    struct.pack_into("<I", data, table + 4 * 40 + 8, 0x4000)
    new = rewritten(bytes(data), THIN)
    assert [s.virtual_address for s in parsed(new).sections if s.size][-1] == 0x10000
    assert parsed(new).sections[4].size == 0


def test_an_image_near_the_limit_is_edited_where_the_code_fits() -> None:
    far = Part(".far", 0x7FFFD000, bytes(4096))
    image = peimages.library(OLD)
    data = replace(image, parts=[*image.parts, far]).write()
    before = read_pe(data)
    after = read_pe(rewritten(data, THIN))
    assert [(s.address, s.extent) for s in after.sections] == [
        (s.address, s.extent) for s in before.sections
    ]
    assert code_of(bytes(after.data), len(THIN)) == THIN


def test_an_appended_section_follows_all_others_and_the_old_one_takes_no_bytes() -> None:
    image = peimages.library(OLD)
    data = image.write()
    new = rewritten(data, FAT)
    before, after = parsed(data), parsed(new)
    assert [s.name for s in after.sections] == [*(s.name for s in before.sections), ".nv_fatb"]
    old, appended = after.sections[2], after.sections[5]
    size = len(FAT)
    assert (old.virtual_address, old.virtual_size) == (0x3000, len(image.parts[2].content))
    assert (old.size, old.offset, old.characteristics) == (0, 0, 0x40000080)
    reloc = image.parts[4].address
    assert (appended.virtual_address, appended.virtual_size) == (reloc + 4096, size)
    assert (appended.size, appended.characteristics) == (peimages.aligned(size, 512), 0x40000040)
    assert new[appended.offset :][: appended.size] == FAT.ljust(appended.size, b"\0")
    assert after.optional_header.sizeof_image == reloc + 4096 + peimages.aligned(size, 4096)
    assert after.optional_header.sizeof_headers == 0x400
    assert after.optional_header.sizeof_initialized_data == sum(
        s.size for s in after.sections if s.characteristics & 0x40
    )
    dead = peimages.aligned(len(image.parts[2].content), 512)
    assert after.optional_header.sizeof_uninitialized_data == dead
    assert len(new) == len(data) - dead + appended.size


def test_the_last_section_is_replaced_where_it_is() -> None:
    data = peimages.library(OLD, last=True).write()
    for code in (THIN, FAT):
        new = rewritten(data, code)
        before, after = parsed(data), parsed(new)
        size = len(code)
        section = after.sections[-1]
        assert [s.name for s in after.sections] == [s.name for s in before.sections]
        assert section.virtual_address == before.sections[-1].virtual_address
        assert (section.virtual_size, section.size) == (size, peimages.aligned(size, 512))
        end = section.virtual_address + size
        assert after.optional_header.sizeof_image == peimages.aligned(end, 4096)
        assert len(new) == len(data) - before.sections[-1].size + section.size


def test_a_section_without_virtual_size_keeps_its_addresses() -> None:
    data = bytearray(peimages.library(OLD).write())
    header = int.from_bytes(data[60:64], "little") + 24 + peimages.OPTIONAL + 2 * 40
    [size] = struct.unpack_from("<I", data, header + 16)
    struct.pack_into("<I", data, header + 8, 0)
    old = parsed(rewritten(bytes(data), FAT)).sections[2]
    assert (old.virtual_size, old.size) == (size, 0)


def test_the_new_section_is_aligned_where_the_last_one_ends_anywhere() -> None:
    image = replace(peimages.library(OLD), symbols=False, tail=b"")
    whole = image.write()
    cut = len(image.parts[4].padded) - len(image.parts[4].content) - 2
    data = bytearray(whole[:-cut])
    header = int.from_bytes(data[60:64], "little") + 24 + peimages.OPTIONAL + 4 * 40
    struct.pack_into("<I", data, header + 16, len(image.parts[4].content) + 2)
    new = rewritten(bytes(data), FAT)
    assert parsed(new).sections[5].offset % 512 == 0
    assert code_of(new, len(FAT)) == FAT
    thin = rewritten(bytes(data), THIN)
    assert rewritten(new, THIN) == thin
    assert rewritten(thin, FAT) == new


def test_the_checksum_is_right_where_there_was_one() -> None:
    assert parsed(rewritten(peimages.library(OLD).write(), FAT)).optional_header.checksum == 0
    for tail, code in ((b"", FAT), (b"odd", FAT), (b"even", FAT[:-1])):
        image = replace(peimages.library(OLD), checksum=1, tail=tail, symbols=False)
        new = rewritten(image.write(), code)
        stored = parsed(new).optional_header.checksum
        assert stored == peimages.checksum(new), tail
        assert stored == parsed(new).compute_checksum(), tail


def test_the_checksum_is_the_same_however_the_code_is_cut_in_pieces() -> None:
    """It is a sum of 16-bit numbers, which pieces of odd sizes cut in two."""
    pe = read_pe(replace(peimages.library(OLD), checksum=1).write())
    pieces = [THIN[:1], THIN[1:4], THIN[4:10], THIN[10:]]
    assert b"".join(laid_out(pe, pieces).pieces) == rewritten(bytes(pe.data), THIN)


def test_a_signature_is_dropped_with_a_note() -> None:
    plain = peimages.library(OLD)
    signed = read_pe(replace(plain, signature=b"signature" * 8).write())
    new = laid_out(signed, [THIN])
    assert b"".join(new.pieces) == rewritten(plain.write(), THIN)
    (note,) = new.notes
    assert "Authenticode signature was dropped" in note
    assert laid_out(read_pe(plain.write()), [THIN]).notes == ()


@pytest.mark.parametrize("room", [0, 8, 32])
def test_headers_grow_where_there_is_no_room_for_another(room: int) -> None:
    image = replace(peimages.library(OLD), room=room, gap=b"")
    data = peimages.with_debug_offset(image).write()
    new = rewritten(data, FAT)
    assert parsed(new).optional_header.sizeof_headers == 0x600
    assert host_part(new) == host_part(data)
    assert code_of(new, len(FAT)) == FAT
    (debug,) = parsed(new).debug
    assert new[debug.pointerto_rawdata :].startswith(peimages.DEBUG_DATA)
    assert parsed(new).header.pointerto_symbol_table == len(new) - len(peimages.TAIL)


def test_forty_bytes_are_room_enough() -> None:
    new = rewritten(replace(peimages.library(OLD), room=40).write(), FAT)
    assert parsed(new).optional_header.sizeof_headers == 0x400


def test_what_stands_behind_the_section_headers_is_not_overwritten() -> None:
    image = peimages.library(OLD)
    with pytest.raises(FormatError, match="other data follows the last one"):
        rewritten(replace(image, gap=bytes(39) + b"!").write(), FAT)
    bound = {**image.directories, 11: (0x400 - image.room + 32, 48)}
    with pytest.raises(FormatError, match="other data follows the last one"):
        rewritten(replace(image, directories=bound).write(), FAT)
    behind = replace(image, gap=bytes(40) + b"bound imports")
    assert b"bound imports" in rewritten(behind.write(), FAT)[:0x400]


def test_headers_do_not_grow_into_the_first_section() -> None:
    data = bytearray(replace(peimages.library(OLD), room=0).write())
    start = int.from_bytes(data[60:64], "little")
    struct.pack_into("<I", data, start + 24 + peimages.OPTIONAL + 12, 0x400)
    with pytest.raises(FormatError, match="no room for one more section header: the first"):
        rewritten(bytes(data), FAT)


def test_debug_directories_that_cannot_be_are_refused() -> None:
    image = peimages.library(OLD)
    for place, said in (
        ((0x100, 28), "parts of the PE image overlap"),  # within the headers
        ((0x2000, 1 << 17), "131072 bytes of debug directory"),
    ):
        with pytest.raises(FormatError, match=said):
            rewritten(replace(image, directories={**image.directories, 6: place}).write(), THIN)


def test_an_image_larger_than_windows_loads_is_refused() -> None:
    far = Part(".far", 0x7FFFD000, bytes(4096))
    image = peimages.library(OLD)
    with pytest.raises(FormatError, match="larger than Windows loads"):
        rewritten(replace(image, parts=[*image.parts, far]).write(), FAT)


def symbols(data: bytearray, offset: int) -> None:
    """Let the COFF header say that the symbol table stands there."""
    struct.pack_into("<I", data, int.from_bytes(data[60:64], "little") + 12, offset)


def debug(data: bytearray, offset: int) -> None:
    """Let the debug directory say that its data stands there."""
    struct.pack_into("<I", data, peimages.library(OLD).offset(".rdata") + 24, offset)


@pytest.mark.parametrize("spoil", [symbols, debug])
@pytest.mark.parametrize(
    ("offset", "said"),
    [
        (0x100, "points into what is replaced, at 0x100"),
        (peimages.library(OLD).offset(".nv_fatb") + 1, "points into what is replaced"),
        (0xFFFFFFF0, "points to 0xfffffff0, behind the file"),
    ],
)
def test_offsets_that_cannot_be_are_refused(
    spoil: Callable[[bytearray, int], None], offset: int, said: str
) -> None:
    data = bytearray(peimages.library(OLD).write())
    spoil(data, offset)
    with pytest.raises(FormatError, match=said):
        rewritten(bytes(data), FAT)


@pytest.mark.parametrize("place", [0, 0x500])
def test_a_signature_between_other_bytes_is_refused(place: int) -> None:
    data = bytearray(replace(peimages.library(OLD), signature=bytes(8)).write())
    header = int.from_bytes(data[60:64], "little") + 24
    struct.pack_into("<I", data, header + 112 + 32, place)
    with pytest.raises(FormatError, match="signature is not where signatures lie"):
        rewritten(bytes(data), THIN)
