"""What is read of linked ELF files, against pyelftools and readelf."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection, RelrRelocationSection

from fatwheel.errors import FormatError
from fatwheel.fatbin.elf import read_elf
from fatwheel.fatbin.elf_dynamic import LoadedElf, exported, needed, read_segments

from ...helpers.elflibraries import LIBRARIES, LIBRARY, PROGRAMS, UNLOADED, Tool, link_variant

SYMBOLS = r"""
#include <cstdio>
extern "C" {
int shown = 1;
__attribute__((weak)) int weak() { return puts("x"); }
__attribute__((visibility("hidden"))) int hidden() { return 2; }
__attribute__((visibility("protected"))) int guarded() { return 2; }
static int local() { return 3; }
int caller() { return local() + weak() + hidden(); }
}
struct Widget { static int &count() { static int value; return value; } };
int use() { return Widget::count()++; }
"""
EXPORTED = {"shown", "weak", "guarded", "caller", "_Z3usev"}


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory, tool: Tool) -> Callable[[str], bytes]:
    made: dict[str, bytes] = {}

    def make(name: str) -> bytes:
        if name not in made:
            made[name] = link_variant(tool, tmp_path_factory.mktemp("elf"), name)
        return made[name]

    return make


def without_sections(data: bytes) -> bytes:
    """The file with a header that knows of no section table, as sstrip leaves it."""
    changed = bytearray(data)
    changed[0x28:0x30] = bytes(8)  # e_shoff
    changed[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
    return bytes(changed)


def imports(data: bytes) -> tuple[str, ...]:
    """The libraries that a file needs, by pyelftools."""
    segments = ELFFile(io.BytesIO(data)).iter_segments()
    (dynamic,) = (segment for segment in segments if isinstance(segment, DynamicSegment))
    return tuple(tag.needed for tag in dynamic.iter_tags() if tag.entry.d_tag == "DT_NEEDED")


every_kind = pytest.mark.parametrize("name", [*LIBRARIES, *PROGRAMS, *UNLOADED])


@every_kind
def test_segments_are_those_that_pyelftools_reads(
    linked: Callable[[str], bytes], name: str
) -> None:
    data = linked(name)
    keys = ("p_flags", "p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz", "p_align")
    assert [
        (s.flags, s.offset, s.address, s.physical, s.file_size, s.memory_size, s.align)
        for s in read_segments(read_elf(data))
    ] == [tuple(s[key] for key in keys) for s in ELFFile(io.BytesIO(data)).iter_segments()]


@every_kind
def test_relocations_are_those_that_pyelftools_reads(
    linked: Callable[[str], bytes], name: str
) -> None:
    data = linked(name)
    theirs: list[tuple[int, ...]] = []
    for section in ELFFile(io.BytesIO(data)).iter_sections():
        # A static program has no dynamic section; its start-up code finds its table elsewhere.
        if isinstance(section, RelocationSection) and name != "program-static":
            theirs += [
                (r["r_offset"], r["r_info_type"], r["r_info_sym"], r["r_addend"])
                for r in section.iter_relocations()
            ]
        elif isinstance(section, RelrRelocationSection):
            image = LoadedElf(read_elf(data))
            for r in section.iter_relocations():
                (word,) = struct.unpack("<Q", image.read(r["r_offset"], 8))
                theirs.append((r["r_offset"], 8, 0, word))
    ours = list(LoadedElf(read_elf(data)).relocations())
    assert sorted(r[:4] for r in ours) == sorted(theirs)
    for relocation in ours:
        (addend,) = struct.unpack_from("<Q", data, relocation.at)
        assert addend == relocation.addend, f"{relocation} is not where it is said to be"


def test_system_files_are_read_as_pyelftools_reads_them() -> None:
    for path in (Path(sys.executable).resolve(), Path("/lib/x86_64-linux-gnu/libc.so.6")):
        data = path.read_bytes()
        theirs = ELFFile(io.BytesIO(data))
        symbols = theirs.get_section_by_name(".dynsym").iter_symbols()
        bindings = ("STB_GLOBAL", "STB_WEAK", "STB_LOOS")  # the last: unique
        assert exported(read_elf(data)) == tuple(
            symbol.name
            for symbol in symbols
            if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["bind"] in bindings
        )
        assert needed(read_elf(data)) == imports(data)


@pytest.mark.parametrize("style", ["sysv", "gnu", "both"])
@pytest.mark.parametrize("linker", ["bfd", "gold", "lld"])
def test_exports_and_imports(tmp_path: Path, tool: Tool, linker: str, style: str) -> None:
    tool(f"ld.{linker}")
    options = [*LIBRARY, "-fPIC", f"-fuse-ld={linker}", f"-Wl,--hash-style={style}"]
    command = [tool("g++"), "-x", "c++", "-", *options, "-Wl,--no-as-needed", "-lm", "-o", "a.so"]
    subprocess.run(command, cwd=tmp_path, check=True, input=SYMBOLS, text=True)
    data = (tmp_path / "a.so").read_bytes()
    names = exported(read_elf(data))
    assert set(names) >= EXPORTED
    assert not {"hidden", "local", "puts"} & set(names)
    assert "_ZZN6Widget5countEvE5value" in names, "unique symbols are exports, too"
    assert "libm.so.6" in needed(read_elf(data))
    assert needed(read_elf(data)) == imports(data)
    bare = read_elf(without_sections(data))
    assert exported(bare) == names
    assert needed(bare) == needed(read_elf(data))


def test_a_library_without_exports(tmp_path: Path, tool: Tool) -> None:
    command = [tool("gcc"), "-x", "c", "-", *LIBRARY, "-nostdlib", "-o", "a.so"]
    subprocess.run(command, cwd=tmp_path, check=True, input="static int x;", text=True)
    assert exported(read_elf((tmp_path / "a.so").read_bytes())) == ()
    assert needed(read_elf((tmp_path / "a.so").read_bytes())) == ()


def test_objects_and_static_programs_import_nothing(
    linked: Callable[[str], bytes], tmp_path: Path, tool: Tool
) -> None:
    subprocess.run([tool("as"), "-o", tmp_path / "a.o"], input=b".globl x\nx: nop", check=True)
    for data in ((tmp_path / "a.o").read_bytes(), linked("program-static")):
        assert needed(read_elf(data)) == ()
        assert exported(read_elf(data)) == ()


def with_dynamic(data: bytes, tag: int, value: int) -> bytes:
    """The file with another value for a dynamic tag."""
    (dynamic,) = (s for s in ELFFile(io.BytesIO(data)).iter_segments("PT_DYNAMIC"))
    start = dynamic["p_offset"]
    for place in range(start, start + dynamic["p_filesz"], 16):
        if struct.unpack_from("<Q", data, place)[0] == tag:
            return data[: place + 8] + struct.pack("<Q", value) + data[place + 16 :]
    raise AssertionError(f"no dynamic entry {tag:#x}")


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        (5, 0x7FFF_0000, "no bytes in the ELF file are loaded to address 0x7fff0000"),  # STRTAB
        (10, 1 << 40, "string table of 1099511627776 bytes is too long"),  # STRSZ
        (10, 1 << 27, "no segment of the ELF file holds 134217728 bytes"),  # some have 80 MiB
        (10, 1, "name lies outside its string table"),
        (1, 1 << 32, "name lies outside its string table"),  # NEEDED
    ],
)
def test_damaged_imports(
    linked: Callable[[str], bytes], tag: int, value: int, message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        needed(read_elf(with_dynamic(linked("rela"), tag, value)))


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        (6, 2**64 - 8, "no bytes in the ELF file are loaded to address"),  # SYMTAB
        (0x6FFFFEF5, 0x100, "ELF"),  # GNU_HASH: other data
    ],
)
def test_damaged_exports(
    linked: Callable[[str], bytes], tag: int, value: int, message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        exported(read_elf(with_dynamic(linked("rela"), tag, value)))


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        (8, 25, "relocation table of 25 bytes is malformed"),  # RELASZ
        (8, 24 << 30, "no segment of the ELF file holds"),
        (7, 1 << 62, "no bytes in the ELF file are loaded"),  # RELA
    ],
)
def test_damaged_relocations(
    linked: Callable[[str], bytes], tag: int, value: int, message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        list(LoadedElf(read_elf(with_dynamic(linked("rela"), tag, value))).relocations())


def test_a_table_that_relocates_without_end_is_refused(linked: Callable[[str], bytes]) -> None:
    """A few RELR words can name the same places again and again."""
    data = linked("relr")
    section = ELFFile(io.BytesIO(data)).get_section_by_name(".nv_fatbin")
    place = next(iter(LoadedElf(read_elf(data)).relocations())).place
    table = struct.pack("<QQ", place, 2**11 - 1) * (section["sh_size"] // 16)
    start = section["sh_offset"]
    data = data[:start] + table + data[start + len(table) :]
    data = with_dynamic(with_dynamic(data, 36, section["sh_addr"]), 35, len(table))
    with pytest.raises(FormatError, match="more relocations than words"):
        list(LoadedElf(read_elf(data)).relocations())


def test_one_dynamic_section_that_ends_somewhere(linked: Callable[[str], bytes]) -> None:
    """A megabyte of entries, read once for each of 256 segments, would take gigabytes."""
    data = bytearray(linked("rela"))
    (table,) = struct.unpack_from("<Q", data, 0x20)
    [place] = [
        table + number * 56
        for number, one in enumerate(read_segments(read_elf(bytes(data))))
        if one.type == 2  # PT_DYNAMIC
    ]
    entries = struct.pack("<QQ", 1, 1) * 70_000
    struct.pack_into("<Q", data, place + 8, len(data))  # p_offset
    struct.pack_into("<Q", data, place + 32, len(entries))  # p_filesz
    with pytest.raises(FormatError, match="dynamic section of more than 65536 entries"):
        LoadedElf(read_elf(bytes(data) + entries))
    other = place + 56 if place == table else place - 56
    data[other : other + 56] = data[place : place + 56]
    with pytest.raises(FormatError, match="2 ELF dynamic sections, where one may be"):
        LoadedElf(read_elf(bytes(data) + entries))


def test_a_program_header_table_that_is_cut_off(linked: Callable[[str], bytes]) -> None:
    data = bytearray(linked("rela"))
    data[0x20:0x28] = struct.pack("<Q", len(data) - 8)  # e_phoff
    with pytest.raises(FormatError, match="program header table is cut off"):
        read_segments(read_elf(bytes(data)))
    data = bytearray(linked("rela"))
    data[0x36:0x38] = struct.pack("<H", 55)  # e_phentsize
    with pytest.raises(FormatError, match="program headers of 55 bytes"):
        read_segments(read_elf(bytes(data)))


def test_segments_out_of_order_are_refused(linked: Callable[[str], bytes]) -> None:
    data = bytearray(linked("rela"))
    loaded = [
        index
        for index, segment in enumerate(read_segments(read_elf(bytes(data))))
        if segment.type == 1
    ]
    one, two = (64 + 56 * index for index in loaded[:2])
    data[one : one + 56], data[two : two + 56] = data[two : two + 56], data[one : one + 56]
    with pytest.raises(FormatError, match="not in the order of their addresses"):
        needed(read_elf(bytes(data)))
