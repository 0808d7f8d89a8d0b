"""PE images with other device code: what changes, what must not, what is refused; read by LIEF."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import lief
import pytest

from fatwheel.errors import FormatError
from fatwheel.fatbin.container import Entry
from fatwheel.fatbin.linked import Rewritten
from fatwheel.fatbin.pe import read_pe
from fatwheel.fatbin.pe_linked import rewrite_linked

from . import peimages
from .peimages import BASE, Image, Part

SMALL, LARGE = bytes(range(64)), bytes(range(256)) * 40
OLD = (
    peimages.entries((80, LARGE), (86, SMALL)),
    peimages.entries((80, SMALL), (86, LARGE)),
)
THIN = (OLD[0][1:], OLD[1][:1])
FAT = tuple(peimages.entries((75, LARGE), (80, LARGE), (90, SMALL)) for _ in OLD)


@lru_cache(64)
def parsed(data: bytes) -> lief.PE.Binary:
    """Kept, for LIEF's sections are views that do not keep their file alive."""
    binary = lief.PE.parse(list(data))
    assert binary is not None, "LIEF does not read it"
    return binary


def rewritten(data: bytes, contents: Sequence[Sequence[Entry]]) -> bytes:
    return b"".join(rewrite_linked(read_pe(data), contents).pieces)


def loaded(data: bytes, address: int, size: int) -> bytes:
    """What is in memory at an address counted from the image's start, as LIEF sees it."""
    return bytes(parsed(data).get_content_from_virtual_address(BASE + address, size))


def found_through_wrappers(data: bytes) -> list[bytes]:
    """The containers that the wrappers lead to, as CUDA's runtime finds them."""
    section = parsed(data).get_section(".nvFatBi")
    containers = []
    for place in range(0, section.virtual_size, 24):
        row = struct.unpack("<IIQQ", bytes(section.content)[place : place + 24])
        assert row[:2] + row[3:] == (0x466243B1, 1, 0), f"a damaged wrapper: {row}"
        size = struct.unpack("<Q", loaded(data, row[2] - BASE + 8, 8))[0]
        containers.append(loaded(data, row[2] - BASE, 16 + size))
    return containers


def host_part(data: bytes) -> list[tuple[str, int, int, bytes]]:
    """All sections but device code: name, addresses, bytes without the wrappers' pointers."""
    rows = []
    for section in parsed(data).sections:
        content = bytearray(section.content)
        if section.name == ".nvFatBi":
            for place in range(8, section.virtual_size, 24):
                content[place : place + 8] = bytes(8)
        if section.name == ".rdata":
            content[24:28] = bytes(4)  # where debug data stands in the file: tested by itself
        if section.name != ".nv_fatb":
            rows.append(
                (section.name, section.virtual_address, section.virtual_size, bytes(content))
            )
    return rows


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("contents", [THIN, FAT, ((), ())])
def test_wrappers_lead_to_the_new_containers_and_nothing_else_changes(
    last: bool, contents: Sequence[Sequence[Entry]]
) -> None:
    data = peimages.library(*OLD, last=last).write()
    new = rewritten(data, contents)
    assert found_through_wrappers(new) == [peimages.container(images) for images in contents]
    assert host_part(new) == host_part(data)
    assert new.endswith(peimages.TAIL), "what follows the sections is lost"
    before, after = parsed(data), parsed(new)
    assert [(d.rva, d.size) for d in after.data_directories] == [
        (d.rva, d.size) for d in before.data_directories
    ]
    assert after.header.pointerto_symbol_table == len(new) - len(peimages.TAIL)
    (debug,) = after.debug
    assert new[debug.pointerto_rawdata :].startswith(peimages.DEBUG_DATA)


def test_an_appended_section_follows_all_others_and_the_old_one_takes_no_bytes() -> None:
    image = peimages.library(*OLD)
    data = image.write()
    new = rewritten(data, THIN)
    before, after = parsed(data), parsed(new)
    assert [s.name for s in after.sections] == [*(s.name for s in before.sections), ".nv_fatb"]
    old, appended = after.sections[2], after.sections[5]
    size = sum(len(peimages.container(images)) for images in THIN)
    assert (old.virtual_address, old.virtual_size) == (0x3000, len(image.parts[2].content))
    assert (old.size, old.offset, old.characteristics) == (0, 0, 0x40000080)
    reloc = image.parts[4].address
    assert (appended.virtual_address, appended.virtual_size) == (reloc + 4096, size)
    assert (appended.size, appended.characteristics) == (peimages.aligned(size, 512), 0x40000040)
    assert not any(bytes(appended.content)[size:]), "padding that is not zero"
    assert after.optional_header.sizeof_image == reloc + 4096 + peimages.aligned(size, 4096)
    assert after.optional_header.sizeof_headers == 0x400
    assert after.optional_header.sizeof_initialized_data == sum(
        s.size for s in after.sections if s.characteristics & 0x40
    )
    dead = peimages.aligned(len(image.parts[2].content), 512)
    assert after.optional_header.sizeof_uninitialized_data == dead
    assert len(new) == len(data) - dead + appended.size


def test_the_last_section_is_replaced_where_it_is() -> None:
    data = peimages.library(*OLD, last=True).write()
    for contents in (THIN, FAT):
        new = rewritten(data, contents)
        before, after = parsed(data), parsed(new)
        size = sum(len(peimages.container(images)) for images in contents)
        section = after.sections[-1]
        assert [s.name for s in after.sections] == [s.name for s in before.sections]
        assert section.virtual_address == before.sections[-1].virtual_address
        assert (section.virtual_size, section.size) == (size, peimages.aligned(size, 512))
        end = section.virtual_address + size
        assert after.optional_header.sizeof_image == peimages.aligned(end, 4096)
        assert len(new) == len(data) - before.sections[-1].size + section.size


def test_a_section_without_virtual_size_keeps_its_addresses() -> None:
    data = bytearray(peimages.library(*OLD).write())
    header = int.from_bytes(data[60:64], "little") + 24 + peimages.OPTIONAL + 2 * 40
    [size] = struct.unpack_from("<I", data, header + 16)
    struct.pack_into("<I", data, header + 8, 0)
    old = parsed(rewritten(bytes(data), THIN)).sections[2]
    assert (old.virtual_size, old.size) == (size, 0)


def test_the_new_section_is_aligned_where_the_last_one_ends_anywhere() -> None:
    image = replace(peimages.library(*OLD), symbols=False, tail=b"")
    whole = image.write()
    cut = len(image.parts[4].padded) - len(image.parts[4].content) - 2
    data = bytearray(whole[:-cut])
    header = int.from_bytes(data[60:64], "little") + 24 + peimages.OPTIONAL + 4 * 40
    struct.pack_into("<I", data, header + 16, len(image.parts[4].content) + 2)
    new = rewritten(bytes(data), THIN)
    assert parsed(new).sections[5].offset % 512 == 0
    assert found_through_wrappers(new) == [peimages.container(images) for images in THIN]
    assert rewritten(rewritten(bytes(data), FAT), THIN) == new


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("room", [0, 32, 80])
def test_only_the_host_part_and_the_contents_decide(last: bool, room: int) -> None:
    image = replace(peimages.library(*OLD, last=last), room=room, checksum=1, signature=bytes(64))
    data = peimages.with_debug_offset(image).write()
    thin, fat = rewritten(data, THIN), rewritten(data, FAT)
    assert rewritten(thin, THIN) == thin
    assert rewritten(fat, THIN) == thin
    assert rewritten(thin, FAT) == fat


def test_the_checksum_is_right_where_there_was_one() -> None:
    assert parsed(rewritten(peimages.library(*OLD).write(), FAT)).optional_header.checksum == 0
    odd = (peimages.entries((80, b"\1\2\3"), (90, b"\4\5")), peimages.entries((90, b"\6")))
    for tail, contents in ((b"", FAT), (b"odd", FAT), (b"even", odd)):
        image = replace(peimages.library(*OLD), checksum=1, tail=tail, symbols=False)
        new = rewritten(image.write(), contents)
        stored = parsed(new).optional_header.checksum
        assert stored == peimages.checksum(new), tail
        assert stored == parsed(new).compute_checksum(), tail


def test_a_signature_is_dropped_with_a_note() -> None:
    plain = peimages.library(*OLD)
    signed = read_pe(replace(plain, signature=b"signature" * 8).write())
    new = rewrite_linked(signed, THIN)
    assert b"".join(new.pieces) == rewritten(plain.write(), THIN)
    (note,) = new.notes
    assert "Authenticode signature was dropped" in note
    assert rewrite_linked(read_pe(plain.write()), THIN).notes == ()


@pytest.mark.parametrize("room", [0, 8, 32])
def test_headers_grow_where_there_is_no_room_for_another(room: int) -> None:
    image = replace(peimages.library(*OLD), room=room, gap=b"")
    data = peimages.with_debug_offset(image).write()
    new = rewritten(data, THIN)
    assert parsed(new).optional_header.sizeof_headers == 0x600
    assert host_part(new) == host_part(data)
    assert found_through_wrappers(new) == [peimages.container(images) for images in THIN]
    (debug,) = parsed(new).debug
    assert new[debug.pointerto_rawdata :].startswith(peimages.DEBUG_DATA)
    assert parsed(new).header.pointerto_symbol_table == len(new) - len(peimages.TAIL)


def test_forty_bytes_are_room_enough() -> None:
    new = rewritten(replace(peimages.library(*OLD), room=40).write(), THIN)
    assert parsed(new).optional_header.sizeof_headers == 0x400


def test_what_stands_behind_the_section_headers_is_not_overwritten() -> None:
    image = peimages.library(*OLD)
    with pytest.raises(FormatError, match="other data follows the last one"):
        rewritten(replace(image, gap=bytes(39) + b"!").write(), THIN)
    bound = {**image.directories, 11: (0x400 - image.room + 32, 48)}
    with pytest.raises(FormatError, match="other data follows the last one"):
        rewritten(replace(image, directories=bound).write(), THIN)
    behind = replace(image, gap=bytes(40) + b"bound imports")
    assert b"bound imports" in rewritten(behind.write(), THIN)[:0x400]


def test_headers_do_not_grow_into_the_first_section() -> None:
    data = bytearray(replace(peimages.library(*OLD), room=0).write())
    start = int.from_bytes(data[60:64], "little")
    struct.pack_into("<I", data, start + 24 + peimages.OPTIONAL + 12, 0x400)
    with pytest.raises(FormatError, match="no room for one more section header: the first"):
        rewritten(bytes(data), THIN)


def test_the_new_file_consists_of_views_of_the_old_one() -> None:
    entries = peimages.entries((80, bytes(1 << 20)), (86, bytes(1 << 20)))
    data = peimages.library(entries).write()
    new = rewrite_linked(read_pe(data), (entries[:1],))
    assert isinstance(new, Rewritten)
    assert sum(len(piece) for piece in new.pieces if isinstance(piece, bytes)) < 4096


def test_empty_containers_that_nothing_uses_are_dropped() -> None:
    image = peimages.library(*OLD, spare=peimages.container(()))
    assert rewritten(image.write(), (*THIN, ())) == rewritten(
        rewritten(image.write(), (*FAT, ())), THIN
    )
    with pytest.raises(ValueError, match="contents for 2 containers, of 3"):
        rewritten(image.write(), THIN)


def test_a_library_with_nothing_but_an_unused_container_stays_as_it_is() -> None:
    data = peimages.library(spare=peimages.container(())).write()
    assert rewritten(data, ((),)) == data


def changed(section: str, content: bytes | None = None, name: str | None = None) -> Image:
    """The library with one section changed."""
    image = peimages.library(*OLD)
    parts = []
    for part in image.parts:
        if part.name == section:
            part = replace(part, content=content or part.content, name=name or section)
        parts.append(part)
    return replace(image, parts=parts)


def relocated(*more: int, wrappers: bool = True) -> Image:
    """The library with other base relocations."""
    image = peimages.library(*OLD)
    behind = image.parts[3].address
    places = [behind + 8, behind + 32] if wrappers else [behind + 8]
    table = peimages.relocation_table([*places, *more])
    new = changed(".reloc", table)
    return replace(new, directories={**new.directories, 5: (image.parts[4].address, len(table))})


def pointing(place: int, target: int) -> Image:
    """The library with a relocated pointer in .rdata that leads into the image."""
    image = relocated(0x2000 + place)
    content = bytearray(image.parts[1].content)
    struct.pack_into("<Q", content, place, BASE + target)
    parts = [image.parts[0], replace(image.parts[1], content=bytes(content)), *image.parts[2:]]
    return replace(image, parts=parts)


def test_pointers_elsewhere_are_left_alone() -> None:
    end = 0x3000 + len(peimages.library(*OLD).parts[2].padded)
    for target in (0x2FFF, end):
        data = pointing(0x2F8, target).write()
        assert host_part(rewritten(data, THIN)) == host_part(data)


def test_a_wrapper_of_an_image_that_is_never_moved_needs_no_relocation() -> None:
    data = replace(relocated(wrappers=False), dll_flags=0x120).write()
    expected = [peimages.container(images) for images in THIN]
    assert found_through_wrappers(rewritten(data, THIN)) == expected
    stripped = replace(relocated(wrappers=False), flags=0x2023).write()
    assert found_through_wrappers(rewritten(stripped, THIN)) == expected


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (replace(peimages.library(*OLD), machine=0xAA64), "for aarch64 cannot be rewritten"),
        (replace(peimages.library(*OLD), machine=0x14C), "for x86 cannot be rewritten"),
        (changed(".nv_fatb", name=".rodata"), "it has no device code"),
        (changed(".nv_fatb", name="__nv_rel"), "__nv_rel: its device code is only relocatable"),
        (changed(".rdata", name=".nv_fatb"), "2 sections named .nv_fatb"),
        (changed(".rdata", name=".nvFatBi"), "2 sections named .nvFatBi"),
        (changed(".nvFatBi", name=".data"), "nothing shows how the program finds"),
        (relocated(wrappers=False), "its pointer has no base relocation"),
        (relocated(0x3010), "device code is changed while it is loaded"),
        (pointing(0x2F8, 0x3000), "no fatbin wrapper points into it, at address 0x1800022f8"),
        (pointing(0x1A0, 0x3000), "points into it"),
    ],
)
def test_what_cannot_be_edited_is_refused(image: Image, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        rewritten(image.write(), THIN)


def test_a_section_too_large_for_wrappers_is_refused() -> None:
    image = peimages.library(*OLD)
    wrappers = replace(image.parts[3], content=bytes(1 << 20) + b"x")
    parts = [*image.parts[:3], wrappers, replace(image.parts[4], address=1 << 28)]
    directories = {**image.directories, 5: (1 << 28, image.directories[5][1])}
    with pytest.raises(FormatError, match=r"\.nvFatBi: it cannot be 1049088 bytes"):
        rewritten(replace(image, parts=parts, directories=directories).write(), THIN)


def test_exports_and_directories_in_the_device_code_are_refused() -> None:
    image = peimages.library(*OLD)
    content = bytearray(image.parts[1].content)
    struct.pack_into("<I", content, 0x1A0, 0x3008)
    exported = changed(".rdata", bytes(content))
    pointed = replace(image, directories={**image.directories, 12: (0x3008, 16)})
    for refused in (exported, pointed):
        with pytest.raises(FormatError, match="something in it is exported"):
            rewritten(refused.write(), THIN)


@pytest.mark.parametrize(
    ("offset", "value", "said"),
    [
        (24 + 32, 512, "alignment of PE sections 512"),
        (24 + 36, 0, "in the file 0: not supported"),
        (24 + 36, 768, "in the file 768: not supported"),
        (24 + 60, 0x200, "the PE header is not as linkers write it"),
        (24 + 28, 0x10000, "cannot be loaded at"),
        (12, 0x100, "the PE header points into what is replaced"),
        (24 + 112 + 32, 0x500, "signature is not where signatures lie"),
        (24 + 240 + 2 * 40 + 16, 0x1001, "its size is not aligned"),
        (24 + 240 + 40 + 20, 0x401, "its bytes are not aligned, overlap others"),
        (24 + 240 + 40 + 20, 0x400, "its bytes are not aligned, overlap others"),
    ],
)
def test_headers_that_no_linker_writes_are_refused(offset: int, value: int, said: str) -> None:
    data = bytearray(replace(peimages.library(*OLD), signature=bytes(8)).write())
    struct.pack_into("<I", data, int.from_bytes(data[60:64], "little") + offset, value)
    with pytest.raises(FormatError, match=said):
        rewritten(bytes(data), THIN)


def test_debug_directories_that_cannot_be_are_refused() -> None:
    image = peimages.library(*OLD)
    for place, said in (
        ((image.parts[3].address, 28), "parts of the PE image overlap"),
        ((0x2000, 1 << 17), "131072 bytes of debug directory"),
    ):
        with pytest.raises(FormatError, match=said):
            rewritten(replace(image, directories={**image.directories, 6: place}).write(), THIN)


def test_an_image_larger_than_windows_loads_is_refused() -> None:
    far = Part(".far", 0x7FFFD000, bytes(4096))
    image = peimages.library(*OLD)
    with pytest.raises(FormatError, match="larger than Windows loads"):
        rewritten(replace(image, parts=[*image.parts, far]).write(), FAT)
