"""The PE reader, against LIEF, on images made by hand and on real ones of three machines."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import installer
import pytest

from fatwheel.errors import FormatError
from fatwheel.fatbin.pe import (
    base_relocations,
    exported_addresses,
    exports,
    imports,
    is_pe,
    read_pe,
)

from ...helpers import peimages
from ...helpers.peimages import Part, parsed

MACHINES = {"I386": "x86", "AMD64": "x86_64", "ARM64": "aarch64"}
ONE = peimages.entries((80, b"8" * 16))


def launchers() -> list[Path]:
    """The programs that start scripts on Windows, as `installer` has them: made by MSVC for three
    machines. (pip has them too, but not where Debian packages it.)"""
    found = sorted(Path(installer.__file__).parent.glob("_scripts/[tw][36][24]*.exe"))
    assert len(found) == 6, found
    return found


def samples() -> list[bytes]:
    made = [peimages.library(ONE, ONE, last=last).write() for last in (False, True)]
    return [*made, *(path.read_bytes() for path in launchers())]


def test_headers_and_sections_are_those_that_lief_reads() -> None:
    for data in samples():
        ours, theirs = read_pe(data), parsed(data)
        optional = theirs.optional_header
        assert ours.machine == MACHINES[theirs.header.machine.name]
        assert ours.wide == (optional.magic.name == "PE32_PLUS")
        assert (ours.base, ours.headers) == (optional.imagebase, optional.sizeof_headers)
        assert ours.section_alignment == optional.section_alignment
        assert ours.file_alignment == optional.file_alignment
        assert ours.checksum == optional.checksum
        assert ours.symbols == theirs.header.pointerto_symbol_table
        assert ours.dll_flags == optional.dll_characteristics
        rows = [
            (s.name, s.address, s.virtual_size, s.size, s.offset, s.flags) for s in ours.sections
        ]
        assert rows == [
            (s.name, s.virtual_address, s.virtual_size, s.size, s.offset, s.characteristics)
            for s in theirs.sections
        ]
        assert list(ours.directories) == [(d.rva, d.size) for d in theirs.data_directories]
        for section, theirs_ in zip(ours.sections, theirs.sections, strict=True):
            content = bytes(ours.content(section))
            assert content == bytes(theirs_.content)[: section.virtual_size], section.name


def test_imports_exports_and_relocations_are_those_that_lief_reads() -> None:
    for data in samples():
        ours, theirs = read_pe(data), parsed(data)
        libraries = [entry.name for entry in (*theirs.imports, *theirs.delay_imports)]
        assert list(imports(ours)) == libraries
        table = theirs.get_export()
        functions = list(table.entries) if table else []
        assert list(exports(ours)) == [entry.name for entry in functions]
        assert list(exported_addresses(ours)) == [entry.address for entry in functions]
        assert sorted(base_relocations(ours)) == sorted(
            (relocation.virtual_address + entry.position, entry.type.value & 0xF)
            for relocation in theirs.relocations
            for entry in relocation.entries
            if entry.type.value & 0xF
        )


def test_imports_and_exports_of_a_library_made_by_hand() -> None:
    pe = read_pe(peimages.library(ONE).write())
    assert imports(pe) == (*peimages.IMPORTED, *peimages.DELAYED)
    assert exports(pe) == peimages.EXPORTED
    assert exported_addresses(pe) == (0x1000, 0x1000)


def test_what_begins_like_a_pe_image_is_told_from_what_does_not() -> None:
    data = peimages.library(ONE).write()
    assert is_pe(data[:4096])
    for other in (b"", b"MZ", b"MZ" + bytes(62), b"\x7fELF" + data[4:], data[:60]):
        assert not is_pe(other), other[:8]
        with pytest.raises(FormatError, match="not a PE image"):
            read_pe(other)


def test_a_section_is_as_long_as_file_and_memory_agree() -> None:
    image = peimages.Image([Part(".text", 0x1000, b"abc")])
    data = bytearray(image.write())
    table = 0x400 - image.room - 40
    assert bytes(read_pe(bytes(data)).content(read_pe(bytes(data)).sections[0])) == b"abc"
    struct.pack_into("<I", data, table + 8, 0x10000)  # zeros follow when it is loaded
    pe = read_pe(bytes(data))
    assert bytes(pe.content(pe.sections[0])) == b"abc" + bytes(509)
    struct.pack_into("<I", data, table + 8, 0)  # Windows takes the size in the file, then
    pe = read_pe(bytes(data))
    assert len(pe.content(pe.sections[0])) == pe.sections[0].extent == 512


def test_only_sections_with_content_are_named() -> None:
    empty = replace(Part(".nv_fatb", 0x1000, b""), flags=0x40000080)
    pe = read_pe(peimages.Image([empty, Part(".nv_fatb", 0x2000, b"x")]).write())
    assert [section.index for section in pe.named(".nv_fatb")] == [1]
    assert pe.named(".text") == ()


def damaged(offset: int, value: int, image: peimages.Image | None = None) -> bytes:
    """A library with one 32-bit number changed, counted from its PE signature."""
    data = bytearray((image or peimages.library(ONE)).write())
    start = int.from_bytes(data[60:64], "little")
    struct.pack_into("<I", data, start + offset, value)
    return bytes(data)


SECTIONS = 24 + peimages.OPTIONAL
DIRECTORIES = 24 + 112


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (damaged(4, 0xFFFF8664), "the PE headers of 65535 sections are cut off"),
        (damaged(20, 0x20220010), "optional header of 16 bytes is malformed"),
        (damaged(24, 0x0107), "optional header of 240 bytes is malformed"),
        (damaged(20, 0x20220080), "16 PE data directories are cut off"),
        (damaged(SECTIONS + 40 + 12, 0x800), "overlaps the section in front"),
        (peimages.library(ONE).write()[:0x1F0], "the PE header is cut off"),
        (peimages.library(ONE).write()[:0x2F0], "headers of 5 sections are cut off"),
    ],
)
def test_malformed_headers_are_refused(data: bytes, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        read_pe(data)


@pytest.mark.parametrize(
    ("directory", "value", "said"),
    [
        (0, 0x900000, "nothing in the file is loaded at address 0x900000"),
        (0, 0x22F0, "cut off"),
        (1, 0x22F0, "imported PE libraries is cut off"),
        (13, 0x22F0, "imported PE libraries is cut off"),
        (5, 0x2000, "base relocations"),
    ],
)
def test_malformed_tables_are_refused(directory: int, value: int, said: str) -> None:
    pe = read_pe(damaged(DIRECTORIES + 8 * directory, value))
    with pytest.raises(FormatError, match=said):
        (imports(pe), exports(pe), list(base_relocations(pe)))


def test_a_name_without_end_and_too_many_exports_are_refused() -> None:
    image = peimages.library(ONE)
    read_only = bytearray(image.parts[1].content)
    struct.pack_into("<I", read_only, 0x150 + 24, 65537)
    parts = [image.parts[0], replace(image.parts[1], content=bytes(read_only)), *image.parts[2:]]
    with pytest.raises(FormatError, match="65537 PE exports"):
        exports(read_pe(replace(image, parts=parts).write()))
    struct.pack_into("<II", read_only, 0x150 + 24, 1, 0x21A0)
    struct.pack_into("<I", read_only, 0x1A8, 0x22F0)
    read_only[0x2F0:] = b"x" * 16
    parts[1] = replace(image.parts[1], content=bytes(read_only))
    with pytest.raises(FormatError, match="has no end"):
        exports(read_pe(damaged(DIRECTORIES, 0x2150, replace(image, parts=parts))))


def test_names_that_share_bytes_do_not_add_up() -> None:
    """A thousand exports, all of one name of 1 MiB less a bit: what a hostile file would do."""
    table = bytearray(40 + 4 * 65000)
    struct.pack_into("<IIIII", table, 20, 0, 65000, 0, 0x1028, 0)
    struct.pack_into("<65000I", table, 40, *([0x50000] * 65000))
    name = Part(".names", 0x50000, b"n" * 60000 + b"\0")
    image = peimages.Image([Part(".edata", 0x1000, bytes(table)), name], {0: (0x1000, 40)})
    with pytest.raises(FormatError, match="longer than 67108864 bytes in all"):
        exports(read_pe(image.write()))


def test_a_section_outside_the_file_is_refused() -> None:
    pe = read_pe(damaged(SECTIONS + 2 * 40 + 20, 0x7FFFFE00))
    with pytest.raises(FormatError, match=r"\.nv_fatb: it ends at byte"):
        pe.content(pe.named(".nv_fatb")[0])
