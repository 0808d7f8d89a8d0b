"""PE images with other device code: what changes, what must not, what is refused; read by LIEF."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest

from fatwheel.decoders import may_have_kernels
from fatwheel.errors import FormatError
from fatwheel.fatbin.container import Entry, Rewritten
from fatwheel.fatbin.pe import read_pe
from fatwheel.fatbin.pe_linked import rewrite_linked

from ...helpers import peimages
from ...helpers.peimages import BASE, Image, host_part, parsed

SMALL, LARGE = bytes(range(64)), bytes(range(256)) * 40
OLD = (
    peimages.entries((80, LARGE), (86, SMALL)),
    peimages.entries((80, SMALL), (86, LARGE)),
)
THIN = (OLD[0][1:], OLD[1][:1])
FAT = tuple(peimages.entries((75, LARGE), (80, LARGE), (90, SMALL)) for _ in OLD)


def rewritten(data: bytes, contents: Sequence[Sequence[Entry]]) -> bytes:
    return b"".join(rewrite_linked(read_pe(data), contents, may_have_kernels).pieces)


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


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("room", [0, 32, 80])
def test_only_the_host_part_and_the_contents_decide(last: bool, room: int) -> None:
    image = replace(peimages.library(*OLD, last=last), room=room, checksum=1, signature=bytes(64))
    data = peimages.with_debug_offset(image).write()
    thin, fat = rewritten(data, THIN), rewritten(data, FAT)
    assert rewritten(thin, THIN) == thin
    assert rewritten(fat, THIN) == thin
    assert rewritten(thin, FAT) == fat


def test_the_new_file_consists_of_views_of_the_old_one() -> None:
    entries = peimages.entries((80, bytes(1 << 20)), (86, bytes(1 << 20)))
    data = peimages.library(entries).write()
    new = rewrite_linked(read_pe(data), (entries[:1],), may_have_kernels)
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
        (24 + 240 + 2 * 40 + 16, 0x1001, "its size is not aligned"),
        (24 + 240 + 40 + 20, 0x401, "its bytes are not aligned, overlap others"),
        (24 + 240 + 40 + 20, 0x400, "its bytes are not aligned, overlap others"),
    ],
)
def test_headers_that_no_linker_writes_are_refused(offset: int, value: int, said: str) -> None:
    data = bytearray(peimages.library(*OLD).write())
    struct.pack_into("<I", data, int.from_bytes(data[60:64], "little") + offset, value)
    with pytest.raises(FormatError, match=said):
        rewritten(bytes(data), THIN)
